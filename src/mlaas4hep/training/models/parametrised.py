"""A classifier with a parameter of the signal, as the mass of what is searched for, among its features.

One network learns all hypotheses, and is asked about each by setting the parameter. Only signal events have a true value; each background event gets
one drawn from the signal's distribution, always the same for the same event, so that the value itself tells nothing.

References
----------
P. Baldi et al., Parameterized neural networks for high-energy physics, arXiv:1601.07913.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from mlaas4hep.training.models import mlp

__all__ = ["model"]


def model(
    idim: int,
    outputs: int = 1,
    hidden: Sequence[int] = (128, 64),
    dropout: float = 0.1,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-3,
) -> tuple[nn.Module, None, Callable[..., torch.optim.Optimizer]]:
    """Return module, loss and optimiser as :func:`mlaas4hep.training.models.mlp.model` does; the drawing is the job's."""
    return mlp.model(idim, outputs, hidden, dropout, learning_rate, weight_decay)
