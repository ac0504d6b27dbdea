"""Read a file of settings, YAML, JSON or TOML, and remember the line of each.

Only plain values are read: nothing in such a file makes an object, names a class, or refers to another part of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlaas4hep.errors import SettingError, SourceError

__all__ = ["WrittenSettings", "read_setting_texts", "read_settings_file"]

MOST_BYTES = 4 * 2**20
YAML_TAG = "tag:yaml.org,2002:"
PLAIN_TAGS = ("null", "bool", "int", "float", "str")


@dataclass(frozen=True)
class WrittenSettings:
    """Settings as a person wrote them.

    Parameters
    ----------
    values : dict
        Groups and settings by name.
    places : dict of str to str
        Full name, as ``training.epochs`` → where it was written, as ``config.yaml, line 12``.
    """

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def where(self, name: str) -> str:
        """Return where a setting was written, or the group that it is in; empty where neither was.

        Examples
        --------
        >>> WrittenSettings({}, {"training": "config.yaml, line 3"}).where("training.epochs")
        'config.yaml, line 3'
        """
        while name and name not in self.places:
            name = name.rpartition(".")[0]
        return self.places[name] if name else ""

    def updated(self, other: WrittenSettings) -> WrittenSettings:
        """Return these settings with those of another place in their stead where both have one."""
        gone = [
            name for name in self.places if any(name == new or name.startswith(f"{new}.") for new in _leaves(other))
        ]
        places = {name: place for name, place in self.places.items() if name not in gone}
        return WrittenSettings(_merged(self.values, other.values), places | other.places)


def read_settings_file(path: str | Path) -> WrittenSettings:
    """Read a file of settings: TOML if its name ends in ``.toml``, else YAML, of which JSON is a part.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    SourceError
        If it cannot be read, is not of that format, or holds anything but plain values by name; names the line.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if len(content) > MOST_BYTES:
            raise SourceError(str(path), f"has {len(content)} bytes; settings have {MOST_BYTES} at most")
        text = content.decode()
    except OSError as error:
        raise SourceError(str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SourceError(str(path), "is not text in UTF-8") from error
    return _toml(path, text) if path.suffix == ".toml" else _yaml(path, text)


def read_setting_texts(texts: Sequence[str]) -> WrittenSettings:
    """Read settings of a command line, each as ``training.epochs=3``; the value is YAML.

    Parameters
    ----------
    texts : sequence of str
        A later one wins over an earlier one.

    Raises
    ------
    SettingError
        If one is not of that form.

    Examples
    --------
    >>> read_setting_texts(["training.epochs=3", "model.hidden=[64, 32]"]).values
    {'training': {'epochs': 3}, 'model': {'hidden': [64, 32]}}
    """
    read = WrittenSettings()
    for text in texts:
        name, equals, written = text.partition("=")
        parts = name.strip().split(".")
        if not equals or not all(parts):
            raise SettingError("--set", "NAME=VALUE, as in training.epochs=3", text)
        try:
            value = _yaml(Path("the command line"), f"value: {written}").values["value"]
        except SourceError as error:
            raise SettingError(".".join(parts), "a value in YAML", written, "on the command line") from error
        for part in reversed(parts):
            value = {part: value}
        read = read.updated(WrittenSettings(value, {".".join(parts): "on the command line"}))
    return read


def _yaml(path: Path, text: str) -> WrittenSettings:
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SourceError(str(path), f"{place}{error.problem or 'is not YAML'}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SourceError(
            str(path), f"is not YAML: {str(error).splitlines()[0] if str(error) else 'unreadable'}"
        ) from error
    if root is None:
        return WrittenSettings()
    plain = _PlainValues(path, yaml.SafeLoader(""))
    try:
        values = plain.of(root, "")
    except RecursionError as error:
        raise SourceError(str(path), "is nested too deeply") from error
    if not isinstance(values, dict):
        raise SourceError(str(path), "must hold settings by name, as in 'training: {epochs: 10}'")
    return WrittenSettings(values, plain.places)


class _PlainValues:
    """Makes plain values of YAML's nodes."""

    def __init__(self, path: Path, constructor: Any) -> None:
        self.path, self.constructor = path, constructor
        self.places: dict[str, str] = {}
        self.seen: set[int] = set()

    def of(self, node: Any, name: str) -> Any:
        line = node.start_mark.line + 1
        # A part that is referred to again and again could be made to fill the memory.
        if id(node) in self.seen:
            raise SourceError(
                str(self.path), f"line {line}: anchors and aliases (& and *) are not read; write it again"
            )
        self.seen.add(id(node))
        self.places.setdefault(name, f"{self.path}, line {line}")
        tag = node.tag.removeprefix(YAML_TAG)
        if node.id == "sequence" and tag == "seq":
            return [self.of(item, f"{name}.{number}") for number, item in enumerate(node.value)]
        if node.id == "mapping" and tag == "map":
            return self._mapping(node, name)
        if tag not in PLAIN_TAGS and not (tag == "timestamp" and node.style is None):
            raise SourceError(str(self.path), f"line {line}: '{node.tag}' is not a plain value")
        try:
            return node.value if tag in ("str", "timestamp") else self.constructor.construct_object(node)
        except (ValueError, KeyError) as error:
            raise SourceError(str(self.path), f"line {line}: {node.value!r} is not a value") from error

    def _mapping(self, node: Any, name: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.id != "scalar" or key.tag == f"{YAML_TAG}merge":
                raise SourceError(str(self.path), f"line {line}: the name of a setting must be a text")
            if key.value in values:
                raise SourceError(str(self.path), f"line {line}: '{key.value}' is set twice")
            full = f"{name}.{key.value}".removeprefix(".")
            self.places[full] = f"{self.path}, line {line}"
            values[key.value] = self.of(value, full)
        return values


def _toml(path: Path, text: str) -> WrittenSettings:
    import tomllib

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SourceError(str(path), f"is not TOML: {error}") from error
    except RecursionError as error:
        raise SourceError(str(path), "is nested too deeply") from error
    places: dict[str, str] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*\[([\w.-]+)\]", line):
            table = found[1]
            places[table] = f"{path}, line {number}"
        elif found := re.match(r"\s*([\w.-]+)\s*=", line):
            places.setdefault(f"{table}.{found[1]}".removeprefix("."), f"{path}, line {number}")
    return WrittenSettings(values, places)


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the two with the groups that both have joined, one level deep and deeper."""
    joined = dict(one)
    for name, value in other.items():
        mine = joined.get(name)
        joined[name] = _merged(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return joined


def _leaves(settings: WrittenSettings) -> list[str]:
    names = [name for name in settings.places if name]
    return [name for name in names if not any(longer.startswith(f"{name}.") for longer in names)]
