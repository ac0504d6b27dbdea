"""Declared settings: each has a name, a rule, a default and a line of explanation, and a wrong one is said with all of them.

A group of settings is a frozen dataclass whose fields are made by :func:`setting`; :func:`read_settings` makes one
from what a JSON file or a command line gives. The rules are small objects, so that a new kind of setting is one
function.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from mlaas4hep.errors import SettingError, SourceError, UnknownSettingError

__all__ = [
    "Rule",
    "any_value",
    "choice",
    "flag",
    "integer",
    "names",
    "number",
    "positive",
    "read_json_settings",
    "read_settings",
    "setting",
    "text",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Rule(Generic[T]):
    """What a value must be.

    Parameters
    ----------
    says : str
        The rule in words, as they follow "must be".
    take : callable
        Returns the value as the program uses it, or raises ``ValueError``.
    """

    says: str
    take: Callable[[object], T]


def integer(minimum: int | None = None, *, also: Sequence[int] = ()) -> Rule[int]:
    """Return the rule for a whole number, at least ``minimum`` or one of ``also``.

    Examples
    --------
    >>> integer(1, also=[-1]).says
    'an integer ≥ 1, or -1'
    """
    says = "an integer" + (f" ≥ {minimum}" if minimum is not None else "")
    says += "".join(f", or {value}" for value in also)

    def take(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        whole = int(value)
        if isinstance(value, float) and whole != value:
            raise ValueError
        if minimum is not None and whole < minimum and whole not in also:
            raise ValueError
        return whole

    return Rule(says, take)


def number(minimum: float = -math.inf, below: float = math.inf) -> Rule[float]:
    """Return the rule for a finite number in ``[minimum, below)``.

    Examples
    --------
    >>> number(0, 1).take("0.25")
    0.25
    """
    bounds = f" in [{minimum:g}, {below:g})" if math.isfinite(below) else ""
    if not bounds and math.isfinite(minimum):
        bounds = f" ≥ {minimum:g}"

    def take(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        real = float(value)
        if not (math.isfinite(real) and minimum <= real < below):
            raise ValueError
        return real

    return Rule(f"a number{bounds}", take)


def positive() -> Rule[float]:
    """Return the rule for a finite number above 0.

    Examples
    --------
    >>> positive().take("1e-3")
    0.001
    """

    def take(value: object) -> float:
        real = number(0).take(value)
        if real == 0:
            raise ValueError
        return real

    return Rule("a number > 0", take)


def flag() -> Rule[bool]:
    """Return the rule for true or false, which may be written as 0 or 1 or as a word.

    Examples
    --------
    >>> flag().take("False"), flag().take(1)
    (False, True)
    """
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

    def take(value: object) -> bool:
        known = words.get(str(value).lower())
        if known is None:
            raise ValueError
        return known

    return Rule("true or false", take)


def text() -> Rule[str]:
    """Return the rule for any text."""

    def take(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError
        return value

    return Rule("a text", take)


def choice(*allowed: str) -> Rule[str]:
    """Return the rule for one of some words.

    Examples
    --------
    >>> choice("keep", "drop").says
    "'keep' or 'drop'"
    """

    def take(value: object) -> str:
        if value not in allowed:
            raise ValueError
        return str(value)

    return Rule(" or ".join(repr(word) for word in allowed), take)


def names() -> Rule[tuple[str, ...]]:
    """Return the rule for names: a list, a comma-separated text, or a text file with one name a line and ``#`` for comments.

    Examples
    --------
    >>> names().take("run, event"), names().take(["run"])
    (('run', 'event'), ('run',))
    """

    def take(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            listed = _lines(Path(value)) if _is_file(value) else value.split(",")
            return tuple(name.strip() for name in listed if name.strip())
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
            raise ValueError
        return tuple(name.strip() for name in value if name.strip())

    return Rule("a list of names, a comma-separated text, or a file with one name a line", take)


def any_value() -> Rule[object]:
    """Return the rule that allows everything; for what is read and has no effect."""
    return Rule("anything", lambda value: value)


def setting(rule: Rule[Any], default: T, says: str, *, example: object = None, path: bool = False) -> T:
    """Declare a setting as a field of a frozen dataclass.

    Parameters
    ----------
    rule : Rule
        What a value must be.
    default : object
        Its value where nothing is set.
    says : str
        One line of explanation.
    example : object
        What could stand there, for a setting that has no default worth showing.
    path : bool
        Whether it names a file or folder of this machine, of which others need not know where it lay.
    """
    declared: T = field(default=default, metadata={"rule": rule, "says": says, "example": example, "path": path})
    return declared


def read_settings(
    kind: type[T],
    values: Mapping[str, object],
    where: Callable[[str], str] = lambda name: "",
    group: str = "",
) -> T:
    """Make a group of settings from plain values.

    Parameters
    ----------
    kind : type
        A frozen dataclass of settings.
    values : mapping
        Value by name; None, and the empty text, mean "not set".
    where : callable, optional
        Returns where a setting was written, by its full name, for the message.
    group : str
        Name of the group, which stands before the names of its settings in messages.

    Raises
    ------
    SettingError
        If a value breaks its rule.
    UnknownSettingError
        If there is no setting of that name; names the nearest.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Fit:
    ...     epochs: int = setting(integer(1), 10, "passes over the training events")
    >>> read_settings(Fit, {"epochs": "3"})
    Fit(epochs=3)
    >>> read_settings(Fit, {"epochs": "ten"})
    Traceback (most recent call last):
    mlaas4hep.errors.SettingError: setting 'epochs' must be an integer ≥ 1; got 'ten'
    """
    rules = {item.name: item.metadata["rule"] for item in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    read: dict[str, Any] = {}
    for name, value in values.items():
        full = f"{group}.{name}" if group else name
        if name not in rules:
            raise UnknownSettingError(full, [f"{group}.{rule}" if group else rule for rule in rules], where(full))
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        try:
            read[name] = rules[name].take(value)
        except (ValueError, OverflowError) as error:
            raise SettingError(full, rules[name].says, value, where(full)) from error
    return kind(**read)


def read_json_settings(kind: type[T], path: Path) -> T:
    """Make a group of settings from a JSON file.

    Raises
    ------
    SourceError
        If the file is missing or holds no JSON object.
    SettingError, UnknownSettingError
        As from :func:`read_settings`, with file and line.
    """
    try:
        content = path.read_text(encoding="utf-8")
        values = json.loads(content)
    except OSError as error:
        raise SourceError(str(path), f"cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise SourceError(str(path), f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(str(path), "is not JSON in UTF-8") from error
    if not isinstance(values, dict):
        raise SourceError(str(path), 'must hold a JSON object, as in {"epochs": 10}')

    def where(name: str) -> str:
        found = re.search(re.escape(json.dumps(name)) + r"\s*:", content)
        return f"{path}, line {content.count(chr(10), 0, found.start()) + 1}" if found else str(path)

    return read_settings(kind, values, where)


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except (OSError, ValueError):  # longer than a file name may be, or with a NUL
        return False


def _lines(path: Path) -> list[str]:
    try:
        return [line.partition("#")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(str(path), f"cannot be read as a list of names: {error}") from error
