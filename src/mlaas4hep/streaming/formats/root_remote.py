"""Remote ROOT files: the clients behind uproot, each with a limit on every wait, and their bytes in few large requests.

The baskets or pages of a run of clusters and the branches that are wanted are one vector read (over HTTP: a few ranges at the same time), and the
next runs are asked for before the present one is decoded.
"""

from __future__ import annotations

import os
import queue
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from mlaas4hep.errors import MissingExtraError
from mlaas4hep.streaming.access.credentials import client_options
from mlaas4hep.streaming.formats.root_bytes import Place, check_within
from mlaas4hep.streaming.stream.timing import count_bytes

__all__ = ["RemoteBytes", "drop_handle", "open_remote", "remote_options"]

XROOTD_SCHEMES = ("root://", "xroot://", "roots://", "xroots://")

XROOTD_LIMITS = {
    # The client's own defaults let a person wait for minutes: a dead server 480 s, a hung one for ever. Further attempts are made by
    # RetryPolicy, which must not find the client still unwilling to connect: hence the short StreamErrorWindow.
    "ConnectionWindow": 5,
    "ConnectionRetry": 2,
    "StreamErrorWindow": 1,
    "RequestTimeout": 30,
    "StreamTimeout": 10,
    "TimeoutResolution": 1,
}
"""Seconds; each can be set by its environment variable, as in ``XRD_REQUESTTIMEOUT``."""

HTTP_CONNECT_SECONDS = 10.0
HTTP_READ_SECONDS = 30.0
"""How long an HTTP server may be silent; ``MLAAS4HEP_HTTP_TIMEOUT`` sets another number."""

MAX_PENDING = 4
"""Requests that may be under way or wait to be used."""


class RemoteBytes:
    """Bytes of a remote file.

    Parameters
    ----------
    source : uproot.source.chunk.Source
        The file, open; it stays the caller's.
    size : int
        Its bytes.
    """

    def __init__(self, source: Any, size: int) -> None:
        self._source = source
        self._size = size
        self._pending: OrderedDict[tuple[Place, ...], list[Any]] = OrderedDict()

    def close(self) -> None:
        """Forget what was asked for."""
        self._pending.clear()

    def prefetch(self, places: Iterable[Place]) -> None:
        """Ask for bytes, if that was not done yet, and do not wait for them."""
        ordered = tuple(sorted(places))
        if ordered and ordered not in self._pending:
            self._pending[ordered] = self._ask(ordered)
            if len(self._pending) > MAX_PENDING:
                self._pending.popitem(last=False)

    def fetch(self, places: Iterable[Place]) -> dict[Place, memoryview]:
        """Return the bytes at some places; waits for them."""
        ordered = tuple(sorted(places))
        chunks = self._pending.pop(ordered, None) or self._ask(ordered)
        count_bytes("fetched", sum(size for _, size in ordered))
        return {place: memoryview(chunk.raw_data) for place, chunk in zip(ordered, chunks, strict=True)}

    def _ask(self, places: Sequence[Place]) -> list[Any]:
        check_within(places, self._size)
        if not places:
            return []
        ranges = [(seek, seek + length) for seek, length in places]
        chunks: list[Any] = self._source.chunks(ranges, queue.Queue())
        return chunks


def drop_handle(source: Any) -> None:
    """Close what the XRootD client keeps open for a file, without waiting: its server may not answer any more.

    fsspec-xrootd would wait for the answer, and raise an error when it ends, wherever that is, if one handle cannot be closed. So its handles are
    taken from it and closed one by one; what a request that is still under way opens later goes with the file system, which is this file's own.

    Parameters
    ----------
    source : uproot.source.chunk.Source
    """
    handles: Any = getattr(getattr(source, "_fs", None), "_readonly_filehandle_cache", None)
    if handles is None:
        return
    opened, handles._cache = handles._cache, {}
    for item in list(opened.values()):
        with suppress(Exception):
            item.handle.close(callback=_ignore)
    opened.clear()
    with suppress(AttributeError, RuntimeError):
        # The task that looks for idle handles would keep the file system for ever.
        handles.loop.call_soon_threadsafe(handles._prune_task.cancel)


def _ignore(*_: Any) -> None:
    """Take the answer to a request that nobody waits for."""


def remote_options(path: str) -> dict[str, Any]:
    """Set the time limits of the client for a URL and return the options that ``uproot.open`` needs for it.

    Raises
    ------
    MissingExtraError
        If the client is not installed.
    """
    from uproot.source.coalesce import CoalesceConfig

    if path.startswith(XROOTD_SCHEMES):
        _limit_xrootd()
        # A vector read takes a thousand pieces as easily as one, so only true neighbours are joined: little is fetched that nobody wants.
        return {
            # Its own set of handles: one shared by all files of a server hands out such as failed or were closed by another reader.
            "skip_instance_cache": True,
            "coalesce_config": CoalesceConfig(
                max_range_gap=4096, max_request_ranges=1024, max_request_bytes=2**26, min_first_request_bytes=2**26
            ),
        }
    options: dict[str, Any] = {
        "coalesce_config": CoalesceConfig(
            max_range_gap=32 * 1024, max_request_ranges=32, max_request_bytes=2**23, min_first_request_bytes=2**23
        )
    }
    if path.startswith(("http://", "https://")):
        import aiohttp

        silent = float(os.environ.get("MLAAS4HEP_HTTP_TIMEOUT", HTTP_READ_SECONDS))
        limits = aiohttp.ClientTimeout(total=None, sock_connect=min(silent, HTTP_CONNECT_SECONDS), sock_read=silent)
        options["client_kwargs"] = {"timeout": limits}
    return options | client_options(path)


def open_remote(path: str) -> Any:
    """Open a URL as a plain source of bytes: uproot's, with ``num_bytes``, ``chunk(start, stop)`` and ``close()``."""
    from uproot.source.fsspec import FSSpecSource

    return FSSpecSource(path, **remote_options(path))


def _limit_xrootd() -> None:
    # The bindings look at every object when the program ends, and some of torch's complain of being looked at.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"XRootD\.client\.finalize")
    try:
        import fsspec_xrootd  # noqa: F401
        from XRootD import client
    except ImportError as error:
        raise MissingExtraError("The XRootD client", "xrootd") from error
    # Through the bindings and not through the environment: that counts only until they are imported. What a person has put there comes first.
    for name, value in XROOTD_LIMITS.items():
        client.EnvPutInt(name, int(os.environ.get(f"XRD_{name.upper()}", value)))
