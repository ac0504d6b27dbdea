"""The built-in models: each learns, is exported, and does with absent objects what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mlaas4hep
from mlaas4hep.bundle.graph import Output, complete_graph
from mlaas4hep.bundle.session import open_session
from mlaas4hep.errors import SettingError, UnknownSettingError
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.streaming.encoding.objects import Collection
from mlaas4hep.training.frameworks import trainer_for
from mlaas4hep.training.frameworks.base import Task
from mlaas4hep.training.model_file import call_model
from mlaas4hep.training.models import BUILT_IN, built_in_model
from mlaas4hep.training.models.pairs import PairFeatures
from mlaas4hep.training.workflow import train

JET = ("Jet_eta", "Jet_phi", "Jet_pt")
ENCODING = Encoding(
    (
        Feature("MET_pt", False, 1, 30.0, 0.02),
        *(Feature(name, True, 3, scale=0.02 if name == "Jet_pt" else 1.0) for name in JET),
        Feature("Tau_pt", True, 2, 5.0, 0.1, "log", 0.2, 1.5),
    ),
    "objects",
    (Collection("Jet", JET), Collection("Tau", ("Tau_pt",))),
)
SMALL = {
    "mlp": {"hidden": (8,)},
    "deep_sets": {"embedding": (8,), "hidden": (8,)},
    "transformer": {"width": 8, "heads": 2, "layers": 1},
    "parametrised": {"hidden": (8,)},
    "autoencoder": {"narrow": 2},
    "pytorch": {},
}


def events(number, seed=0):
    """Raw values with absent objects, the last ones of each list first."""
    random = np.random.default_rng(seed)
    raw = random.exponential(40, (number, ENCODING.width)).astype(np.float32)
    for column in ("Jet_eta", "Jet_phi"):
        raw[:, list(ENCODING.places(column))] = random.uniform(-3, 3, (number, 3))
    jets, taus = random.integers(0, 4, number), random.integers(0, 3, number)
    for name, count in [*((name, jets) for name in JET), ("Tau_pt", taus)]:
        for position, place in enumerate(ENCODING.places(name)):
            raw[count <= position, place] = np.nan
    return raw


def trainer_of(name, task, **settings):
    torch.manual_seed(1)
    return trainer_for(call_model(built_in_model(name), task, name, {**SMALL[name], **settings}), task, name)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        *((name, 2) for name in sorted(SMALL) if name not in ("autoencoder", "pytorch")),
        ("transformer", 3),
        ("autoencoder", 0),
    ],
)
def test_its_graph_gives_the_modules_numbers_from_raw_values(name, classes, tmp_path):
    task = Task(ENCODING.width, classes, 0, ENCODING)
    trainer = trainer_of(name, task)
    trainer.check()
    graph, output = trainer.to_onnx()
    path = tmp_path / "model.onnx"
    path.write_bytes(complete_graph(graph, ENCODING, output, task.columns))
    for number in (1, 50):
        raw = events(number)
        expected = trainer.predict(*ENCODING.scale_raw(raw))
        assert expected.shape == (number, task.columns)
        assert np.abs(open_session(path).run(None, {"features": raw})[0] - expected).max() <= 1e-5


@pytest.mark.parametrize("name", ["mlp", "deep_sets", "transformer"])
def test_a_regression_gets_one_output_a_target(name):
    trainer = trainer_of(name, Task(ENCODING.width, 0, 2, ENCODING))
    trainer.check()
    assert trainer.to_onnx()[1] is Output.VALUES
    assert trainer.predict(*ENCODING.scale_raw(events(5))).shape == (5, 2)


@pytest.mark.parametrize("settings", [{}, {"pairs": True}], ids=["plain", "pairs"])
def test_the_order_of_objects_makes_no_difference_to_the_transformer(settings):
    trainer = trainer_of("transformer", Task(ENCODING.width, 2, 0, ENCODING), **settings)
    raw = events(40)
    turned = raw.copy()
    for name in JET:
        places = list(ENCODING.places(name))
        turned[:, places] = raw[:, places[::-1]]
    given, again = (trainer.predict(*ENCODING.scale_raw(values)) for values in (raw, turned))
    assert np.abs(given - again).max() < 1e-5


@pytest.mark.parametrize("name", ["deep_sets", "transformer"])
def test_what_stands_in_absent_places_makes_no_difference(name):
    module = trainer_of(name, Task(ENCODING.width, 2, 0, ENCODING)).module.eval()
    x, mask = ENCODING.scale_raw(events(40))
    absent = np.ones_like(mask)
    absent[:, 0] = False  # of objects only whole ones are empty; the mask of flat features is not looked at
    spoiled = np.where(mask & absent, np.float32(7), x)
    with torch.no_grad():
        first, second = (module(torch.from_numpy(v), torch.from_numpy(mask)) for v in (x, spoiled))
    assert torch.allclose(first, second, atol=1e-6)
    assert first.std() > 1e-4  # it does look at its input


def test_pairs_get_the_angle_and_mass_that_physics_gives():
    """Against numpy, event by event, before the little network."""
    pairs = PairFeatures(ENCODING, 1)
    seen = []
    pairs.network.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    raw = events(20)
    from mlaas4hep.streaming.encoding.objects import objects_of

    x, mask = (torch.from_numpy(values) for values in ENCODING.scale_raw(raw))
    bias = pairs(objects_of(ENCODING, x, mask))
    assert bias.shape == (20, 1, 6, 6)  # the event, three jets, two taus
    assert torch.equal(bias[:, :, 0], torch.zeros_like(bias[:, :, 0]))
    assert torch.equal(bias[:, :, 4:], torch.zeros_like(bias[:, :, 4:]))  # taus have no angles
    logarithms = seen[0].detach().numpy() * 5
    eta, phi, pt = (raw[:, list(ENCODING.places(name))].astype(np.float64) for name in JET)
    for event in range(20):
        for i in range(3):
            for j in range(3):
                if i == j or np.isnan(pt[event, i]) or np.isnan(pt[event, j]):
                    continue
                apart, turned = eta[event, i] - eta[event, j], np.cos(phi[event, i] - phi[event, j])
                mass = 2 * pt[event, i] * pt[event, j] * (np.cosh(apart) - turned)
                angle = apart**2 + 2 * (1 - turned)
                assert logarithms[event, i, j, 0] == pytest.approx(np.log(max(angle, 1e-8)), abs=1e-3)
                assert logarithms[event, i, j, 1] == pytest.approx(np.log(max(mass, 1e-8)), abs=1e-3)


def test_settings_that_do_not_go_together_are_refused():
    task = Task(ENCODING.width, 2, 0, ENCODING)
    with pytest.raises(SettingError, match=r"'model.width' must be a multiple of model.heads, which is 3; got 8"):
        trainer_of("transformer", task, heads=3)
    taus = Encoding((Feature("Tau_pt", True, 2),), "objects", (Collection("Tau", ("Tau_pt",)),))
    with pytest.raises(SettingError, match=r"'model.pairs' must be false where no collection has pt, eta and phi"):
        trainer_of("transformer", Task(2, 2, 0, taus), pairs=True)


def test_an_object_model_works_without_any_flat_feature():
    jets = Encoding(tuple(Feature(name, True, 3) for name in JET), "objects", (Collection("Jet", JET),))
    for name in ("deep_sets", "transformer"):
        trainer = trainer_of(name, Task(9, 2, 0, jets))
        trainer.check()
        assert trainer.predict(np.zeros((4, 9), np.float32), np.ones((4, 9), bool)).shape == (4, 2)


@pytest.mark.parametrize("name", ["deep_sets", "mlp", "transformer", "trees"])
def test_it_learns_from_real_files(class_files, name):
    if name == "trees":
        pytest.importorskip("xgboost")
    layout = "objects" if BUILT_IN[name].objects else "flat"
    dataset = mlaas4hep.open(
        class_files,
        labels=[0, 1],
        branches=["MET_pt", "Jet_pt", "nElectron"],
        layout=layout,
        collections={"Jet": ["Jet_pt"]} if layout == "objects" else None,
        normalisation="standard",
    )
    settings = {"trees": 30} if name == "trees" else SMALL[name]
    result = train(dataset, name, model_settings=settings, params={"epochs": 3, "batch_size": 32})
    assert result.evaluation.auc > 0.75


def test_unknown_settings_of_a_model_name_the_nearest(class_files):
    dataset = mlaas4hep.open(class_files, labels=[0, 1], branches=["MET_pt"])
    with pytest.raises(UnknownSettingError, match=r"no setting 'model.hiden'; nearest: 'model.hidden'"):
        train(dataset, "mlp", model_settings={"hiden": [3]})
    with pytest.raises(SettingError, match=r"'layout' must be 'objects' for the model 'deep_sets'; got 'flat'"):
        train(dataset, "deep_sets")
