"""scikit-learn: estimators that learn batch by batch, and those that learn from all events at once."""
