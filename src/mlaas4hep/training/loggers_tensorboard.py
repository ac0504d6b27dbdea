"""Numbers for TensorBoard, without its package: the file is simple, and the package would bring gRPC and a web server into every training.

A file of events is a row of records: length, checksum of the length, a message, checksum of the message. A message is an ``Event`` of TensorFlow's
``event.proto``: wall time (field 1), step (2) and a ``Summary`` (5) of values with a tag (1) and a number (2); the first one holds the file's
version (3).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

__all__ = ["TensorBoardLogger", "checksum"]


class TensorBoardLogger:
    """Writes an events file that TensorBoard shows: ``tensorboard --logdir FOLDER``.

    Parameters
    ----------
    folder : Path
        Where the file goes; a run is a folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Files of one folder are one run, in the order of their names.
        name = f"events.out.tfevents.{time.time_ns():020d}.{socket.gethostname()}.{os.getpid()}.mlaas4hep"
        self._file = (folder / name).open("xb")
        self._write(_double(1, time.time()) + _text(3, b"brain.Event:2"))

    def resume(self, epoch: int) -> None:
        """Go on in a new file; TensorBoard shows the steps that come again as they were given last."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write numbers."""
        values = b"".join(_text(1, _text(1, name.encode()) + _float(2, value)) for name, value in numbers.items())
        self._write(_double(1, time.time()) + _varint(2 << 3) + _varint(step) + _text(5, values))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, message: bytes) -> None:
        length = struct.pack("<Q", len(message))
        self._file.write(length + _masked(length) + message + _masked(message))


def checksum(data: bytes) -> int:
    """Return the CRC-32C of some bytes.

    Examples
    --------
    >>> hex(checksum(b"123456789"))
    '0xe3069283'
    """
    table = _table()
    value = 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    values = []
    for number in range(256):
        value = number
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        values.append(value)
    return tuple(values)


def _masked(data: bytes) -> bytes:
    """Return the checksum as the format has it: turned, and with a constant added, since a checksum of checksums is weak."""
    value = checksum(data)
    return struct.pack("<I", (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _text(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)
