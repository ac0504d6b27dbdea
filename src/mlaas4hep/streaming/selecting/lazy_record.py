"""The dict that a user's ``preprocessing(rec)`` gets: a column is read when the function first asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["LazyRecord"]

_NOTHING = object()


class LazyRecord(dict[str, Any]):
    """A dict whose values are made when they are first looked at; in everything else a dict.

    Parameters
    ----------
    names : iterable of str
        Its keys.
    load : callable
        Makes the value of a key.

    Attributes
    ----------
    unread : dict
        Keys whose values nobody has looked at, changed or removed.

    Examples
    --------
    >>> record = LazyRecord(["MET_pt", "nJet", "run"], len)
    >>> record["MET"] = record.pop("MET_pt") / 1000
    >>> list(record.unread), record
    (['nJet', 'run'], {'MET': 0.006, 'nJet': 4, 'run': 3})
    """

    def __init__(self, names: Iterable[str], load: Callable[[str], Any]) -> None:
        super().__init__()
        self.unread = dict.fromkeys(names)
        self._load = load

    def __missing__(self, key: str) -> Any:
        if key not in self.unread:
            raise KeyError(key)
        value = self._load(key)
        self[key] = value
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self.unread.pop(key, None)
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        if key in self.unread:
            del self.unread[key]
        else:
            super().__delitem__(key)

    def __contains__(self, key: object) -> bool:
        return key in self.unread or super().__contains__(key)

    def __len__(self) -> int:
        return len(self.unread) + super().__len__()

    def __iter__(self) -> Any:
        return iter([*self.unread, *super().__iter__()])

    def __reversed__(self) -> Any:
        return reversed(list(self))

    def __eq__(self, other: object) -> bool:
        return self.all_read() == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        return repr(self.all_read())

    def __or__(self, other: Any) -> Any:
        return self.all_read() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.all_read()

    def __ior__(self, other: Any) -> LazyRecord:  # type: ignore[override]
        self.update(other)
        return self

    def all_read(self) -> dict[str, Any]:
        """Return an ordinary dict of all keys and values."""
        for key in list(self.unread):
            self[key]
        return dict(super().items())

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default where there is no such key."""
        return self[key] if key in self else default  # noqa: SIM401 - this is what get is

    def pop(self, key: str, default: Any = _NOTHING) -> Any:
        """Take a key out and return its value."""
        if key in self:
            value = self[key]
            del self[key]
            return value
        if default is _NOTHING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[str, Any]:
        """Take the last key out and return it with its value."""
        self.all_read()
        return super().popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return a value, after setting it to the default where there is no such key."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Any, **named: Any) -> None:
        """Take up the keys and values of others."""
        for key, value in dict(*others, **named).items():
            self[key] = value

    def clear(self) -> None:
        """Take all keys out."""
        self.unread.clear()
        super().clear()

    def copy(self) -> dict[str, Any]:
        """Return an ordinary dict of all keys and values."""
        return self.all_read()

    def keys(self) -> Any:
        """Return the keys."""
        return dict.fromkeys(self).keys()

    def values(self) -> Any:
        """Return the values, all of which are read for that."""
        return self.all_read().values()

    def items(self) -> Any:
        """Return keys and values, all of which are read for that."""
        return self.all_read().items()
