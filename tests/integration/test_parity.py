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

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import uproot

import mlaas4hep
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
