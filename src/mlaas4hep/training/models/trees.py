"""Gradient-boosted decision trees: the best that can be had of a table of features in a minute. Needs XGBoost.

What the function returns are XGBoost's own parameters; an ``XGBClassifier`` or ``XGBRegressor`` would do as well.
"""

from __future__ import annotations

from typing import Any

__all__ = ["model"]


def model(
    idim: int,
    trees: int = 600,
    depth: int = 5,
    learning_rate: float = 0.06,
    rows: float = 0.8,
    columns: float = 0.5,
    least_weight: float = 5.0,
) -> dict[str, Any]:
    """Return the parameters of XGBoost.

    Parameters
    ----------
    idim : int
        Number of places of the feature vector.
    trees : int
        Trees at most; the validation part decides how many are kept.
    depth : int
        Questions from the root of a tree to a leaf at most.
    learning_rate : float
        Part of each tree's correction that is used.
    rows, columns : float
        Share of the events, and of the features, that each tree sees.
    least_weight : float
        Least sum of second derivatives in a leaf.

    Examples
    --------
    >>> model(125)["max_depth"]
    5
    """
    return {
        "n_estimators": trees,
        "max_depth": depth,
        "learning_rate": learning_rate,
        "subsample": rows,
        "colsample_bytree": columns,
        "min_child_weight": least_weight,
        "tree_method": "hist",
    }
