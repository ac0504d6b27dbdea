"""The example classifier: a network of two hidden layers, with what it takes to train it.

Copy this file, change it, and give it to ``workflow.py --model``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

__all__ = ["model"]


def model(idim: int, classes: int = 2) -> tuple[nn.Module, nn.Module, Callable[..., torch.optim.Optimizer]]:
    """Return the module, its loss, and what makes its optimiser.

    Parameters
    ----------
    idim : int
        Number of places of the feature vector.
    classes : int
        Number of classes.

    Examples
    --------
    >>> module, loss, make_optimiser = model(125)
    >>> module(torch.zeros(4, 125)).shape
    torch.Size([4, 1])
    """
    module = nn.Sequential(
        # most values of a min-max scaled branch with a long tail lie near 0: spread them out first
        nn.BatchNorm1d(idim),
        nn.Linear(idim, 128),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(64, 1 if classes == 2 else classes),
    )
    loss = nn.BCEWithLogitsLoss() if classes == 2 else nn.CrossEntropyLoss()

    def make_optimiser(parameters: object) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-3)  # type: ignore[arg-type]

    return module, loss, make_optimiser
