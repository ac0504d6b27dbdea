from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mlaas4hep
from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.encoding.normalisation import chosen_normalisation
from mlaas4hep.streaming.splitting import Split
from mlaas4hep.streaming.statistics.specs import Specs

NO_SPLIT = Split(test=0, validation=0)


def values_of(dataset: mlaas4hep.Dataset, normalisation: Any) -> dict[str, np.ndarray]:
    encoding = dataset.specs.make_encoding(normalisation)
    (batch,) = list(dataset.stream(encoding=encoding, shuffle=False, batch_size=100_000))
    return {name: batch.x[:, place] for place, name in enumerate(encoding.columns)}


@pytest.fixture
def dataset(write_tree: Any) -> mlaas4hep.Dataset:
    generator = np.random.default_rng(1)
    columns = {
        "tail": generator.exponential(30, 5000),
        "bell": generator.normal(5, 2, 5000),
        "same": np.full(5000, 3.0),
    }
    return mlaas4hep.open(write_tree("f.root", columns), split=NO_SPLIT)


def test_standard_gives_mean_0_and_deviation_1(dataset: mlaas4hep.Dataset) -> None:
    values = values_of(dataset, "standard")
    for name in ("tail", "bell"):
        assert values[name].mean() == pytest.approx(0, abs=1e-4)
        assert values[name].std() == pytest.approx(1, abs=1e-4)
    assert np.all(values["same"] == 0)


def test_robust_puts_the_central_68_percent_around_0(dataset: mlaas4hep.Dataset) -> None:
    values = values_of(dataset, "robust")
    for name in ("tail", "bell"):
        assert np.median(values[name]) == pytest.approx(0, abs=0.02)
        assert np.quantile(values[name], 0.84) - np.quantile(values[name], 0.16) == pytest.approx(2, abs=0.04)


def test_none_changes_nothing_and_minmax_is_the_originals(dataset: mlaas4hep.Dataset) -> None:
    assert values_of(dataset, "none")["same"].tolist() == [3.0] * 5000
    assert dataset.specs.make_encoding("minmax") == dataset.specs.encoding


def test_branches_can_have_their_own(dataset: mlaas4hep.Dataset) -> None:
    values = values_of(dataset, {"ta*": "robust", "bell": "none"})
    assert values["bell"].mean() == pytest.approx(5, abs=0.2)
    assert np.median(values["tail"]) == pytest.approx(0, abs=0.02)
    assert chosen_normalisation({"ta*": "robust"}, "bell") == "minmax"


def test_only_training_events_count(write_tree: Any) -> None:
    dataset = mlaas4hep.open(write_tree("f.root", {"x": np.arange(2000.0)}), split=Split(test=0.5, validation=0))
    training = np.concatenate([batch.id["entry"] for batch in dataset.stream("train")])
    (feature,) = dataset.specs.make_encoding("standard").features
    assert feature.shift == pytest.approx(training.mean())
    assert feature.scale == pytest.approx(1 / training.std())


def test_what_cannot_be_is_said(dataset: mlaas4hep.Dataset) -> None:
    with pytest.raises(
        SettingError, match="setting 'normalisation' must be one of minmax, standard, robust, log, none; got 'zscore'"
    ):
        dataset.specs.make_encoding("zscore")
    description = {
        key: dataset.specs.to_dict()[key] for key in ("jdim", "minv", "maxv", "fkeys", "jkeys", "nans", "events")
    }
    with pytest.raises(SettingError, match="specs that hold nothing but ranges"):
        Specs.from_dict(description).make_encoding("standard")
