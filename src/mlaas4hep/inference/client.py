"""A client of TFaaS servers, ours and the original.

It needs nothing but Python's standard library. Files are sent as they are read, so that a model may be larger than memory.
"""

from __future__ import annotations

import http.client
import io
import json
import mimetypes
import os
import ssl
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from mlaas4hep.errors import AnswerError, SettingError

__all__ = ["TFaaSClient"]

CHUNK = 1 << 18
USER_AGENT = "mlaas4hep-tfaas-client/1"


class TFaaSClient:
    """A client of one server.

    Parameters
    ----------
    url : str
        Of the server, as in ``http://localhost:8083``, with the server's base path if it has one.
    key, cert : path, optional
        Private key and certificate (which may be one file, as a grid proxy is) that prove who asks, for ``https``.
    capath : path, optional
        Folder or file of the authorities that the server's certificate is checked against; the system's without it.
    timeout : float
        Seconds to wait for the server at each step.

    Examples
    --------
    >>> client = TFaaSClient("http://localhost:8083")
    >>> client.predict(keys=["MET_pt", "Jet_pt"], values=[41.5, [52.0, 33.1]], model="higgs")  # doctest: +SKIP
    [0.27, 0.73]
    """

    def __init__(
        self,
        url: str,
        key: str | os.PathLike[str] | None = None,
        cert: str | os.PathLike[str] | None = None,
        capath: str | os.PathLike[str] | None = None,
        timeout: float = 300.0,
    ) -> None:
        self.url = url.rstrip("/")
        try:
            parts = urlsplit(self.url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError as error:
            raise SettingError("url", "like http://localhost:8083", url) from error
        if parts.scheme not in ("http", "https") or not self._host or parts.query or parts.fragment:
            raise SettingError("url", "like http://localhost:8083", url)
        self._base, self._timeout = parts.path, timeout
        self._context = _tls(key, cert, capath) if parts.scheme == "https" else None

    def models(self) -> list[dict[str, Any]]:
        """Return the parameters of all models."""
        return list(self._json("GET", "/models") or [])

    def params(self, name: str | None = None) -> dict[str, Any]:
        """Return the params.json of a model, of the default one without a name."""
        return dict(self._json("GET", f"/params/{quote(name, safe='')}" if name else "/params"))

    def status(self) -> dict[str, Any]:
        """Return the state of the server."""
        return dict(self._json("GET", "/status"))

    def delete(self, name: str) -> None:
        """Remove a model."""
        form = _Form({"model": name}, {})
        self._request("DELETE", "/delete", form, {"Content-Type": form.content_type, "Content-Length": str(form.size)})

    def upload(
        self,
        description: str | os.PathLike[str] | None = None,
        *,
        name: str | None = None,
        model: str | os.PathLike[str] | None = None,
        params: str | os.PathLike[str] | None = None,
        labels: str | os.PathLike[str] | None = None,
        op: str | os.PathLike[str] | None = None,
    ) -> None:
        """Upload the files of a model.

        Parameters
        ----------
        description : path, optional
            A JSON file with the other parameters, as TFaaS has it; arguments given beside it win.
        name : str
            Of the model; the same as in its params.json.
        model, params : path
            The model file and its params.json.
        labels, op : path, optional
            Further files.

        Raises
        ------
        SettingError
            If something is missing, or a file cannot be read.
        AnswerError
            If the server refuses it.
        """
        given = {"name": name, "model": model, "params": params, "labels": labels, "op": op}
        chosen = {**_read_json(description), **{key: value for key, value in given.items() if value is not None}}
        where = str(description or "")
        for needed in ("name", "model", "params"):
            if not chosen.get(needed):
                raise SettingError(needed, "given, for an upload", chosen.get(needed), where)
        files = {
            key: Path(chosen.pop(key)).expanduser() for key in ("params", "model", "labels", "op") if chosen.get(key)
        }
        for key, path in files.items():
            if not path.is_file():
                raise SettingError(key, "a file", str(path), where)
        form = _Form({key: value for key, value in chosen.items() if isinstance(value, str) and value}, files)
        self._request("POST", "/upload", form, {"Content-Type": form.content_type, "Content-Length": str(form.size)})

    def upload_bundle(self, archive: str | os.PathLike[str]) -> None:
        """Upload a model as one ``tar.gz``.

        Raises
        ------
        SettingError
            If the file cannot be read.
        AnswerError
            If the server refuses it.
        """
        path = Path(archive).expanduser()
        with _open(path, "bundle") as file:
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Encoding": "gzip",
                "Content-Length": str(os.fstat(file.fileno()).st_size),
            }
            self._request("POST", "/upload", iter(lambda: file.read(CHUNK), b""), headers)

    def predict(
        self,
        payload: Mapping[str, Any] | None = None,
        *,
        keys: Sequence[str] | None = None,
        values: Sequence[Any] | None = None,
        rows: Sequence[Sequence[Any]] | None = None,
        model: str | None = None,
    ) -> Any:
        """Return the prediction for one row of values, or for many.

        Parameters
        ----------
        payload : mapping, optional
            The request as it is sent; what is given beside it wins.
        keys : sequence of str, optional
            Names of the values, in any order.
        values : sequence
            One number for each name, None where absent, or a list for a whole jagged branch.
        rows : sequence of sequences
            Many such values, in place of ``values``.
        model : str, optional
            Name of the model; the server's default one without it.

        Returns
        -------
        list of float
            One value for each class; a list of these where ``rows`` is given.
        """
        given = {"keys": keys, "values": values, "rows": rows, "model": model}
        request = {**(payload or {}), **{key: value for key, value in given.items() if value is not None}}
        try:
            body = json.dumps(request, default=_plain, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise SettingError("values", "numbers, None where absent", str(error)) from error
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        return _parse(self._request("POST", "/json", [body], headers))

    def image(self, path: str | os.PathLike[str], model: str) -> Any:
        """Return the prediction for an image.

        Raises
        ------
        SettingError
            If the file cannot be read.
        AnswerError
            If the server refuses it, or does not serve images.
        """
        file = Path(path).expanduser()
        with _open(file, "image"):
            form = _Form({"model": model}, {"image": file})
        headers = {"Content-Type": form.content_type, "Content-Length": str(form.size)}
        return _parse(self._request("POST", "/image", form, headers))

    def _json(self, method: str, path: str) -> Any:
        return _parse(self._request(method, path, None, {"Accept": "application/json"}))

    def _request(
        self, method: str, path: str, body: Iterable[bytes] | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        connection: http.client.HTTPConnection
        if self._context:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=self._context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            try:
                connection.request(method, self._base + path, body, {"User-Agent": USER_AGENT, **headers})
            except (BrokenPipeError, ConnectionResetError):
                # A server that refuses a body early closes before all of it is sent; its answer says why, if it still came.
                if connection.sock is None:
                    raise
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise AnswerError(f"{self.url} does not answer: {reason}") from error
        finally:
            connection.close()
        if response.status >= 400:
            text = answer.decode("utf-8", "replace")
            raise AnswerError(f"{self.url}{path} answers {response.status}: {_error_of(text)}", response.status, text)
        return response.status, answer


class _Form:
    """A multipart form that is read as it is sent."""

    def __init__(self, fields: Mapping[str, str], files: Mapping[str, Path]) -> None:
        boundary = uuid.uuid4().hex
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._parts: list[bytes | Path] = []
        for name, value in fields.items():
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_escaped(name)}"\r\n\r\n'
            self._parts.append(f"{head}{value}\r\n".encode())
        for name, path in files.items():
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            disposition = f'form-data; name="{_escaped(name)}"; filename="{_escaped(path.name)}"'
            head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: {kind}\r\n\r\n"
            self._parts += [head.encode(), path, b"\r\n"]
        self._parts.append(f"--{boundary}--\r\n".encode())
        self.size = sum(part.stat().st_size if isinstance(part, Path) else len(part) for part in self._parts)

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            if isinstance(part, Path):
                with part.open("rb") as file:
                    yield from iter(lambda file=file: file.read(CHUNK), b"")  # type: ignore[misc]
            else:
                yield part


def _escaped(text: str) -> str:
    """Write a name as forms do."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _open(path: Path, setting: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise SettingError(setting, "a file that can be read", f"{path} ({error.strerror})") from error


def _read_json(file: str | os.PathLike[str] | None) -> dict[str, Any]:
    if file is None:
        return {}
    with io.TextIOWrapper(_open(Path(file).expanduser(), "upload"), encoding="utf-8") as text:
        try:
            content = json.load(text)
        except ValueError as error:
            raise SettingError("upload", "a JSON file", f"{os.fspath(file)} ({error})") from error
    if not isinstance(content, dict):
        raise SettingError("upload", "a JSON object", content, os.fspath(file))
    return content


def _plain(value: Any) -> Any:
    """Have numpy's numbers and arrays written as Python's, without importing numpy."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a number")


def _parse(answer: tuple[int, bytes]) -> Any:
    status, body = answer
    try:
        return json.loads(body)
    except ValueError as error:
        raise AnswerError("the answer of the server is not JSON", status, body.decode("utf-8", "replace")) from error


def _error_of(text: str) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text.strip()[:200] or "no reason given"


def _tls(
    key: str | os.PathLike[str] | None, cert: str | os.PathLike[str] | None, capath: str | os.PathLike[str] | None
) -> ssl.SSLContext:
    """Return how to speak TLS: the server is always checked, the client shows a certificate where it has one."""
    try:
        context = ssl.create_default_context()
        if capath:
            place = Path(capath).expanduser()
            context.load_verify_locations(*((None, str(place)) if place.is_dir() else (str(place), None)))
    except OSError as error:
        raise SettingError("capath", "a folder or file of certificates", str(capath)) from error
    if cert or key:
        pair = Path(cert or key or "").expanduser(), Path(key or cert or "").expanduser()
        try:
            context.load_cert_chain(*pair)
        except OSError as error:
            raise SettingError("cert", "a certificate with its key", f"{pair[0]}, {pair[1]} ({error})") from error
    return context
