"""Where files are, how they are reached, and what happens when they cannot be."""
