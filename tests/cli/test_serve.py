"""``mlaas4hep serve`` as a command."""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlaas4hep.cli import serve
from mlaas4hep.errors import PortInUseError, SettingError
from mlaas4hep.inference.client import TFaaSClient
from mlaas4hep.inference.server import serve_in_process


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(arguments)


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and the line that it announces itself with."""
    code = """
import argparse, sys
from mlaas4hep.cli import serve
parser = argparse.ArgumentParser()
serve.add_arguments(parser)
sys.exit(serve.run(parser.parse_args()))
"""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline()
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def test_the_command_announces_where_it_serves_and_stops_in_order(tmp_path: Path) -> None:
    with running("--port", "0", "--models", str(tmp_path / "models"), "--base", "/tfaas") as (process, line):
        match = re.fullmatch(
            rf"mlaas4hep: serving the models of {tmp_path}/models at (http://127\.0\.0\.1:\d+/tfaas)\n", line
        )
        assert match
        assert TFaaSClient(match[1]).models() == []
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_config_of_tfaas_is_read_and_options_win(tmp_path: Path) -> None:
    config = {
        "port": 1,
        "modelDir": str(tmp_path / "models"),
        "staticDir": "static",
        "configProto": "",
        "base": "a",
        "serverKey": "",
        "serverCrt": "",
        "verbose": 1,
    }
    config["logFile"] = str(tmp_path / "server.log")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with running("--config", str(tmp_path / "config.json"), "--port", "0") as (_, line):
        url = line.split(" at ")[1].strip()
        assert url.endswith("/a")
        assert TFaaSClient(url).models() == []
    assert "path='/a/models' status=200" in (tmp_path / "server.log").read_text()


def test_a_port_in_use_and_a_wrong_setting_are_errors_for_the_caller(tmp_path: Path) -> None:
    with serve_in_process(tmp_path / "models", drain_seconds=0.05) as server:
        port = server.url.rsplit(":", 1)[1]
        with pytest.raises(
            PortInUseError,
            match=f"port {port} on 127.0.0.1 is in use; stop what listens there, or choose another with --port",
        ):
            serve.run(parsed("--port", port, "--models", str(tmp_path / "models")))
    with pytest.raises(SettingError, match="loopback only"):
        serve.run(parsed("--host", "0.0.0.0", "--models", str(tmp_path)))
    with pytest.raises(SettingError, match="setting 'port' must be an integer from 0 to 65535; got 70000"):
        serve.run(parsed("--port", "70000", "--models", str(tmp_path)))
