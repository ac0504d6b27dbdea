"""Bundles to predictions: repository, server, client, predictor."""
