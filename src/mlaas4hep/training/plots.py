"""ROC curve and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.training.agreement import Agreement
from mlaas4hep.training.canvas import COLOURS, LINES, MARKERS, Canvas, class_name, to_png
from mlaas4hep.training.evaluation import Evaluation, roc_curve

__all__ = ["COLOURS", "draw_roc", "draw_scores"]

BINS = 40
LEGEND = 16  # letters of a name where two columns must fit
CURVE_POINTS = 2000  # more than a picture has columns

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]


def draw_roc(
    probabilities: Floats, y: Integers, weight: Floats, classes: Sequence[str], evaluation: Evaluation
) -> bytes:
    """Draw the ROC curve, or one a class against the rest, with the AUC and its error in the legend.

    Parameters
    ----------
    probabilities : float array of shape ``[n, classes]``
    y : int array of shape ``[n]``
    weight : float array of shape ``[n]``
    classes : sequence of str
        Names of the classes.
    evaluation : Evaluation
        Of the same events.

    Returns
    -------
    bytes
        A PNG.
    """
    with Canvas() as (figure, (axes,)):
        for number, (name, auc, error) in enumerate(evaluation.class_auc):
            index = classes.index(name)
            curve = roc_curve(probabilities[:, index], y == index, weight)
            shown = np.unique(np.linspace(0, len(curve.signal) - 1, CURVE_POINTS).astype(int))
            label = f"AUC = {auc:.4f} ± {error:.4f}"
            axes.plot(
                curve.signal[shown],
                curve.background[shown],
                color=COLOURS[number % len(COLOURS)],
                linestyle=LINES[number % len(LINES)],
                label=label if len(classes) == 2 else f"{class_name(name)}: {label}",
            )
        one_event = 1 / max(10, int(np.bincount(y).max(initial=0)))
        cuts = np.geomspace(one_event, 1, 100)
        axes.plot(cuts, cuts, color=COLOURS[4], linestyle=":", label="random")
        axes.set(xlim=(0, 1), ylim=(one_event, 1), yscale="log")
        two = len(classes) == 2
        axes.set_xlabel(f"Efficiency for {class_name(classes[1])}" if two else "Efficiency for the class")
        axes.set_ylabel(f"Efficiency for {class_name(classes[0])}" if two else "Efficiency for the rest")
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(loc="lower right", title=f"{evaluation.events:,} held-out events")
        return to_png(figure)


def draw_scores(
    held_out: tuple[Floats, Integers, Floats],
    trained: tuple[Floats, Integers, Floats],
    classes: Sequence[str],
    agreement: Mapping[str, Agreement] | None = None,
) -> bytes:
    """Draw the score of each class: held-out events as points with errors, training events as filled histograms.

    Parameters
    ----------
    held_out, trained : tuple of arrays
        Probabilities ``[n, classes]``, class index ``[n]`` and weight ``[n]`` of the events of each kind.
    classes : sequence of str
        Names of the classes. The score is the probability of the second one; with more than two, of the event's own
        class.
    agreement : mapping of str to Agreement, optional
        Class → comparison of its training and held-out events, shown in the legend.

    Returns
    -------
    bytes
        A PNG.
    """
    edges = np.linspace(0, 1, BINS + 1)
    with Canvas() as (figure, (axes,)):
        top = 0.0
        for index, name in enumerate(classes):
            colour = COLOURS[index % len(COLOURS)]
            density, _ = _density(trained, index, edges, len(classes))
            if len(classes) == 2:
                axes.stairs(density, edges, fill=True, color=colour, alpha=0.25)
            line = LINES[index % len(LINES)]
            axes.stairs(density, edges, color=colour, linestyle=line, label=f"{class_name(name, LEGEND)}, training")
            points, errors = _density(held_out, index, edges, len(classes))
            axes.errorbar(
                (edges[1:] + edges[:-1]) / 2,
                points,
                errors,
                fmt=MARKERS[index % len(MARKERS)],
                markersize=4,
                color=colour,
                label=f"{class_name(name, LEGEND)}, held out{_compared(agreement, name)}",
            )
            top = max(top, float(np.nanmax([density, points], initial=0.0)))
        axes.set(xlim=(0, 1), ylim=(0, 1.45 * top or 1))
        axes.set_xlabel(
            f"Probability of {class_name(classes[1])}" if len(classes) == 2 else "Probability of the true class"
        )
        axes.set_ylabel("Events, normalised")
        axes.legend(loc="upper center", ncols=2)
        return to_png(figure)


def _compared(agreement: Mapping[str, Agreement] | None, name: str) -> str:
    found = (agreement or {}).get(name)
    return "" if found is None or math.isnan(found.distance) else f" (KS p = {found.probability:.2g})"


def _density(
    events: tuple[Floats, Integers, Floats], index: int, edges: npt.NDArray[np.float64], classes: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return a class's scores as a density, with the statistical error of each bin."""
    probabilities, y, weight = events
    chosen = y == index
    scores = probabilities[chosen, 1 if classes == 2 else index]
    counts = np.histogram(scores, edges, weights=weight[chosen])[0]
    squares = np.histogram(scores, edges, weights=np.square(weight[chosen], dtype=np.float64))[0]
    # Where negative weights outweigh the others there is no density; the shape is shown as it is.
    total = float(counts.sum()) if counts.sum() > 0 else float(np.abs(counts).sum())
    scale = total * (edges[1] - edges[0]) or 1.0
    return counts / scale, np.sqrt(squares) / scale
