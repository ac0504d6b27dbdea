"""Encoded events that are kept for later epochs."""
