"""Connections that answer predictions themselves.

An ASGI application costs a task, a scope and several messages for each request, which is more than a small network takes to predict. So a request
to one of a few addresses never becomes one: its body goes to the prediction path when it is whole, and the answer is written when it is there.
Whatever is not plain, such as a compressed body or a request sent before the last one is answered, goes the ordinary way, where the same function
answers it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from math import inf
from typing import Any

from mlaas4hep.inference.web.answers import error_answer
from mlaas4hep.inference.web.connection import Connection, ConnectionLimits

__all__ = ["DirectConnection", "Predict", "connection_class"]

Headers = Sequence[tuple[bytes, bytes]]
Predict = Callable[[Headers, bytes], "asyncio.Future[bytes]"]

JSON = (b"content-type", b"application/json")


class _Exchange:
    """One request and its answer, in the place of uvicorn's cycle, whose attributes the connection looks at."""

    __slots__ = (
        "body",
        "disconnected",
        "keep_alive",
        "message_event",
        "predict",
        "response_complete",
        "response_started",
        "size",
    )

    def __init__(self, predict: Predict, *, keep_alive: bool) -> None:
        self.predict, self.keep_alive = predict, keep_alive
        self.body: list[bytes] = []
        self.size = 0
        self.disconnected = self.response_started = self.response_complete = False
        self.message_event = self  # nobody waits for it: what is awaited is the prediction

    def set(self) -> None:
        """Do nothing: stands for the event's."""


class DirectConnection(Connection):
    """A connection with a table of addresses that it answers itself."""

    predictions: Mapping[bytes, Predict]
    body_bytes: int

    def on_headers_complete(self) -> None:
        """Choose the way that the request goes."""
        predict = self.predictions.get(self.url)
        if (
            predict is None
            or self._refused
            or not self._is_plain()
            or self.expect_100_continue
            or self.flow.write_paused
            or not (self.cycle is None or self.cycle.response_complete)
            or self.parser.get_method() != b"POST"
        ):
            super().on_headers_complete()
            return
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        exchange: Any = _Exchange(predict, keep_alive=keep_alive)
        self.cycle = exchange
        self.complete_by = self.loop.time() + self.limits.body_seconds

    def _is_plain(self) -> bool:
        for name, value in self.headers:
            if name == b"content-encoding":
                return False
            if name == b"content-length" and (len(value) > 18 or int(value) > self.body_bytes):
                return False
        return True

    def on_body(self, body: bytes) -> None:
        """Take in a piece of the body."""
        exchange: Any = self.cycle
        if not isinstance(exchange, _Exchange):
            super().on_body(body)
        elif not self._refused:
            exchange.body.append(body)
            exchange.size += len(body)
            self.complete_by += len(body) / self.limits.body_rate
            if exchange.size > self.body_bytes:
                message = f"the body is too large; at most {self.body_bytes} bytes are accepted"
                self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)

    def on_message_complete(self) -> None:
        """Predict."""
        exchange: Any = self.cycle
        if not isinstance(exchange, _Exchange):
            super().on_message_complete()
        elif not self._refused:
            self.complete_by = inf
            body = exchange.body[0] if len(exchange.body) == 1 else b"".join(exchange.body)
            exchange.body = []
            try:
                answer = exchange.predict(self.headers, body)
            except Exception as error:  # every error has an answer
                self._fail(exchange, error)
            else:
                answer.add_done_callback(lambda done: self._predicted(exchange, done))

    def _predicted(self, exchange: _Exchange, done: asyncio.Future[bytes]) -> None:
        if done.cancelled():
            self.transport.close()
        elif error := done.exception():
            self._fail(exchange, error if isinstance(error, Exception) else RuntimeError(repr(error)))
        else:
            self._write(exchange, 200, (JSON,), done.result())

    def _fail(self, exchange: _Exchange, error: Exception) -> None:
        answer = error_answer(error)
        headers = [header for header in answer.raw_headers if header[0] != b"content-length"]
        self._write(exchange, answer.status_code, headers, bytes(answer.body))

    def _write(self, exchange: _Exchange, status: int, headers: Headers, body: bytes) -> None:
        if exchange.disconnected or self.transport.is_closing():
            return
        lines = [STATUS_LINES[status], b"content-length: %d\r\n" % len(body)]
        for name, value in (*self.server_state.default_headers, *headers):
            lines.append(name + b": " + value + b"\r\n")
            if name == b"connection":  # the server is about to stop
                exchange.keep_alive = False
        if not exchange.keep_alive and b"connection: close\r\n" not in lines:
            lines.append(b"connection: close\r\n")
        self.transport.write(b"".join((*lines, b"\r\n", body)))
        exchange.response_started = exchange.response_complete = True
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()


STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def connection_class(
    limits: ConnectionLimits, predictions: Mapping[bytes, Predict], body_bytes: int
) -> type[DirectConnection]:
    """Return the class of connections with these limits, as uvicorn wants it.

    Parameters
    ----------
    limits : ConnectionLimits
        What a client may send.
    predictions : mapping of bytes to callable
        For each address, what takes headers and body and returns a future of the answer's JSON.
    body_bytes : int
        Largest body of a prediction.
    """
    attributes = {"limits": limits, "predictions": predictions, "body_bytes": body_bytes}
    return type("ServerConnection", (DirectConnection,), attributes)
