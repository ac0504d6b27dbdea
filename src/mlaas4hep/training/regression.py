"""Values instead of classes: the targets as a model learns them, and how far its predictions are from them.

A model learns targets of mean 0 and spread 1, whatever their unit; predictions are brought back to the unit in the bundle's graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.stream.batch import Batch

__all__ = ["RegressionEvaluation", "TargetEvaluation", "TargetScaling", "evaluate_values"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TargetScaling:
    """What makes standardised values those of physics: ``value * scale + shift``.

    Parameters
    ----------
    scale, shift : tuple of float
        One a target.

    Examples
    --------
    >>> TargetScaling((2.0,), (10.0,)).physical(np.array([[1.0]], np.float32))
    array([[12.]], dtype=float32)
    """

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    @classmethod
    def learn(cls, batches: Iterable[Batch]) -> TargetScaling:
        """Return mean and standard deviation of the targets of training events; a constant target gets the scale 1."""
        events, mean, squares = 0, np.zeros(1), np.zeros(1)
        for batch in batches:
            y = batch.y.astype(np.float64)
            of_batch = y.mean(axis=0)
            difference = of_batch - mean
            together = events + len(y)
            squares = squares + ((y - of_batch) ** 2).sum(axis=0) + difference**2 * events * len(y) / together
            mean = mean + difference * len(y) / together
            events = together
        spread = np.sqrt(squares / max(1, events))
        spread[spread <= 1e-7 * np.abs(mean)] = 1.0  # of a constant there are rounding errors at most
        return cls(tuple(spread.tolist()), tuple(mean.tolist()))

    def __call__(self, batch: Batch) -> Batch:
        """Return a batch with standardised targets."""
        standardised = (batch.y - np.asarray(self.shift)) / np.asarray(self.scale)
        return batch._replace(y=standardised.astype(np.float32))

    def physical(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return standardised values, float32 ``[n, targets]``, in the unit of the targets, as the graph does it."""
        return values * np.asarray(self.scale, np.float32) + np.asarray(self.shift, np.float32)


@dataclass(frozen=True)
class TargetEvaluation:
    """How far the predictions of one target are from it; each number with its standard deviation.

    Parameters
    ----------
    name : str
        Of the target.
    rmse, rmse_error : float
        Root of the mean squared difference.
    mae, mae_error : float
        Mean absolute difference.
    bias, bias_error : float
        Mean of prediction minus truth.
    r2, r2_error : float
        Share of the variance that is explained: 1 for perfect, 0 for no better than the mean. NaN for a constant target.
    """

    name: str
    rmse: float
    rmse_error: float
    mae: float
    mae_error: float
    bias: float
    bias_error: float
    r2: float
    r2_error: float


@dataclass(frozen=True)
class RegressionEvaluation:
    """What predictions are worth on events that the training has not seen.

    Parameters
    ----------
    events : int
        Number of events.
    targets : tuple of TargetEvaluation
        In the order of the columns.
    """

    events: int
    targets: tuple[TargetEvaluation, ...]

    def __str__(self) -> str:
        shown = "; ".join(
            f"{one.name}: RMSE {one.rmse:.4g} ± {one.rmse_error:.2g}, R² {one.r2:.4f} ± {one.r2_error:.4f}"
            for one in self.targets
        )
        return f"{shown} on {self.events:,} events"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON, None where a number is not defined."""
        numbers = {one.name: asdict(one) for one in self.targets}
        for of_target in numbers.values():
            del of_target["name"]
            of_target.update({name: None for name, value in of_target.items() if math.isnan(value)})
        return {"events": self.events, "targets": numbers}


def evaluate_values(
    predicted: npt.NDArray[np.floating[Any]],
    true: npt.NDArray[np.floating[Any]],
    weight: npt.NDArray[np.floating[Any]] | None = None,
    names: Sequence[str] = (),
) -> RegressionEvaluation:
    """Compare predicted values with true ones.

    Parameters
    ----------
    predicted, true : float arrays of shape ``[n, targets]``
    weight : float array of shape ``[n]``, optional
        Weight of each event.
    names : sequence of str, optional
        Names of the targets.

    Returns
    -------
    RegressionEvaluation
        Each error is the standard deviation of the number's first-order dependence on the events (the delta method), as for a weighted mean with
        ``m = sum(w)² / sum(w²)`` effective events.

    Examples
    --------
    >>> result = evaluate_values(np.array([[1.0], [2.0], [4.0]]), np.array([[1.0], [2.0], [3.0]]))
    >>> round(result.targets[0].mae, 3), round(result.targets[0].r2, 3)
    (0.333, 0.5)
    """
    names = tuple(names) or tuple(f"target {column}" for column in range(true.shape[1]))
    weights = np.ones(len(true)) if weight is None else np.asarray(weight, np.float64)
    given, wanted = predicted.astype(np.float64), true.astype(np.float64)
    judged = (_judge(name, given[:, k], wanted[:, k], weights) for k, name in enumerate(names))
    return RegressionEvaluation(len(true), tuple(judged))


def _judge(name: str, predicted: Floats, true: Floats, weight: Floats) -> TargetEvaluation:
    difference = predicted - true
    squared = difference**2
    mse, mse_error = _mean(squared, weight)
    mae, mae_error = _mean(np.abs(difference), weight)
    bias, bias_error = _mean(difference, weight)
    rmse = math.sqrt(mse) if mse >= 0 else math.nan
    middle, _ = _mean(true, weight)
    apart = (true - middle) ** 2
    variance, _ = _mean(apart, weight)
    r2 = r2_error = math.nan
    if variance > 0:
        r2 = 1 - mse / variance
        # How much each event moves 1 - mse / variance, to first order.
        _, r2_error = _mean((mse * apart / variance - squared) / variance, weight)
    return TargetEvaluation(
        name,
        rmse,
        mse_error / (2 * rmse) if rmse > 0 else 0.0 if rmse == 0 else math.nan,
        mae,
        mae_error,
        bias,
        bias_error,
        r2,
        r2_error,
    )


def _mean(values: Floats, weight: Floats) -> tuple[float, float]:
    """Return a weighted mean and its standard deviation; NaN where weights do not add up to more than 0."""
    total = float(weight.sum())
    if not total > 0:
        return math.nan, math.nan
    mean = float((weight * values).sum()) / total
    effective = total**2 / float(np.square(weight).sum())
    if not effective > 1:
        return mean, math.nan
    spread = float(np.square(weight * (values - mean)).sum()) / total**2
    return mean, math.sqrt(spread * effective / (effective - 1))
