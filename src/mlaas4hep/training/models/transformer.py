"""A transformer: every object of the event attends to all others, of whatever collection.

The features of the event itself are one more token, from which the answer is read at the end. Empty places take no part. It needs the layout
``objects``.

References
----------
A. Vaswani et al., arXiv:1706.03762; the angle and the mass of each pair as a bias of the attention: H. Qu, C. Li, S. Qian, Particle Transformer
for Jet Tagging, arXiv:2202.03772.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.encoding.encoding import Encoding
from mlaas4hep.streaming.encoding.objects import flat_of, objects_of
from mlaas4hep.training.models.pairs import PairFeatures

__all__ = ["Transformer", "model"]


class Transformer(nn.Module):
    """Attention over the objects of all collections and the event.

    Parameters
    ----------
    encoding : Encoding
        Of layout ``objects``.
    outputs : int
        Numbers to give for an event.
    width : int
        Numbers that describe an object inside the network.
    heads, layers : int
        Attentions side by side, and one after the other.
    pairs : bool
        Whether attention sees angle and mass of each pair.
    dropout : float
        Share of each layer that is left out at random in training.

    Raises
    ------
    SettingError
        If width is not a multiple of heads, or pairs are wanted where no collection has pt, eta and phi.
    """

    def __init__(
        self, encoding: Encoding, outputs: int, *, width: int, heads: int, layers: int, pairs: bool, dropout: float
    ) -> None:
        super().__init__()
        if width % heads:
            raise SettingError("model.width", f"a multiple of model.heads, which is {heads}", width)
        self.encoding = encoding
        example = torch.zeros(1, encoding.width), torch.zeros(1, encoding.width, dtype=torch.bool)
        self.objects = nn.ModuleDict(
            {
                collection: nn.Sequential(nn.Linear(objects.x.shape[2], width), nn.GELU(), nn.Linear(width, width))
                for collection, objects in objects_of(encoding, *example).items()
            }
        )
        flat = flat_of(encoding, *example)[0].shape[1]
        self.event = nn.Linear(flat + len(self.objects), width)
        self.pairs = PairFeatures(encoding, heads) if pairs else None
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, outputs))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return ``[n, outputs]`` from values and mask of shape ``[n, width]``."""
        found = objects_of(self.encoding, x, mask)
        flat, _ = flat_of(self.encoding, x, mask)
        numbers = [torch.log1p((~objects.mask).sum(dim=1, keepdim=True).to(x.dtype)) for objects in found.values()]
        event = self.event(torch.cat([flat, *numbers], dim=1)).unsqueeze(1)
        tokens = torch.cat([event, *(self.objects[name](objects.x) for name, objects in found.items())], dim=1)
        # The event itself is always there, so no attention is left without anything to attend to.
        absent = torch.cat([torch.zeros_like(mask[:, :1]), *(objects.mask for objects in found.values())], dim=1)
        bias = torch.zeros_like(absent, dtype=x.dtype).masked_fill(absent, -1e9)[:, None, None, :]
        if self.pairs is not None:
            bias = bias + self.pairs(found)
        for block in self.blocks:
            tokens = block(tokens, bias)
        given: torch.Tensor = self.last(tokens[:, 0])
        return given


class _Block(nn.Module):
    """Attention and a dense layer, each added to what was there."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before_attention, self.before_dense = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dense = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self._dropped(self._attention(self.before_attention(tokens), bias))
        return tokens + self._dropped(self.dense(self.before_dense(tokens)))

    def _attention(self, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        places, width = tokens.shape[1], tokens.shape[2]
        parts = self.query_key_value(tokens).reshape(-1, places, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # [n, heads, places, width / heads]
        scores = query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5 + bias
        together = torch.softmax(scores, dim=-1) @ value
        given: torch.Tensor = self.joined(together.transpose(1, 2).reshape(-1, places, width))
        return given

    def _dropped(self, values: torch.Tensor) -> torch.Tensor:
        return functional.dropout(values, self.dropout, self.training)


def model(
    encoding: Encoding,
    outputs: int = 1,
    width: int = 64,
    heads: int = 4,
    layers: int = 3,
    pairs: bool = False,
    dropout: float = 0.05,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
) -> tuple[nn.Module, None, Callable[..., torch.optim.Optimizer]]:
    """Return the module, no loss, and what makes the optimiser; parameters as in :class:`Transformer`."""
    module = Transformer(encoding, outputs, width=width, heads=heads, layers=layers, pairs=pairs, dropout=dropout)
    return module, None, partial(torch.optim.AdamW, lr=learning_rate, weight_decay=weight_decay)
