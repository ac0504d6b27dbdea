"""The settings of the built-in models, one group a model: what ``model:`` of a configuration may hold beside its name.

Each group is the keyword arguments of the ``model`` function in the file of that name.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlaas4hep.settings import flag, integer, number, positive, setting, text
from mlaas4hep.settings_rules import listed

__all__ = [
    "MLP",
    "Autoencoder",
    "DeepSets",
    "NoSettings",
    "Transformer",
    "Trees",
]


@dataclass(frozen=True)
class NoSettings:
    """A model that has none."""


@dataclass(frozen=True)
class MLP:
    """A network of dense layers."""

    hidden: tuple[int, ...] = setting(listed(integer(1), 1), (128, 64), "width of each hidden layer")
    dropout: float = setting(number(0, 1), 0.1, "share of each hidden layer that is left out at random in training")
    learning_rate: float = setting(positive(), 2e-3, "of the optimiser AdamW")
    weight_decay: float = setting(number(0), 1e-3, "of the optimiser AdamW")


@dataclass(frozen=True)
class DeepSets:
    """A sum over the objects of each collection."""

    embedding: tuple[int, ...] = setting(listed(integer(1), 1), (64, 64), "width of each layer that sees one object")
    hidden: tuple[int, ...] = setting(listed(integer(1), 1), (128, 64), "width of each layer that sees the event")
    dropout: float = setting(number(0, 1), 0.1, "share of each hidden layer that is left out at random in training")
    learning_rate: float = setting(positive(), 2e-3, "of the optimiser AdamW")
    weight_decay: float = setting(number(0), 1e-3, "of the optimiser AdamW")


@dataclass(frozen=True)
class Transformer:
    """Attention over all objects of the event."""

    width: int = setting(integer(1), 64, "numbers that describe an object inside the network; a multiple of heads")
    heads: int = setting(integer(1), 4, "attentions side by side")
    layers: int = setting(integer(1), 3, "attentions one after the other")
    pairs: bool = setting(
        flag(), False, "whether attention sees angle and mass of each pair of objects; needs pt, eta and phi"
    )
    dropout: float = setting(number(0, 1), 0.05, "share of each layer that is left out at random in training")
    learning_rate: float = setting(positive(), 1e-3, "of the optimiser AdamW")
    weight_decay: float = setting(number(0), 1e-2, "of the optimiser AdamW")


@dataclass(frozen=True)
class Trees:
    """Gradient-boosted decision trees."""

    trees: int = setting(integer(1), 600, "trees at most; the validation part decides how many are kept")
    depth: int = setting(integer(1), 5, "questions from the root of a tree to a leaf at most")
    learning_rate: float = setting(positive(), 0.06, "part of each tree's correction that is used")
    rows: float = setting(positive(), 0.8, "share of the events that each tree sees; at most 1")
    columns: float = setting(positive(), 0.5, "share of the features that each tree sees; at most 1")
    least_weight: float = setting(number(0), 5.0, "least sum of second derivatives in a leaf")


@dataclass(frozen=True)
class Autoencoder:
    """A network that gives back its input through a narrow middle."""

    narrow: int | None = setting(
        integer(1), None, "width of the middle; an eighth of the features if not set", example=8
    )


@dataclass(frozen=True)
class Parametrised(MLP):
    """A network of dense layers that takes a parameter of the signal, as a mass, among its features."""

    parameter: str = setting(text(), "", "flat branch with the parameter; of background events it may hold anything")
    signal: str = setting(text(), "", "label of the class that the parameter describes; the last one if not set")
