"""From what a model gives to what is predicted, in numpy: the same steps as at the end of a bundle's graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.graph import Output

__all__ = ["to_prediction"]

Floats = npt.NDArray[np.float32]


def to_prediction(output: Output, given: npt.NDArray[Any], x: Floats, mask: npt.NDArray[np.bool_]) -> Floats:
    """Return probabilities, values, or the reconstruction error.

    Parameters
    ----------
    output : Output
        What the model gives.
    given : float array of shape ``[n]`` or ``[n, columns]``
        Of classes one column each, or the second one's only.
    x, mask
        Scaled values and where they are absent, ``[n, width]``.

    Returns
    -------
    float32 array of shape ``[n, classes]``, ``[n, targets]`` or ``[n, 1]``

    Examples
    --------
    >>> x, mask = np.zeros((1, 3), np.float32), np.zeros((1, 3), bool)
    >>> to_prediction(Output.LOGITS, np.array([0.0]), x, mask)
    array([[0.5, 0.5]], dtype=float32)
    """
    given = np.asarray(given, np.float32).reshape(len(x), -1)
    one = given.shape[1] == 1
    match output:
        case Output.RECONSTRUCTION:
            squared = np.where(mask, np.float32(0), (given - x) ** 2)
            return np.asarray(
                squared.sum(axis=1, keepdims=True) / np.maximum(1, (~mask).sum(axis=1, keepdims=True)), np.float32
            )
        case Output.VALUES:
            return given
        case Output.LOGITS:
            logits = np.concatenate([np.zeros_like(given), given], axis=1) if one else given
            exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
            return np.asarray(exponential / exponential.sum(axis=1, keepdims=True), np.float32)
        case Output.LOG_PROBABILITIES:
            given = np.exp(given)
    return np.concatenate([1 - given, given], axis=1) if one else given
