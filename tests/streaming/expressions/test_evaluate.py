"""Every operator and function against the obvious Python for one event at a time."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlaas4hep.errors import ExpressionError
from mlaas4hep.streaming.expressions import FUNCTIONS
from mlaas4hep.streaming.expressions.plan import SelectionPlan
from mlaas4hep.streaming.formats.base import Column, ColumnType
from mlaas4hep.streaming.selecting.selection import EventSelection

Event = dict[str, Any]
NAN = float("nan")
TYPES = {
    "a": ColumnType(np.dtype(np.float64), False),
    "b": ColumnType(np.dtype(np.float32), False),
    "n": ColumnType(np.dtype(np.int32), False),
    "u": ColumnType(np.dtype(np.uint64), False),
    "flag": ColumnType(np.dtype(np.bool_), False),
    "Jet_pt": ColumnType(np.dtype(np.float32), True),
    "Jet_q": ColumnType(np.dtype(np.int8), True),
    "Jet_ok": ColumnType(np.dtype(np.bool_), True),
}


def columns_of(events: list[Event]) -> dict[str, Column]:
    columns = {}
    for name, kind in TYPES.items():
        if kind.jagged:
            counts = [len(event[name]) for event in events]
            content = np.array([value for event in events for value in event[name]], kind.dtype)
            columns[name] = Column(content, np.cumsum([0, *counts], dtype=np.int64))
        else:
            columns[name] = Column(np.array([event[name] for event in events], kind.dtype), None)
    return columns


@functools.cache
def plan_of(text: str) -> SelectionPlan:
    return EventSelection(new_columns={"x": text}).bind(TYPES)


def evaluated(text: str, columns: dict[str, Column], events: int) -> list[Any]:
    """The new column of an expression as a list with one item an event."""
    plan = plan_of(text)
    column = plan.block(events, columns).column("x")
    assert column.content.dtype == plan.columns["x"].dtype, "the type that was foretold"
    assert (column.offsets is not None) == plan.columns["x"].jagged
    if column.offsets is None:
        assert len(column.content) == events
        return column.content.tolist()
    return [column.content[a:b].tolist() for a, b in zip(column.offsets, column.offsets[1:], strict=False)]


def close(found: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    return bool(np.isclose(found, expected, rtol=1e-9, atol=1e-12, equal_nan=True))


# --- the reference: numbers of one event ---------------------------------------------------------------------------------------------------------


def number(operation: Callable[..., Any], *values: Any) -> float:
    """A double-precision operation that gives NaN or inf instead of an exception."""
    with np.errstate(all="ignore"):
        return float(operation(*(np.float64(value) for value in values)))


def holds(operation: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    return math.isfinite(left) and math.isfinite(right) and operation(left, right)


def true(value: Any) -> bool:
    return math.isfinite(value) and value != 0


def at(values: list[Any], index: int, absent: Any = NAN) -> Any:
    return values[index] if -len(values) <= index < len(values) else absent


def extreme(pick: Callable[..., Any], values: list[Any]) -> float:
    if not values or any(math.isnan(value) for value in values):
        return NAN
    return pick(values)


def wrapped(difference: float) -> float:
    return number(lambda d: (d + np.pi) % (2 * np.pi) - np.pi, difference)


REFERENCE: dict[str, Callable[[Event], Any]] = {
    "3": lambda e: 3,
    "a": lambda e: e["a"],
    "Jet_pt": lambda e: e["Jet_pt"],
    "a + b": lambda e: number(np.add, e["a"], e["b"]),
    "a - n": lambda e: number(np.subtract, e["a"], e["n"]),
    "n * n - 7": lambda e: e["n"] * e["n"] - 7,
    "flag + flag": lambda e: int(e["flag"]) + int(e["flag"]),
    "a / b": lambda e: number(np.divide, e["a"], e["b"]),
    "n / n": lambda e: number(np.divide, e["n"], e["n"]),
    "a // b": lambda e: number(np.floor_divide, e["a"], e["b"]),
    "a % b": lambda e: number(np.remainder, e["a"], e["b"]),
    "n // 3": lambda e: e["n"] // 3,
    "n % 3": lambda e: e["n"] % 3,
    "u % 2": lambda e: e["u"] % 2,
    "u // 10": lambda e: e["u"] // 10,
    "n // n": lambda e: number(np.floor_divide, e["n"], e["n"]),
    "n % 0": lambda e: NAN,
    "a ** 2": lambda e: number(np.power, e["a"], 2),
    "a ** b": lambda e: number(np.power, e["a"], e["b"]),
    "n ** -1": lambda e: number(np.power, e["n"], -1),
    "10**10**10": lambda e: math.inf,
    "-a": lambda e: -e["a"],
    "-flag": lambda e: -int(e["flag"]),
    "+n": lambda e: e["n"],
    "a - b - n": lambda e: number(lambda a, b, n: a - b - n, e["a"], e["b"], e["n"]),
    "a + b * n": lambda e: number(lambda a, b, n: a + b * n, e["a"], e["b"], e["n"]),
    "Jet_pt * 2 + a": lambda e: [number(lambda pt, a: pt * 2 + a, pt, e["a"]) for pt in e["Jet_pt"]],
    "Jet_pt * Jet_q": lambda e: [number(np.multiply, pt, q) for pt, q in zip(e["Jet_pt"], e["Jet_q"], strict=True)],
    "a < b": lambda e: holds(lambda x, y: x < y, e["a"], e["b"]),
    "a <= n": lambda e: holds(lambda x, y: x <= y, e["a"], e["n"]),
    "a > 1.5": lambda e: holds(lambda x, y: x > y, e["a"], 1.5),
    "a >= b": lambda e: holds(lambda x, y: x >= y, e["a"], e["b"]),
    "a == b": lambda e: holds(lambda x, y: x == y, e["a"], e["b"]),
    "a != b": lambda e: holds(lambda x, y: x != y, e["a"], e["b"]),
    "u == 18446744073709551": lambda e: e["u"] == 18446744073709551,
    "u > -1": lambda e: True,
    "flag == True": lambda e: e["flag"],
    "0 < a < b": lambda e: holds(lambda x, y: x < y, 0, e["a"]) and holds(lambda x, y: x < y, e["a"], e["b"]),
    "Jet_pt > a": lambda e: [holds(lambda x, y: x > y, pt, e["a"]) for pt in e["Jet_pt"]],
    "a > 0 and n > 0": lambda e: holds(lambda x, y: x > y, e["a"], 0) and e["n"] > 0,
    "a > 0 or flag": lambda e: holds(lambda x, y: x > y, e["a"], 0) or e["flag"],
    "not a > 0": lambda e: not holds(lambda x, y: x > y, e["a"], 0),
    "not n": lambda e: e["n"] == 0,
    "a and b or flag": lambda e: (true(e["a"]) and true(e["b"])) or e["flag"],
    "Jet_ok and flag": lambda e: [ok and e["flag"] for ok in e["Jet_ok"]],
    "1 / a > 3": lambda e: math.isfinite(number(np.divide, 1, e["a"])) and number(np.divide, 1, e["a"]) > 3,
    "log(a) < 3": lambda e: math.isfinite(number(np.log, e["a"])) and number(np.log, e["a"]) < 3,
    "Jet_pt[0]": lambda e: at(e["Jet_pt"], 0),
    "Jet_pt[2]": lambda e: at(e["Jet_pt"], 2),
    "Jet_pt[-1]": lambda e: at(e["Jet_pt"], -1),
    "Jet_pt[2000000000]": lambda e: NAN,
    "Jet_q[1]": lambda e: at(e["Jet_q"], 1),
    "Jet_ok[0]": lambda e: at(e["Jet_ok"], 0, False),
    "Jet_pt[0] > 1": lambda e: holds(lambda x, y: x > y, at(e["Jet_pt"], 0), 1),
    "Jet_pt[Jet_q > 0]": lambda e: [pt for pt, q in zip(e["Jet_pt"], e["Jet_q"], strict=True) if q > 0],
    "Jet_pt[Jet_ok][0]": lambda e: at([pt for pt, ok in zip(e["Jet_pt"], e["Jet_ok"], strict=True) if ok], 0),
    "sum(Jet_pt)": lambda e: number(lambda *v: sum(v), *e["Jet_pt"]),
    "sum(Jet_q)": lambda e: sum(e["Jet_q"]),
    "sum(Jet_ok)": lambda e: sum(e["Jet_ok"]),
    "sum(Jet_pt > 1)": lambda e: sum(holds(lambda x, y: x > y, pt, 1) for pt in e["Jet_pt"]),
    "min(Jet_pt)": lambda e: extreme(min, e["Jet_pt"]),
    "max(Jet_q)": lambda e: extreme(max, e["Jet_q"]),
    "max(Jet_pt)": lambda e: extreme(max, e["Jet_pt"]),
    "min(a, b, n)": lambda e: number(lambda a, b, n: np.minimum(np.minimum(a, b), n), e["a"], e["b"], e["n"]),
    "max(Jet_pt, 1)": lambda e: [number(np.maximum, pt, 1) for pt in e["Jet_pt"]],
    "any(Jet_pt > 1)": lambda e: any(holds(lambda x, y: x > y, pt, 1) for pt in e["Jet_pt"]),
    "all(Jet_pt > 1)": lambda e: all(holds(lambda x, y: x > y, pt, 1) for pt in e["Jet_pt"]),
    "any(Jet_q)": lambda e: any(q != 0 for q in e["Jet_q"]),
    "count(Jet_pt)": lambda e: len(e["Jet_pt"]),
    "count(Jet_ok)": lambda e: sum(e["Jet_ok"]),
    "count(Jet)": lambda e: len(e["Jet_pt"]),
    "abs(a)": lambda e: abs(e["a"]),
    "abs(Jet_q)": lambda e: [abs(q) for q in e["Jet_q"]],
    "sqrt(a)": lambda e: number(np.sqrt, e["a"]),
    "log(a)": lambda e: number(np.log, e["a"]),
    "exp(a)": lambda e: number(np.exp, e["a"]),
    "sin(a)": lambda e: number(np.sin, e["a"]),
    "cos(n)": lambda e: number(np.cos, e["n"]),
    "tan(b)": lambda e: number(np.tan, e["b"]),
    "arctan2(a, b)": lambda e: number(np.arctan2, e["a"], e["b"]),
    "sinh(a)": lambda e: number(np.sinh, e["a"]),
    "cosh(a)": lambda e: number(np.cosh, e["a"]),
    "tanh(a)": lambda e: number(np.tanh, e["a"]),
    "sin(Jet_pt)": lambda e: [number(np.sin, pt) for pt in e["Jet_pt"]],
    "delta_phi(a, b)": lambda e: wrapped(number(np.subtract, e["a"], e["b"])),
    "delta_phi(Jet_pt, a)": lambda e: [wrapped(number(np.subtract, pt, e["a"])) for pt in e["Jet_pt"]],
    "where(a > b, a, n)": lambda e: e["a"] if holds(lambda x, y: x > y, e["a"], e["b"]) else e["n"],
    "where(Jet_ok, Jet_pt, a)": lambda e: [
        pt if ok else e["a"] for pt, ok in zip(e["Jet_pt"], e["Jet_ok"], strict=True)
    ],
    "where(a, 1, 0)": lambda e: int(true(e["a"])),
    "isfinite(a)": lambda e: math.isfinite(e["a"]),
    "isfinite(Jet_pt)": lambda e: [math.isfinite(pt) for pt in e["Jet_pt"]],
    "isfinite(n)": lambda e: True,
}

single = st.sampled_from([0.0, 1.0, -2.5, 30.1, NAN, math.inf, -math.inf]) | st.floats(-1e3, 1e3, width=32)


@st.composite
def an_event(draw: st.DrawFn) -> Event:
    length = draw(st.integers(0, 4))

    def values(of: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(of, min_size=length, max_size=length))

    return {
        "a": draw(single),
        "b": float(np.float32(draw(single))),
        "n": draw(st.integers(-1000, 1000)),
        "u": draw(st.sampled_from([0, 1, 18446744073709551, 2**53 + 1, 2**64 - 1])),
        "flag": draw(st.booleans()),
        "Jet_pt": [float(np.float32(value)) for value in values(single)],
        "Jet_q": values(st.integers(-128, 127)),
        "Jet_ok": values(st.booleans()),
    }


EMPTY: Event = {"a": 0.0, "b": 0.0, "n": 0, "u": 2**64 - 1, "flag": False, "Jet_pt": [], "Jet_q": [], "Jet_ok": []}


@given(events=st.lists(an_event(), max_size=6))
@example(events=[])
@example(events=[EMPTY, EMPTY])
def test_every_expression_gives_what_python_gives_for_one_event_at_a_time(events: list[Event]) -> None:
    columns = columns_of(events)
    for text, reference in REFERENCE.items():
        expected = [reference(event) for event in events]
        found = evaluated(text, columns, len(events))
        assert all(map(close, found, expected)), (text, found, expected)


def test_every_function_of_numbers_is_in_the_reference() -> None:
    four_vector_functions = {"delta_r", "mass", "pt", "eta", "phi"}
    named = {name for name in FUNCTIONS if any(f"{name}(" in text for text in REFERENCE)}
    assert named | four_vector_functions == set(FUNCTIONS)


@pytest.mark.parametrize(
    "text",
    [
        "1 / a > -1",
        "1 / a < 1",
        "1 / a != 0",
        "log(-1 - a) < 5",
        "log(a) == log(a)",
        "sqrt(-1 - a) != 3",
        "Jet_pt[0] != 1",
    ],
)
def test_what_has_no_value_never_selects_an_event(text: str) -> None:
    plan = EventSelection(text).bind(TYPES)
    assert plan.block(2, columns_of([EMPTY, EMPTY])).passes().tolist() == [False, False]


@pytest.mark.parametrize(
    "text", ["n // 0 > -1", "a % 0 == 0", "0 / 0 == 0", "1 / 0 > 3", "10**10**10 > 3", "a", "1 / a", "log(a)"]
)
def test_division_by_zero_and_overflow_select_nothing_and_do_not_warn(text: str) -> None:
    plan = EventSelection(text).bind(TYPES)
    assert plan.block(1, columns_of([EMPTY])).passes().tolist() == [False]


WRONG = [
    ("METpt > 3", "no branch 'METpt' at character 0"),
    ("a > 2 and Jet_Pt[0] > 3", "no branch 'Jet_Pt' at character 10; nearest: 'Jet_pt'"),
    ("summ(Jet_pt) > 3", "no function 'summ' at character 0; nearest: 'sum'"),
    ("a > sum", "'sum' is a function and needs ( ) at character 4"),
    ("sum() > 3", "sum takes 1 argument, not 0 at character 0"),
    ("a + arctan2(a) > 3", "arctan2 takes 2 arguments, not 1 at character 4"),
    ("where(a, b)", "where takes 3 arguments, not 2 at character 0"),
    ("min() > 3", "min takes 1 to 100 arguments, not 0 at character 0"),
    ("Jet_pt > 3", "gives a value for each object, not one an event at character 0; say any(…) or all(…) of them"),
    ("Jet", "gives objects, not one truth value an event at character 0"),
    ("Jet > 3", "'Jet' is a collection, not numbers at character 0; its members are 'Jet_pt', 'Jet_q', 'Jet_ok'"),
    ("abs(Jet[0]) > 3", "objects stand where numbers are needed at character 4"),
    ("sum(a) > 3", "sum needs a list of values an event; there is one value an event at character 0"),
    ("any(a > 2)", "any needs a list of values an event"),
    ("a[0] > 2", "an index needs a list; there is one value an event at character 0"),
    ("Jet_pt[0][0] > 2", "an index needs a list; there is one value an event at character 0"),
    ("Jet_pt[a > 3][0] > 2", "a condition in [ ] must hold a value for each object of a list at character 0"),
    (
        "mass(Jet[0] + Jet[1]) > 3",
        "'Jet[0]' has no four-vectors at character 5; they need the branches Jet_pt, _eta, _phi and _mass",
    ),
    ("Jet[0] * 2 > 3", "'*' cannot join objects and numbers at character 0"),
    ("Jet[0] - Jet[1] > 3", "objects can be added, not combined with '-' at character 0"),
    ("mass(3) > 3", "mass takes objects, not numbers at character 0; as in mass(Jet[0] + Jet[1])"),
    ("delta_r(a, b) > 3", "delta_r takes two objects, not numbers at character 0"),
    ("delta_phi(Jet, b) > 3", "delta_phi takes two objects or two azimuths, not one of each at character 0"),
    ("count(Jet[0]) > 3", "count needs a list"),
    ("Jet[0][1]", "'Jet[0]' holds one object an event, which has no index at character 0"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[text for text, _ in WRONG])
def test_what_does_not_fit_is_said_at_its_place_before_anything_is_read(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        EventSelection(text).bind(TYPES)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_of_different_lengths_do_not_mix() -> None:
    types = {name: ColumnType(np.dtype(np.float32), True) for name in ("Jet_pt", "Muon_pt")}
    raw = {
        "Jet_pt": Column(np.ones(3, np.float32), np.array([0, 1, 3])),
        "Muon_pt": Column(np.ones(2, np.float32), np.array([0, 1, 2])),
    }
    plan = EventSelection("any(Jet_pt * 2 > Muon_pt)").bind(types)
    with pytest.raises(
        ExpressionError, match=r"lists of different lengths meet \(2 and 1 values in one event\) at character 4"
    ):
        plan.block(2, raw).passes()


def test_a_column_that_is_only_named_is_not_copied() -> None:
    raw = columns_of([EMPTY | {"Jet_pt": [1.0, 2.0], "Jet_q": [0, 1], "Jet_ok": [True, False]}])
    block = EventSelection(new_columns={"x": "Jet_pt", "y": "a"}).bind(TYPES).block(1, raw)
    assert np.shares_memory(block.column("x").content, raw["Jet_pt"].content)
    assert block.column("x").offsets is raw["Jet_pt"].offsets
    assert np.shares_memory(block.column("y").content, raw["a"].content)


def test_the_page_on_selections_lists_every_function_and_no_other() -> None:
    page = (Path(__file__).parents[3] / "docs" / "selection.md").read_text()
    table = page.partition("## Functions")[2].partition("\n\nObjects")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)\(", row)} == set(FUNCTIONS)
