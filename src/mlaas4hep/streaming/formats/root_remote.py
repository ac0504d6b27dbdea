"""Remote ROOT files: the clients behind uproot, each with a limit on every wait."""

from __future__ import annotations

import os
import warnings
from typing import Any

from mlaas4hep.errors import MissingExtraError

__all__ = ["open_remote", "remote_options"]

XROOTD_SCHEMES = ("root://", "xroot://", "roots://", "xroots://")

XROOTD_LIMITS = {
    # The client's own defaults let a person wait for minutes: a dead server 480 s, a hung one for ever.
    "ConnectionWindow": 3,
    "ConnectionRetry": 5,
    "StreamErrorWindow": 60,
    "RequestTimeout": 30,
    "StreamTimeout": 10,
    "TimeoutResolution": 1,
}
"""Seconds; each can be set by its environment variable, as in ``XRD_REQUESTTIMEOUT``."""

HTTP_CONNECT_SECONDS = 10.0
HTTP_READ_SECONDS = 30.0
"""How long an HTTP server may be silent; ``MLAAS4HEP_HTTP_TIMEOUT`` sets another number."""


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
            "coalesce_config": CoalesceConfig(
                max_range_gap=4096, max_request_ranges=1024, max_request_bytes=2**26, min_first_request_bytes=2**26
            )
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
    return options


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
