"""Batches to a trained model, its metrics and its bundle."""
