"""Who may ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.errors import RequestError
from mlaas4hep.inference.web.gate import check_origin, is_loopback


@pytest.mark.parametrize(
    "host", [b"localhost", b"LocalHost:8083", b"127.0.0.1", b"127.1.2.3:1", b"[::1]", b"[::1]:65535"]
)
def test_loopback_is_this_machine(host: bytes) -> None:
    assert is_loopback(host)
    assert is_loopback(host)  # known now


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"localhost.",
        b"localhost.example",
        b"127.0.0.1.example",
        b"x127.0.0.1",
        b"10.0.0.1",
        b"0.0.0.0",
        b"::1",
        b"localhost:",
        b"localhost\n",
        b"localhost:1:2",
        b"localhost@example",
    ],
)
def test_anything_else_is_not(host: bytes) -> None:
    assert not is_loopback(host)


@given(st.binary(max_size=20))
def test_a_host_with_anything_before_or_behind_it_is_not(noise: bytes) -> None:
    if noise and not (noise[:1] == b":" and noise[1:].isdigit() and len(noise) <= 6):
        assert not is_loopback(b"localhost" + noise)
    if noise:
        assert not is_loopback(noise + b"localhost")


def test_an_origin_is_the_host_itself_or_refused() -> None:
    host = (b"host", b"localhost:8083")
    check_origin([host, (b"origin", b"http://LOCALHOST:8083")])
    check_origin([host, (b"sec-fetch-site", b"none")])
    for origin in (
        b"http://localhost",
        b"http://localhost:80830",
        b"http://evil/localhost:8083",
        b"null",
        b"file://",
        b"",
    ):
        with pytest.raises(RequestError) as caught:
            check_origin([host, (b"origin", origin)])
        assert caught.value.status == 403
