"""The report as one HTML page that loads nothing and runs nothing: numbers in tables, pictures inside the page.

Names of classes, branches and models come from files that anybody may have made; they are escaped wherever they stand, and the page's policy
allows no script at all.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from mlaas4hep import __version__
from mlaas4hep.training.canvas import spoken
from mlaas4hep.training.performance import ClassPerformance, Performance

__all__ = ["Plot", "report_page", "with_error"]

SURPRISING = 0.01
"""Probability below which training and test scores are said to differ."""

STYLE = """
:root { color-scheme: light; --ink: #1d1d1f; --soft: #5b5f66; --line: #d9dce1; --warn: #a3461c; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 1.2rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .7rem; margin: 1.2rem 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: .6rem .8rem; break-inside: avoid; }
.tile b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .3rem 0; }
th, td { text-align: right; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: break-word; min-width: 5em; max-width: 20em; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
.note { color: var(--soft); font-size: .92rem; max-width: 75ch; margin: .3rem 0; }
.warn { color: var(--warn); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 1rem; }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 260px), 1fr)); gap: .6rem; }
figure { margin: 0; break-inside: avoid; }
figure img { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .92rem; overflow-wrap: anywhere; }
footer { margin-top: 2rem; color: var(--soft); font-size: .9rem; }
@media (max-width: 600px) { body { padding: .8rem; } .tile b { font-size: 1.05rem; white-space: nowrap; }
  .tiles { grid-template-columns: 1fr 1fr; } table { font-size: .88rem; } thead th { white-space: normal; } dl { grid-template-columns: 1fr; } dt {
  margin-top: .3rem; } }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } .wide { overflow: visible; }
  .plots { grid-template-columns: 1fr 1fr; } .small { grid-template-columns: 1fr 1fr 1fr; } h2 { break-after: avoid; } }
"""


@dataclass(frozen=True)
class Plot:
    """A picture of the report.

    Parameters
    ----------
    file : str
        Name of its file.
    caption : str
    png : bytes
    small : bool
        Whether it is one of many.
    """

    file: str
    caption: str
    png: bytes
    small: bool = False


def report_page(
    title: str,
    facts: Mapping[str, str],
    performance: Performance,
    metrics: Mapping[str, Any],
    plots: Sequence[Plot],
) -> str:
    """Return the page.

    Parameters
    ----------
    title : str
        Heading.
    facts : mapping of str to str
        What stands below it.
    performance : Performance
    metrics : mapping
        Of ``metrics.json``: ``folds``, ``scatter`` and ``importance`` are shown where they are there.
    plots : sequence of Plot
    """
    style = STYLE.strip()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    large = "".join(_figure(plot) for plot in plots if not plot.small)
    small = "".join(_figure(plot) for plot in plots if plot.small)
    inputs = f'<section><h2>Inputs by class</h2><p class="note">{_INPUTS}</p><div class="plots small">{small}</div></section>'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{_safe(title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{_safe(title)}</h1>
<dl>{"".join(f"<dt>{_safe(name)}</dt><dd>{_safe(value)}</dd>" for name, value in facts.items())}</dl>
</header>
<main>
<div class="tiles">{"".join(_tile(*tile) for tile in _tiles(performance))}</div>
{_classes(performance, metrics)}
{_over_training(performance)}
{_folds(metrics)}
<section><h2>Plots</h2><div class="plots">{large}</div></section>
{_importance(metrics)}
{inputs if small else ""}
</main>
<footer>mlaas4hep {_safe(__version__)}. Errors are statistical, one standard deviation.</footer>
</body>
</html>
"""


_INPUTS = (
    "Held-out events, weighted, each class normalised to one; values beyond the edges count in the outermost bins. Of a"
    " jagged branch all values of all events count. In brackets: the share of events without any value."
)
_CUTS = (
    "The cut is the one of the largest Asimov significance on validation events, and the yields are what test events"
    " expect above it, scaled to all events. Yields mean something only where weights are those of physics."
)


def with_error(value: float, error: float) -> str:
    """Return a number with its error, both to the error's second digit.

    Examples
    --------
    >>> with_error(0.88123, 0.00361), with_error(1234.5, 56.0), with_error(0.5, float("nan"))
    ('0.8812 ± 0.0036', '1234 ± 56', '0.5 ± ?')
    """
    if not math.isfinite(value):
        return "–"
    if not math.isfinite(error):
        return f"{value:.4g} ± ?"
    if not error > 0:
        return f"{value:.4g} ± 0"
    digits = max(0, 1 - math.floor(math.log10(error)))
    if digits > 12 or abs(value) >= 1e9:
        return f"{value:.4g} ± {error:.2g}"
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _tiles(performance: Performance) -> Iterable[tuple[str, str]]:
    found = performance.evaluation
    yield "AUC" + (" (mean of classes)" if len(performance.classes) > 1 else ""), with_error(found.auc, found.auc_error)
    yield "Accuracy", with_error(found.accuracy, found.accuracy_error)
    yield "Log-loss", with_error(found.log_loss, found.log_loss_error)
    yield "Test events", f"{found.events:,}"


def _tile(name: str, value: str) -> str:
    return f'<div class="tile"><b>{_safe(value)}</b><span>{_safe(name)}</span></div>'


def _classes(performance: Performance, metrics: Mapping[str, Any]) -> str:
    points = performance.classes[0].working_points if performance.classes else ()
    heads = ["Class", "AUC", *(f"Efficiency at {100 * one.background:g} % background" for one in points), "ECE"]
    rows = [
        [
            spoken(one.name),
            with_error(one.auc, one.auc_error),
            *(with_error(point.signal, point.signal_error) for point in one.working_points),
            with_error(one.reliability.error, one.reliability.error_error),
        ]
        for one in performance.classes
    ]
    cuts = [row for one in performance.classes if (row := _cut(one, metrics)) is not None]
    cut_table = _table(["Class", "Cut", "Signal", "Background", "Significance"], cuts) if cuts else ""
    return (
        f"<section><h2>Each class against the rest</h2>{_table(heads, rows)}"
        + (f'<h3>Best cut</h3>{cut_table}<p class="note">{_CUTS}</p>' if cuts else "")
        + "</section>"
    )


def _cut(one: ClassPerformance, metrics: Mapping[str, Any]) -> list[str] | None:
    """Return the row of a class's cut; of a k-fold it is in the metrics, each fold having its own."""
    described = metrics.get("test", {}).get("against_rest", {}).get(one.name, {}).get("best_cut")
    if described is None:
        return None
    test = {name: math.nan if value is None else value for name, value in described["test"].items()}
    cut = test["cut"]
    return [
        spoken(one.name),
        f"{cut:.4f}" if math.isfinite(cut) else "of each fold",
        with_error(test["signal"], test["signal_error"]),
        with_error(test["background"], test["background_error"]),
        with_error(test["significance"], test["significance_error"]),
    ]


def _over_training(performance: Performance) -> str:
    if not performance.agreement:
        return ""
    rows, surprising = [], False
    for name, found in performance.agreement.items():
        surprising |= found.probability < SURPRISING
        known = math.isfinite(found.distance)
        shown = [f"{found.distance:.4f}", f"{found.probability:.3g}"] if known else ["–", "–"]
        rows.append([spoken(name), *shown])
    said = (
        '<p class="note warn">Training and test scores differ by more than chance: the model knows training events by heart.</p>'
        if surprising
        else '<p class="note">Training and test scores differ by no more than chance.</p>'
    )
    return (
        "<section><h2>Over-training</h2>"
        + _table(["Class", "Kolmogorov–Smirnov distance", "Probability"], rows)
        + f"{said}</section>"
    )


def _folds(metrics: Mapping[str, Any]) -> str:
    if "folds" not in metrics:
        return ""
    rows = []
    for number, fold in enumerate(metrics["folds"]):
        numbers = {name: math.nan if value is None else value for name, value in fold.items() if name != "class_auc"}
        shown = [with_error(numbers[name], numbers[f"{name}_error"]) for name in ("auc", "accuracy", "log_loss")]
        rows.append([f"{number}", f"{fold['events']:,}", *shown])
    scatter = ["–" if value is None else f"{value:.4f}" for value in metrics["scatter"].values()]
    rows.append(["scatter", "", *scatter])
    return f"<section><h2>Folds</h2>{_table(['Fold', 'Events', 'AUC', 'Accuracy', 'Log-loss'], rows)}</section>"


def _importance(metrics: Mapping[str, Any]) -> str:
    found = metrics.get("importance") or ()
    rows = [
        [one["name"], "–" if one["drop"] is None else with_error(one["drop"], one["error"] or math.nan)]
        for one in found
    ]
    if not rows:
        return ""
    note = "What the AUC of test events loses when the branch's values are exchanged between events."
    return (
        f'<section><h2>Importance</h2><p class="note">{note}</p>'
        f"<details><summary>All {len(rows)} branches</summary>{_table(['Branch', 'Loss of AUC'], rows)}</details></section>"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{_safe(name)}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{_safe(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(plot: Plot) -> str:
    data = base64.b64encode(plot.png).decode()
    caption = _safe(plot.caption)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    )


def _safe(text: str) -> str:
    """Return a text escaped, without signs that steer, which may turn or hide what stands beside them."""
    return escape("".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text))
