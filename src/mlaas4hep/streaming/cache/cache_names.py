"""Names of the files in a cache."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["PART", "ShardName"]

PART = ".part"
"""End of the name of a file that is being written."""

_SHARD = re.compile(r"([0-9a-f]{32})-([0-9]{1,18})-([0-9a-f]{16})\.arrow")


@dataclass(frozen=True, slots=True)
class ShardName:
    """What the name of a shard says.

    Parameters
    ----------
    key : str
        Of its run, from :func:`~mlaas4hep.streaming.cache.cache_keys.run_key`.
    events : int
    checksum : int
        Of all bytes of the file.

    Examples
    --------
    >>> name = ShardName.parse("0123456789abcdef0123456789abcdef-500-00000000000000ff.arrow")
    >>> name.events, name.checksum, ShardName.parse("notes.txt")
    (500, 255, None)
    """

    key: str
    events: int
    checksum: int

    @classmethod
    def parse(cls, name: str) -> ShardName | None:
        """Read the name of a file; None if it is no shard's."""
        match = _SHARD.fullmatch(name)
        return None if match is None else cls(match[1], int(match[2]), int(match[3], 16))

    def __str__(self) -> str:
        return f"{self.key}-{self.events}-{self.checksum:016x}.arrow"
