"""Outlines of histograms as SVG paths, in few characters: a page of a thousand branches stays small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["BIN_WIDTH", "HEIGHT", "Outline", "outline", "outlines"]

HEIGHT = 200
"""Units from the bottom of a drawing to the highest bin."""

BIN_WIDTH = 10


class Outline(NamedTuple):
    """Paths of one histogram, from its lower left to its lower right corner.

    Attributes
    ----------
    linear, logarithmic : str
        For the attribute ``d``, in a drawing that is :data:`BIN_WIDTH` × bins wide and :data:`HEIGHT` high.
    """

    linear: str
    logarithmic: str


def outline(heights: Sequence[float]) -> str:
    """Return the path of a histogram.

    Parameters
    ----------
    heights : sequence of float
        In units of the highest that is drawn, 0 to 1.

    Examples
    --------
    >>> outline([0.0, 0.5, 0.5, 1.0])
    'M0 200h10v-100h20v-100h10v200'
    """
    path = [f"M0 {HEIGHT}"]
    level, pending = 0, 0
    for height in heights:
        here = round(HEIGHT * height)
        if here != level:
            path.append(f"h{pending}v{level - here}" if pending else f"v{level - here}")
            level, pending = here, 0
        pending += BIN_WIDTH
    path.append(f"h{pending}")
    if level:
        path.append(f"v{level}")
    return "".join(path)


def outlines(histograms: Sequence[Sequence[float]]) -> tuple[list[Outline], float, float]:
    """Return the paths of histograms that are drawn over each other.

    Parameters
    ----------
    histograms : sequence of sequence of float
        Counts, or shares, of each.

    Returns
    -------
    outlines : list of Outline
    top : float
        What the highest bin holds.
    bottom : float
        Where the logarithmic drawing begins: half of what the lowest occupied bin holds.
    """
    occupied = [value for counts in histograms for value in counts if value > 0]
    top, bottom = max(occupied, default=1.0), min(occupied, default=1.0) / 2
    decades = math.log(top / bottom)
    return (
        [
            Outline(
                outline([value / top for value in counts]),
                outline([math.log(value / bottom) / decades if value > 0 else 0.0 for value in counts]),
            )
            for counts in histograms
        ],
        float(top),
        float(bottom),
    )
