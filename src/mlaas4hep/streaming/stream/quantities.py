"""Numbers of bytes and seconds as people write them: ``20GB``, ``30d``."""

from __future__ import annotations

import re

from mlaas4hep.errors import SettingError

__all__ = ["parse_age", "parse_size"]

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?)?b?\s*", re.IGNORECASE)
_AGE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhdw])\s*", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_size(text: str | int, setting: str = "size") -> int:
    """Return the number of bytes that a text means.

    Parameters
    ----------
    text : str or number
    setting : str
        What it is the value of, for the message.

    Raises
    ------
    SettingError
        If it means none.

    Examples
    --------
    >>> parse_size("20GB"), parse_size("1.5 MiB"), parse_size("0")
    (20000000000, 1572864, 0)
    """
    match = _SIZE.fullmatch(str(text))
    if match is None:
        raise SettingError(setting, "a number of bytes with a unit, as in '20GB' or '500MiB'", text)
    unit = (match[2] or "").lower()
    power = "kmgt".index(unit[0]) + 1 if unit else 0
    return int(float(match[1]) * (1024 if unit.endswith("i") else 1000) ** power)


def parse_age(text: str | float, setting: str = "age") -> float:
    """Return the number of seconds that a text means, or a number of them itself.

    Parameters
    ----------
    text : str or number
    setting : str
        What it is the value of, for the message.

    Raises
    ------
    SettingError
        If it means none.

    Examples
    --------
    >>> parse_age("30d"), parse_age("1.5h")
    (2592000.0, 5400.0)
    """
    if isinstance(text, int | float):
        return float(text)
    match = _AGE.fullmatch(text)
    if match is None:
        raise SettingError(setting, "a number with a unit, as in '30d', '12h' or '2w'", text)
    return float(match[1]) * _SECONDS[match[2].lower()]
