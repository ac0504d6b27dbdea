"""tfaas_client.py, as SEED and its contract have it: as a command, with all its options."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.inference.conftest import sum_graph, write_bundle, write_plain_model

from mlaas4hep.bundle.archive import pack
from mlaas4hep.cli.tfaas_client import main
from mlaas4hep.inference.server import ServerProcess, serve_in_process


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with serve_in_process(tmp_path / "models", drain_seconds=0.05) as server:
        yield server.url


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    models = tmp_path_factory.mktemp("asked") / "models"
    write_plain_model(models / "sum", sum_graph())
    with serve_in_process(models, drain_seconds=0.05) as server:
        yield server


def test_the_session_of_the_seed_runs(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> str:
        assert main([f"--url={url}", *arguments]) == 0
        return capsys.readouterr().out.strip()

    made = write_plain_model(tmp_path / "made" / "model_name", sum_graph(2), labels="labels.txt")
    (made / "labels.txt").write_text("signal\n")
    upload = {
        "model": str(made / "model.onnx"),
        "labels": str(made / "labels.txt"),
        "name": "model_name",
        "params": str(made / "params.json"),
    }
    (tmp_path / "upload.json").write_text(json.dumps(upload))
    (tmp_path / "input.json").write_text('{"keys":["attribute1", "attribute2"], "values": [1.0, -2.0]}')
    assert run(f"--upload={tmp_path / 'upload.json'}") == ""
    assert [model["name"] for model in json.loads(run("--models"))] == ["model_name"]
    assert json.loads(run(f"--predict={tmp_path / 'input.json'}")) == [-1.0]
    assert json.loads(run(f"--predict={tmp_path / 'input.json'}", "--model=model_name")) == [-1.0]
    assert run("--delete=model_name") == ""
    assert run("--models") == "[]"
    archive = pack(write_bundle(tmp_path / "made" / "higgs"), tmp_path / "higgs.tar.gz")
    assert run(f"--bundle={archive}") == ""
    assert [model["name"] for model in json.loads(run("--models"))] == ["higgs"]


def test_labels_may_be_left_out_of_an_upload(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = write_plain_model(tmp_path / "made" / "a", sum_graph())
    (tmp_path / "upload.json").write_text(
        json.dumps({"model": str(made / "model.onnx"), "name": "a", "params": str(made / "params.json")})
    )
    assert main([f"--url={url}", f"--upload={tmp_path / 'upload.json'}"]) == 0
    assert main([f"--url={url}", "--models"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["labels"] == ""


def test_the_console_script_runs(asked: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text('{"values": [1, 2, 3], "model": "sum"}')
    script = Path(sys.executable).parent / "tfaas_client.py"
    command = [str(script)] if script.exists() else [sys.executable, "-m", "mlaas4hep.cli.tfaas_client"]
    run = subprocess.run(
        [*command, f"--url={asked.url}", f"--predict={tmp_path / 'input.json'}"], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "[6.0]\n", "")


def test_an_error_of_the_server_prints_its_body_and_exits_with_one(
    asked: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "input.json").write_text('{"values": [1], "model": "sum"}')
    (tmp_path / "event.png").write_bytes(b"\x89PNG")
    for arguments, message in (
        ([f"--predict={tmp_path / 'input.json'}"], "model 'sum' needs 3 values; got 1"),
        ([f"--predict={tmp_path / 'input.json'}", "--model=x"], "no model 'x'"),
        (["--delete=../x"], "model name '../x' is not accepted"),
        ([f"--image={tmp_path / 'event.png'}", "--model=ImageModel"], "there is nothing at this path"),
    ):
        assert main([f"--url={asked.url}", *arguments]) == 1
        output = capsys.readouterr()
        assert message in json.loads(output.out)["error"]
        assert output.err == ""


def test_no_server_is_one_line_and_exits_with_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url=http://127.0.0.1:9", "--models"]) == 1
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "tfaas_client.py: http://127.0.0.1:9 does not answer: Connection refused\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url=localhost", "--models"], "setting 'url' must be like http://localhost:8083; got 'localhost'"),
        (
            ["--url=http://localhost", "--predict=/nowhere/input.json"],
            "setting '--predict' must be a file that can be read",
        ),
        (["--url=http://localhost", "--predict={tmp}/broken.json"], "setting '--predict' must be a JSON file"),
        (["--url=http://localhost", "--predict={tmp}/list.json"], "setting '--predict' must be a JSON object"),
        (
            ["--url=http://localhost", "--upload=/nowhere/upload.json"],
            "setting 'upload' must be a file that can be read",
        ),
        (["--url=http://localhost", "--bundle=/nowhere/a.tar.gz"], "setting 'bundle' must be a file that can be read"),
        (["--url=http://localhost", "--image={tmp}/list.json"], "setting '--model' must be given with --image"),
        (["--url=https://localhost", "--models", "--cert=/nowhere/cert.pem"], "setting 'cert' must be a certificate"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exits_with_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"tfaas_client.py: {message}")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["--url=http://localhost"], ["--models"], ["--url=http://localhost", "--models", "--delete=a"]]
)
def test_what_is_asked_must_be_clear(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: tfaas_client.py" in capsys.readouterr().err


def test_help_lists_every_option_of_the_original(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    for option in [
        "--url",
        "--upload",
        "--bundle",
        "--models",
        "--delete",
        "--predict",
        "--image",
        "--model",
        "--verbose",
        "--key",
        "--cert",
        "--capath",
    ]:
        assert f"{option} " in text or f"{option}\n" in text


def test_verbose_says_what_is_asked_beside_the_answer(
    asked: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "input.json").write_text('{"values": [1, 2, 3], "model": "sum"}')
    assert main([f"--url={asked.url}", "--verbose", f"--predict={tmp_path / 'input.json'}"]) == 0
    output = capsys.readouterr()
    assert output.out == "[6.0]\n"
    assert asked.url in output.err
    assert '"values": [1, 2, 3]' in output.err


def test_a_grid_proxy_is_used_over_tls_and_only_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("X509_USER_PROXY", "/nowhere/proxy.pem")
    monkeypatch.delenv("X509_CERT_DIR", raising=False)
    assert main(["--url=https://127.0.0.1:9", "--models"]) == 2
    assert "/nowhere/proxy.pem" in capsys.readouterr().err
    assert main(["--url=http://127.0.0.1:9", "--models"]) == 1
