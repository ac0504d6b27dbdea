"""The server as a process: it starts, says where it is, goes on under load, and stops without dropping a request."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.inference.conftest import ServerStarter, expected_probabilities, sum_graph, write_bundle, write_plain_model

from mlaas4hep.bundle.archive import pack
from mlaas4hep.errors import AnswerError, MLaaS4HEPError, PortInUseError, SettingError
from mlaas4hep.inference.client import TFaaSClient
from mlaas4hep.inference.repository import Repository
from mlaas4hep.inference.server import ServerProcess, listen, serve_in_process
from mlaas4hep.inference.settings import ServerSettings

ROW = {"values": [1, 2, 3], "model": "sum"}


def wait_for(condition: object, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.01)
    return bool(condition())  # type: ignore[operator]


def test_a_model_is_uploaded_listed_asked_by_name_and_deleted(client: TFaaSClient, bundle: Path) -> None:
    assert client.models() == []
    client.upload_bundle(bundle)
    assert [model["name"] for model in client.models()] == ["higgs"]
    answer = client.predict(
        keys=["Jet_pt", "nJet", "MET_pt", "MET_phi"], values=[[50.0, 40.0], 2, 30.0, 1.0], model="higgs"
    )
    expected = expected_probabilities(np.array([[1, 30, 2, np.nan, np.nan, 50, 40, np.nan]], np.float32))[0]
    assert answer == pytest.approx(expected, abs=1e-6)
    client.delete("higgs")
    assert client.models() == []
    with pytest.raises(AnswerError, match="no model 'higgs'") as caught:
        client.predict(values=[1.0], model="higgs")
    assert caught.value.status == 404


def test_many_random_rows_give_what_numpy_gives(client: TFaaSClient, bundle: Path) -> None:
    client.upload_bundle(bundle)
    generator = np.random.default_rng(3)
    raw = generator.normal(20, 30, (256, 8)).astype(np.float32)
    raw[generator.random(raw.shape) < 0.2] = np.nan
    rows = [[None if np.isnan(value) else float(value) for value in row] for row in raw]
    answers = np.array(client.predict(rows=rows, model="higgs"))
    np.testing.assert_allclose(answers, expected_probabilities(raw), atol=1e-6)
    one_by_one = [client.predict(values=row, model="higgs") for row in rows[:16]]
    np.testing.assert_allclose(one_by_one, answers[:16], atol=1e-6)


def test_what_another_process_publishes_and_deletes_is_seen(start_server: ServerStarter, tmp_path: Path) -> None:
    client = TFaaSClient(start_server(poll_seconds=0.05).url)
    other = Repository(tmp_path / "models")
    with other.stage() as folder:
        other.publish(write_bundle(folder / "higgs"), "higgs")
    assert wait_for(lambda: len(client.models()) == 1)
    assert len(client.predict(values=[1.0] * 8, model="higgs")) == 2
    other.delete("higgs")
    assert wait_for(lambda: client.models() == [])


def test_no_request_fails_while_versions_are_swapped(start_server: ServerStarter, tmp_path: Path) -> None:
    server = start_server()
    client = TFaaSClient(server.url)
    archives = [
        pack(write_bundle(tmp_path / str(seed) / "higgs", seed=seed), tmp_path / f"{seed}.tar.gz") for seed in (1, 2)
    ]
    row = np.array([[1, 30, 2, 1, 1, 50, 40, 30]], np.float32)
    right = [expected_probabilities(row, seed=seed)[0] for seed in (1, 2)]
    client.upload_bundle(archives[0])
    stop, failures, answers = threading.Event(), [], []

    def ask() -> None:
        own = TFaaSClient(server.url)
        while not stop.is_set():
            try:
                answers.append(own.predict(values=row[0].tolist(), model="higgs"))
            except MLaaS4HEPError as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for swap in range(1, 9):
        client.upload_bundle(archives[swap % 2])
        assert client.predict(values=row[0].tolist(), model="higgs") == pytest.approx(right[swap % 2], abs=1e-6)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(answers) > 8
    assert all(any(np.allclose(answer, one, atol=1e-6) for one in right) for answer in answers)


def test_a_full_queue_is_answered_with_retry_after(start_server: ServerStarter, tmp_path: Path) -> None:
    write_plain_model(tmp_path / "models" / "sum", sum_graph())
    server = start_server(queue_rows=2)
    client = TFaaSClient(server.url)
    with pytest.raises(AnswerError, match="at most 2 are accepted") as caught:
        client.predict(rows=[[1, 2, 3]] * 3, model="sum")
    assert caught.value.status == 413
    address = server.url.removeprefix("http://").split(":")
    body = json.dumps({"rows": [[1, 2, 3]] * 2, "model": "sum"})
    request = f"POST /json HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
    seen: set[bytes] = set()

    def burst() -> bool:
        """Many requests in one turn of the loop: the server is held while they are sent."""
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGSTOP)
        connections = [socket.create_connection((address[0], int(address[1]))) for _ in range(20)]
        for one in connections:
            one.sendall(request)
        os.kill(server.process.pid, signal.SIGCONT)
        for one in connections:
            with one:
                answer = b""
                while piece := one.recv(65536):
                    answer += piece
            assert answer[9:12] in (b"200", b"503")
            assert answer[9:12] == b"200" or b"retry-after: 1\r\n" in answer.lower()
            seen.add(answer[9:12])
        return len(seen) == 2

    assert wait_for(burst)
    assert client.predict(ROW) == [6]


def test_requests_in_flight_are_answered_when_the_server_is_told_to_stop(
    start_server: ServerStarter, tmp_path: Path
) -> None:
    """Clients that go on asking get answers until their connection is closed in order, never a reset in the middle."""
    write_plain_model(tmp_path / "models" / "sum", sum_graph())
    server = start_server(drain_seconds=0.5)
    assert server.process is not None
    address, problems, answered = server.url.removeprefix("http://"), [], []

    def ask() -> None:
        connection = http.client.HTTPConnection(address, timeout=20)
        while True:
            try:
                connection.request("POST", "/json", json.dumps(ROW))
                response = connection.getresponse()
                body = response.read()
            except ConnectionRefusedError:
                return  # it has stopped
            except (OSError, http.client.HTTPException) as error:
                problems.append(repr(error))
                return
            answered.append((response.status, body))
            if response.getheader("connection") == "close":
                connection.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert wait_for(lambda: len(answered) > 40)
    server.process.terminate()
    for thread in threads:
        thread.join(30)
    assert server.process.wait(30) == 0
    assert problems == []
    assert set(answered) == {(200, b"[6.0]")}


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_with_status_zero(start_server: ServerStarter, kind: signal.Signals) -> None:
    server = start_server()
    assert server.process is not None
    server.process.send_signal(kind)
    assert server.process.wait(30) == 0


def test_the_server_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    code = """
import os, sys
from mlaas4hep.inference.server import serve_in_process
print(serve_in_process(sys.argv[1]).start().process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    pid = int(run.stdout)

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z" if Path(f"/proc/{pid}/stat").exists() else False

    assert run.returncode == -signal.SIGKILL
    assert wait_for(gone)


def test_stopping_twice_and_before_starting_is_fine(tmp_path: Path) -> None:
    server = serve_in_process(tmp_path / "models", drain_seconds=0.0)
    assert server.stop() == 0
    server.start()
    assert (server.stop(), server.stop()) == (0, 0)


def test_a_port_in_use_is_one_clear_error(tmp_path: Path, start_server: ServerStarter) -> None:
    first = start_server()
    port = int(first.url.rsplit(":", 1)[1])
    with pytest.raises(PortInUseError, match=f"port {port} on 127.0.0.1 is in use") as caught:
        serve_in_process(tmp_path / "models", port=port).start()
    assert caught.value.port == port
    with pytest.raises(PortInUseError):
        listen("localhost", port)
    assert TFaaSClient(first.url).models() == []


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MLaaS4HEPError, match="setting 'models' must be a folder that can be written"):
        ServerProcess(ServerSettings(tmp_path / "file", port=0)).start()


def test_ipv6_loopback_is_served_where_the_machine_has_it(start_server: ServerStarter) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    server = start_server(host="::1")
    assert server.url.startswith("http://[::1]:")
    assert TFaaSClient(server.url).models() == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.10", "example.org", ""])
def test_any_other_address_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingError, match="the server listens on loopback only until it has access control"):
        ServerSettings(tmp_path, host=host)


def test_the_log_is_quiet_by_default_and_has_a_line_for_each_request_when_asked(
    tmp_path: Path, start_server: ServerStarter
) -> None:
    write_plain_model(tmp_path / "models" / "sum", sum_graph())
    for verbose in (0, 1):
        log = tmp_path / f"{verbose}.log"
        server = start_server(verbose=verbose, log_file=log)
        assert TFaaSClient(server.url).predict(ROW) == [6]
        with pytest.raises(AnswerError):
            TFaaSClient(server.url).params("no\nline")
        server.stop()
        lines = log.read_text().splitlines()
        requests = [line for line in lines if "logger=mlaas4hep.requests" in line]
        if not verbose:
            assert lines == []
            continue
        assert len(requests) == 2
        assert "method=POST path='/json' status=200 ms=" in requests[0]
        assert "method=GET path='/params/no\\nline' status=400" in requests[1]


def test_a_defect_gives_an_identifier_that_the_log_has(tmp_path: Path, start_server: ServerStarter) -> None:
    write_plain_model(tmp_path / "models" / "sum", sum_graph())
    log = tmp_path / "server.log"
    server = start_server(log_file=log)
    folder = tmp_path / "models" / "sum"
    folder.joinpath("params.json").unlink()
    folder.joinpath("params.json").mkdir()  # what nobody foresees: a folder where a file was
    with pytest.raises(AnswerError) as caught:
        TFaaSClient(server.url).params("sum")
    message = json.loads(caught.value.body)["error"]
    assert (caught.value.status, str(tmp_path) in message) == (500, False)
    assert message.rsplit(" ", 1)[1] in log.read_text()


def test_importing_the_server_and_its_application_loads_no_training_framework_no_reader_and_no_plots() -> None:
    code = "import sys, mlaas4hep.inference.server, mlaas4hep.inference.application; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "starlette" in loaded
    assert not loaded & {
        "torch",
        "lightning",
        "numba",
        "uproot",
        "awkward",
        "matplotlib",
        "pyarrow",
        "onnx",
        "onnxruntime",
    }
