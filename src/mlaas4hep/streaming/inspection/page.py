"""An inspection as one HTML page that loads nothing: a table to search and sort, and a histogram for each branch.

Names of files and branches come from files that anybody may have made. They are escaped wherever they stand, and the page's policy lets no script
run but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from mlaas4hep import __version__
from mlaas4hep.streaming.inspection.files import Inspection
from mlaas4hep.streaming.inspection.outlines import BIN_WIDTH, HEIGHT, outlines
from mlaas4hep.streaming.inspection.summary import BranchSummary

__all__ = ["report_page"]

TITLES = ("Branch", "Type", "Values", "Min", "Max", "Mean", "Std. dev.", "Median", "NaN", "Empty", "Widest")
SHOWN_FILES = 50


def report_page(inspection: Inspection, title: str = "What is in these files") -> str:
    """Return an inspection as an HTML page.

    Parameters
    ----------
    inspection : Inspection
    title : str
        Heading of the page.

    Returns
    -------
    str
        The page; about 2 kB a branch and file.

    Examples
    --------
    >>> from mlaas4hep.streaming.inspection import inspect_files
    >>> page = report_page(inspect_files("examples/data/VBF_HToTauTau.root", branches=["MET_pt"]))
    >>> page.startswith("<!doctype html>"), "MET_pt" in page, "://" in page
    (True, True, False)
    """
    rows, details = [], []
    for number, name in enumerate(inspection.branches):
        row, detail = _branch(inspection, name, number)
        rows.append(row)
        details.append(detail)
    data = {
        "files": [_text(file.name) for file in inspection.files] if inspection.compared else [],
        "branches": details,
    }
    style, script = _resource("page.css"), _resource("page.js")
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    heads = "".join(
        f'<th scope="col"><button type="button" data-column="{place}">{name}</button></th>'
        for place, name in enumerate(TITLES)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{_escaped(title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{_escaped(title)}</h1>
<p class="sum">{_sum(inspection)}</p>
</header>
{_files(inspection)}
{_losses(inspection)}
<div class="tools" role="search">
<input type="search" id="search" placeholder="Search branches: Jet_pt, Jet_*, …" aria-label="Search branches" autocomplete="off">
<select id="kind" aria-label="Kind of branch">
<option value="">all kinds</option><option value="flat">flat</option><option value="jagged">jagged</option>
<option value="identifier">identifiers</option><option value="generator">generator level</option>
<option value="nan">with NaN</option><option value="constant">constant</option>
</select>
<label><input type="checkbox" id="log"> log scale</label>
<output id="count" aria-live="polite">{len(rows)} branches</output>
</div>
<table id="branches">
<thead><tr>{heads}</tr></thead>
<tbody>
{"".join(rows)}</tbody>
</table>
{_skipped(inspection)}
<footer>mlaas4hep {escape(__version__)}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC</footer>
<dialog id="detail" aria-labelledby="detail-name"></dialog>
<script type="application/json" id="data">{_json(data)}</script>
<script>{script}</script>
</body>
</html>
"""


def _branch(inspection: Inspection, name: str, number: int) -> tuple[str, dict[str, Any]]:
    """Return the row of a branch, and what the page shows when it is chosen."""
    found = inspection.branches[name]
    mark = inspection.mark(name)
    edges = found.edges()
    histogram = found.histogram(edges)
    parts = [file.branches.get(name) for file in inspection.files] if inspection.compared else []
    # Of several files each shows its own shape: a share of its values, whatever their number.
    shapes = [_shares(part.histogram(edges).counts.tolist()) if part else [] for part in parts]
    drawn = shapes or [histogram.counts.tolist()]
    paths, top, bottom = outlines(drawn)
    lines = "".join(
        f'<path class="f{place}" d="{path.linear}" data-log="{path.logarithmic}"/>'
        for place, path in enumerate(paths)
        if drawn[place]
    )
    picture = (
        f'<svg class="{"lines" if parts else "area"}" viewBox="0 -4 {BIN_WIDTH * len(histogram.counts)} {HEIGHT + 5}" '
        f'preserveAspectRatio="none" aria-hidden="true">{lines}</svg>'
    )
    detail: dict[str, Any] = {
        "edges": [float(edges[0]), float(edges[-1])],
        "top": top,
        "bottom": bottom,
        "below": histogram.below,
        "above": histogram.above,
        "rows": [_numbers(part) if part else None for part in parts],
    }
    if found.jagged:
        lengths = found.length_histogram()
        (path, *_), most, least = outlines([lengths.counts.tolist()])
        detail["lengths"] = {
            "d": path.linear,
            "log": path.logarithmic,
            "bins": len(lengths.counts),
            "edges": [float(lengths.edges[0]), float(lengths.edges[-1])],
            "top": most,
            "bottom": least,
        }
    statistics = found.statistics
    constant = statistics.count > 0 and statistics.minimum == statistics.maximum
    kinds = [
        "jagged" if found.jagged else "flat",
        mark.partition(" ")[0],
        "nan" * bool(found.nan),
        "constant" * constant,
    ]
    badge = f'<span class="mark {mark.partition(" ")[0]}">{mark}</span>' if mark else ""
    cells = "".join(
        f'<td data-title="{title}" data-value="{"" if value is None else value}"{" class=warn" if warn else ""}>{shown}</td>'
        for title, value, shown, warn in _cells(found)
    )
    row = (
        f'<tr data-number="{number}" data-kinds="{" ".join(kinds)}"><th scope="row"><button type="button">{_escaped(name)}</button>{badge}</th>'
        f'<td data-title="Type" class="type">{_escaped(" | ".join(found.types))}</td><td class="picture">{picture}</td>{cells}</tr>\n'
    )
    return row, detail


def _cells(found: BranchSummary) -> list[tuple[str, float | None, str, bool]]:
    """Return title, number for sorting, text, and whether it deserves a look, for each cell with a number."""
    low, high, mean, std, median = (_known(value) for value in _five(found))
    cells: list[tuple[str, float | None, str, bool]] = [
        (title, value, _number(value), False)
        for title, value in zip(TITLES[3:8], (low, high, mean, std, median), strict=True)
    ]
    nan, empty = found.nan_fraction, found.empty_fraction
    cells.append(("NaN", nan, _percent(nan), nan > 0))
    cells.append(("Empty", empty if found.jagged else None, _percent(empty) if found.jagged else "", empty == 1))
    widest = found.statistics.widest if found.jagged else None
    cells.append(("Widest", widest, "" if widest is None else str(widest), False))
    return cells


def _numbers(found: BranchSummary) -> list[str]:
    """Return what the table of files shows of one file."""
    return [
        f"{found.values:,}",
        *(_number(_known(value)) for value in _five(found)),
        _percent(found.nan_fraction),
        _percent(found.empty_fraction) if found.jagged else "",
        str(found.statistics.widest) if found.jagged else "",
    ]


def _five(found: BranchSummary) -> tuple[float, ...]:
    statistics = found.statistics
    if not statistics.count:
        return (math.nan,) * 5
    return statistics.minimum, statistics.maximum, statistics.mean, found.std, found.median


def _sum(inspection: Inspection) -> str:
    count = len(inspection.files)
    jagged = sum(found.jagged for found in inspection.branches.values())
    read = f"{inspection.events:,} events"
    if inspection.events != inspection.entries:
        read += f" of {inspection.entries:,}"
    return (
        f"{count} file{'s' * (count != 1)}, {read}, {len(inspection.branches)} branches: "
        f"{len(inspection.branches) - jagged} flat, {jagged} jagged"
    )


def _files(inspection: Inspection) -> str:
    rows = []
    for place, file in enumerate(inspection.files[:SHOWN_FILES]):
        key = f'<svg class="key" viewBox="0 0 20 10" aria-hidden="true"><path class="f{place}" d="M0 5h20"/></svg>'
        size = "" if file.size < 0 else f"{file.size / 1e6:,.1f} MB"
        read = "" if file.events == file.entries else f", {file.events:,} read"
        rows.append(
            f"<li>{key if inspection.compared else ''}<span class=name>{_escaped(file.name)}</span> "
            f"<span class=facts>{_escaped(file.tree)}, {file.entries:,} events{read}{', ' + size if size else ''}</span></li>"
        )
    more = len(inspection.files) - len(rows)
    rest = f"<li>and {more} more; histograms and numbers are over all files</li>" if more else ""
    return f'<ul class="files">{"".join(rows)}{rest}</ul>'


def _losses(inspection: Inspection) -> str:
    if not len(inspection.losses):
        return ""
    lines = "\n".join(_escaped(line) for line in str(inspection.losses).splitlines())
    return f'<section class="losses"><h2>Not read</h2><pre>{lines}</pre></section>'


def _skipped(inspection: Inspection) -> str:
    if not inspection.skipped:
        return ""
    items = "".join(f"<li><b>{_escaped(name)}</b> {_escaped(why)}</li>" for name, why in inspection.skipped.items())
    return f"<details><summary>{len(inspection.skipped)} branches hold no numbers</summary><ul>{items}</ul></details>"


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) or 1
    return [count / total for count in counts]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value.is_integer() and 1e4 <= abs(value) < 1e12 else f"{value:.4g}".replace("-", "−")


def _percent(share: float) -> str:
    return "0" if not share else "<0.1 %".replace("<", "&lt;") if share < 0.001 else f"{100 * share:.1f} %"


def _text(text: str) -> str:
    """Return a text without characters that steer, which may turn or hide what stands beside them."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _escaped(text: str) -> str:
    return escape(_text(text))


def _json(data: object) -> str:
    """Return JSON that does not end the script element that it stands in."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")


@cache
def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
