"""Who may ask: programs of this machine, and no web page of somebody else.

The server listens on loopback, which does not keep a browser out: a page from anywhere can have the browser send requests there, with a form
without any further question, or under a name of its own that it lets point to loopback. Browsers tell: such a request has a foreign ``Host``,
``Origin`` or ``Sec-Fetch-Site``. Programs other than browsers send the address in ``Host`` and none of the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mlaas4hep.errors import RequestError

__all__ = ["check_origin", "is_loopback"]

LOOPBACK = re.compile(rb"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
TRUSTED_SITES = (b"same-origin", b"same-site", b"none")
_known_hosts: set[bytes] = set()


def is_loopback(host: bytes) -> bool:
    """Return whether the value of a Host header names this machine's loopback, with or without a port.

    Examples
    --------
    >>> is_loopback(b"localhost:8083"), is_loopback(b"127.0.0.1.example.org")
    (True, False)
    """
    if host in _known_hosts:
        return True
    if LOOPBACK.fullmatch(host) is None:
        return False
    if len(_known_hosts) < 64:
        _known_hosts.add(host)
    return True


def check_origin(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Let a request pass whose headers say that it comes from this machine.

    Parameters
    ----------
    headers : pairs of bytes
        Names in lower case.

    Raises
    ------
    RequestError
        403 for anything else, 400 without one Host.
    """
    host: bytes | None = None
    origin: bytes | None = None
    for name, value in headers:
        if name == b"host":
            if host is not None:
                raise RequestError("the request has two Host headers")
            host = value
        elif name == b"origin":
            origin = value
        elif name == b"sec-fetch-site" and value.lower() not in TRUSTED_SITES:
            raise RequestError("requests from pages of other sites are not accepted", status=403)
    if host is None:
        raise RequestError("the request has no Host header")
    if not is_loopback(host):
        raise RequestError("the Host of the request is not this server; use 127.0.0.1 or localhost", status=403)
    if origin is not None and origin.lower() not in (b"http://" + host.lower(), b"https://" + host.lower()):
        raise RequestError("requests from pages of other sites are not accepted", status=403)
