"""Features from which nothing can be learned, since they have one value in every training event, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlaas4hep.errors import quoted

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset

__all__ = ["constant_features", "describe_constant_features"]


def constant_features(dataset: Dataset) -> tuple[str, ...]:
    """Return the names of features without two different values in the training events; reads all events once if there are no specs yet.

    A jagged feature whose values are all alike is not among them where its number of values differs, since that can be learned from.

    Parameters
    ----------
    dataset : Dataset
    """
    found = []
    for name, known in dataset.specs.train_statistics.items():
        alike = known.count and known.minimum == known.maximum and not known.not_finite and name in dataset.specs.flat
        if alike or not known.count:
            found.append(name)
    return tuple(sorted(found))


def describe_constant_features(dataset: Dataset) -> list[str]:
    """Return the line that warns of constant features, or nothing where there are none."""
    names = constant_features(dataset)
    if not names:
        return []
    return [f"warning: nothing can be learned from {quoted(names)}: one value, or none, in all training events"]
