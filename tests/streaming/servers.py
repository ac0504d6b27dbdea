"""Real servers of files on loopback: XRootD, that can be stopped, killed and started again, and HTTP with ranges."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

STARTS_WITHIN = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_xrootd() -> None:
    """Skip where there is no server; in continuous integration that is a failure."""
    if shutil.which("xrootd"):
        return
    reason = "no xrootd server on the PATH (Debian: apt-get install xrootd-server)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class XRootDServer:
    """A server of one folder, under a configuration of its own and an unprivileged user."""

    def __init__(self) -> None:
        # Not within pytest's folders: those are closed to other users.
        self.home = Path(tempfile.mkdtemp(prefix="mlaas4hep-xrootd-"))
        self.folder = self.home / "base" / "store"
        for folder in (self.folder, self.home / "admin", self.home / "pid"):
            folder.mkdir(parents=True)
        self.port = free_port()
        self.url = f"root://127.0.0.1:{self.port}/"
        (self.home / "server.cfg").write_text(
            f"xrd.port {self.port}\n"
            f"oss.localroot {self.home}/base\n"
            "all.export /store r/o\n"
            f"all.adminpath {self.home}/admin\n"
            f"all.pidpath {self.home}/pid\n"
            "xrd.network nodnr\n"
        )
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            self._as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            for path in (self.home, *self.home.rglob("*")):
                shutil.chown(path, "nobody")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def add(self, file: Path | str, name: str | None = None) -> str:
        """Serve a copy of a file; returns its URL."""
        name = name or Path(file).name
        # Renamed into place, as a site replaces files: who has the old one open keeps it.
        shutil.copyfile(file, self.folder / f".{name}")
        (self.folder / f".{name}").rename(self.folder / name)
        return f"{self.url}/store/{name}"

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._as_user, "xrootd", "-c", str(self.home / "server.cfg"), "-p", str(self.port)],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < end:
            assert self.process.poll() is None, (self.home / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise AssertionError((self.home / "log").read_text())

    def pause(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.home)


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, whole or in ranges."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        try:
            data = Path(self.translate_path(self.path)).read_bytes()
        except OSError:
            self.send_error(404)
            return
        self.server.ranges.append(wanted.groups() if wanted else None)  # type: ignore[attr-defined]
        part = data[int(wanted[1]) : int(wanted[2]) + 1] if wanted else data
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


class HTTPServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    ranges: list[tuple[str, str] | None]


@contextlib.contextmanager
def http_server(folder: Path) -> Iterator[tuple[str, HTTPServer]]:
    """Serve a folder; gives the URL and the server, whose ``ranges`` are those that were asked for."""
    server = HTTPServer(("127.0.0.1", 0), lambda *a: _Ranges(*a, directory=str(folder)))  # type: ignore[arg-type,misc]
    server.ranges = []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
