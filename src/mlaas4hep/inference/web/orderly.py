"""uvicorn's server, ended in order: no request that a client has sent is lost because the server stops.

Closing a socket resets whoever waits behind it, so a server that is told to stop goes on answering for a moment and tells each client that its
connection ends with the answer; then it stops listening, takes in those who had connected before, and leaves when they have had their answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from mlaas4hep.inference.web.connection import close_slow_connections

__all__ = ["OrderlyServer"]

FRESH_SECONDS = 1.0  # how long the request of a client that has just connected is waited for
LOOK_SECONDS = 0.02


class OrderlyServer(uvicorn.Server):
    """A server that stops in order, and does not die of the signal that stops it.

    Parameters
    ----------
    config : uvicorn.Config
        What it serves.
    ready : callable
        Called once it answers.
    drain_seconds : float
        How long it still answers everybody after it is told to stop.
    leash : int, optional
        A file descriptor whose end tells it to stop too.
    """

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], None], drain_seconds: float, leash: int | None = None
    ) -> None:
        super().__init__(config)
        self._ready, self._drain_seconds, self._leash = ready, drain_seconds, leash

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Have SIGTERM and SIGINT stop the server."""
        kinds = (signal.SIGTERM, signal.SIGINT)
        before = {kind: signal.signal(kind, self.handle_exit) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        if self._leash is not None:
            os.set_blocking(self._leash, False)
            asyncio.get_running_loop().add_reader(self._leash, self._feel_leash, self._leash)
        self._ready()

    def _feel_leash(self, leash: int) -> None:
        if not os.read(leash, 1024):
            asyncio.get_running_loop().remove_reader(leash)
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Do what is done ten times a second."""
        if counter % 5 == 0:
            close_slow_connections(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop in order; a second signal shortens it."""
        self.config.headers.append(("connection", "close"))
        self.config.encoded_headers.append((b"connection", b"close"))
        self.should_exit = False
        await self._go_on(self._drain_seconds, lambda: self.should_exit)
        await self._close_the_door(sockets or [])
        await self._go_on(FRESH_SECONDS, self._nobody_is_fresh)
        await super().shutdown([])

    def _nobody_is_fresh(self) -> bool:
        connections: set[Any] = set(self.server_state.connections)
        return all(connection.had_a_request for connection in connections)

    async def _go_on(self, seconds: float, enough: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end and not enough():
            await self.on_tick(0)
            await asyncio.sleep(LOOK_SECONDS)

    async def _close_the_door(self, sockets: list[socket.socket]) -> None:
        """Stop listening, and take in those who have knocked."""
        doors = [one.dup() for one in sockets]
        for server in self.servers:
            server.close()
        for one in sockets:
            one.close()
        guests = []
        for door in doors:
            door.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    guests.append(door.accept()[0])
            door.close()
        for guest in guests:
            guest.setblocking(False)
            with suppress(OSError):  # gone already
                await asyncio.get_running_loop().connect_accepted_socket(self._connection, guest)

    def _connection(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        connection: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return connection
