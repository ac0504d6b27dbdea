"""Bodies of requests, taken in with a limit on everything: their bytes, inflated or not, the parts of a form, and the headers of a part.

Large bodies go to a file as they come. What a client says about its body decides how it is read in two cases only: ``Content-Length`` is used to
refuse early, and ``Content-Encoding`` for the forms of the TFaaS client, which encodes some parts of them.
"""

from __future__ import annotations

import asyncio
import binascii
import zlib
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive, Scope

from mlaas4hep.errors import RequestError
from mlaas4hep.inference.names import base_name

__all__ = ["ClientGoneError", "Form", "FormFile", "header", "read_body", "read_form", "save_body"]

WRITE_BYTES = 1 << 18
FIELD_BYTES = 1 << 16
FORM_PARTS = 32


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete; nobody waits for an answer."""


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file of a form.

    Parameters
    ----------
    name : str
        Last part of the name that the client gave.
    path : path
        Where its bytes are.
    """

    name: str
    path: Path


@dataclass(slots=True)
class Form:
    """The parts of a form by the names of their fields."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, FormFile] = field(default_factory=dict)


def header(scope: Scope, name: bytes) -> str:
    """Return a header of a request, empty where it is not there."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


def _too_large(limit: int) -> RequestError:
    return RequestError(f"the body is too large; at most {limit} bytes are accepted", status=413)


def _check_length(scope: Scope, limit: int) -> None:
    length = header(scope, b"content-length")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)


async def _pieces(scope: Scope, receive: Receive, limit: int) -> AsyncIterator[bytes]:
    _check_length(scope, limit)
    count, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        piece = message.get("body", b"")
        count += len(piece)
        if count > limit:
            raise _too_large(limit)
        yield piece
        more = message.get("more_body", False)


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return a whole body; one that is compressed with gzip is inflated, within the same limit.

    Raises
    ------
    RequestError
        413 if it is too large, 415 if it is encoded in another way.
    """
    body = b"".join([piece async for piece in _pieces(scope, receive, limit)])
    encoding = header(scope, b"content-encoding").lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise RequestError(
            f"Content-Encoding {encoding[:40]!r} is not accepted; send it plain or with gzip", status=415
        )
    inflater = zlib.decompressobj(wbits=31)
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise RequestError("the body is not what Content-Encoding says: not gzip") from None
    if len(inflated) > limit:
        raise _too_large(limit)
    if not inflater.eof:
        raise RequestError("the compressed body is cut off")
    return inflated


async def save_body(scope: Scope, receive: Receive, limit: int, path: Path) -> None:
    """Write a body to a file as it comes."""
    waiting = bytearray()
    with path.open("xb") as file:
        async for piece in _pieces(scope, receive, limit):
            waiting += piece
            if len(waiting) >= WRITE_BYTES:
                await asyncio.to_thread(file.write, bytes(waiting))
                waiting.clear()
        await asyncio.to_thread(file.write, bytes(waiting))


async def read_form(scope: Scope, receive: Receive, limit: int, folder: Path | None = None) -> Form:
    """Read a multipart form; its files go into a folder.

    Parameters
    ----------
    scope, receive
        The request.
    limit : int
        Bytes of the body.
    folder : path, optional
        An empty folder for the files; without one, files are refused.

    Raises
    ------
    RequestError
        If it is not a form, or has too many parts, or a part twice.
    """
    kind, options = parse_options_header(header(scope, b"content-type"))
    boundary = options.get(b"boundary", b"")
    if kind.lower() != b"multipart/form-data" or not boundary:
        raise RequestError("the body must be multipart/form-data with a boundary", status=415)
    try:
        reader = _FormReader(boundary, folder, base64_parts="base64" in header(scope, b"content-encoding").lower())
        with closing(reader):
            waiting = bytearray()
            async for piece in _pieces(scope, receive, limit):
                waiting += piece
                if len(waiting) >= WRITE_BYTES:
                    await asyncio.to_thread(reader.feed, bytes(waiting))
                    waiting.clear()
            await asyncio.to_thread(reader.feed, bytes(waiting))
            return await asyncio.to_thread(reader.finish)
    except FormParserError as error:
        raise RequestError(f"the form is damaged: {error}") from None


class _FormReader:
    """Sorts the parts of a form while they come in."""

    def __init__(self, boundary: bytes, folder: Path | None, *, base64_parts: bool) -> None:
        self.form = Form()
        self._folder, self._base64_parts = folder, base64_parts
        self._parts, self._complete = 0, False
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._field = ""
        self._text: bytearray | None = None
        self._file: BinaryIO | None = None
        self._encoded: list[Path] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_done,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._done,
            },
        )

    def feed(self, piece: bytes) -> None:
        if piece:
            self._parser.write(piece)

    def finish(self) -> Form:
        if not self._complete:
            raise RequestError("the form is cut off: its last boundary is missing")
        for path in self._encoded:
            _decode(path)
        return self.form

    def close(self) -> None:
        if self._file:
            self._file.close()

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > FORM_PARTS:
            raise RequestError(f"the form has more than {FORM_PARTS} parts", status=413)
        self._headers = {}

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_done(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        try:
            self._field = options.get(b"name", b"").decode("utf-8")
            file_name = options[b"filename"].decode("utf-8") if b"filename" in options else None
        except UnicodeDecodeError:
            raise RequestError("the form has a name that is not UTF-8") from None
        if not self._field:
            raise RequestError("the form has a part without a name")
        if self._field in self.form.fields or self._field in self.form.files:
            raise RequestError(f"the form has field {self._field[:100]!r} twice")
        if file_name is None:
            self._text = bytearray()
            return
        if self._folder is None:
            raise RequestError(f"the form has a file in field {self._field[:100]!r}; none is expected")
        path = self._folder / f"part-{self._parts}"
        self._file = path.open("xb")
        self.form.files[self._field] = FormFile(base_name(file_name), path)
        kind = self._headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if self._base64_parts and kind == b"application/octet-stream":
            self._encoded.append(path)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file:
            self._file.write(data[start:end])
        elif self._text is not None:
            self._text += data[start:end]
            if len(self._text) > FIELD_BYTES:
                raise RequestError(f"field {self._field[:100]!r} has more than {FIELD_BYTES} bytes", status=413)

    def _end(self) -> None:
        if self._file:
            self._file.close()
            self._file = None
        elif self._text is not None:
            try:
                self.form.fields[self._field] = self._text.decode("utf-8")
            except UnicodeDecodeError:
                raise RequestError(f"field {self._field[:100]!r} is not UTF-8") from None
            self._text = None

    def _done(self) -> None:
        self._complete = True


def _decode(path: Path) -> None:
    """Replace a file by what its base64 stands for; a newline at its end is the client's."""
    decoded, wrong = path.with_suffix(".decoded"), "a file of the form is not base64, as Content-Encoding says it is"
    with path.open("rb") as encoded, decoded.open("xb") as output:
        left = encoded.seek(0, 2)
        encoded.seek(max(0, left - 2))
        tail = encoded.read()
        left -= 2 if tail == b"\r\n" else int(tail.endswith(b"\n"))
        encoded.seek(0)
        while left:
            piece = encoded.read(min(left, WRITE_BYTES))
            left -= len(piece)
            if left and piece.endswith(b"="):
                raise RequestError(wrong)
            try:
                output.write(binascii.a2b_base64(piece, strict_mode=True))
            except binascii.Error:
                raise RequestError(wrong) from None
    decoded.replace(path)
