"""What lies between a file and whoever reads events: preprocessing, types that files agree on, cuts and new columns."""
