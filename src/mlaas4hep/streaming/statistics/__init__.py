"""What the data look like."""
