"""Real servers of files on loopback: XRootD, that can be stopped, killed and started again, HTTP with ranges, and S3."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
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


class Grid:
    """A certificate authority of our own, with a host, a user, the user's proxy and one that has expired; made with openssl.

    Attributes
    ----------
    certificates : Path
        For ``X509_CERT_DIR``.
    proxy, expired : Path
        For ``X509_USER_PROXY``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificates = folder / "certificates"
        self.certificates.mkdir()
        self._openssl(
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj",
            "/O=Tests/CN=Authority",
            "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign",
        )
        name = self._openssl("x509 -hash -noout -in ca.pem").strip()
        shutil.copyfile(folder / "ca.pem", self.certificates / f"{name}.0")
        (self.certificates / f"{name}.signing_policy").write_text(
            "access_id_CA X509 '/O=Tests/CN=Authority'\npos_rights globus CA:sign\ncond_subjects globus '\"/O=Tests/*\"'\n"
        )
        signed = "keyUsage=critical,digitalSignature,keyEncipherment\n"
        self._certificate("host", "/O=Tests/CN=localhost", "ca", signed + "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self._certificate("user", "/O=Tests/CN=A User", "ca", signed)
        proxy = signed + "proxyCertInfo=critical,language:id-ppl-inheritAll\n"
        self.proxy = self._proxy("proxy", proxy, days=1)
        self.expired = self._proxy("expired", proxy, days=-1)

    def _certificate(self, name: str, subject: str, issuer: str, extensions: str, days: int = 30) -> None:
        (self.folder / f"{name}.ext").write_text(extensions)
        self._openssl(f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj", subject)
        self._openssl(
            f"x509 -req -in {name}.csr -CA {issuer}.pem -CAkey {issuer}.key -set_serial {hash(name) % 10**9 + 1} "
            f"-out {name}.pem -days {days} -extfile {name}.ext"
        )

    def _proxy(self, name: str, extensions: str, days: int) -> Path:
        self._certificate(name, "/O=Tests/CN=A User/CN=12345", "user", extensions, days)
        path = self.folder / f"{name}.proxy"
        path.write_bytes(
            b"".join((self.folder / part).read_bytes() for part in (f"{name}.pem", f"{name}.key", "user.pem"))
        )
        path.chmod(0o600)
        return path

    def _openssl(self, words: str, subject: str = "", more: str = "") -> str:
        command = ["openssl", *words.split(), *([subject] if subject else []), *more.split()]
        result = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def server_settings(self, home: Path) -> str:
        """Copy what a server needs to its own folder; returns the lines of its configuration that demand a proxy."""
        shutil.copytree(self.certificates, home / "certificates")
        for name in ("host.pem", "host.key"):
            shutil.copyfile(self.folder / name, home / name)
            (home / name).chmod(0o600)
        return (
            "xrootd.seclib libXrdSec.so\n"
            f"sec.protocol gsi -certdir:{home}/certificates -cert:{home}/host.pem -key:{home}/host.key -crl:0 -gridmap:none -gmapopt:10\n"
            "sec.protbind * only gsi\n"
        )


class XRootDServer:
    """A server of one folder, under a configuration of its own and an unprivileged user."""

    def __init__(self, grid: Grid | None = None) -> None:
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
            "xrd.network nodnr\n" + (grid.server_settings(self.home) if grid else "")
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
        token = self.server.token  # type: ignore[attr-defined]
        self.server.authorizations.append(self.headers.get("Authorization"))  # type: ignore[attr-defined]
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Bearer")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
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
    authorizations: list[str | None]
    token: str | None

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that could not agree with us on TLS."""


@contextlib.contextmanager
def http_server(
    folder: Path, token: str | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, HTTPServer]]:
    """Serve a folder, with ``token`` only to those who have it; gives the URL and the server, whose ``ranges`` are those that were asked for."""
    server = HTTPServer(("127.0.0.1", 0), lambda *a: _Ranges(*a, directory=str(folder)))  # type: ignore[arg-type,misc]
    server.ranges, server.authorizations, server.token = [], [], token
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}", server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextlib.contextmanager
def s3_server(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Serve an empty bucket by the protocol of S3; the environment names it as the clients expect."""
    server = S3Server()
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        server.bucket(bucket)
        yield server
    finally:
        # Clients are kept by their options, and these are of a server that is gone.
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.close()


class S3Server:
    """A server that speaks the protocol of S3 and keeps what it holds in memory.

    Attributes
    ----------
    sent : list of tuple (str, str or None, int)
        Name, range that was asked for, and bytes of the answer, of every read of an object.
    """

    def __init__(self) -> None:
        import werkzeug.serving
        from moto.server import DomainDispatcherApplication, create_backend_app

        self.sent: list[tuple[str, str | None, int]] = []
        self.refuse = False
        application = DomainDispatcherApplication(create_backend_app)

        def counting(environ: dict[str, Any], start: Any) -> Any:
            if self.refuse:
                start("403 Forbidden", [("Content-Length", "0")])
                return []
            answer = b"".join(application(environ, start))
            if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].count("/") > 1:
                self.sent.append((environ["PATH_INFO"], environ.get("HTTP_RANGE"), len(answer)))
            return [answer]

        self._server = werkzeug.serving.make_server("127.0.0.1", 0, counting, threaded=True)
        self._server.log = lambda *_, **__: None  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        # What it holds is the process's, not the server's.
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST"), timeout=10).close()

    def bucket(self, name: str) -> None:
        self._client().create_bucket(Bucket=name)

    def add(self, file: Path | str, bucket: str, key: str) -> str:
        """Put a file into a bucket; returns its URL."""
        self._client().put_object(Bucket=bucket, Key=key, Body=Path(file).read_bytes())
        return f"s3://{bucket}/{key}"

    def _client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="tests",
            aws_secret_access_key="tests",
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
