"""Settings of the server, from arguments or from a config.json of TFaaS.

A setting that is known but not there yet is refused when it is used: a server that ignores ``serverKey`` would be one without encryption that its
owner believes to have it.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mlaas4hep.errors import SettingError, nearest_names, quoted

__all__ = ["ServerSettings"]

logger = logging.getLogger(__name__)

CONFIG_KEYS = {
    "port": "port",
    "modelDir": "models",
    "base": "base",
    "cacheLimit": "cache_limit",
    "verbose": "verbose",
    "logFile": "log_file",
}
NOT_YET = {
    "configProto": "TensorFlow is not used",
    "serverKey": "HTTPS is not served yet",
    "serverCrt": "HTTPS is not served yet",
    "rate": "requests are not limited by rate yet",
    "monitRecord": "records are not printed yet",
}


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server runs.

    Parameters
    ----------
    models : path
        Folder of the models.
    host : str
        Address to listen on; loopback only.
    port : int
        Port to listen on; 0 takes a free one.
    base : str
        Prefix of all paths, such as ``/tfaas``.
    cache_limit : int
        Number of models kept loaded.
    verbose : int
        0: warnings only; 1: a line for each request; 2: more, for finding faults.
    log_file : path, optional
        Where the log goes; to standard error without it.
    json_bytes, upload_bytes : int
        Largest body of a prediction and of an upload.
    batch_rows, queue_rows : int
        Rows in one batch, and rows that may wait.
    header_seconds, body_seconds : float
        Time for a client to send headers and body; see ``ConnectionLimits``.
    poll_seconds : float
        How often the folder is looked at for what others changed.
    drain_seconds : float
        How long a server that is told to stop still accepts requests.

    Raises
    ------
    SettingError
        If a value is not allowed.
    """

    models: Path
    host: str = "127.0.0.1"
    port: int = 8083
    base: str = ""
    cache_limit: int = 10
    verbose: int = 0
    log_file: Path | None = None
    json_bytes: int = 16 << 20
    upload_bytes: int = 1 << 30
    batch_rows: int = 1024
    queue_rows: int = 65_536
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    poll_seconds: float = 1.0
    drain_seconds: float = 0.5

    def __post_init__(self) -> None:
        _check_host(self.host)
        _check_number("port", self.port, 0, 65_535)
        _check_number("verbose", self.verbose, 0, 2)
        for name in ("cache_limit", "json_bytes", "upload_bytes", "batch_rows", "queue_rows"):
            _check_number(name, getattr(self, name), 1, 1 << 40)
        base = "/" + self.base.strip("/") if self.base.strip("/") else ""
        if not re.fullmatch(r"(/[A-Za-z0-9_.~-]+)*", base):
            raise SettingError("base", "a path of letters, digits, '-', '.', '_' and '~'", self.base)
        object.__setattr__(self, "base", base)

    @classmethod
    def from_config(cls, file: Path, **overrides: Any) -> ServerSettings:
        """Read a config.json as TFaaS has it.

        Parameters
        ----------
        file : path
            The JSON file.
        **overrides
            Settings that win over those of the file; None is no setting.

        Raises
        ------
        SettingError
            If the file cannot be read, or has a setting that is wrong, not known, or not there yet.
        """
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingError("config", "a file that can be read", f"{file} ({error.strerror})") from error
        except ValueError as error:
            raise SettingError("config", "a JSON file", f"{file} ({error})") from error
        if not isinstance(config, dict):
            raise SettingError("config", "a JSON object", config, str(file))
        chosen = {**_from_config(config, str(file)), **{k: v for k, v in overrides.items() if v is not None}}
        if "models" not in chosen:
            raise SettingError("modelDir", "the folder of the models", "", str(file))
        try:
            return cls(**chosen)
        except SettingError as error:
            names = {setting: key for key, setting in CONFIG_KEYS.items()}
            raise SettingError(names.get(error.setting, error.setting), error.rule, error.got, str(file)) from None

    def to_json(self) -> str:
        """Return all settings as text, for a process of its own."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps({name: str(value) if isinstance(value, Path) else value for name, value in values.items()})

    @classmethod
    def from_json(cls, text: str) -> ServerSettings:
        """Make settings from what :meth:`to_json` gave."""
        values = json.loads(text)
        log_file = values.pop("log_file")
        return replace(cls(models=Path(values.pop("models")), **values), log_file=Path(log_file) if log_file else None)


def _from_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for key, value in config.items():
        if value == "" or value is None or (value is False and key in NOT_YET):
            continue  # not set
        if key in NOT_YET:
            raise SettingError(key, f"left empty, since {NOT_YET[key]}", value, where)
        if key == "staticDir":
            logger.warning("setting 'staticDir' of %s is not used: the pages come with this package", where)
        elif key not in CONFIG_KEYS:
            nearest = nearest_names(key, (*CONFIG_KEYS, *NOT_YET))
            raise SettingError(key, "a known one" + (f", such as {quoted(nearest)}" if nearest else ""), value, where)
        elif key in ("modelDir", "logFile", "base"):
            if not isinstance(value, str):
                raise SettingError(key, "a string", value, where)
            chosen[CONFIG_KEYS[key]] = value if key == "base" else Path(value)
        else:
            chosen[CONFIG_KEYS[key]] = value
    return chosen


def _check_number(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SettingError(name, f"an integer from {low} to {high}" if high < 1 << 40 else f"an integer ≥ {low}", value)


def _check_host(host: str) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        rule = "127.0.0.1, localhost or ::1: the server listens on loopback only until it has access control"
        raise SettingError("host", rule, host)
