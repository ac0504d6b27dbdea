"""What goes into a model: the distribution of each branch by class, and how much the model relies on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.encoding.encoding import Encoding
from mlaas4hep.training.canvas import COLOURS, LINES, Canvas, class_name, plain_text, to_png
from mlaas4hep.training.importance import Importance, RawEvents

__all__ = ["draw_importance", "draw_input", "input_edges"]

BINS = 40
MOST_BARS = 25


def draw_importance(found: Sequence[Importance]) -> bytes:
    """Draw the loss of AUC without each of the most important branches.

    Parameters
    ----------
    found : sequence of Importance
        The largest loss first.

    Returns
    -------
    bytes
        A PNG.
    """
    shown = list(found[:MOST_BARS])[::-1]
    with Canvas(8, 2 + 0.32 * len(shown)) as (figure, (axes,)):
        places = np.arange(len(shown))
        axes.barh(
            places,
            [one.drop for one in shown],
            xerr=[one.error for one in shown],
            color=COLOURS[0],
            ecolor="black",
            error_kw={"lw": 1},
        )
        axes.set_yticks(places, [plain_text(one.name, 30) for one in shown], fontsize=12)
        axes.minorticks_off()
        axes.axvline(0, color=COLOURS[4], lw=1)
        axes.set_xlabel("Loss of AUC when exchanged between events")
        axes.grid(visible=True, axis="x", alpha=0.3)
        return to_png(figure)


def draw_input(branch: str, encoding: Encoding, events: RawEvents, classes: Sequence[str]) -> bytes:
    """Draw a branch's values by class, each normalised to one, with statistical errors.

    Parameters
    ----------
    branch : str
        Of a jagged one all values of all events count.
    encoding : Encoding
        Where its places are.
    events : RawEvents
        Absent values are in no bin; the legend says how many events have none.
    classes : sequence of str

    Returns
    -------
    bytes
        A PNG.
    """
    import hist
    import mplhep

    values = events.raw[:, list(encoding.places(branch))]
    present = np.isfinite(values)
    edges = input_edges(values[present])
    with Canvas(4.6, 3.9, fitted=False) as (figure, (axes,)):
        for index, name in enumerate(classes or ("",)):
            of_class = events.y == index if classes else np.ones(len(events.y), bool)
            some = present & of_class[:, None]
            filled = hist.Hist(hist.axis.Variable(edges), storage=hist.storage.Weight())
            weight = np.broadcast_to(np.asarray(events.weight, np.float64)[:, None], values.shape)[some]
            # What lies beyond the edges counts in the outermost bins.
            filled.fill(
                np.clip(values[some].astype(np.float64), edges[0], np.nextafter(edges[-1], edges[0])), weight=weight
            )
            without = 1 - present[of_class].any(axis=1).mean() if of_class.any() and values.shape[1] else 1.0
            label = class_name(name) if name else "all events"
            if filled.sum().value > 0:
                mplhep.histplot(
                    filled,
                    ax=axes,
                    density=True,
                    w2method="sqrt",  # Garwood's intervals would need scipy
                    flow="none",
                    color=COLOURS[index % len(COLOURS)],
                    linestyle=LINES[index % len(LINES)],
                    lw=1.5,
                    label=label + (f" ({100 * without:.2g} % without)" if without else ""),
                )
        axes.set_xlabel(plain_text(branch, 36), fontsize=12)
        axes.set_ylabel("Density", fontsize=12)
        axes.tick_params(labelsize=10)
        axes.ticklabel_format(useOffset=False, style="sci", scilimits=(-3, 5))
        for offset in (axes.xaxis.get_offset_text(), axes.yaxis.get_offset_text()):
            offset.set_fontsize(10)
        axes.minorticks_off()
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(bottom=0, top=1.35 * axes.get_ylim()[1])
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=10, loc="upper right")
        return to_png(figure)


def input_edges(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Return edges that hold 99 % of the values, or one bin for each of a few whole numbers.

    Parameters
    ----------
    values : float array of shape ``[n]``
        Finite.

    Examples
    --------
    >>> input_edges(np.array([1.0, 2.0, 2.0, 3.0]))
    array([0.5, 1.5, 2.5, 3.5])
    """
    if not len(values):
        return np.array([0.0, 1.0])
    low, high = (float(edge) for edge in np.quantile(values.astype(np.float64), (0.005, 0.995)))
    low_whole, high_whole = float(np.floor(low)), float(np.ceil(high))
    if high_whole - low_whole <= BINS and np.array_equal(values, np.rint(values)):
        return np.arange(low_whole - 0.5, high_whole + 1)
    # A constant, or values so alike that 40 edges between them would not differ.
    if not high - low > 1e-9 * max(abs(low), abs(high), 1e-30):
        width = max(abs(low) * 0.5, 0.5)
        low, high = low - width, high + width
    return np.linspace(low, high, BINS + 1)
