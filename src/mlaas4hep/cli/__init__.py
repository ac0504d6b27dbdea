"""One module per command; no logic."""
