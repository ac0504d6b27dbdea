"""Histograms of an inspection as pictures, in the look of the field."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlaas4hep.streaming.inspection.files import Inspection

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_histograms", "file_names"]

COLOURS = ("#3f90da", "#e76300", "#832db6", "#bd1f01", "#717581", "#a96b59", "#b9ac70", "#92dadd")
LONGEST = 100


def file_names(branches: Iterable[str]) -> dict[str, str]:
    """Return a name of a file, without extension, for each branch: plain letters only, and no two alike where case does not count.

    Examples
    --------
    >>> file_names(["Jet_pt", "jet_pt", "../x", "<b>"])
    {'Jet_pt': 'Jet_pt', 'jet_pt': 'jet_pt_2', '../x': 'x', '<b>': 'b'}
    """
    taken: set[str] = set()
    names = {}
    for branch in branches:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", branch).strip("_")[:LONGEST] or "branch"
        name, number = plain, 1
        while name.lower() in taken:
            number += 1
            name = f"{plain}_{number}"
        taken.add(name.lower())
        names[branch] = name
    return names


def draw_histograms(
    inspection: Inspection,
    folder: str | Path,
    extension: Literal["png", "pdf"] = "png",
    suffix: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Draw a histogram of each branch into a folder, files over each other.

    Parameters
    ----------
    inspection : Inspection
    folder : str or Path
        Made where it is not there.
    extension : {"png", "pdf"}
    suffix : str
        Behind the branch in the name of the file.
    progress : callable, optional
        Called with the number of branches done and of all.

    Returns
    -------
    list of Path
        The files, one a branch.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    import matplotlib as mpl
    import mplhep
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    into = Path(folder)
    into.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context():
        mplhep.style.use("CMS")
        # Names of branches and files are text, whatever signs they hold.
        mpl.rcParams.update({"text.parse_math": False, "axes.unicode_minus": True})
        figure = Figure(figsize=(8, 6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for done, (branch, name) in enumerate(file_names(inspection.branches).items(), start=1):
            axes.clear()
            _draw(inspection, branch, axes)
            path = into / f"{name}{suffix}.{extension}"
            figure.savefig(path, dpi=80, metadata={"Title": branch} if extension == "pdf" else None)
            written.append(path)
            if progress is not None:
                progress(done, len(inspection.branches))
    return written


def _draw(inspection: Inspection, branch: str, axes: Axes) -> None:
    import mplhep

    found = inspection.branches[branch]
    edges = found.edges()
    if inspection.compared:
        for place, file in enumerate(inspection.files):
            if branch in file.branches:
                filled = _filled(file.branches[branch].histogram(edges))
                mplhep.histplot(
                    filled,
                    ax=axes,
                    density=bool(filled.sum(flow=True)),
                    yerr=False,
                    w2method="sqrt",  # errors that are not drawn are worked out all the same, and would need scipy
                    flow="none",
                    color=COLOURS[place % len(COLOURS)],
                    label=Path(file.name).name,
                )
        axes.legend(fontsize="xx-small")
        axes.set_ylabel("Density of values")
    else:
        mplhep.histplot(
            _filled(found.histogram(edges)),
            ax=axes,
            histtype="fill",
            yerr=False,
            flow="none",
            color=COLOURS[0],
            alpha=0.6,
        )
        axes.set_ylabel("Values")
    axes.set_xlabel("".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in branch))
    axes.set_xlim(edges[0], edges[-1])
    axes.ticklabel_format(useOffset=False, style="sci", scilimits=(-4, 6))


def _filled(histogram: Any) -> Any:
    """Return a histogram as one of the package hist, with what lies outside in its flow bins."""
    import hist

    filled = hist.Hist(hist.axis.Variable(histogram.edges))
    filled.view(flow=True)[:] = [histogram.below, *histogram.counts, histogram.above]
    return filled
