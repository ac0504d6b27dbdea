"""A model in words: what it takes and answers, for the pages that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlaas4hep.inference.model import Model

__all__ = ["Description", "describe"]


@dataclass(frozen=True, slots=True)
class Description:
    """What a model takes and answers, for people: its tensors or the names of its features, its classes, a request to try."""

    inputs: Sequence[str]
    outputs: Sequence[str]
    labels: Sequence[str]
    example: Mapping[str, Any]


def describe(model: Model) -> Description:
    """Return what a model takes and answers, and a request to try."""
    outputs = [f"{model.output.name}: {_shape(model.output.shape)}"]
    if model.encoding:
        features = model.encoding.features
        names = [f"{f.branch}[{f.width}]" if f.jagged else f.branch for f in features]
        values: list[Any] = [[1.0] if f.jagged else 1.0 for f in features]
        example: dict[str, Any] = {"keys": [f.branch for f in features], "values": values, "model": model.name}
    else:
        names = [f"{model.input.name}: {_shape(model.input.shape)}"]
        example = {"values": [1.0] * min(model.width or 1, 1000), "model": model.name}
    return Description(names, outputs, model.labels, example)


def _shape(shape: Sequence[int | None]) -> str:
    return " × ".join("n" if size is None else str(size) for size in shape)
