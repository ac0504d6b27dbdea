"""Requests that are wrong in form: each has one clear answer, and the server goes on."""

from __future__ import annotations

import gzip
import io
import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.inference.conftest import ServerStarter, sum_graph, write_plain_model

from mlaas4hep.inference.client import TFaaSClient
from mlaas4hep.inference.server import ServerProcess, serve_in_process

ROW = b'{"values": [1, 2, 3], "model": "sum"}'


@pytest.fixture(scope="module", params=["direct", "logged"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose connections answer predictions themselves, and one that logs each request and so lets the application do it."""
    folder = tmp_path_factory.mktemp("hostile")
    write_plain_model(folder / "models" / "sum", sum_graph())
    verbose = int(request.param == "logged")
    limits = {"header_seconds": 1.0, "body_seconds": 1.0, "json_bytes": 1 << 20, "upload_bytes": 1 << 21}
    with serve_in_process(folder / "models", **limits, verbose=verbose, log_file=folder / "log") as running:
        yield running
        assert predict(running) == [6.0]  # after all that is in this file
    assert ("ms=" in (folder / "log").read_text()) == bool(verbose)


def predict(server: ServerProcess) -> list[float]:
    answer = TFaaSClient(server.url).predict(json.loads(ROW))
    assert isinstance(answer, list)
    return answer


def connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=20)


def receive(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def ask(server: ServerProcess, request: bytes) -> tuple[int, dict[str, str]]:
    """Send bytes as they are; return status and body of the one answer."""
    with connect(server) as connection:
        connection.sendall(request)
        return parse(receive(connection))


def parse(answer: bytes) -> tuple[int, dict[str, str]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), answer
    return int(head.split()[1]), json.loads(body) if body else {}


def post(body: bytes, *headers: str, path: str = "/json", length: int | None = None, host: str = "127.0.0.1") -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        f"Content-Length: {len(body) if length is None else length}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def test_the_way_these_tests_ask_works(server: ServerProcess) -> None:
    assert ask(server, post(ROW)) == (200, [6.0])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 200_000, 400),
        (b'{"values": [NaN, 1, 2], "model": "sum"}', 400),
        (b"\xff\xfe\0", 400),
        (b"{}", 400),
    ],
)
def test_bodies_that_are_no_request(server: ServerProcess, body: bytes, status: int) -> None:
    answered, answer = ask(server, post(body))
    assert (answered, set(answer)) == (status, {"error"})


def test_a_body_that_is_said_to_be_too_large_is_refused_before_it_comes(server: ServerProcess) -> None:
    assert ask(server, post(b"", length=100 << 20)) == (
        413,
        {"error": "the body is too large; at most 1048576 bytes are accepted"},
    )


def test_a_hundred_megabytes_are_refused_without_being_kept(server: ServerProcess) -> None:
    assert server.process is not None
    before = psutil.Process(server.process.pid).memory_info().rss
    with connect(server) as connection:
        connection.sendall(b"POST /json HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
        try:
            for _ in range(100):
                connection.sendall(chunk)
        except OSError:
            pass  # refused already
        connection.settimeout(5)
        try:
            answer = connection.recv(1 << 16)
        except ConnectionResetError:
            answer = b"HTTP/1.1 413 "
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert psutil.Process(server.process.pid).memory_info().rss - before < 30 << 20


def test_an_upload_that_is_too_large_is_refused_and_leaves_nothing(server: ServerProcess) -> None:
    status, answer = ask(server, post(b"", path="/upload", length=1 << 30))
    assert (status, "too large" in answer["error"]) == (413, True)
    assert list((server.settings.models / ".mlaas4hep" / "staging").iterdir()) == []


def test_a_body_that_inflates_to_too_much_is_refused(server: ServerProcess) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    assert ask(server, post(bomb, "Content-Encoding: gzip"))[0] == 413
    assert ask(server, post(gzip.compress(ROW), "Content-Encoding: gzip")) == (200, [6.0])
    assert ask(server, post(gzip.compress(ROW)[:-9], "Content-Encoding: gzip"))[1] == {
        "error": "the compressed body is cut off"
    }
    assert ask(server, post(ROW, "Content-Encoding: gzip"))[0] == 400
    assert ask(server, post(ROW, "Content-Encoding: br"))[0] == 415


def test_a_body_one_byte_at_a_time_is_read(server: ServerProcess) -> None:
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(
            b"POST /json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for byte in ROW:
            connection.sendall(b"1\r\n%c\r\n" % byte)
        connection.sendall(b"0\r\n\r\n")
        assert parse(receive(connection)) == (200, [6.0])


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-1\r\n", b"fffffffffffffffffff\r\n", b"5;x\n12345"])
def test_chunks_that_lie_are_refused(server: ServerProcess, chunk: bytes) -> None:
    status, answer = ask(
        server, b"POST /json HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + b"\r\n"
    )
    assert (status in (400, 408, 413), set(answer)) == (True, {"error"})


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "99999999999999999999999", "3, 3"])
def test_a_content_length_that_is_no_length_is_refused(server: ServerProcess, length: str) -> None:
    status, answer = ask(
        server, f"POST /json HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode() + ROW
    )
    assert (status in (400, 413), set(answer)) == (True, {"error"})


def test_two_lengths_are_refused(server: ServerProcess) -> None:
    for headers in (["Content-Length: 3"], ["Transfer-Encoding: chunked"]):
        assert ask(server, post(ROW, *headers))[0] == 400


def test_a_length_that_is_too_short_cuts_the_body_off(server: ServerProcess) -> None:
    status, answer = ask(server, post(ROW, length=10))
    assert (status, set(answer)) == (400, {"error"})


def test_a_client_that_is_slow_is_told_so_and_disconnected(server: ServerProcess) -> None:
    for sent in (b"", b"POST /json HT", b"POST /json HTTP/1.1\r\nHost: localhost\r\n", post(ROW, length=1000)):
        with connect(server) as connection:
            connection.sendall(sent)
            assert parse(receive(connection)) == (408, {"error": "the request took too long to come"})


def test_a_client_that_drips_is_disconnected_too(server: ServerProcess) -> None:
    """A byte now and then does not keep a connection."""
    with connect(server) as connection:
        connection.sendall(post(b"", length=1000))
        end = time.monotonic() + 15
        connection.settimeout(0.2)
        answer = b""
        while time.monotonic() < end and not answer:
            try:
                connection.sendall(b" ")
                answer = connection.recv(1 << 16)
            except TimeoutError:
                continue
        assert parse(answer)[0] == 408


def test_many_headers_and_long_headers_and_addresses_are_refused(server: ServerProcess) -> None:
    many = [f"X-{number}: 1" for number in range(10_000)]
    assert ask(server, post(ROW, *many)) == (431, {"error": "more than 100 headers"})
    assert ask(server, post(ROW, "X: " + "y" * 60_000))[0] == 431
    assert ask(server, post(ROW, path="/json?" + "y" * 60_000))[0] == 414


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G=T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA B: c\r\n\r\n",
    ],
)
def test_what_is_not_http_is_answered_in_json(server: ServerProcess, garbage: bytes) -> None:
    status, answer = ask(server, garbage)
    assert (status, set(answer)) == (400, {"error"})


def test_a_client_that_goes_away_in_the_middle_does_no_harm(server: ServerProcess) -> None:
    for path in ("/json", "/upload"):
        for _ in range(20):
            with connect(server) as connection:
                connection.sendall(post(ROW, path=path, length=1000))
    assert predict(server) == [6.0]
    deadline = time.monotonic() + 10
    staging = server.settings.models / ".mlaas4hep" / "staging"
    while list(staging.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(staging.iterdir()) == []


def test_requests_sent_ahead_are_answered_in_order(server: ServerProcess) -> None:
    bodies = [json.dumps({"values": [number, 0, 0], "model": "sum"}).encode() for number in range(20)]
    requests = [post(body).replace(b"Connection: close\r\n", b"") for body in bodies[:-1]]
    with connect(server) as connection:
        connection.sendall(b"".join(requests) + post(bodies[-1]))
        answer = receive(connection)
    parts = answer.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [json.loads(part.partition(b"\r\n\r\n")[2]) for part in parts] == [[float(number)] for number in range(20)]


def test_expecting_to_continue_is_answered(server: ServerProcess) -> None:
    with connect(server) as connection:
        head = post(b"", "Expect: 100-continue", length=len(ROW))
        connection.sendall(head)
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(ROW)
        assert parse(receive(connection)) == (200, [6.0])


@pytest.mark.parametrize("path", ["/json", "/upload", "/models", "/", "/delete/sum", "/params"])
@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Host: evil.example", 403),
        ("Host: 127.0.0.1.evil.example", 403),
        ("Host: localhost.evil.example:80", 403),
        ("Host: 192.168.1.1", 403),
        ("Host: ", 403),
        ("Host: localhost\r\nHost: localhost", 400),
        ("X: no host", 400),
        ("Host: localhost\r\nOrigin: https://evil.example", 403),
        ("Host: localhost\r\nOrigin: null", 403),
        ("Host: localhost:8083\r\nOrigin: http://localhost:9999", 403),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site", 403),
    ],
)
def test_requests_that_a_page_of_others_makes_a_browser_send_are_refused(
    server: ServerProcess, path: str, header: str, status: int
) -> None:
    method = {"/models": "GET", "/": "GET", "/delete/sum": "DELETE"}.get(path, "POST")
    request = (
        f"{method} {path} HTTP/1.1\r\n{header}\r\nConnection: close\r\nContent-Length: {len(ROW)}\r\n\r\n".encode()
        + ROW
    )
    answered, answer = ask(server, request)
    assert (answered, set(answer)) == (status, {"error"})
    assert (server.settings.models / "sum").is_dir()


@pytest.mark.parametrize(
    "header",
    [
        "Host: localhost:8083",
        "Host: LOCALHOST",
        "Host: [::1]:8083",
        "Host: 127.0.0.1",
        "Host: localhost:1\r\nOrigin: http://localhost:1\r\nSec-Fetch-Site: same-origin",
    ],
)
def test_requests_of_this_machine_are_answered(server: ServerProcess, header: str) -> None:
    request = (
        f"POST /json HTTP/1.1\r\n{header}\r\nConnection: close\r\nContent-Length: {len(ROW)}\r\n\r\n".encode() + ROW
    )
    assert ask(server, request) == (200, [6.0])


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "cut off"),
        (b"--b\r\n\r\nx\r\n--b--\r\n", 400, "without a name"),
        (b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx', 400, "cut off"),
        (
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n--b--',
            400,
            "twice",
        ),
        (
            b"".join(b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\nx\r\n' % n for n in range(50))
            + b"--b--",
            413,
            "more than 32 parts",
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + b"x" * 100_000 + b"\r\n--b--",
            413,
            "more than 65536 bytes",
        ),
        (b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xff\r\n--b--', 400, "not UTF-8"),
        (b"--b\r\n" + b"X: y\r\n" * 100 + b"\r\nx\r\n--b--", 400, "damaged"),
        (b"--b\r\nX: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--b--", 400, "damaged"),
        (b"not a form", 400, "damaged"),
    ],
)
def test_forms_that_are_damaged_are_refused(server: ServerProcess, body: bytes, status: int, message: str) -> None:
    answered, answer = ask(server, post(body, "Content-Type: multipart/form-data; boundary=b", path="/upload"))
    assert (answered, message in answer["error"]) == (status, True), answer


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "text/form-data; boundary=b",
        "multipart/form-data; boundary=" + "b" * 500,
    ],
)
def test_forms_without_a_boundary_are_refused(server: ServerProcess, kind: str) -> None:
    assert ask(server, post(b"--b--", f"Content-Type: {kind}", path="/upload"))[0] in (400, 415)


def test_a_file_in_the_form_of_a_deletion_is_refused(server: ServerProcess) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="model"; filename="x"\r\n\r\nsum\r\n--b--'
    request = post(form, "Content-Type: multipart/form-data; boundary=b", path="/delete").replace(b"POST", b"DELETE", 1)
    assert ask(server, request)[0] == 400


def test_thousands_of_damaged_requests_give_no_defect_and_no_growth(server: ServerProcess) -> None:
    assert server.process is not None
    chance, process = random.Random(5), psutil.Process(server.process.pid)
    form = b'--b\r\nContent-Disposition: form-data; name="model"; filename="m.onnx"\r\n\r\nx\r\n--b--\r\n'
    seeds = [
        post(ROW),
        post(ROW, "Transfer-Encoding: chunked"),
        post(form, "Content-Type: multipart/form-data; boundary=b", "Content-Encoding: base64", path="/upload"),
        post(gzip.compress(ROW), "Content-Encoding: gzip"),
        post(b"", path="/params/sum").replace(b"POST", b"GET", 1),
        post(b"", path="/delete?model=none").replace(b"POST", b"DELETE", 1),
    ]
    memory, statuses = 0, set()
    for number in range(1500):
        request = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 8)):
            place = chance.randrange(len(request))
            request[place : place + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 3))
        with connect(server) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = receive(connection)
        statuses.add(answer[9:12])
        assert not answer.startswith(b"HTTP/1.1 5"), (bytes(request), answer)
        if number == 300:
            memory = process.memory_info().rss
    assert {b"200", b"400", b"403"} <= statuses
    assert process.memory_info().rss < 1.2 * memory


def test_a_disk_that_fills_up_is_said_and_leaves_nothing(
    tmp_path: Path, start_server: ServerStarter, bundle: Path
) -> None:
    """A limit on the size of files stands for the disk: the same call fails."""
    import resource

    server = start_server()
    assert server.process is not None
    if not hasattr(resource, "prlimit"):
        pytest.skip("limits of another process are set on Linux only")
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (200, 200))
    with io.BytesIO(bundle.read_bytes()) as body:
        status, answer = ask(server, post(body.read(), path="/upload"))
    assert (status, answer["error"]) == (507, "the disk of the server is full")
    assert list((tmp_path / "models" / ".mlaas4hep" / "staging").iterdir()) == []
    assert TFaaSClient(server.url).models() == []
