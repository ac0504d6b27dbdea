"""Deep sets: every object is described by a small network, and the event by the sum over its objects.

The order of the objects and the number of empty places make no difference. It needs the layout ``objects``.

References
----------
M. Zaheer et al., Deep Sets, arXiv:1703.06114; P. Komiske, E. Metodiev, J. Thaler, Energy Flow Networks, arXiv:1810.05165.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from mlaas4hep.streaming.encoding.encoding import Encoding
from mlaas4hep.streaming.encoding.objects import flat_of, objects_of

__all__ = ["DeepSets", "model"]


class DeepSets(nn.Module):
    """Sums over the objects of each collection, joined with the features of the event.

    Parameters
    ----------
    encoding : Encoding
        Of layout ``objects``.
    outputs : int
        Numbers to give for an event.
    embedding, hidden : sequence of int
        Width of each layer that sees one object, and of each that sees the event.
    dropout : float
        Share of each hidden layer that is left out at random in training.
    """

    def __init__(
        self, encoding: Encoding, outputs: int, embedding: Sequence[int], hidden: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.encoding = encoding
        example = torch.zeros(1, encoding.width), torch.zeros(1, encoding.width, dtype=torch.bool)
        self.embeddings = nn.ModuleDict(
            {
                collection: _dense(objects.x.shape[2], embedding)
                for collection, objects in objects_of(encoding, *example).items()
            }
        )
        joined = flat_of(encoding, *example)[0].shape[1] + len(self.embeddings) * embedding[-1]
        self.event = nn.Sequential(
            nn.BatchNorm1d(joined), *_dense(joined, hidden, dropout), nn.Linear(hidden[-1], outputs)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return ``[n, outputs]`` from values and mask of shape ``[n, width]``."""
        parts = [flat_of(self.encoding, x, mask)[0]]
        for collection, objects in objects_of(self.encoding, x, mask).items():
            described = self.embeddings[collection](objects.x)
            parts.append(torch.where(objects.mask.unsqueeze(-1), torch.zeros_like(described), described).sum(dim=1))
        given: torch.Tensor = self.event(torch.cat(parts, dim=1))
        return given


def model(
    encoding: Encoding,
    outputs: int = 1,
    embedding: Sequence[int] = (64, 64),
    hidden: Sequence[int] = (128, 64),
    dropout: float = 0.1,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-3,
) -> tuple[nn.Module, None, Callable[..., torch.optim.Optimizer]]:
    """Return the module, no loss, and what makes the optimiser; parameters as in :class:`DeepSets`."""
    module = DeepSets(encoding, outputs, embedding, hidden, dropout)
    return module, None, partial(torch.optim.AdamW, lr=learning_rate, weight_decay=weight_decay)


def _dense(width: int, sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in sizes:
        layers += [nn.Linear(width, size), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        width = size
    return nn.Sequential(*layers)
