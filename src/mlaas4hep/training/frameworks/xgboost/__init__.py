"""XGBoost: boosted trees from external memory, exported tree by tree."""
