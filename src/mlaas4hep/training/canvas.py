"""What all plots of a training have in common: the look of the field, and that drawing leaves the user's own settings alone.

Colours are those of M. A. Petroff (arXiv:2107.02270), which people with any colour vision tell apart and which CMS and ATLAS use.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "LINES", "MARKERS", "Canvas", "class_name", "plain_text", "spoken", "to_png"]

COLOURS = ("#5790fc", "#f89c20", "#e42536", "#964a8b", "#9c9ca1", "#7a21dd")
LINES = ("-", "--", "-.", ":")
MARKERS = "os^vDP"


class Canvas:
    """A figure in the look of the field.

    Parameters
    ----------
    width, height : float
        In inches, of 100 pixels each.
    rows, columns : int
        Of plots.
    heights : sequence of float, optional
        Of the rows, relative to each other.
    fitted : bool
        Whether margins are fitted to what is drawn, which costs as much as the drawing; else they are fixed, for one of many small plots.

    Examples
    --------
    >>> with Canvas() as (figure, (axes,)):
    ...     _ = axes.plot([0, 1])
    ...     png = to_png(figure)
    >>> png[1:4]
    b'PNG'
    """

    def __init__(
        self,
        width: float = 8,
        height: float = 7,
        rows: int = 1,
        columns: int = 1,
        heights: Sequence[float] | None = None,
        *,
        fitted: bool = True,
    ) -> None:
        self._size, self._rows, self._columns, self._heights = (width, height), rows, columns, heights
        self._fitted = fitted

    def __enter__(self) -> tuple[Figure, list[Axes]]:
        import matplotlib as mpl
        import mplhep
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        # The second font draws the signs that the first one lacks.
        changes = {"font.size": 15, "lines.linewidth": 2, "font.family": ["TeX Gyre Heros", "DejaVu Sans"]}
        self._style = mpl.rc_context({**mplhep.style.CMS, **changes})  # type: ignore[dict-item]
        self._style.__enter__()
        figure = Figure(figsize=self._size, dpi=100, layout="constrained" if self._fitted else None)
        if not self._fitted:
            figure.subplots_adjust(left=0.17, right=0.96, bottom=0.16, top=0.94)
        FigureCanvasAgg(figure)
        return figure, figure.subplots(
            self._rows, self._columns, squeeze=False, height_ratios=self._heights
        ).ravel().tolist()

    def __exit__(self, *error: object) -> None:
        self._style.__exit__(None, None, None)


def to_png(figure: Figure) -> bytes:
    """Return a figure as a PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of a name in a script that no font here has
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def spoken(name: str) -> str:
    """Return a class's name as it stands in a sentence: a mere number says too little.

    Examples
    --------
    >>> spoken("1"), spoken("VBF")
    ('class 1', 'VBF')
    """
    return f"class {name}" if name.lstrip("-").isdigit() else name


def class_name(name: str, longest: int = 40) -> str:
    """Return a class's name as it is drawn.

    Examples
    --------
    >>> class_name("1"), class_name("VBF")
    ('class 1', 'VBF')
    """
    return plain_text(spoken(name), longest)


def plain_text(text: str, longest: int = 40) -> str:
    """Return a name that can be drawn: no signs that steer, no formulas, and not longer than there is room.

    Examples
    --------
    >>> plain_text("Jet" + chr(10) + "pt", longest=5)
    'Jet�…'
    """
    shown = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    shown = shown if len(shown) <= longest else shown[: longest - 1] + "…"
    return shown.replace("$", r"\$")
