"""A server process: listens, announces where, and stops without dropping a request.

:func:`serve` runs one in this process until it is told to stop. :class:`ServerProcess` runs one in a process of its own, for a notebook, a
demonstration or a test; it ends with the program that started it, however that ends.
"""

from __future__ import annotations

import errno
import json
import logging
import logging.handlers
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from mlaas4hep.errors import MLaaS4HEPError, PortInUseError, SettingError
from mlaas4hep.inference.settings import ServerSettings

__all__ = ["ServerProcess", "listen", "serve", "serve_in_process"]

KEEP_ALIVE_SECONDS = 75
STOP_SECONDS = 30


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises
    ------
    PortInUseError
        If another program does.
    SettingError
        If it cannot be listened on for another reason.
    """
    address = "127.0.0.1" if host == "localhost" else host
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(host, port) from None
        raise SettingError("port", f"one that can be listened on ({error.strerror})", port) from None
    return listener


def serve(settings: ServerSettings, announce: Callable[[str], None] = print, *, leash: int | None = None) -> None:
    """Run a server until it gets SIGTERM or SIGINT.

    Parameters
    ----------
    settings : ServerSettings
        How it runs.
    announce : callable
        Called with the address of the server once it answers.
    leash : int, optional
        A file descriptor whose end also stops the server.

    Raises
    ------
    PortInUseError, SettingError
        If it cannot start.
    """
    import uvicorn

    from mlaas4hep.inference.application import Application
    from mlaas4hep.inference.web.connection import ConnectionLimits
    from mlaas4hep.inference.web.direct import connection_class
    from mlaas4hep.inference.web.orderly import OrderlyServer

    limits = ConnectionLimits(header_seconds=settings.header_seconds, body_seconds=settings.body_seconds)
    with _log(settings):
        application = Application(settings)
        with listen(settings.host, settings.port) as listener:
            config = uvicorn.Config(
                application,
                http=connection_class(limits, application.predictions, settings.json_bytes),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
            host, port = listener.getsockname()[:2]
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}{settings.base}"
            OrderlyServer(config, lambda: announce(url), settings.drain_seconds, leash).run([listener])


@contextmanager
def _log(settings: ServerSettings) -> Generator[None, None, None]:
    """Write the log of the server to where the settings say, one line an event."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if settings.log_file:
        try:
            handler = logging.handlers.WatchedFileHandler(settings.log_file, encoding="utf-8")
        except OSError as error:
            rule = "a file that can be written"
            raise SettingError("log_file", rule, f"{settings.log_file} ({error.strerror})") from None
    handler.setFormatter(logging.Formatter("time=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s"))
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[settings.verbose]
    # What these warn of is what clients do wrong: that is theirs to know, and must not fill the log of a quiet server.
    others = logging.WARNING if settings.verbose else logging.ERROR
    levels = {"mlaas4hep": level, "uvicorn": others, "python_multipart": others}
    loggers = [logging.getLogger(name) for name in levels]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(levels[logger.name])
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old)
        handler.close()


class ServerProcess:
    """A server in a process of its own.

    Parameters
    ----------
    settings : ServerSettings
        How it runs.

    Attributes
    ----------
    url : str
        Where it answers, once it is started.
    process : subprocess.Popen
        The process.

    Examples
    --------
    >>> import tempfile
    >>> from mlaas4hep.inference.client import TFaaSClient
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with ServerProcess(ServerSettings(Path(folder), port=0)) as server:
    ...         TFaaSClient(server.url).models()
    []
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> ServerProcess:
        """Start it, and return when it answers.

        Raises
        ------
        MLaaS4HEPError
            If it does not start; says why.
        """
        ours, theirs = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, self.settings.to_json(), str(theirs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs,),
            )
        finally:
            os.close(theirs)
        with os.fdopen(ours, "rb") as announcement:
            answer = json.loads(announcement.readline() or b"{}")
        if "url" not in answer:
            self.stop()
            if answer.get("error") == "PortInUseError":
                raise PortInUseError(self.settings.host, self.settings.port)
            raise MLaaS4HEPError(answer.get("message", "the server did not start; its messages are on standard error"))
        self.url = answer["url"]
        return self

    def stop(self) -> int:
        """Have it finish what it is doing and end; return its exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS + 10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        return self.process.returncode

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve_in_process(models: Path | str, **settings: Any) -> ServerProcess:
    """Return a server on a free port of this machine, to be used with ``with``.

    Parameters
    ----------
    models : path
        Folder of the models.
    **settings
        Others of :class:`ServerSettings`.
    """
    chosen = ServerSettings(Path(models), **{"port": 0, **settings})
    return ServerProcess(replace(chosen, models=Path(models).resolve()))


def _main(text: str, descriptor: int) -> int:
    """Run the server that a :class:`ServerProcess` asked for."""
    with os.fdopen(descriptor, "wb", buffering=0) as announcement:

        def announce(url: str) -> None:
            announcement.write(json.dumps({"url": url}).encode() + b"\n")
            announcement.close()

        try:
            serve(ServerSettings.from_json(text), announce, leash=sys.stdin.fileno())
        except MLaaS4HEPError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
            announcement.write(json.dumps(answer).encode() + b"\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], int(sys.argv[2])))
