"""HTTP connections with limits on what a client may send and how long it may take.

uvicorn's protocol, with three things added: the request line and the headers are bounded in number and size, whatever cannot be parsed is answered
as JSON like any other error, and a client that is too slow with its headers or its body is told so and disconnected. Slowness costs a request no
timer: the connection notes until when it must be complete, and the server looks at all connections once a second.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Connection", "ConnectionLimits", "close_slow_connections"]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a client may send, and how fast it must be.

    Parameters
    ----------
    headers : int
        Number of headers.
    header_bytes : int
        Bytes of the request line and all headers.
    header_seconds : float
        From the first byte to the end of the headers, and from the connection to the first byte.
    body_seconds : float
        For a body, beside what its bytes take at ``body_rate``.
    body_rate : float
        Slowest accepted speed of a body in bytes a second.
    """

    headers: int = 100
    header_bytes: int = 32_768
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    body_rate: float = 32_768.0


class Connection(HttpToolsProtocol):
    """One connection; see the module."""

    limits = ConnectionLimits()
    complete_by = inf
    _header_count = _header_bytes = 0
    _refused = False

    @property
    def had_a_request(self) -> bool:
        """Whether a request has come on this connection, answered or not."""
        return self.cycle is not None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.complete_by = self.loop.time() + self.limits.header_seconds

    def data_received(self, data: bytes) -> None:
        """Take in bytes, unless the client was refused already: what it still sends is thrown away."""
        if not self._refused:
            super().data_received(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Let a client that has said all still hear the answer; one that stops in the middle of a request is let go."""
        waiting = self.cycle is not None and not self.cycle.response_complete and self.complete_by == inf
        if waiting:
            self.cycle.keep_alive = False
        return waiting

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._header_count = self._header_bytes = 0
        self.complete_by = self.loop.time() + self.limits.header_seconds

    def on_url(self, url: bytes) -> None:
        """Take in a piece of the request line."""
        super().on_url(url)
        self._header_bytes += len(url)
        if self._header_bytes > self.limits.header_bytes:
            self.refuse(HTTPStatus.REQUEST_URI_TOO_LONG, f"more than {self.limits.header_bytes} bytes in the address")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header."""
        name = name.lower()
        self.headers.append((name, value))
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self._header_count += 1
        self._header_bytes += len(name) + len(value)
        if self._header_count > self.limits.headers:
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {self.limits.headers} headers")
        elif self._header_bytes > self.limits.header_bytes:
            self.refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {self.limits.header_bytes} bytes of headers"
            )

    def on_headers_complete(self) -> None:
        """Begin the body."""
        if not self._refused:
            super().on_headers_complete()
            self.complete_by = self.loop.time() + self.limits.body_seconds

    def on_body(self, body: bytes) -> None:
        """Take in a piece of the body, and give the client the time that it took."""
        if not self._refused:
            super().on_body(body)
            self.complete_by += len(body) / self.limits.body_rate

    def on_message_complete(self) -> None:
        """End a request."""
        if not self._refused:
            super().on_message_complete()
            self.complete_by = inf

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self.refuse(HTTPStatus.BAD_REQUEST, "this is not HTTP that can be understood")

    def refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer with an error and close; an answer that has begun already is cut off instead."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = orjson.dumps({"error": message})
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (status, status.phrase.encode(), len(body), body)
            )
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        # What the client is still sending would turn the close into a reset, and the answer would be lost: end our side only, for a moment.
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(1.0, self.transport.close)
        else:
            self.transport.close()


def close_slow_connections(connections: Iterable[Any], now: float) -> None:
    """Refuse the clients that should have sent all of their request by now."""
    for connection in list(connections):
        if isinstance(connection, Connection) and connection.complete_by < now:
            connection.complete_by = inf
            connection.refuse(HTTPStatus.REQUEST_TIMEOUT, "the request took too long to come")
