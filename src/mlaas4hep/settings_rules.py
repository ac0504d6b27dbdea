"""Rules for settings of several parts: lists, values by name, and alternatives.

Those for single values are in :mod:`mlaas4hep.settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from mlaas4hep.settings import Rule

__all__ = ["by_name", "either", "listed", "plain"]

T = TypeVar("T")


def listed(rule: Rule[T], least: int = 0) -> Rule[tuple[T, ...]]:
    """Return the rule for a list of which each member keeps a rule.

    Examples
    --------
    >>> from mlaas4hep.settings import integer
    >>> listed(integer(1), least=1).says
    'a list of at least 1, each an integer ≥ 1'
    >>> listed(integer(1)).take([128, 64])
    (128, 64)
    """

    def take(value: object) -> tuple[T, ...]:
        if not isinstance(value, (list, tuple)) or len(value) < least:
            raise ValueError
        return tuple(rule.take(member) for member in value)

    return Rule(f"a list{f' of at least {least}' if least else ''}, each {rule.says}", take)


def by_name(rule: Rule[T]) -> Rule[dict[str, T]]:
    """Return the rule for values by name, each of which keeps a rule.

    Examples
    --------
    >>> from mlaas4hep.settings import integer
    >>> by_name(integer(1)).says, by_name(integer(1)).take({"Jet": 4})
    ('for each name an integer ≥ 1', {'Jet': 4})
    """

    def take(value: object) -> dict[str, T]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise ValueError
        return {name: rule.take(member) for name, member in value.items()}

    return Rule(f"for each name {rule.says}", take)


def either(*rules: Rule[Any]) -> Rule[Any]:
    """Return the rule for a value that keeps one of several; the first that it keeps counts.

    Examples
    --------
    >>> from mlaas4hep.settings import integer
    >>> either(integer(1), by_name(integer(1))).says
    'an integer ≥ 1, or for each name an integer ≥ 1'
    """

    def take(value: object) -> Any:
        for rule in rules:
            try:
                return rule.take(value)
            except (ValueError, OverflowError):
                continue
        raise ValueError

    return Rule(", or ".join(rule.says for rule in rules), take)


def plain() -> Rule[Any]:
    """Return the rule for a value that is neither a list nor by name."""

    def take(value: object) -> Any:
        if not isinstance(value, (bool, int, float, str)):
            raise ValueError
        return value

    return Rule("a text or a number", take)
