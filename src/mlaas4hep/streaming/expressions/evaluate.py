"""Evaluate an expression for a block of events, node by node, each node one operation on whole columns.

The way through an expression depends on its names and their types only, never on values: evaluating it on no events at all tells the type of what it
gives and which columns it reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import nearest_names, quoted
from mlaas4hep.streaming.expressions import four_vectors
from mlaas4hep.streaming.expressions.functions import FUNCTIONS
from mlaas4hep.streaming.expressions.grammar import Expression
from mlaas4hep.streaming.expressions.tree import (
    Binary,
    Call,
    Compare,
    Filter,
    Index,
    Logical,
    Name,
    Node,
    Number,
    Unary,
)
from mlaas4hep.streaming.expressions.values import (
    Misuse,
    Numbers,
    Objects,
    Value,
    align,
    chosen,
    picked,
    truth,
)

__all__ = ["Scope", "evaluate"]

Content = npt.NDArray[Any]

ARITHMETIC: Final[dict[str, np.ufunc]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "//": np.floor_divide,
    "%": np.remainder,
    "**": np.power,
}
COMPARISONS: Final[dict[str, np.ufunc]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}


class Scope(Protocol):
    """Where names get their values."""

    def get(self, name: str) -> Numbers | Objects | None:
        """Return the value of a name; None where there is none.

        Raises
        ------
        Misuse
            If there is something of that name that no expression can use.
        """
        ...

    def names(self) -> Iterable[str]:
        """Return the names that there are, for the messages."""
        ...


def evaluate(expression: Expression, scope: Scope) -> Value:
    """Evaluate an expression for all events of a scope.

    Values that are not finite do not warn. A comparison with one is false.

    Parameters
    ----------
    expression : Expression
    scope : Scope

    Raises
    ------
    ExpressionError
        If a name or function is not there, or an operation does not fit its values.

    Examples
    --------
    >>> from mlaas4hep.streaming.expressions import Numbers, parse
    >>> class Two:
    ...     def get(self, name):
    ...         return {"MET_pt": Numbers(np.array([20.0, 40.0]))}.get(name)
    ...     def names(self):
    ...         return ["MET_pt"]
    >>> evaluate(parse("MET_pt > 30"), Two()).content
    array([False,  True])
    """
    with np.errstate(all="ignore"):
        return _Evaluation(expression, scope).value(expression.root)


class _Evaluation:
    def __init__(self, expression: Expression, scope: Scope) -> None:
        self._expression = expression
        self._scope = scope

    def value(self, node: Node) -> Value:
        try:
            return self._value(node)
        except Misuse as misuse:
            raise self._expression.error(misuse.problem, node.at, misuse.hint) from None

    def _value(self, node: Node) -> Value:
        match node:
            case Number():
                return Numbers.constant(node.value)
            case Name():
                return self._name(node)
            case Unary():
                return _sign(node.operator, self._numbers(node.operand))
            case Binary():
                return _arithmetic(node, self.value(node.left), self.value(node.right))
            case Compare():
                return _compare(node.operators, [self._numbers(operand) for operand in node.operands])
            case Logical():
                return _logical(node.operator, [self._numbers(operand) for operand in node.operands])
            case Index():
                return self._index(node)
            case Filter():
                return self._filter(node)
            case Call():
                return self._call(node)

    def _name(self, node: Name) -> Value:
        value = self._scope.get(node.name)
        if value is not None:
            return value
        if node.name in FUNCTIONS:
            raise Misuse(f"'{node.name}' is a function and needs ( )")
        nearest = nearest_names(node.name, self._scope.names())
        raise Misuse(f"no branch '{node.name}'", f"nearest: {quoted(nearest)}" if nearest else "")

    def _numbers(self, node: Node) -> Numbers:
        value = self.value(node)
        if isinstance(value, Numbers):
            return value
        raise self._objects_refused(value, node.at)

    def _objects_refused(self, value: Value, at: int) -> Exception:
        if isinstance(value, Objects) and "[" not in value.name and "(" not in value.name:
            members = quoted((f"{value.name}_{member}" for member in value.members), 3)
            return self._expression.error(
                f"'{value.name}' is a collection, not numbers", at, f"its members are {members}"
            )
        return self._expression.error(
            "objects stand where numbers are needed", at, "take a member, as Jet_pt[0], or mass(…) of them"
        )

    def _index(self, node: Index) -> Value:
        operand = self.value(node.operand)
        match operand:
            case Numbers():
                return picked(operand, node.index)
            case Objects():
                return operand.picked(node.index)
        raise Misuse("a sum of objects has no index")

    def _filter(self, node: Filter) -> Value:
        operand, condition = self.value(node.operand), self._numbers(node.condition)
        match operand:
            case Numbers():
                return chosen(operand, condition)
            case Objects():
                return operand.chosen(condition)
        raise Misuse("a sum of objects has no index")

    def _call(self, node: Call) -> Value:
        function = FUNCTIONS.get(node.function)
        if function is None:
            nearest = nearest_names(node.function, FUNCTIONS)
            raise Misuse(
                f"no function '{node.function}'",
                f"nearest: {quoted(nearest)}" if nearest else f"there are {', '.join(FUNCTIONS)}",
            )
        if not function.fewest <= len(node.arguments) <= function.most:
            raise Misuse(f"{node.function} takes {function.arguments}, not {len(node.arguments)}")
        get = self.value if function.takes_objects else self._numbers
        return function.call(*(get(argument) for argument in node.arguments))


def _whole(content: Content) -> bool:
    """Whether values are whole numbers that fit into 64 bits with a sign."""
    return content.dtype.kind in "bi" or (content.dtype.kind == "u" and content.dtype.itemsize < 8)


def _sign(operator: str, value: Numbers) -> Numbers:
    if operator == "not":
        return Numbers(np.logical_not(truth(value.content)), value.offsets)
    content = value.content.astype(np.int64 if _whole(value.content) else np.float64)
    return Numbers(np.asarray(-content) if operator == "-" else content, value.offsets)


def _arithmetic(node: Binary, left: Value, right: Value) -> Value:
    if not isinstance(left, Numbers) and not isinstance(right, Numbers):
        if node.operator != "+":
            raise Misuse(f"objects can be added, not combined with '{node.operator}'")
        return four_vectors.plus(left, right)
    if not isinstance(left, Numbers) or not isinstance(right, Numbers):
        raise Misuse(f"'{node.operator}' cannot join objects and numbers", "take a member, as Jet_pt[0]")
    (a, b), offsets = align([left, right])
    return Numbers(_calculate(node, a, b), offsets)


def _calculate(node: Binary, a: Content, b: Content) -> Content:
    operator = node.operator
    if operator in ("//", "%") and isinstance(node.right, Number) and b.dtype.kind == "i" and b > 0:
        # Event numbers go beyond what a double holds exactly, and `event % 2` must not care.
        if a.dtype == np.uint64:
            b = b.astype(np.uint64)
        if a.dtype.kind in "biu":
            a = a.astype(np.int64) if a.dtype != np.uint64 else a
            return np.asarray(np.floor_divide(a, b) if operator == "//" else np.remainder(a, b))
    kind = np.int64 if operator in ("+", "-", "*") and _whole(a) and _whole(b) else np.float64
    a, b = a.astype(kind, copy=False), b.astype(kind, copy=False)
    return np.asarray(ARITHMETIC[operator](a, b))


def _compare(operators: tuple[str, ...], operands: list[Numbers]) -> Numbers:
    contents, offsets = align(operands)
    result: npt.NDArray[np.bool_] = np.asarray(True)
    for index, operator in enumerate(operators):
        a, b = contents[index], contents[index + 1]
        if a.dtype.kind == "b":
            a = a.astype(np.int64)
        if b.dtype.kind == "b":
            b = b.astype(np.int64)
        result = result & COMPARISONS[operator](a, b)
    for content in contents:
        if content.dtype.kind == "f":
            result = result & np.isfinite(content)
    return Numbers(np.asarray(result), offsets)


def _logical(operator: str, operands: list[Numbers]) -> Numbers:
    contents, offsets = align(operands)
    operation = np.logical_and if operator == "and" else np.logical_or
    result = truth(contents[0])
    for content in contents[1:]:
        result = operation(result, truth(content))
    return Numbers(np.asarray(result), offsets)
