"""Parameters drawn for background events: the signal's distribution, the same for the same event, nothing else changed."""

from __future__ import annotations

import numpy as np
import pytest

import mlaas4hep
from mlaas4hep.errors import LabelError, SettingError
from mlaas4hep.training.changed_batches import ChangedDataset
from mlaas4hep.training.parameter_draw import ParameterDraw
from mlaas4hep.training.workflow import train


@pytest.fixture(params=["identifiers", "entries"])
def dataset(request, write_tree):
    random = np.random.default_rng(8)
    files = []
    for label in (0, 1):
        mass = random.choice([400, 600, 1000], 2000, p=[0.2, 0.3, 0.5]) if label else np.full(2000, -1)
        columns = {
            "event": np.arange(2000, dtype=np.uint64) + 10_000 * label,
            "mass": mass.astype(np.float32),
            "peak": (
                random.normal(0, 30, 2000) + (mass if label else random.choice([400, 600, 1000], 2000) + 200)
            ).astype(np.float32),
        }
        files.append(str(write_tree(f"{label}.root", columns)))
    identifiers = ["event"] if request.param == "identifiers" else []
    return mlaas4hep.open(
        files, labels=[0, 1], branches=["mass", "peak"], identifiers=identifiers, normalisation="none"
    )


def drawn_masses(dataset, **settings):
    """Identity and label → mass, of all test events."""
    draw = ParameterDraw.learn(dataset, "mass")
    found = {}
    for batch in ChangedDataset(dataset, draw).stream("test", **settings):
        for record, y, x, mask in zip(batch.id, batch.y, batch.x, batch.mask, strict=True):
            assert not mask[0]
            found[int(record["file"]), int(record["entry"])] = (int(y), float(x[0]), float(x[1]))
    return found


def test_background_has_the_distribution_of_the_signal(dataset):
    events = drawn_masses(dataset)
    for mass, share in ((400, 0.2), (600, 0.3), (1000, 0.5)):
        background = [value == mass for y, value, _ in events.values() if y == 0]
        assert np.mean(background) == pytest.approx(share, abs=0.08)  # some 400 events


def test_the_same_event_has_the_same_value_in_any_order_and_nothing_else_changes(dataset):
    first = drawn_masses(dataset, shuffle=False, batch_size=64)
    assert first == drawn_masses(dataset, shuffle=True, seed=3, batch_size=1000)
    plain = {}
    for batch in dataset.stream("test"):
        for record, x in zip(batch.id, batch.x, strict=True):
            plain[int(record["file"]), int(record["entry"])] = x.tolist()
    for event, (y, mass, peak) in first.items():
        assert plain[event][1] == peak
        assert plain[event][0] == (mass if y == 1 else -1)


def test_what_does_not_fit_is_refused(dataset):
    with pytest.raises(SettingError, match=r"'model.parameter' must be a flat branch that is a feature, as 'mass'"):
        ParameterDraw.learn(dataset, "mas")
    with pytest.raises(SettingError, match=r"'model.signal' must be one of the classes '0', '1'; got 'x'"):
        ParameterDraw.learn(dataset, "mass", "x")
    with pytest.raises(SettingError, match=r"'model.parameter' must be the name of a flat branch"):
        train(dataset, "parametrised")


def test_the_value_itself_tells_nothing(dataset):
    params = {"epochs": 2, "batch_size": 64}
    only = dataset_of_mass(dataset)
    leaking = train(only, "mlp", model_settings={"hidden": [8]}, params=params)
    assert leaking.evaluation.auc == 1.0  # background has -1 in the files
    result = train(only, "parametrised", model_settings={"parameter": "mass", "hidden": [8]}, params=params)
    assert result.evaluation.auc == pytest.approx(0.5, abs=5 * result.evaluation.auc_error)


def dataset_of_mass(dataset):
    identifiers = list(dataset.roles.identifiers)
    return mlaas4hep.open(
        list(dataset.files), [0, 1], branches=["mass"], identifiers=identifiers, normalisation="standard"
    )


def test_a_signal_without_values_is_refused(write_tree):
    columns = {
        "event": np.arange(100, dtype=np.uint64),
        "mass": np.full(100, np.nan, np.float32),
        "x": np.ones(100, np.float32),
    }
    files = [str(write_tree(f"{name}.root", columns)) for name in ("b", "s")]
    dataset = mlaas4hep.open(files, labels=["b", "s"], branches=["mass", "x"], identifiers=[])
    with pytest.raises(LabelError, match="no training event of class 's' has a value of 'mass'"):
        ParameterDraw.learn(dataset, "mass")
