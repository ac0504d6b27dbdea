"""What is told of which events: cuts from validation, numbers from test, weights of the right kind."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import mlaas4hep
from mlaas4hep.streaming.splitting import Split
from mlaas4hep.training.performance import judge
from mlaas4hep.training.sample import Sample, predict_events
from mlaas4hep.training.significance import best_cut, count_above

CLASSES = ("ggH", "VBF")


def sample(n, seed, classes=2, sharpness=2.0):
    random = np.random.default_rng(seed)
    y = np.arange(n) % classes
    p = np.exp(random.normal(size=(n, classes)) + sharpness * np.eye(classes)[y])
    weight = np.where(random.random(n) < 0.1, -1.0, 1.0) * random.uniform(0.5, 1.5, n)
    return Sample(p / p.sum(axis=1, keepdims=True), y, weight)


def test_the_cut_follows_from_validation_events_and_its_numbers_from_test_events():
    test, other, validation = sample(2000, 1), sample(2000, 2), sample(1000, 3)
    shares = {"test_share": 0.2, "validation_share": 0.1}
    found, again = (judge(one, CLASSES, validation=validation, replicas=5, **shares) for one in (test, other))
    (first,), (second,) = found.classes, again.classes
    assert first.chosen_cut == second.chosen_cut
    assert first.chosen_cut == best_cut(validation.probabilities[:, 1], validation.y == 1, validation.weight, share=0.1)
    assert first.expected == count_above(
        first.chosen_cut.cut, test.probabilities[:, 1], test.y == 1, test.weight, share=0.2
    )
    assert first.expected.signal != second.expected.signal


def test_calibration_is_judged_with_the_weights_of_the_training():
    random = np.random.default_rng(5)
    p = random.random(20_000)
    y = (random.random(20_000) < p).astype(np.int64)
    physics = np.where(y == 1, 0.01, 1.0)  # a rare signal
    events = Sample(np.stack([1 - p, p], axis=1), y, physics, np.ones(20_000))
    assert judge(events, CLASSES, replicas=5).classes[0].reliability.error < 0.02
    blind = dataclasses.replace(events, training_weight=None)
    assert judge(blind, CLASSES, replicas=5).classes[0].reliability.error > 0.3


def test_a_model_that_knows_its_training_events_by_heart_does_not_agree():
    test, alike, learned = sample(1500, 6), sample(1500, 7), sample(1500, 8, sharpness=4.0)
    assert min(one.probability for one in judge(test, CLASSES, train=alike, replicas=5).agreement.values()) > 0.01
    assert max(one.probability for one in judge(test, CLASSES, train=learned, replicas=5).agreement.values()) < 1e-6


def test_each_class_is_judged_against_the_rest_and_all_is_json():
    names = ("ggH", "VBF", "ttH")
    events = sample(900, 9, classes=3)
    found = judge(events, names, train=sample(900, 10, 3), validation=sample(900, 11, 3), replicas=5)
    assert [one.name for one in found.classes] == list(names)
    for index, one in enumerate(found.classes):
        alone = judge(
            Sample(
                np.stack([1 - events.probabilities[:, index], events.probabilities[:, index]], axis=1),
                (events.y == index).astype(np.int64),
                events.weight,
            ),
            ("rest", one.name),
            replicas=5,
        )
        assert one.auc == pytest.approx(alone.classes[0].auc)
        assert one.working_points == alone.classes[0].working_points
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert set(plain["against_rest"]) == set(names)
    for true in range(3):
        chosen = events.y == true
        share = np.average(events.probabilities[chosen].argmax(axis=1) == 0, weights=events.weight[chosen])
        assert plain["confusion"][true][0] == pytest.approx(share)
        assert sum(plain["confusion"][true]) == pytest.approx(1)


def test_a_class_without_events_gives_no_number_and_no_error():
    events = sample(50, 12)
    empty = Sample(events.probabilities[::2], events.y[::2], np.abs(events.weight[::2]))
    plain = judge(empty, CLASSES, train=events, validation=empty, replicas=5).to_dict()
    assert plain["auc"] is None
    assert plain["against_rest"]["VBF"]["best_cut"] is None
    assert plain["confusion"][1] == [None, None]
    assert plain["train_against_test"]["VBF"]["ks_probability"] is None
    json.dumps(plain, allow_nan=False)


def test_predicted_events_carry_both_kinds_of_weights(class_files):
    dataset = mlaas4hep.open(
        class_files,
        labels=list(CLASSES),
        split=Split(0.3, 0.1),
        branches=["MET_pt", "nElectron"],
        weights={"branch": "genWeight", "negative": "drop"},
    )

    def predict(x, mask):
        return np.stack([1 - x[:, 0], x[:, 0]], axis=1)

    found = predict_events(dataset, predict, "test")
    assert len(found) == sum(dataset.class_counts("test").values())
    assert set(np.unique(found.weight)) == {-1.0, 1.0}
    assert (found.training_weight[found.weight < 0] == 0).all()
    assert (found.training_weight[found.weight > 0] > 0).all()
    for batch in dataset.stream("test", shuffle=False, weights="signed"):
        same = found.id["entry"][found.id["file"] == 0][: len(batch.y)]
        assert np.array_equal(same, batch.id["entry"][: len(same)])
        break
    assert len(predict_events(dataset, predict, "train", limit=100)) == 100
