"""The autoencoder that is trained where there are no labels: events that it gives back badly are unusual.

The bundle's output is ``values``: for each event the mean squared difference between the scaled values and what the network gives back, over the
places that are present. Copy this file, change it, and give it to ``workflow.py --model``.
"""

from __future__ import annotations

from torch import nn

__all__ = ["model"]


def model(idim: int, narrow: int | None = None) -> nn.Module:
    """Return a module that gives back its input through a narrow middle.

    Parameters
    ----------
    idim : int
        Number of places of the feature vector.
    narrow : int, optional
        Width of the middle; an eighth of the places when not given.

    Examples
    --------
    >>> import torch
    >>> model(125)(torch.zeros(4, 125)).shape
    torch.Size([4, 125])
    """
    wide, narrow = max(16, idim // 2), narrow or max(2, idim // 8)
    return nn.Sequential(
        nn.Linear(idim, wide),
        nn.ReLU(),
        nn.Linear(wide, narrow),
        nn.ReLU(),
        nn.Linear(narrow, wide),
        nn.ReLU(),
        nn.Linear(wide, idim),
    )
