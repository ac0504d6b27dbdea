"""Models for people who bring none."""
