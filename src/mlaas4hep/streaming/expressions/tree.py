"""The nodes of an expression: all that the language can say. ``at`` is the character of the text at which a node begins, counted from 0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "Binary",
    "Call",
    "Compare",
    "Filter",
    "Index",
    "Logical",
    "Name",
    "Node",
    "Number",
    "Unary",
    "walk",
]


@dataclass(frozen=True, slots=True)
class Number:
    """A number, or True or False."""

    value: int | float | bool
    at: int


@dataclass(frozen=True, slots=True)
class Name:
    """A branch, a new column, or a collection."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Unary:
    """``-a``, ``+a`` or ``not a``."""

    operator: str
    operand: Node
    at: int


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic on two values."""

    operator: str
    left: Node
    right: Node
    at: int


@dataclass(frozen=True, slots=True)
class Compare:
    """``a < b``, or a chain ``a < b <= c``: every neighbouring pair must hold."""

    operators: tuple[str, ...]
    operands: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Logical:
    """``a and b and …`` or ``a or b or …``."""

    operator: str
    operands: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Index:
    """``a[2]``: one object of each event, counted from 0, or from the end when negative."""

    operand: Node
    index: int
    at: int


@dataclass(frozen=True, slots=True)
class Filter:
    """``a[condition]``: the objects that fulfil a condition."""

    operand: Node
    condition: Node
    at: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the table applied to its arguments."""

    function: str
    arguments: tuple[Node, ...]
    at: int


Node = Number | Name | Unary | Binary | Compare | Logical | Index | Filter | Call


def walk(node: Node) -> Iterator[Node]:
    """Iterate over a node and all below it."""
    yield node
    match node:
        case Unary():
            below: tuple[Node, ...] = (node.operand,)
        case Binary():
            below = (node.left, node.right)
        case Compare() | Logical():
            below = node.operands
        case Index():
            below = (node.operand,)
        case Filter():
            below = (node.operand, node.condition)
        case Call():
            below = node.arguments
        case _:
            below = ()
    for child in below:
        yield from walk(child)
