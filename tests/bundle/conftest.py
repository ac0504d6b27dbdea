"""A small bundle, written from a graph made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlaas4hep.bundle.graph import Output
from mlaas4hep.bundle.writer import BundleContent
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature

ENCODING = Encoding(
    (Feature("MET_pt", False, 1, shift=10.0, scale=0.01), Feature("Jet_pt", True, 2, shift=20.0, scale=0.02))
)
WEIGHTS = np.array([[1.0], [-2.0], [0.5]], np.float32)


def linear_graph(weights=WEIGHTS):
    """The graph of one linear layer, as a framework would export it."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["logit"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


def predict(x, mask):
    """What that layer gives, in numpy."""
    assert x.shape == mask.shape
    second = 1 / (1 + np.exp(-(x @ WEIGHTS)))
    return np.concatenate([1 - second, second], axis=1).astype(np.float32)


@pytest.fixture
def content():
    return BundleContent(
        graph=linear_graph(),
        output=Output.LOGITS,
        encoding=ENCODING,
        labels=("ggH", "VBF"),
        specs={"fkeys": ["MET_pt"], "jkeys": ["Jet_pt"]},
        framework="numpy",
        metrics={"auc": 0.875},
        data={"files": [{"name": "a.root", "uuid": "u", "entries": 3}]},
        training={"seed": 7},
        description="a linear model",
        files={"roc.png": b"\x89PNG"},
    )


@pytest.fixture
def held_out():
    raw = np.random.default_rng(1).normal(30, 20, (50, 3)).astype(np.float32)
    raw[::3, 2] = np.nan
    return raw
