"""Confusion, calibration, losses, and rejection of the background: what the numbers of a training look like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.training.calibration import Reliability
from mlaas4hep.training.canvas import COLOURS, LINES, MARKERS, Canvas, class_name, to_png
from mlaas4hep.training.evaluation import roc_curve
from mlaas4hep.training.frameworks.base import EpochResult
from mlaas4hep.training.performance import Performance, judged_classes
from mlaas4hep.training.sample import Sample

__all__ = ["draw_calibration", "draw_confusion", "draw_history", "draw_rejection"]

CURVE_POINTS = 2000
FEWEST_PASSING = 10  # effective background events below which a rejection is mere noise


def draw_rejection(test: Sample, classes: Sequence[str]) -> bytes:
    """Draw one over the background efficiency against the signal efficiency, on a logarithmic scale, each with its statistical band.

    Parameters
    ----------
    test : Sample
    classes : sequence of str

    Returns
    -------
    bytes
        A PNG.
    """
    with Canvas() as (figure, (axes,)):
        for number, index in enumerate(judged_classes(len(classes))):
            of_class = test.y == index
            curve = roc_curve(test.probabilities[:, index], of_class, test.weight)
            rest = np.asarray(test.weight[~of_class], np.float64)
            effective = rest.sum() ** 2 / max(np.square(rest).sum(), 1e-300)
            passing = curve.background * effective
            shown = np.flatnonzero(passing >= FEWEST_PASSING)
            shown = shown[np.unique(np.linspace(0, len(shown) - 1, CURVE_POINTS).astype(int))] if len(shown) else shown
            rejection = 1 / curve.background[shown]
            error = np.sqrt(np.maximum(1 - curve.background[shown], 0) / passing[shown])
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(
                curve.signal[shown],
                rejection,
                color=colour,
                linestyle=LINES[number % len(LINES)],
                label=class_name(classes[index]),
            )
            axes.fill_between(
                curve.signal[shown], rejection * (1 - error), rejection * (1 + error), color=colour, alpha=0.25, lw=0
            )
        cuts = np.linspace(0.02, 1, 200)
        axes.plot(cuts, 1 / cuts, color=COLOURS[4], linestyle=":", label="random")
        axes.set(xlim=(0, 1), yscale="log")
        axes.set_ylim(bottom=1)
        two = len(classes) == 2
        axes.set_xlabel(f"Efficiency for {class_name(classes[1])}" if two else "Efficiency for the class")
        axes.set_ylabel(f"Rejection of {class_name(classes[0])}" if two else "Rejection of the rest")
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(loc="upper right", title="1 / background efficiency")
        return to_png(figure)


def draw_confusion(performance: Performance, classes: Sequence[str]) -> bytes:
    """Draw which share of a true class gets which class, with errors.

    Parameters
    ----------
    performance : Performance
    classes : sequence of str

    Returns
    -------
    bytes
        A PNG.
    """
    size = len(classes)
    with Canvas(7 + max(0, size - 4), 6 + max(0, size - 4)) as (figure, (axes,)):
        shares = np.nan_to_num(performance.confusion, nan=0.0)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for true in range(size):
            for given in range(size):
                share, error = performance.confusion[true, given], performance.confusion_error[true, given]
                axes.text(
                    given,
                    true,
                    "–" if math.isnan(share) else f"{share:.3f}\n±{error:.3f}",
                    ha="center",
                    va="center",
                    color="white" if shares[true, given] > 0.5 else "black",
                    fontsize=15 if size < 6 else 10,
                )
        names = [class_name(name) for name in classes]
        axes.set_xticks(range(size), names, rotation=0 if size < 4 else 45, fontsize=13)
        axes.set_yticks(range(size), names, fontsize=13)
        axes.minorticks_off()
        axes.set_xlabel("Most probable class")
        axes.set_ylabel("True class")
        figure.colorbar(image, ax=axes, label="Share of the true class", shrink=0.85)
        return to_png(figure)


def draw_calibration(found: Sequence[tuple[str, Reliability]]) -> bytes:
    """Draw how often a probability is right, and how the events are spread over it.

    Parameters
    ----------
    found : sequence of (str, Reliability)
        Class and its calibration.

    Returns
    -------
    bytes
        A PNG.
    """
    with Canvas(8, 8, rows=2, heights=(3, 1)) as (figure, (axes, below)):
        axes.plot([0, 1], [0, 1], color=COLOURS[4], linestyle=":", label="perfect")
        for number, (name, one) in enumerate(found):
            colour = COLOURS[number % len(COLOURS)]
            known = np.isfinite(one.observed)
            axes.errorbar(
                one.predicted[known],
                one.observed[known],
                one.observed_error[known],
                fmt=MARKERS[number % len(MARKERS)],
                color=colour,
                label=f"{class_name(name)}: ECE {one.error:.4f} ± {one.error_error:.4f}",
            )
            below.stairs(one.share, one.edges, color=colour, linestyle=LINES[number % len(LINES)])
        axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="Observed share of the class")
        axes.legend(loc="upper left")
        below.set(xlim=(0, 1), xlabel="Predicted probability", ylabel="Events (share)")
        below.set_ylim(bottom=0)
        return to_png(figure)


def draw_history(epochs: Sequence[EpochResult], best_epoch: int) -> bytes:
    """Draw loss and AUC of each epoch, and mark the one whose weights were kept.

    Parameters
    ----------
    epochs : sequence of EpochResult
    best_epoch : int
        From 1 on.

    Returns
    -------
    bytes
        A PNG.
    """
    from matplotlib.ticker import MaxNLocator

    number = [one.epoch for one in epochs]
    auc: npt.NDArray[Any] = np.array([one.auc for one in epochs])
    judged = bool(np.isfinite(auc).any())
    with Canvas(8, 8 if judged else 6, rows=1 + judged) as (figure, plots):
        losses = {"training": [one.loss for one in epochs], "validation": [one.validation_loss for one in epochs]}
        for place, (name, values) in enumerate(losses.items()):
            if np.isfinite(values).any():
                plots[0].plot(
                    number, values, color=COLOURS[place], linestyle=LINES[place], marker="o", ms=4, label=name
                )
        if judged:
            plots[1].plot(number, auc, color=COLOURS[1], linestyle=LINES[1], marker="o", ms=4, label="validation")
            plots[1].set_ylabel("AUC")
        plots[0].set_ylabel("Loss")
        for axes in plots:
            axes.axvline(best_epoch, color=COLOURS[4], linestyle=":", label=f"kept: epoch {best_epoch}")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.minorticks_off()
            axes.grid(visible=True, alpha=0.3)
            axes.legend(loc="best")
        plots[-1].set_xlabel("Epoch")
        return to_png(figure)
