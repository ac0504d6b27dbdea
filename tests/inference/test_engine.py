"""The one path of every prediction: batches, limits, failures, and models that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.inference.conftest import sum_graph, write_plain_model

from mlaas4hep.errors import BundleError, FeatureError, ModelNotFoundError, OverloadedError, RequestError
from mlaas4hep.inference import engine as engine_module
from mlaas4hep.inference.engine import Engine
from mlaas4hep.inference.repository import Repository


def run(root: Path, work: Callable[[Engine], Awaitable[Any]], **limits: int) -> Any:
    """Run something with an engine over models that sum the values of a row."""

    async def inside() -> Any:
        async with Engine(Repository(root), **limits) as engine:
            return await work(engine)

    return asyncio.run(inside())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        write_plain_model(tmp_path / "models" / name, sum_graph())
    write_plain_model(tmp_path / "models" / "free", sum_graph(width=None))
    return tmp_path / "models"


@pytest.fixture(params=["on the loop", "in the thread"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small batches run on the loop, long ones in a thread: all must hold for both."""
    monkeypatch.setattr(engine_module, "INLINE_SECONDS", 1e9 if request.param == "on the loop" else -1.0)
    return str(request.param)


def rows(*values: float) -> np.ndarray:
    return np.array([[value, 0, 0] for value in values], np.float32)


@pytest.mark.usefixtures("where")
def test_each_request_gets_its_own_rows_back(root: Path) -> None:
    async def work(engine: Engine) -> None:
        await engine.predict("a", rows(0))
        requests = [rows(*range(start, start + 1 + start % 3)) for start in range(200)]
        answers = await asyncio.gather(*(engine.predict("abc"[i % 3], request) for i, request in enumerate(requests)))
        for request, answer in zip(requests, answers, strict=True):
            assert answer.tolist() == request[:, :1].tolist()

    run(root, work)


@pytest.mark.usefixtures("where")
def test_what_comes_in_one_turn_of_the_loop_is_one_batch(root: Path) -> None:
    async def work(engine: Engine) -> None:
        served = await engine.load("a")
        await engine.submit(served, rows(0))
        await asyncio.gather(*(engine.submit(served, rows(value)) for value in range(50)))
        assert (served.statistics.requests, served.statistics.rows, served.statistics.batches) == (51, 51, 2)

    run(root, work)


@pytest.mark.usefixtures("where")
def test_batches_are_no_larger_than_allowed_and_a_large_request_is_one(root: Path) -> None:
    async def work(engine: Engine) -> None:
        served = await engine.load("a")
        await engine.submit(served, rows(0))
        await asyncio.gather(*(engine.submit(served, rows(*[1.0] * 4)) for _ in range(5)))
        assert served.statistics.batches == 1 + 3  # two, two, one
        assert (await engine.submit(served, rows(*range(30)))).tolist() == [[float(v)] for v in range(30)]

    run(root, work, batch_rows=10)


@pytest.mark.usefixtures("where")
def test_a_request_that_cannot_be_run_does_not_spoil_the_others_of_its_batch(root: Path) -> None:
    async def work(engine: Engine) -> None:
        served = await engine.load("free")
        await engine.submit(served, rows(0))
        wrong = np.zeros((1, 0, 3), np.float32)
        outcomes = await asyncio.gather(
            *(engine.submit(served, values) for values in (rows(1), wrong, rows(2), np.ones((1, 5), np.float32))),
            return_exceptions=True,
        )
        assert [outcomes[0].tolist(), outcomes[2].tolist(), outcomes[3].tolist()] == [[[1]], [[2]], [[5]]]
        assert isinstance(outcomes[1], FeatureError)
        assert str(outcomes[1]) == "model 'free' cannot be run on these values"
        assert served.statistics.failures == 1
        assert (await engine.submit(served, rows(3))).tolist() == [[3]]

    run(root, work)


@pytest.mark.usefixtures("where")
def test_a_full_queue_refuses_at_once_and_what_was_accepted_is_answered(root: Path) -> None:
    async def work(engine: Engine) -> None:
        served = await engine.load("a")
        accepted = [engine.submit(served, rows(1, 2)) for _ in range(5)]
        with pytest.raises(OverloadedError, match="10 rows are waiting already") as caught:
            engine.submit(served, rows(1))
        assert caught.value.retry_after == 1
        with pytest.raises(RequestError, match="11 rows in one request; at most 10") as too_many:
            engine.submit(served, rows(*[1.0] * 11))
        assert too_many.value.status == 413
        assert [answer.tolist() for answer in await asyncio.gather(*accepted)] == [[[1], [2]]] * 5
        assert (await engine.submit(served, rows(7))).tolist() == [[7]]

    run(root, work, queue_rows=10)


@pytest.mark.usefixtures("where")
def test_what_waits_is_answered_when_the_engine_stops(root: Path) -> None:
    async def inside() -> list[Any]:
        async with Engine(Repository(root)) as engine:
            served = await engine.load("a")
            answers = [engine.submit(served, rows(value)) for value in range(20)]
        return [answer.result().tolist() for answer in answers]

    assert asyncio.run(inside()) == [[[float(value)]] for value in range(20)]


@pytest.mark.usefixtures("where")
def test_no_rows_are_answered_with_none_and_the_next_request_too(root: Path) -> None:
    async def work(engine: Engine) -> None:
        served = await engine.load("a")
        assert len(await engine.submit(served, np.empty((0, 3), np.float32))) == 0
        assert (await engine.submit(served, rows(1))).tolist() == [[1]]

    run(root, work)


def test_an_answer_that_cannot_be_converted_is_the_error_of_its_request_only(root: Path) -> None:
    def refuse(answer: np.ndarray) -> bytes:
        raise TypeError("no words for it")

    async def work(engine: Engine) -> None:
        served = await engine.load("a")
        outcomes = await asyncio.gather(
            engine.submit(served, rows(1), convert=refuse),
            engine.submit(served, rows(2), convert=lambda answer: answer.tolist()),
            return_exceptions=True,
        )
        assert str(outcomes[0]) == "no words for it"
        assert outcomes[1] == [[2]]

    run(root, work)


def test_a_request_that_was_given_up_does_no_harm(root: Path) -> None:
    async def work(engine: Engine) -> None:
        served = await engine.load("a")
        given_up, kept = engine.submit(served, rows(1)), engine.submit(served, rows(2))
        given_up.cancel()
        assert (await kept).tolist() == [[2]]

    run(root, work)


def test_models_beyond_the_limit_are_unloaded_the_oldest_first(root: Path) -> None:
    async def work(engine: Engine) -> None:
        for name in ("a", "b", "a", "c"):
            await engine.load(name)
        assert engine.loaded == ("a", "c")
        assert (await engine.predict("b", rows(4))).tolist() == [[4]]
        assert engine.loaded == ("c", "b")

    run(root, work, cache_limit=2)


def test_many_requests_for_a_model_load_it_once(root: Path) -> None:
    async def work(engine: Engine) -> None:
        served = await asyncio.gather(*(engine.load("a") for _ in range(20)))
        assert len({id(one) for one in served}) == 1

    run(root, work)


def test_a_newer_version_takes_over_without_a_gap(root: Path) -> None:
    async def work(engine: Engine) -> None:
        old = await engine.load("a")
        folder = write_plain_model(root / "a" / "2", sum_graph())
        engine.repository.refresh()
        assert engine.repository.find("a").folder == folder
        assert await engine.load("a") is old  # goes on answering while the new one loads
        await engine.renew("a")
        new = await engine.load("a")
        assert (new.version.version, new.statistics is old.statistics) == (2, True)
        assert (await engine.submit(old, rows(1))).tolist() == [[1]]

    run(root, work)


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_and_is_not_tried_again_and_again(root: Path) -> None:
    async def work(engine: Engine) -> None:
        old = await engine.load("a")
        write_plain_model(root / "a" / "2", b"garbage")
        engine.repository.refresh()
        with pytest.raises(BundleError, match="not an ONNX model") as first:
            await engine.renew("a")
        with pytest.raises(BundleError) as second:
            await engine.renew("a")
        assert second.value is first.value
        assert await engine.load("a") is old

    run(root, work)


def test_a_model_that_was_deleted_is_gone_at_once(root: Path) -> None:
    async def work(engine: Engine) -> None:
        await engine.load("a")
        engine.repository.delete("a")
        with pytest.raises(ModelNotFoundError):
            await engine.load("a")
        engine.forget("a")
        assert engine.loaded == ()

    run(root, work)
