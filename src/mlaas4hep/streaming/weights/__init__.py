"""Weights of events."""
