"""What the server needs to know of whatever executes a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Runtime", "Tensor"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a model.

    Parameters
    ----------
    name : str
        As the model calls it.
    dtype : numpy.dtype or None
        Type of its elements; None for anything but numbers, such as strings or maps.
    shape : tuple of int or None
        One entry a dimension; None where any size is accepted.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | None, ...]


class Runtime(Protocol):
    """One loaded model. ``run`` is called from one thread at a time."""

    @property
    def inputs(self) -> Sequence[Tensor]:
        """Inputs in the order of the model."""
        ...

    @property
    def outputs(self) -> Sequence[Tensor]:
        """Outputs in the order of the model."""
        ...

    def run(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Execute the model on whole arrays and return the outputs that were asked for.

        Raises
        ------
        RuntimeFailure
            If the model cannot be executed on these arrays.
        """
        ...


class RuntimeFailure(Exception):  # noqa: N818 - a failure of the model, which the engine turns into an answer
    """The model could not be executed; the message is the runtime's own and goes to the log only."""
