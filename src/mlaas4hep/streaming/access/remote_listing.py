"""What a folder of a server holds, and which of its files fit a pattern."""

from __future__ import annotations

import importlib
from typing import Any
from urllib.parse import urlsplit

from mlaas4hep.errors import MLaaS4HEPError, SourceError
from mlaas4hep.streaming.access.credentials import client_options, explained

__all__ = ["list_remote"]


def list_remote(url: str) -> list[str]:
    """Return the URLs of the files in a folder, or that fit a pattern with ``*``, sorted.

    Parameters
    ----------
    url : str
        Of a folder, with ``/`` at its end, or with ``*`` in its path.

    Raises
    ------
    SourceError
        If the server cannot be asked, has no such folder, or no file fits.
    MissingExtraError
        If the client is not installed.
    """
    from mlaas4hep.streaming.formats.files import reason
    from mlaas4hep.streaming.formats.root_remote import remote_options

    options = remote_options(url) | client_options(url)
    options.pop("coalesce_config", None)
    fsspec: Any = importlib.import_module("fsspec")  # comes with uproot, has no types
    try:
        system, path = fsspec.core.url_to_fs(url, **options)
        if "*" in path:
            found = sorted(system.glob(path))
            nothing = "no file matches this pattern"
        else:
            found = sorted(item["name"] for item in system.ls(path, detail=True) if item["type"] != "directory")
            nothing = "the folder holds no file"
    except MLaaS4HEPError:
        raise
    except FileNotFoundError as error:
        raise SourceError(url, "there is no such folder") from error
    except Exception as error:
        problem = SourceError(url, f"its files cannot be listed: {reason(error)}")
        problem.__cause__ = error
        raise explained(problem) from error
    if not found:
        raise SourceError(url, nothing)
    return [_url_of(name, url) for name in found]


def _url_of(name: str, asked: str) -> str:
    """Return the URL of a file that a client named in its own manner, with the scheme, server and options that were asked."""
    parts = urlsplit(asked)
    if "://" in name:
        return name
    query = f"?{parts.query}" if parts.query else ""
    if parts.scheme in ("root", "xroot", "roots", "xroots"):
        return f"{parts.scheme}://{parts.netloc}//{name.lstrip('/')}{query}"
    return f"{parts.scheme}://{name.lstrip('/')}{query}"
