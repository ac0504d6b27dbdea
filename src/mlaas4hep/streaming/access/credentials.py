"""Proxies and tokens: passed on to the clients that want them, and named when a server refuses them.

XRootD's client finds both by itself. For ``https://`` the token goes into the header ``Authorization`` and the X.509 proxy is the client's
certificate. Nothing is ever sent in clear over ``http://`` to another machine. Nobody's token is in a message.
"""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlaas4hep.errors import MissingExtraError, SourceError

__all__ = ["bearer_token", "client_options", "explained", "x509_proxy"]

REFUSED = re.compile(
    r"Auth failed|\[3010\]|Unauthorized|Forbidden|Permission denied|ALERT\w*_CERTIFICATE|UNKNOWN_CA", re.IGNORECASE
)

UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"

S3_CONNECT_SECONDS, S3_READ_SECONDS = 10, 30


def client_options(url: str) -> dict[str, Any]:
    """Return what a client of fsspec has to be given for a URL, beside the URL.

    Parameters
    ----------
    url : str
        Any; only ``http``, ``https`` and ``s3`` have options.

    Returns
    -------
    dict
        ``headers`` with the token and ``ssl`` with the proxy for HTTP; limits on every wait for S3.

    Raises
    ------
    SourceError
        If a variable names a proxy or token that cannot be read.
    MissingExtraError
        If the client for S3 is not installed.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("s3", "s3a"):
        return _s3_options()
    options: dict[str, Any] = {}
    if scheme == "https" or (scheme == "http" and _is_loopback(url)):
        token = bearer_token()
        if token is not None:
            options["headers"] = {"Authorization": f"Bearer {token[0]}"}
    if scheme == "https":
        proxy = x509_proxy()
        authorities = os.environ.get("X509_CERT_DIR", "")
        if proxy is not None or authorities:
            path = proxy[0] if proxy is not None else ""
            options["ssl"] = _ssl_context(path, authorities, _changed(path))
    return options


def bearer_token() -> tuple[str, str] | None:
    """Return the token of ``BEARER_TOKEN``, else of the file that ``BEARER_TOKEN_FILE`` names, and where it is from; None where neither is set.

    Raises
    ------
    SourceError
        If the file cannot be read, or what is given is no token.
    """
    token, where = os.environ.get("BEARER_TOKEN", "").strip(), "BEARER_TOKEN"
    file = os.environ.get("BEARER_TOKEN_FILE", "")
    if not token and file:
        where = f"BEARER_TOKEN_FILE ({file})"
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or "it is no text"
            raise SourceError(file, f"is named by BEARER_TOKEN_FILE and cannot be read: {said}") from error
        if not token:
            raise SourceError(file, "is named by BEARER_TOKEN_FILE and is empty")
    if not token:
        return None
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise SourceError(where, "is no token: a token has no blanks, line breaks or letters beyond ASCII")
    return token, where


def x509_proxy() -> tuple[str, str] | None:
    """Return the file of the X.509 proxy and where its name is from: ``X509_USER_PROXY``, else ``/tmp/x509up_u<uid>`` if there is one.

    Raises
    ------
    SourceError
        If ``X509_USER_PROXY`` names a file that cannot be read.
    """
    named = os.environ.get("X509_USER_PROXY", "")
    if named:
        try:
            Path(named).open("rb").close()
        except OSError as error:
            raise SourceError(named, f"is named by X509_USER_PROXY and cannot be read: {error.strerror}") from error
        return named, f"X509_USER_PROXY ({named})"
    usual = f"/tmp/x509up_u{os.getuid()}"  # noqa: S108 - where grid tools put it
    return (usual, usual) if os.access(usual, os.R_OK) else None


def explained(error: SourceError) -> SourceError:
    """Return an error that names the credential, if a server refused one; any other error as it is.

    Parameters
    ----------
    error : SourceError
        As opening or reading a file raises it, with the client's own error as its cause.
    """
    cause = error.__cause__
    # The HTTP client says of whatever went wrong that there is no such file, and what it was behind that.
    while isinstance(cause, FileNotFoundError) and cause.__cause__ is not None:
        cause = cause.__cause__
    status = int(getattr(cause, "status", 0) or 0)
    if cause is not None and UNTRUSTED in str(cause):
        known = os.environ.get("X509_CERT_DIR", "")
        having = f"X509_CERT_DIR ({known}) holds no authority that signed it" if known else "X509_CERT_DIR is not set"
        untrusted = SourceError(
            error.file, f"the server's certificate is not trusted: {having}; it said: {_short(cause)}"
        )
        untrusted.__cause__ = cause
        return untrusted
    if cause is None or not (status in (401, 403) or isinstance(cause, PermissionError) or REFUSED.search(str(cause))):
        return error
    scheme = urlsplit(error.file).scheme
    if scheme in ("s3", "s3a"):
        having = "AWS_ACCESS_KEY_ID" if os.environ.get("AWS_ACCESS_KEY_ID") else "no AWS_ACCESS_KEY_ID is set"
        better = SourceError(error.file, f"the server refused the access: {having}; {_short(cause)}")
    elif "://" in error.file:
        better = SourceError(
            error.file, f"the server refused the access: {_states(error.file)}; it said: {_short(cause)}"
        )
    else:
        return error
    better.__cause__ = cause
    return better


def _states(url: str) -> str:
    states = []
    try:
        proxy = x509_proxy()
        states.append("no proxy (X509_USER_PROXY is not set)" if proxy is None else f"proxy {_proxy_state(*proxy)}")
    except SourceError as problem:
        states.append(f"proxy {problem}")
    try:
        token = bearer_token()
        states.append(
            "no token (neither BEARER_TOKEN nor BEARER_TOKEN_FILE is set)"
            if token is None
            else f"token {_token_state(*token, url)}"
        )
    except SourceError as problem:
        states.append(f"token {problem}")
    return "; ".join(states)


def _proxy_state(path: str, where: str) -> str:
    until: datetime | None = None
    with suppress(Exception):  # whatever is in the file
        decoded: dict[str, str] = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined] # the first of the file
        until = datetime.fromtimestamp(ssl.cert_time_to_seconds(decoded["notAfter"]), UTC)
    if until is None:
        return f"{where} holds no certificate"
    return _valid(where, until, "make a new one, as with voms-proxy-init")


def _token_state(token: str, where: str, url: str) -> str:
    if urlsplit(url).scheme == "http" and not _is_loopback(url):
        return f"{where} was not sent: a token is never sent over http://, use https://"
    with suppress(Exception):  # not every token tells
        middle = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        return _valid(where, datetime.fromtimestamp(float(claims["exp"]), UTC), "get a new one")
    return f"{where} is not accepted"


def _valid(where: str, until: datetime, advice: str) -> str:
    when = until.strftime("%Y-%m-%d %H:%M UTC")
    if until < datetime.now(UTC):
        return f"{where} expired on {when}; {advice}"
    return f"{where} is valid until {when} and is not accepted"


def _short(cause: BaseException) -> str:
    lines = str(cause).splitlines()
    return lines[0][:200] if lines else type(cause).__name__


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def _changed(path: str) -> float:
    return Path(path).stat().st_mtime if path else 0.0


@lru_cache(maxsize=8)
def _ssl_context(proxy: str, authorities: str, _changed_at: float) -> ssl.SSLContext:
    """Return one context for a proxy as it is now: clients are kept by their options."""
    context = ssl.create_default_context()
    if authorities and Path(authorities).is_dir():
        context.load_verify_locations(capath=authorities)
    if proxy:
        try:
            context.load_cert_chain(proxy)
        except (OSError, ssl.SSLError) as error:
            raise SourceError(proxy, f"is no X.509 proxy with its key: {_short(error)}") from error
    return context


def _s3_options() -> dict[str, Any]:
    try:
        import s3fs  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("The client for S3", "s3") from error
    # One attempt each: further ones are RetryPolicy's.
    limits = {"connect_timeout": S3_CONNECT_SECONDS, "read_timeout": S3_READ_SECONDS, "retries": {"max_attempts": 1}}
    return {"config_kwargs": limits}
