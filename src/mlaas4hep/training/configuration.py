"""Read a configuration: from a file and a command line to settings that are all checked, and back to a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mlaas4hep.errors import SettingError, UnknownSettingError, quoted
from mlaas4hep.settings import read_settings
from mlaas4hep.settings_file import WrittenSettings, read_setting_texts, read_settings_file
from mlaas4hep.training.config import GROUPS
from mlaas4hep.training.models import BUILT_IN

__all__ = ["Configuration", "model_choice", "read_configuration"]

MODEL = "model"
DEFAULT_MODEL, DEFAULT_AUTOENCODER = "mlp", "autoencoder"


@dataclass(frozen=True)
class Configuration:
    """All settings of a training.

    Parameters
    ----------
    groups : mapping of str to object
        Each of :data:`~mlaas4hep.training.config.GROUPS` → its settings.
    model : str
        Name of a built-in model, or path of a Python file.
    model_settings : mapping of str to object
        Of a built-in model all; of a file those that are set.
    written : WrittenSettings
        As they were written, for messages.
    """

    groups: Mapping[str, Any]
    model: str
    model_settings: Mapping[str, Any]
    written: WrittenSettings

    def __getattr__(self, name: str) -> Any:
        if name in GROUPS:
            return self.groups[name]
        raise AttributeError(name)

    @property
    def built_in(self) -> bool:
        """Whether the model is one of ours."""
        return self.model in BUILT_IN

    def to_dict(self, *, public: bool = False) -> dict[str, Any]:
        """Return all settings that have a value, as plain values; :func:`read_configuration` takes them back from a file.

        Parameters
        ----------
        public : bool
            Whether paths are told without the folders that they lie in.
        """
        found: dict[str, Any] = {}
        for name, group in self.groups.items():
            found[name] = {
                item.name: _shortened(value) if public and item.metadata["path"] else _listed(value)
                for item in fields(group)
                if (value := getattr(group, item.name)) not in (None, "", ())
            }
        key = "name" if self.built_in else "file"
        named = Path(self.model).name if public else self.model
        found[MODEL] = {key: named, **{n: _listed(v) for n, v in self.model_settings.items() if v not in (None, "")}}
        order = ["data", "vector", "weights", "split", MODEL, "training", "output", "retry"]
        return {name: found[name] for name in order if found[name]}

    def to_yaml(self) -> str:
        """Return all settings that have a value as YAML."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, default_flow_style=None)  # type: ignore[no-any-return]

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Give the errors of settings that come from deeper down their full name and where they were written."""
        try:
            yield
        except UnknownSettingError:
            raise
        except SettingError as error:
            full = self._full_name(error.setting)
            if error.where or not full:
                raise
            raise SettingError(full, error.rule, error.got, self.written.where(full)) from error

    def _full_name(self, name: str) -> str:
        """Return a setting's name with its group, from the name that it has as an argument."""
        first = name.partition(".")[0]
        if first in GROUPS or first == MODEL:
            return name
        return next((f"{group}.{name}" for group, kind in GROUPS.items() if first in _names(kind)), "")


def read_configuration(file: str | Path | None = None, overrides: Sequence[str] = ()) -> Configuration:
    """Read and check a configuration.

    Parameters
    ----------
    file : str or Path, optional
        YAML, JSON or TOML; only defaults and overrides when not given.
    overrides : sequence of str
        Each as ``training.epochs=3``; they win over the file.

    Raises
    ------
    SourceError
        If the file cannot be read.
    SettingError, UnknownSettingError
        If a setting is wrong; names setting, rule, value, file and line.

    Examples
    --------
    >>> found = read_configuration(overrides=["data.files=[a.root]", "model=mlp", "model.hidden=[32]"])
    >>> found.data.files, found.model, found.model_settings["hidden"], found.training.epochs
    (('a.root',), 'mlp', (32,), 20)
    """
    written = WrittenSettings() if file is None else read_settings_file(file)
    if isinstance(written.values.get(MODEL), str):  # model: mlp
        written.values[MODEL] = _named(written.values[MODEL])
    for text in overrides:
        override = read_setting_texts([text])
        if isinstance(override.values.get(MODEL), str):
            override.values[MODEL] = _named(override.values[MODEL])
            written.values.pop(MODEL, None)  # the settings of another model
        written = written.updated(override)
    known = [*GROUPS, MODEL]
    for name, value in written.values.items():
        if name not in known:
            raise UnknownSettingError(name, [*known, *_every_name()], written.where(name))
        if value is not None and not isinstance(value, Mapping):
            raise SettingError(name, "a group of settings by name", value, written.where(name))
    groups: dict[str, Any] = {
        name: read_settings(kind, written.values.get(name) or {}, written.where, name) for name, kind in GROUPS.items()
    }
    unsupervised = groups["data"].labels is None and groups["data"].target is None
    model, settings = model_choice(written, DEFAULT_AUTOENCODER if unsupervised else DEFAULT_MODEL)
    return Configuration(groups, model, settings, written)


def model_choice(written: WrittenSettings, default: str) -> tuple[str, dict[str, Any]]:
    """Return the model that the group ``model`` names, and its settings.

    Raises
    ------
    SettingError, UnknownSettingError
        If there is no such model, or a setting of a built-in one is wrong.
    """
    values = dict(written.values.get(MODEL) or {})
    name, file = values.pop("name", None), values.pop("file", None)
    if name is not None and file is not None:
        raise SettingError("model.file", "left out where there is a model.name", file, written.where("model.file"))
    if file is not None:
        if not isinstance(file, str) or not file:
            raise SettingError("model.file", "a Python file with def model(idim)", file, written.where("model.file"))
        return file, values
    name = default if name is None else name
    if name not in BUILT_IN:
        rule = f"one of {quoted(BUILT_IN, 20)}; a Python file is model.file"
        raise SettingError("model.name", rule, name, written.where("model.name"))
    return name, dict(vars(read_settings(BUILT_IN[name].settings, values, written.where, MODEL)))


def _named(text: str) -> dict[str, Any]:
    """Return the group that a model's name or file alone means."""
    return {"file" if text.endswith(".py") else "name": text}


def _names(kind: type) -> list[str]:
    return [item.name for item in fields(kind)]


def _every_name() -> list[str]:
    return [f"{group}.{name}" for group, kind in GROUPS.items() for name in _names(kind)]


def _listed(value: Any) -> Any:
    """Return a value as YAML and JSON have it."""
    if isinstance(value, Mapping):
        return {name: _listed(part) for name, part in value.items()}
    return [_listed(part) for part in value] if isinstance(value, (list, tuple)) else value


def _shortened(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_shortened(part) for part in value]
    return value.rstrip("/").rsplit("/", 1)[-1] if isinstance(value, str) else value
