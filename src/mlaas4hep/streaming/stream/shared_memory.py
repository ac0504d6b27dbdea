"""Memory that processes share without a name: it cannot be left behind, and is not bounded by the size of ``/dev/shm``.

A small ``/dev/shm`` (64 MB in a container, unless one says otherwise) is why workers of other loaders end with a bus error.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ArrayShape", "SharedBlock", "layout_bytes"]

ALIGNMENT = 64
"""Bytes at a multiple of which each array begins: a cache line."""

ArrayShape = tuple[np.dtype[Any], tuple[int, ...]]


class SharedBlock:
    """A block of shared memory; another process opens the same with the descriptor.

    Parameters
    ----------
    size : int
        Bytes. What is never written takes no memory.
    descriptor : int, optional
        Of a block that another process has made; owned from here on.

    Examples
    --------
    >>> block = SharedBlock(layout_bytes([(np.dtype("f4"), (3,)), (np.dtype("?"), (5,))]))
    >>> values, flags = block.arrays([(np.dtype("f4"), (3,)), (np.dtype("?"), (5,))])
    >>> values.shape, flags.dtype
    ((3,), dtype('bool'))
    """

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        self.size = max(size, 1)
        if descriptor is None:
            descriptor = _anonymous_file()
            os.ftruncate(descriptor, self.size)
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, self.size)

    def arrays(self, layout: Sequence[ArrayShape]) -> list[npt.NDArray[Any]]:
        """Return arrays of some types and shapes that lie in the block one after the other; views, which keep it alive."""
        arrays = []
        start = 0
        for dtype, shape in layout:
            count = int(np.prod(shape))
            arrays.append(np.frombuffer(self._memory, dtype, count, start).reshape(shape))
            start += _padded(count * dtype.itemsize)
        return arrays

    def close(self) -> None:
        """Close the descriptor; the memory goes with the last array."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def layout_bytes(layout: Sequence[ArrayShape]) -> int:
    """Return the bytes that arrays of some types and shapes take in a block."""
    return sum(_padded(int(np.prod(shape)) * dtype.itemsize) for dtype, shape in layout)


def _padded(nbytes: int) -> int:
    # An array of no bytes needs room to begin in.
    return max(-(-nbytes // ALIGNMENT), 1) * ALIGNMENT


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("mlaas4hep")
    handle, name = tempfile.mkstemp(prefix="mlaas4hep-")
    Path(name).unlink()
    return handle
