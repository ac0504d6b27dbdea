"""Small real models, made by hand with ONNX's own helper, and real servers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlaas4hep.bundle.archive import pack
from mlaas4hep.inference.client import TFaaSClient
from mlaas4hep.inference.server import ServerProcess, serve_in_process
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature

ENCODING = Encoding(
    (
        Feature("MET_phi", False, 1, shift=-3.0, scale=0.25),
        Feature("MET_pt", False, 1, shift=10.0, scale=0.01),
        Feature("nJet", False, 1),
        Feature("Jet_eta", True, 2, shift=-2.5, scale=0.2),
        Feature("Jet_pt", True, 3, shift=20.0, scale=0.02),
    )
)
LABELS = ("ggH", "VBF")


def network_weights(width: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(0, 1, (width, 2)).astype(np.float32), generator.normal(0, 1, 2).astype(np.float32)


def bundle_graph(encoding: Encoding, seed: int = 1) -> bytes:
    """Raw values, NaN where absent, to two probabilities: scaling, zeros for what is absent, one layer, softmax."""
    weights, bias = network_weights(encoding.width, seed)
    nodes = [
        helper.make_node("IsNaN", ["features"], ["absent"]),
        helper.make_node("Sub", ["features", "shift"], ["moved"]),
        helper.make_node("Mul", ["moved", "scale"], ["scaled"]),
        helper.make_node("Where", ["absent", "zero", "scaled"], ["x"]),
        helper.make_node("MatMul", ["x", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = {
        "shift": encoding.shifts,
        "scale": encoding.scales,
        "zero": np.float32(0),
        "weights": weights,
        "bias": bias,
    }
    return serialised(nodes, encoding.width, constants, ("features", "probabilities"), 2)


def serialised(
    nodes: list[Any],
    width: int | None,
    constants: dict[str, Any],
    names: tuple[str, str] = ("x", "y"),
    outputs: int | None = 1,
    batch: Any = "n",
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [batch, width if width is not None else "w"])],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [batch, outputs if outputs is not None else "k"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def sum_graph(width: int | None = 3, batch: Any = "n") -> bytes:
    """The sum of the values of each row: a model whose answers can be checked in the head."""
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)]
    return serialised(nodes, width, {"axes": np.array([1], np.int64)}, batch=batch)


def expected_probabilities(raw: np.ndarray, encoding: Encoding = ENCODING, seed: int = 1) -> np.ndarray:
    """What :func:`bundle_graph` gives, in numpy."""
    weights, bias = network_weights(encoding.width, seed)
    x = np.where(np.isnan(raw), 0, (raw - encoding.shifts) * encoding.scales).astype(np.float32)
    logits = x @ weights + bias
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def write_bundle(folder: Path, *, seed: int = 1, encoding: Encoding = ENCODING, **parameters: Any) -> Path:
    """A bundle as training writes it, without its statistics."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(bundle_graph(encoding, seed))
    (folder / "encoding.json").write_text(json.dumps(encoding.to_dict()))
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    stored = {
        "name": folder.name,
        "model": "model.onnx",
        "labels": "labels.txt",
        "input_name": "features",
        "output_name": "probabilities",
        "description": "a test",
        **parameters,
    }
    (folder / "params.json").write_text(json.dumps(stored))
    return folder


def write_plain_model(folder: Path, graph: bytes, **parameters: Any) -> Path:
    """A model of somebody else: no encoding, no labels."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(graph)
    (folder / "params.json").write_text(json.dumps({"name": folder.name, "model": "model.onnx", **parameters}))
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """An archive of the model 'higgs'."""
    return pack(write_bundle(tmp_path / "made" / "higgs"), tmp_path / "higgs.tar.gz")


ServerStarter = Callable[..., ServerProcess]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[ServerStarter]:
    """Start servers over the folder ``models`` of the test; they are stopped after it."""
    running: list[ServerProcess] = []

    def start(**settings: Any) -> ServerProcess:
        server = serve_in_process(settings.pop("models", tmp_path / "models"), **{"drain_seconds": 0.05, **settings})
        running.append(server.start())
        return server

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def client(start_server: ServerStarter) -> TFaaSClient:
    """A client of an empty server."""
    return TFaaSClient(start_server().url)


def curl(*arguments: str) -> tuple[int, str]:
    """Run curl as people do; return status and body."""
    command = ["curl", "-sS", "--max-time", "60", "-w", "\n%{http_code}", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    body, _, status = result.stdout.rpartition("\n")
    return int(status), body
