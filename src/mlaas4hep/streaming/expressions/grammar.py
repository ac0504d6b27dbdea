"""From the text of an expression to a tree of a few node types, and nothing else.

Python's own parser reads the text, so precedence is what everybody knows; what it gives is then copied, node by node, into types of ours. What has
no type here (attributes, strings, lambdas, comprehensions, keywords, …) is refused at its place. Nothing is ever compiled or executed.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mlaas4hep.errors import ExpressionError
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
    walk,
)

__all__ = ["MAX_DEPTH", "MAX_LENGTH", "Expression", "parse"]

MAX_LENGTH: Final = 4000
"""Characters of an expression at most."""

MAX_DEPTH: Final = 100
"""How deep an expression may be nested: a sum of so many terms, for example."""

LARGEST: Final = 2**63 - 1


ARITHMETIC: Final[dict[type[ast.operator], str]] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}
COMPARISONS: Final[dict[type[ast.cmpop], str]] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
SIGNS: Final[dict[type[ast.unaryop], str]] = {ast.USub: "-", ast.UAdd: "+", ast.Not: "not"}

REFUSED: Final[dict[type[ast.AST], tuple[str, str]]] = {
    ast.Attribute: ("attributes are not part of the language", "a branch is written with an underscore, as in Jet_pt"),
    ast.JoinedStr: ("text is not part of the language", ""),
    ast.Lambda: ("'lambda' is not part of the language", ""),
    ast.NamedExpr: ("':=' is not part of the language", "name a new column instead"),
    ast.IfExp: ("'if … else' is not part of the language", "write where(condition, a, b)"),
    ast.ListComp: ("comprehensions are not part of the language", "operations act on all objects of an event"),
    ast.SetComp: ("comprehensions are not part of the language", "operations act on all objects of an event"),
    ast.DictComp: ("comprehensions are not part of the language", "operations act on all objects of an event"),
    ast.GeneratorExp: ("comprehensions are not part of the language", "operations act on all objects of an event"),
    ast.List: ("lists are not part of the language", ""),
    ast.Tuple: ("a comma may only stand between arguments of a function", ""),
    ast.Dict: ("dictionaries are not part of the language", ""),
    ast.Set: ("sets are not part of the language", ""),
    ast.Starred: ("'*' before an argument is not part of the language", ""),
    ast.Slice: ("slices are not part of the language", "an index is a whole number or a condition"),
    ast.Await: ("'await' is not part of the language", ""),
    ast.Yield: ("'yield' is not part of the language", ""),
    ast.YieldFrom: ("'yield' is not part of the language", ""),
}
BITWISE: Final[dict[type[ast.AST], tuple[str, str]]] = {
    ast.BitAnd: ("'&' is not part of the language", "write 'and'"),
    ast.BitOr: ("'|' is not part of the language", "write 'or'"),
    ast.BitXor: ("'^' is not part of the language", "a power is written a**b"),
    ast.Invert: ("'~' is not part of the language", "write 'not'"),
    ast.LShift: ("'<<' is not part of the language", ""),
    ast.RShift: ("'>>' is not part of the language", ""),
    ast.MatMult: ("'@' is not part of the language", ""),
    ast.In: ("'in' is not part of the language", ""),
    ast.NotIn: ("'not in' is not part of the language", ""),
    ast.Is: ("'is' is not part of the language", "write '=='"),
    ast.IsNot: ("'is not' is not part of the language", "write '!='"),
}


@dataclass(frozen=True)
class Expression:
    """An expression that was read; made by :func:`parse`.

    Parameters
    ----------
    what : str
        What it is for, as the messages name it: ``selection``, ``new column 'HT'``.
    text : str
        As it was written.
    root : Node
    """

    what: str
    text: str
    root: Node

    def error(self, problem: str, at: int, hint: str = "") -> ExpressionError:
        """Return the error that says what is wrong at a character of the text."""
        return ExpressionError(self.what, self.text, problem, at, hint)

    @property
    def names(self) -> tuple[str, ...]:
        """Branches, columns and collections that it names, each once, in order."""
        return tuple(dict.fromkeys(node.name for node in walk(self.root) if isinstance(node, Name)))


def parse(text: str, what: str = "expression") -> Expression:
    """Read an expression.

    Parameters
    ----------
    text : str
        The expression; line breaks count as spaces.
    what : str
        What it is for, for the messages.

    Raises
    ------
    ExpressionError
        If it cannot be read, uses what the language does not have, or is too long or too deeply nested.

    Examples
    --------
    >>> parse("nJet >= 2 and MET_pt > 30").names
    ('nJet', 'MET_pt')
    >>> parse("Jet.pt > 30", "selection")
    Traceback (most recent call last):
    mlaas4hep.errors.ExpressionError: selection 'Jet.pt > 30': attributes are not part of the language at character 0;
        a branch is written with an underscore, as in Jet_pt
    """
    if not isinstance(text, str):
        raise ExpressionError(what, repr(text)[:80], f"must be text, not {type(text).__name__}", 0)
    if len(text) > MAX_LENGTH:
        raise ExpressionError(what, text, f"is longer than {MAX_LENGTH} characters", MAX_LENGTH)
    # A text of several lines, as YAML gives it, is one expression.
    line = "".join(" " if character.isspace() else character for character in text)
    return _Reader(what, line).read()


class _Reader:
    """Copies Python's tree of one text into ours."""

    def __init__(self, what: str, line: str) -> None:
        self._what = what
        self._line = line
        self._start = len(line) - len(line.lstrip())
        self._bytes = line[self._start :].encode("utf-8", "surrogatepass")

    def read(self) -> Expression:
        line, start = self._line, self._start
        if not line.strip():
            raise self._error("is empty", 0)
        for sign, hint in (("#", "comments are not part of it"), ("&&", "write 'and'"), ("||", "write 'or'")):
            if sign in line:
                raise self._error(f"'{sign}' is not part of the language", line.index(sign), hint)
        try:
            with warnings.catch_warnings():
                # Python's parser warns of some spellings that are refused below, or mean nothing bad here.
                warnings.simplefilter("ignore")
                tree = ast.parse(line[start:], mode="eval")
        except SyntaxError as error:
            raise self._syntax_error(error) from None
        except (ValueError, RecursionError, MemoryError):
            raise self._error("cannot be read: it is nested too deeply or holds signs that no text has", 0) from None
        return Expression(self._what, line, self._node(tree.body, 0))

    def _syntax_error(self, error: SyntaxError) -> ExpressionError:
        end = len(self._line.rstrip())
        # Python puts what is missing at the end on a line of its own, or nowhere.
        at = end if not error.offset or (error.lineno or 1) > 1 else min(self._start + error.offset - 1, end)
        if at == end:
            return self._error("cannot be read: it ends too early", at)
        hint = "write '==' to compare" if self._line[at] == "=" else ""
        return self._error(f"cannot be read: {error.msg.partition('. ')[0]}", at, hint)

    def _error(self, problem: str, at: int, hint: str = "") -> ExpressionError:
        return ExpressionError(self._what, self._line, problem, at, hint)

    def _at(self, node: ast.AST) -> int:
        """Return the character at which a node begins: Python counts bytes."""
        offset: int = getattr(node, "col_offset", 0)
        return self._start + len(self._bytes[:offset].decode("utf-8", "replace"))

    def _node(self, node: ast.expr, depth: int) -> Node:
        at = self._at(node)
        if depth > MAX_DEPTH:
            raise self._error(f"is nested deeper than {MAX_DEPTH} levels", at)
        copy = self._COPIES.get(type(node))
        if copy is None:
            problem, hint = REFUSED.get(type(node), (f"'{type(node).__name__}' is not part of the language", ""))
            raise self._error(problem, at, hint)
        return copy(self, node, at, depth + 1)

    def _constant(self, node: ast.Constant, at: int, depth: int) -> Node:
        value = node.value
        if isinstance(value, (str, bytes)):
            raise self._error("text is not part of the language", at)
        if not isinstance(value, (int, float)):
            raise self._error(f"'{value}' is not part of the language".replace("Ellipsis", "..."), at)
        if isinstance(value, int) and value > LARGEST:
            raise self._error("a whole number must be below 2**63", at)
        if not math.isfinite(value):
            raise self._error("the number is too large for double precision", at)
        return Number(value, at)

    def _name(self, node: ast.Name, at: int, depth: int) -> Node:
        self._check_name(node.id, at)
        return Name(node.id, at)

    def _check_name(self, name: str, at: int) -> None:
        if name.startswith("__"):
            raise self._error(f"names with two leading underscores, as '{name}', are not allowed", at)

    def _unary(self, node: ast.UnaryOp, at: int, depth: int) -> Node:
        if type(node.op) not in SIGNS:
            raise self._error(BITWISE[type(node.op)][0], at, BITWISE[type(node.op)][1])
        return Unary(SIGNS[type(node.op)], self._node(node.operand, depth), at)

    def _binary(self, node: ast.BinOp, at: int, depth: int) -> Node:
        if type(node.op) not in ARITHMETIC:
            raise self._error(BITWISE[type(node.op)][0], self._after(node.left), BITWISE[type(node.op)][1])
        left, right = self._node(node.left, depth), self._node(node.right, depth)
        return Binary(ARITHMETIC[type(node.op)], left, right, at)

    def _after(self, node: ast.expr) -> int:
        """Return the character of the operator that follows a node."""
        end = self._start + len(self._bytes[: node.end_col_offset].decode("utf-8", "replace"))
        while end < len(self._line) and self._line[end] in " )":
            end += 1
        return end

    def _compare(self, node: ast.Compare, at: int, depth: int) -> Node:
        operands = [node.left, *node.comparators]
        for before, operator in zip(operands, node.ops, strict=False):
            if type(operator) not in COMPARISONS:
                raise self._error(BITWISE[type(operator)][0], self._after(before), BITWISE[type(operator)][1])
        copied = tuple(self._node(operand, depth) for operand in operands)
        return Compare(tuple(COMPARISONS[type(operator)] for operator in node.ops), copied, at)

    def _logical(self, node: ast.BoolOp, at: int, depth: int) -> Node:
        operands = tuple(self._node(value, depth) for value in node.values)
        return Logical("and" if isinstance(node.op, ast.And) else "or", operands, at)

    def _subscript(self, node: ast.Subscript, at: int, depth: int) -> Node:
        operand = self._node(node.value, depth)
        place = self._at(node.slice)
        inside = self._node(node.slice, depth)
        sign = 1
        number = inside
        if isinstance(inside, Unary) and inside.operator == "-":
            sign, number = -1, inside.operand
        if not isinstance(number, Number):
            return Filter(operand, inside, at)
        if type(number.value) is not int or number.value >= 2**31:
            raise self._error("an index must be a whole number below 2**31", place)
        return Index(operand, sign * number.value, at)

    def _call(self, node: ast.Call, at: int, depth: int) -> Node:
        if not isinstance(node.func, ast.Name):
            if isinstance(node.func, ast.Attribute):
                raise self._error(REFUSED[ast.Attribute][0], at, "functions are written sum(Jet_pt)")
            raise self._error("only a function of the table can be called", at)
        self._check_name(node.func.id, at)
        if node.keywords:
            raise self._error("arguments have no names in the language", self._at(node.keywords[0]))
        return Call(node.func.id, tuple(self._node(argument, depth) for argument in node.args), at)

    # Copies of each kind of node; whatever is not here is refused.
    _COPIES: Final[dict[type[ast.AST], Callable[..., Node]]] = {
        ast.Constant: _constant,
        ast.Name: _name,
        ast.UnaryOp: _unary,
        ast.BinOp: _binary,
        ast.Compare: _compare,
        ast.BoolOp: _logical,
        ast.Subscript: _subscript,
        ast.Call: _call,
    }
