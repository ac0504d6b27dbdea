"""The server, the offline prediction and PyTorch give the same numbers for held-out events.

The reference shares none of the package's code: plain uproot, the ranges and widths from the bundle's ``specs.json``, numpy, and the module's
forward pass.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
import uproot
from tests.conftest import make_events, write_tree_file

import mlaas4hep
from mlaas4hep.bundle.verify import verify_bundle
from mlaas4hep.inference.client import TFaaSClient
from mlaas4hep.inference.predictor import predict_files
from mlaas4hep.inference.server import serve_in_process
from mlaas4hep.training.workflow import train

EVENTS = 3000
ROWS = 256


@pytest.fixture(scope="module")
def trained(higgs_files: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """A bundle, and the module that it was made of."""
    torch.manual_seed(1)
    dataset = mlaas4hep.open(higgs_files, labels=[1, 0], max_events=2 * EVENTS)
    module = torch.nn.Sequential(
        torch.nn.BatchNorm1d(dataset.encoding.width),
        torch.nn.Linear(dataset.encoding.width, 32),
        torch.nn.GELU(),
        torch.nn.Linear(32, 1),
    )
    out = tmp_path_factory.mktemp("parity") / "higgs.tar.gz"
    train(dataset, module, params={"epochs": 2, "patience": 2}, out=out)
    return out, module.eval()


@pytest.fixture(scope="module")
def reference(
    higgs_files: list[str], trained: tuple[Path, torch.nn.Module]
) -> dict[tuple[int, int], tuple[dict[str, Any], float]]:
    """Values and probability of the last events of both files, made without the package."""
    bundle, module = trained
    with tarfile.open(bundle) as archive:
        (member,) = [name for name in archive.getnames() if name.endswith("specs.json")]
        stored = archive.extractfile(member)
        assert stored is not None
        specs = json.load(stored)
    ranges = specs["train"]
    expected = {}
    for file, path in enumerate(higgs_files):
        tree = uproot.open(path)["Events"]
        first = tree.num_entries - ROWS // 2
        for row, event in enumerate(tree.arrays(entry_start=first).to_list()):
            places: list[float] = []
            for name in specs["fkeys"]:
                places.append(scaled(float(event[name]), ranges, name))
            for name in specs["jkeys"]:
                width = ranges["jdim"][name]
                values = [scaled(value, ranges, name) for value in event[name]][:width]
                places += values + [0.0] * (width - len(values))
            with torch.no_grad():
                logit = module(torch.tensor([places], dtype=torch.float32)).item()
            expected[file, first + row] = (
                {name: event[name] for name in specs["fkeys"] + specs["jkeys"]},
                1 / (1 + np.exp(-logit)),
            )
    return expected


def scaled(value: float, ranges: dict[str, Any], name: str) -> float:
    low, high = ranges["minv"][name], ranges["maxv"][name]
    return (value - low) / (high - low) if high != low else value


@pytest.fixture(scope="module")
def client(trained: tuple[Path, torch.nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TFaaSClient]:
    """A real server process that holds the bundle."""
    with serve_in_process(tmp_path_factory.mktemp("models")) as server:
        client = TFaaSClient(server.url)
        client.upload_bundle(trained[0])
        yield client


def test_the_server_answers_what_pytorch_gives_by_feature_name(
    client: TFaaSClient, reference: dict[tuple[int, int], tuple[dict[str, Any], float]]
) -> None:
    for values, probability in reference.values():
        names = sorted(values, reverse=True)
        served = client.predict(keys=names, values=[values[name] for name in names], model="higgs")
        assert served[1] == pytest.approx(probability, abs=1e-5)
        assert sum(served) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("extension", [".parquet", ".root"])
def test_the_offline_prediction_is_the_servers(
    higgs_files: list[str],
    trained: tuple[Path, torch.nn.Module],
    client: TFaaSClient,
    reference: dict[tuple[int, int], tuple[dict[str, Any], float]],
    tmp_path: Path,
    extension: str,
) -> None:
    out = tmp_path / f"scores{extension}"
    summary = predict_files(trained[0], higgs_files, out)
    assert summary.events == 48_000
    scores = (
        pq.read_table(out).to_pydict() if extension == ".parquet" else uproot.open(out)["Events"].arrays(library="np")
    )
    rows = {(file, entry): row for row, (file, entry) in enumerate(zip(scores["file"], scores["entry"], strict=True))}
    assert len(rows) == 48_000
    for (file, entry), (values, probability) in list(reference.items())[::8]:
        offline = scores["probability_1"][rows[file, entry]]
        assert offline == pytest.approx(probability, abs=1e-5)
        assert offline == pytest.approx(
            client.predict(keys=list(values), values=list(values.values()), model="higgs")[1], abs=1e-6
        )
    identifiers = uproot.open(higgs_files[1])["Events"].arrays(["run", "event"], library="np")
    second = [rows[1, entry] for entry in range(24_000)]
    assert [scores["event"][row] for row in second[:100]] == identifiers["event"][:100].tolist()
    assert list(tmp_path.iterdir()) == [out]


class ObjectNetwork(torch.nn.Module):
    """Embeds each jet, averages over those that there are; written against places, without the package."""

    def __init__(self, flat: int, objects: int, members: int) -> None:
        super().__init__()
        self.flat, self.objects, self.members = flat, objects, members
        self.embed = torch.nn.Linear(members, 8)
        self.last = torch.nn.Linear(8 + flat, 2)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        jets = x[:, self.flat :].reshape(-1, self.objects, self.members)
        there = (~mask[:, self.flat :].reshape(-1, self.objects, self.members)[:, :, :1]).float()
        mean = (torch.relu(self.embed(jets)) * there).sum(1) / there.sum(1).clamp(min=1)
        return self.last(torch.cat([mean, x[:, : self.flat]], dim=1))


FLAT, MEMBERS, PLACES = ("HT", "MET_pt"), ("Jet_eta", "Jet_mass", "Jet_pt"), 3
COMPARED = 10_000


@pytest.fixture(scope="module")
def trained_on_objects(
    higgs_files: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, torch.nn.Module, dict[str, Any]]:
    """A bundle of everything that a training can do to its input, its module, and its encoding.json."""
    torch.manual_seed(2)
    dataset = mlaas4hep.open(
        higgs_files,
        labels=[1, 0],
        branches=[*FLAT, *MEMBERS],
        selection="nJet >= 1 and MET_pt > 15",
        new_columns={"HT": "sum(Jet_pt)"},
        object_cuts={"Jet": "pt > 25 and abs(eta) < 4"},
        layout="objects",
        max_objects={"Jet": PLACES},
        order_by={"Jet": "-mass"},
        normalisation={"*_pt": "log", "HT": "log", "*_mass": "log", "*": "standard"},
        clip=(-3, 3),
    )
    module = ObjectNetwork(len(FLAT), PLACES, len(MEMBERS))
    out = tmp_path_factory.mktemp("objects") / "objects.tar.gz"
    train(dataset, module, params={"epochs": 1, "patience": 1}, out=out)
    with tarfile.open(out) as archive:
        stored = archive.extractfile("objects/encoding.json")
        assert stored is not None
        return out, module.eval(), json.load(stored)


def plain_scaled(values: np.ndarray, feature: dict[str, Any]) -> np.ndarray:
    """Scale values as docs/encoding.md says, in double precision."""
    u = (values.astype(np.float64) - feature["shift"]) * feature["scale"]
    if feature["transform"] == "log":
        u = (np.log1p(np.maximum(u, 0)) - feature["log_shift"]) * feature["log_scale"]
    return np.clip(u, *feature["clip"]) if feature["clip"] else u


def test_framework_bundle_prediction_and_server_agree_with_cuts_new_columns_ordered_objects_and_logarithms(
    higgs_files: list[str], trained_on_objects: tuple[Path, torch.nn.Module, dict[str, Any]], tmp_path: Path
) -> None:
    bundle, module, encoding = trained_on_objects
    features = {feature["branch"]: feature for feature in encoding["features"]}
    assert [feature["branch"] for feature in encoding["features"]] == [*FLAT, *MEMBERS]
    assert {features[name]["transform"] for name in ("HT", "MET_pt", "Jet_mass", "Jet_pt")} == {"log"}
    events = ak.concatenate([uproot.open(f)["Events"].arrays([*MEMBERS, "MET_pt", "nJet"]) for f in higgs_files])

    # The reference: awkward and numpy only.
    kept = (events.Jet_pt > 25) & (abs(events.Jet_eta) < 4)
    jets = {name: events[name][kept] for name in MEMBERS}
    selected = ((ak.num(jets["Jet_pt"]) >= 1) & (events.MET_pt > 15)).to_numpy()
    order = ak.argsort(jets["Jet_mass"], ascending=False, stable=True)
    flat = {"HT": ak.sum(jets["Jet_pt"], axis=1).to_numpy(), "MET_pt": events.MET_pt.to_numpy()}
    raw = np.full((len(events), len(FLAT) + PLACES * len(MEMBERS)), np.nan, np.float32)
    x = np.zeros(raw.shape)
    for place, name in enumerate(FLAT):
        raw[:, place], x[:, place] = flat[name], plain_scaled(flat[name], features[name])
    for member, name in enumerate(MEMBERS):
        padded = ak.to_numpy(ak.fill_none(ak.pad_none(jets[name][order], PLACES, clip=True), np.nan))
        raw[:, len(FLAT) + member :: len(MEMBERS)] = padded
        x[:, len(FLAT) + member :: len(MEMBERS)] = plain_scaled(padded, features[name])
    with torch.no_grad():
        logits = module(torch.from_numpy(np.nan_to_num(x).astype(np.float32)), torch.from_numpy(np.isnan(raw)))
        expected = torch.softmax(logits, 1).numpy()[:, 1]
    assert np.ptp(expected[selected]) > 0.01
    assert 0.1 < selected.mean() < 0.99

    predict_files(bundle, higgs_files, tmp_path / "scores.parquet")
    scores = pq.read_table(tmp_path / "scores.parquet")
    offline = scores["probability_1"].to_numpy()
    np.testing.assert_array_equal(scores["selected"].to_numpy(), selected)
    np.testing.assert_array_equal(~np.isnan(offline), selected)
    np.testing.assert_allclose(offline[selected], expected[selected], atol=1e-5)

    chosen = np.random.default_rng(4).permutation(np.flatnonzero(selected))[:COMPARED]
    assert len(chosen) == COMPARED
    with tarfile.open(bundle) as archive:
        archive.extractall(tmp_path, filter="data")
    session = onnxruntime.InferenceSession(tmp_path / "objects" / "model.onnx")
    graph = session.run(None, {"features": raw[chosen]})[0][:, 1]
    np.testing.assert_allclose(graph, expected[chosen], atol=1e-5)
    names = ["HT", "MET_pt", *(f"{name}_{place}" for place in range(PLACES) for name in MEMBERS)]
    with serve_in_process(tmp_path / "models") as server:
        client = TFaaSClient(server.url)
        client.upload_bundle(bundle)
        for row in chosen[:100]:
            there = ~np.isnan(raw[row])
            keys = [name for name, present in zip(names, there, strict=True) if present]
            served = client.predict(keys=keys, values=raw[row][there].tolist(), model="objects")
            assert served[1] == pytest.approx(expected[row], abs=1e-5)


def test_a_branch_that_is_empty_in_all_training_events_goes_through_training_prediction_and_server(
    tmp_path: Path,
) -> None:
    events = make_events(600, seed=9)
    empty = ak.Array([[]] * 600)
    events |= {"Tau_pt": ak.values_astype(empty, np.float32)}
    write_tree_file(tmp_path / "empty.root", events)
    events["Tau_pt"] = ak.unflatten(np.ones(600, np.float32), np.ones(600, int))
    write_tree_file(tmp_path / "filled.root", events)
    dataset = mlaas4hep.open(tmp_path / "empty.root", labels="trigger", branches=["MET_pt", "Jet_pt", "Tau_pt"])
    assert [feature.width for feature in dataset.encoding.features if feature.branch == "Tau_pt"] == [0]
    train(dataset, "mlp", params={"epochs": 1, "patience": 1}, out=tmp_path / "zero.tar.gz")
    assert verify_bundle(tmp_path / "zero.tar.gz").events > 0
    scores = []
    for name in ("empty", "filled"):
        summary = predict_files(tmp_path / "zero.tar.gz", tmp_path / f"{name}.root", tmp_path / f"{name}.parquet")
        assert summary.cut_values == (600 if name == "filled" else 0)
        scores.append(pq.read_table(tmp_path / f"{name}.parquet")["probability_1"].to_numpy())
    np.testing.assert_array_equal(*scores)
    with serve_in_process(tmp_path / "models") as server:
        client = TFaaSClient(server.url)
        client.upload_bundle(tmp_path / "zero.tar.gz")
        jets = ak.to_list(events["Jet_pt"][0])
        served = client.predict(keys=["MET_pt", "Jet_pt"], values=[float(events["MET_pt"][0]), jets], model="zero")
        assert served[1] == pytest.approx(scores[0][0], abs=1e-6)
