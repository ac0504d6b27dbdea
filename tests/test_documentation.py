"""The examples of README and docs run as they are written: Python blocks in one namespace a page, shell blocks in one folder a page.

A shell block that begins with ``mlaas4hep serve`` is what a person runs in a terminal of its own: it is started, and stopped after the page.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the top of the repository to the examples."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def servers() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.terminate()
        process.wait(60)


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.URLError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the server does not answer")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(
    page: Path, folder: Path, free_port: int, servers: list[subprocess.Popen[bytes]]
) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for language, text in blocks_of(page):
        code = text.replace("8083", str(free_port))
        if language == "python":
            exec(compile(code, str(page), "exec"), namespace)
        elif code.startswith("mlaas4hep serve"):
            servers.append(subprocess.Popen(["bash", "-c", f"exec {code}"], cwd=folder, stdout=subprocess.DEVNULL))
            wait_until_it_answers(f"http://127.0.0.1:{free_port}/models", servers[-1])
        else:
            result = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", code], cwd=folder, capture_output=True, text=True, timeout=250
            )
            assert result.returncode == 0, f"{code}\n{result.stdout}\n{result.stderr}"


def test_every_link_to_a_file_of_the_repository_leads_somewhere() -> None:
    links = [
        (page, link)
        for page in [*PAGES, ROOT / "CONTRIBUTING.md"]
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    ]
    assert links
    missing = [(page.name, link) for page, link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_every_target_of_the_makefile_has_a_line_of_help() -> None:
    result = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    for target in ("setup", "demo", "test", "lint", "bench", "docs", "clean"):
        assert f"make {target} " in result.stdout
