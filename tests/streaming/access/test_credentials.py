"""Proxies and tokens are passed on to servers that demand them, and named where they are refused."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import make_events, write_tree_file
from tests.streaming.servers import Grid, XRootDServer, http_server, require_xrootd

from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.access.credentials import bearer_token, client_options, explained, x509_proxy
from mlaas4hep.streaming.access.retry import may_pass


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BEARER_TOKEN", "BEARER_TOKEN_FILE", "X509_USER_PROXY", "X509_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return Grid(tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_tree_file(folder / "f.root", make_events(300, seed=1))
    return folder


@pytest.fixture(scope="module")
def grid_server(grid: Grid, folder: Path) -> Iterator[str]:
    require_xrootd()
    server = XRootDServer(grid)
    server.add(folder / "f.root")
    yield f"root://localhost:{server.port}//store/f.root"
    server.close()


PROGRAM = """
import sys, time
from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.access.credentials import explained
from mlaas4hep.streaming.formats import open_reader
from mlaas4hep.streaming.access.retry import may_pass
try:
    reader = open_reader(sys.argv[1], "Events")
    print(reader.entries, float(reader.read(0, 10, ["MET_pt"])["MET_pt"].content.sum()))
    reader.close()
except SourceError as error:
    print(may_pass(error), explained(error))
"""


def read_with(url: str, environment: dict[str, str]) -> str:
    """Read in a process of its own: the client looks at its environment once."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, url],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "XrdSecGSISRVNAMES": "localhost", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_server_that_demands_a_proxy_gets_the_users(grid: Grid, grid_server: str, folder: Path) -> None:
    with uproot.open(folder / "f.root") as file:
        expected = float(file["Events"]["MET_pt"].array(library="np")[:10].astype(np.float32).sum())
    said = read_with(grid_server, {"X509_USER_PROXY": str(grid.proxy), "X509_CERT_DIR": str(grid.certificates)})
    assert said == f"300 {expected}"


def test_a_proxy_that_expired_is_named_with_the_day_and_not_tried_again(grid: Grid, grid_server: str) -> None:
    said = read_with(grid_server, {"X509_USER_PROXY": str(grid.expired), "X509_CERT_DIR": str(grid.certificates)})
    assert said.startswith(
        f"False {grid_server}: the server refused the access: proxy X509_USER_PROXY ({grid.expired})"
    )
    assert "expired on 20" in said
    assert "make a new one, as with voms-proxy-init; no token (neither BEARER_TOKEN nor" in said
    assert "\n" not in said


def test_a_proxy_that_is_not_there_is_named_by_its_variable(grid: Grid, grid_server: str) -> None:
    said = read_with(grid_server, {"X509_USER_PROXY": "/nowhere/x", "X509_CERT_DIR": str(grid.certificates)})
    assert "proxy /nowhere/x: is named by X509_USER_PROXY and cannot be read: No such file or directory" in said
    assert said.splitlines()[-1].startswith("False ")


TOKEN = "secret-" + "x" * 20


def test_a_server_that_demands_a_token_gets_it_and_ranges_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    with http_server(folder, token=TOKEN) as (url, server):
        for name, value in (("BEARER_TOKEN", TOKEN), ("BEARER_TOKEN_FILE", str(tmp_path / "token"))):
            monkeypatch.setenv(name, value)
            with uproot.open({f"{url}/f.root": None}, **client_options(f"{url}/f.root")) as file:
                assert file["Events"].num_entries == 300
            assert server.authorizations
            assert set(server.authorizations) == {f"Bearer {TOKEN}"}
            server.authorizations.clear()
            monkeypatch.delenv(name)


def failure(url: str) -> SourceError:
    with pytest.raises(Exception, match=r".") as caught, fsspec.open(url, **client_options(url)) as file:
        file.read(4)
    error = SourceError(url, "cannot be read")
    error.__cause__ = caught.value
    return error


def jwt(expires: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).rstrip(b"=").decode()
    return f"head.{claims}.sign"


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (None, "no token (neither BEARER_TOKEN nor BEARER_TOKEN_FILE is set)"),
        ("other", "token BEARER_TOKEN is not accepted"),
        (jwt(1e9), "token BEARER_TOKEN expired on 2001-09-09 01:46 UTC; get a new one"),
        (jwt(4e9), "token BEARER_TOKEN is valid until 2096-10-02 07:06 UTC and is not accepted"),
    ],
    ids=["none", "another", "expired", "valid"],
)
def test_a_token_that_is_refused_is_named_and_not_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, said: str
) -> None:
    if token is not None:
        monkeypatch.setenv("BEARER_TOKEN", token)
    with http_server(folder, token=TOKEN) as (url, _):
        error = failure(f"{url}/f.root")
    better = explained(error)
    assert "f.root: the server refused the access: no proxy" in str(better)
    assert said in str(better)
    assert "\n" not in str(better)
    assert token is None or token == "other" or token not in str(better)
    assert not may_pass(error)
    assert not may_pass(better)


@given(
    st.sampled_from(["http", "https", "root", "s3", "ftp"]),
    st.sampled_from(["example.org", "127.0.0.1.example.org", "10.0.0.1", "localhost.example"]),
)
def test_a_token_never_goes_in_clear_to_another_machine(scheme: str, host: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEARER_TOKEN", TOKEN)
        assert ("headers" in client_options(f"{scheme}://{host}/f.root")) == (scheme == "https")
        for loopback in ("localhost", "127.0.0.1:99", "[::1]:80"):
            assert "headers" in client_options(f"http://{loopback}/f.root")


def test_that_a_token_was_not_sent_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARER_TOKEN", TOKEN)
    error = SourceError("http://example.org/f.root", "no")
    error.__cause__ = PermissionError("no")
    assert "BEARER_TOKEN was not sent: a token is never sent over http://, use https://" in str(explained(error))


def test_over_https_the_proxy_is_the_clients_certificate(
    grid: Grid, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(grid.folder / "ca.pem"))
    tls.load_cert_chain(grid.folder / "host.pem", grid.folder / "host.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.maximum_version = (
        ssl.TLSVersion.TLSv1_2
    )  # later ones refuse after the handshake, which the client may see as a broken connection
    tls.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
    monkeypatch.setenv("X509_CERT_DIR", str(grid.certificates))
    with http_server(folder, tls=tls) as (url, _):
        monkeypatch.setenv("X509_USER_PROXY", str(grid.proxy))
        with uproot.open({f"{url}/f.root": None}, **client_options(f"{url}/f.root")) as file:
            assert file["Events"].num_entries == 300
        monkeypatch.setenv("X509_USER_PROXY", str(grid.expired))
        error = failure(f"{url}/f.root")
        assert f"refused the access: proxy X509_USER_PROXY ({grid.expired}) expired on 20" in str(explained(error))
        assert not may_pass(error)
        monkeypatch.delenv("X509_CERT_DIR")
        error = failure(f"{url}/f.root")
        assert "the server's certificate is not trusted: X509_CERT_DIR is not set" in str(explained(error))
        assert not may_pass(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is named by BEARER_TOKEN_FILE and cannot be read: No such file"),
        (b"\n", "is named by BEARER_TOKEN_FILE and is empty"),
        (b"a\nb", r"BEARER_TOKEN_FILE \(.*\): is no token"),
        (b"\xff", "cannot be read: it is no text"),
    ],
)
def test_a_file_that_holds_no_token_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(path))
    with pytest.raises(SourceError, match=message):
        bearer_token()


def test_a_file_that_is_no_proxy_is_named(grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_text("nothing")
    monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "x"))
    with pytest.raises(SourceError, match=r"x: is no X\.509 proxy with its key"):
        client_options("https://host/f.root")
    monkeypatch.setenv("X509_USER_PROXY", str(grid.proxy))
    assert x509_proxy() == (str(grid.proxy), f"X509_USER_PROXY ({grid.proxy})")


@pytest.mark.parametrize("cause", [None, OSError("[ERROR] Server responded with an error: [3011] no such file")])
def test_errors_that_are_no_refusals_stay_as_they_are(cause: Any) -> None:
    error = SourceError("root://host//f.root", "broken")
    error.__cause__ = cause
    assert explained(error) is error
