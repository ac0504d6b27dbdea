"""The client, against a real server and against things that are none."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from tests.inference.conftest import ServerStarter, sum_graph, write_bundle, write_plain_model

from mlaas4hep.errors import AnswerError, SettingError
from mlaas4hep.inference.client import TFaaSClient
from mlaas4hep.inference.server import ServerProcess, serve_in_process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    models = tmp_path_factory.mktemp("client") / "models"
    write_plain_model(models / "sum", sum_graph())
    with serve_in_process(models, upload_bytes=4 << 20) as running:
        yield running


def test_a_model_is_uploaded_from_a_description_and_from_arguments(start_server: ServerStarter, tmp_path: Path) -> None:
    client = TFaaSClient(start_server().url + "/")
    made = write_bundle(tmp_path / "made", name="tau")
    (made / "encoding.json").unlink()
    files = {
        "name": "tau",
        "model": str(made / "model.onnx"),
        "params": str(made / "params.json"),
        "labels": str(made / "labels.txt"),
    }
    (tmp_path / "upload.json").write_text(json.dumps(files))
    client.upload(tmp_path / "upload.json")
    assert client.params("tau")["labels"] == "labels.txt"
    assert client.params() == client.params("tau")
    client.upload(name="tau", model=files["model"], params=files["params"], labels=files["labels"])
    assert len(client.models()) == 1
    with pytest.raises(AnswerError, match=r"422: .*'labels' is 'labels\.txt', but there is no such file"):
        client.upload(name="tau", model=files["model"], params=files["params"])
    with pytest.raises(AnswerError, match="the form's name is 'b'"):
        client.upload(tmp_path / "upload.json", name="b")


def test_numpy_values_and_many_rows_are_sent(server: ServerProcess) -> None:
    client = TFaaSClient(server.url)
    assert client.predict(values=np.array([1, 2, 3.5], np.float32), model="sum") == [6.5]
    assert client.predict({"model": "sum"}, rows=np.ones((2, 3))) == [[3], [3]]
    assert client.predict(values=[np.float32(1), np.int64(2), 3], model="sum") == [6]
    assert client.status()["models"]["sum"]["requests"] == 3


def test_what_the_server_refuses_is_an_error_with_status_and_body(server: ServerProcess) -> None:
    client = TFaaSClient(server.url)
    with pytest.raises(AnswerError, match="answers 404: no model 'x'") as caught:
        client.predict(values=[1], model="x")
    assert (caught.value.status, json.loads(caught.value.body)) == (404, {"error": "no model 'x'"})
    with pytest.raises(AnswerError) as caught:
        client.params("../../etc/passwd")
    assert caught.value.status in (400, 404)
    with pytest.raises(AnswerError) as caught:
        client.delete("../x")
    assert caught.value.status == 400


def test_images_are_asked_for_and_the_answer_of_the_server_is_told(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "event.png").write_bytes(b"\x89PNG")
    with pytest.raises(AnswerError, match="answers 404: there is nothing at this path"):
        TFaaSClient(server.url).image(tmp_path / "event.png", "sum")


def test_an_upload_that_is_refused_while_it_is_sent_tells_the_reason(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "large.tar.gz").write_bytes(bytes(64 << 20))
    with pytest.raises(AnswerError, match="413: the body is too large") as caught:
        TFaaSClient(server.url).upload_bundle(tmp_path / "large.tar.gz")
    assert caught.value.status == 413


@pytest.mark.parametrize("values", [[float("nan")], [float("inf")], [{1}], ["x", object()]])
def test_values_that_json_has_no_words_for_are_refused_here(values: list[object]) -> None:
    with pytest.raises(SettingError, match="setting 'values' must be numbers, None where absent"):
        TFaaSClient("http://localhost:1").predict(values=values, model="sum")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8083",
        "ftp://localhost",
        "http://",
        "http://localhost:port",
        "http://localhost/?x=1",
        "http://localhost:99999",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SettingError, match="setting 'url' must be like http://localhost:8083"):
        TFaaSClient(url)


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    client = TFaaSClient("http://localhost:1")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "half.json").write_text('{"name": "a", "params": "/nowhere/params.json"}')
    (tmp_path / "whole.json").write_text('{"name": "a", "params": "/nowhere/params.json", "model": "/nowhere/m"}')
    for ask, setting in (
        (lambda: client.upload(tmp_path / "nothing.json"), "upload"),
        (lambda: client.upload(tmp_path / "list.json"), "upload"),
        (lambda: client.upload(tmp_path / "half.json"), "model"),
        (lambda: client.upload(tmp_path / "whole.json"), "params"),
        (lambda: client.upload_bundle(tmp_path / "nothing.tar.gz"), "bundle"),
        (lambda: client.upload_bundle(tmp_path), "bundle"),
        (lambda: client.image(tmp_path / "nothing.png", "m"), "image"),
    ):
        with pytest.raises(SettingError) as caught:
            ask()
        assert caught.value.setting == setting


def test_no_server_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(AnswerError, match=f"http://127.0.0.1:{port} does not answer: Connection refused") as caught:
        TFaaSClient(f"http://127.0.0.1:{port}").models()
    assert caught.value.status == 0


def test_a_server_that_says_nothing_is_given_up() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(AnswerError, match="does not answer: timed out"),
    ):
        TFaaSClient(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2).models()


def test_an_answer_that_is_not_json_is_one_clear_error() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/models" else 500)
            self.end_headers()
            self.wfile.write(b"<html>another program</html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            client = TFaaSClient(f"http://127.0.0.1:{other.server_port}")
            with pytest.raises(AnswerError, match="not JSON") as caught:
                client.models()
            assert "another program" in caught.value.body
            with pytest.raises(AnswerError, match="answers 500: <html>another program"):
                client.status()
        finally:
            other.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
    ]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*command, "subjectAltName=DNS:localhost,IP:127.0.0.1", *files], check=True, capture_output=True)
    (folder / "proxy.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return folder


def test_over_tls_the_server_is_checked_and_the_client_shows_its_certificate(certificate: Path) -> None:
    seen: list[object] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert isinstance(self.connection, ssl.SSLSocket)
            seen.append(self.connection.getpeercert())
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "proxy.pem")
    context.load_verify_locations(certificate / "cert.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with HTTPServer(("127.0.0.1", 0), Answer) as other:
        other.socket = context.wrap_socket(other.socket, server_side=True)
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            url = f"https://localhost:{other.server_port}"
            for key, cert in ((certificate / "key.pem", certificate / "cert.pem"), (None, certificate / "proxy.pem")):
                assert TFaaSClient(url, key, cert, certificate / "cert.pem").models() == []
            assert len(seen) == 2
            assert all(seen)
            with pytest.raises(AnswerError, match="certificate verify failed"):
                TFaaSClient(url, None, certificate / "proxy.pem").models()
        finally:
            other.shutdown()
            thread.join()


def test_certificates_that_cannot_be_read_are_named(certificate: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="setting 'cert' must be a certificate with its key"):
        TFaaSClient("https://localhost", certificate / "key.pem", tmp_path / "nothing.pem")
    with pytest.raises(SettingError, match="setting 'capath' must be a folder or file of certificates"):
        TFaaSClient("https://localhost", capath=tmp_path / "nothing")
