"""Regression end to end, and its numbers against plain numpy and a bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

import mlaas4hep
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.streaming.stream.batch import Batch
from mlaas4hep.training.regression import TargetScaling, evaluate_values
from mlaas4hep.training.workflow import train


def sample(events=4000, seed=3):
    random = np.random.default_rng(seed)
    true = random.normal(50, 10, events)
    weight = np.where(random.random(events) < 0.1, -0.5, 1.0)
    return true + random.normal(1, 4, events), true, weight


def test_the_numbers_are_those_of_numpy():
    predicted, true, weight = sample()
    (found,) = evaluate_values(predicted[:, None], true[:, None], weight).targets
    residual = predicted - true
    assert found.rmse == pytest.approx(np.sqrt(np.average(residual**2, weights=weight)))
    assert found.mae == pytest.approx(np.average(np.abs(residual), weights=weight))
    assert found.bias == pytest.approx(np.average(residual, weights=weight))
    middle = np.average(true, weights=weight)
    spread = np.average((true - middle) ** 2, weights=weight)
    assert found.r2 == pytest.approx(1 - found.rmse**2 / spread)


def test_the_errors_are_those_of_a_bootstrap():
    predicted, true, weight = sample()
    (found,) = evaluate_values(predicted[:, None], true[:, None], weight).targets
    random = np.random.default_rng(5)
    drawn = []
    for _ in range(400):
        rows = random.integers(0, len(true), len(true))
        (one,) = evaluate_values(predicted[rows, None], true[rows, None], weight[rows]).targets
        drawn.append((one.rmse, one.mae, one.bias, one.r2))
    for error, scatter in zip(
        (found.rmse_error, found.mae_error, found.bias_error, found.r2_error), np.std(drawn, axis=0), strict=True
    ):
        assert error == pytest.approx(scatter, rel=0.2)


def test_what_is_not_defined_is_none_in_json():
    constant = evaluate_values(np.array([[1.0], [2.0]]), np.array([[3.0], [3.0]]), names=["met"])
    assert constant.to_dict()["targets"]["met"]["r2"] is None
    nothing = evaluate_values(np.array([[1.0]]), np.array([[3.0]]), np.array([-1.0]))
    assert nothing.to_dict()["targets"]["target 0"]["rmse"] is None
    perfect = evaluate_values(np.array([[1.0], [2.0]]), np.array([[1.0], [2.0]])).targets[0]
    assert (perfect.rmse, perfect.rmse_error, perfect.r2) == (0.0, 0.0, 1.0)


def test_targets_are_standardised_whatever_the_batches():
    y = np.random.default_rng(1).normal([5, 1e6], [2, 3e3], (1000, 2)).astype(np.float32)
    empty = np.empty((0, 1), np.float32)
    batches = [
        Batch(empty, empty.astype(bool), part, empty[:, 0], np.empty(0, np.dtype([("file", np.int32)])))
        for part in np.split(y, [3, 500, 730])
    ]
    scaling = TargetScaling.learn(batches)
    assert scaling.shift == pytest.approx(y.astype(np.float64).mean(axis=0), rel=1e-9)
    assert scaling.scale == pytest.approx(y.astype(np.float64).std(axis=0), rel=1e-6)
    standardised = scaling(batches[1]).y
    assert standardised.dtype == np.float32
    assert scaling.physical(standardised) == pytest.approx(batches[1].y, rel=1e-5)


def test_a_bundle_gives_values_in_the_unit_of_the_targets(write_tree, tmp_path):
    random = np.random.default_rng(2)
    x = random.normal(size=(3000, 2)).astype(np.float32)
    file = write_tree(
        "met.root",
        {
            "event": np.arange(3000, dtype=np.uint64),
            "a": x[:, 0],
            "b": x[:, 1],
            "energy": (1000 + 200 * x[:, 0] + random.normal(0, 20, 3000)).astype(np.float32),
            "angle": (0.1 * x[:, 1]).astype(np.float32),
        },
    )
    dataset = mlaas4hep.open(str(file), target=["energy", "angle"], branches=["a", "b"], normalisation="standard")
    result = train(
        dataset,
        "mlp",
        model_settings={"hidden": [16], "dropout": 0},
        params={"epochs": 10, "batch_size": 64},
        out=tmp_path / "r",
    )
    assert result.evaluation is None
    energy, angle = result.regression.targets
    assert 18 < energy.rmse < 60  # 20 cannot be known; always the mean would be 200
    assert energy.r2 > 0.9
    assert angle.r2 > 0.9
    with Bundle.open(tmp_path / "r") as bundle:
        assert (bundle.output, bundle.labels) == ("values", ("energy", "angle"))
        given = bundle.predict(x[:100])
        assert given.shape == (100, 2)
        assert np.abs(given[:, 0] - (1000 + 200 * x[:100, 0])).mean() < 60
        assert bundle.manifest.metrics["test"]["targets"]["energy"]["rmse"] == energy.rmse
    assert result.manifest.parity.largest_difference <= 1e-5
