"""Graphs of several models: each takes the same raw values, and one gives the mean of all.

Every fold learned its widths and its scaling from its own training events. The places of all of them together are the vector that a client gives;
each model picks its own out of it. So a program that knows nothing of folds takes the mean like any other model, and one that knows them runs a
fold's graph on the very same values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.graph import FEATURES
from mlaas4hep.errors import BundleError
from mlaas4hep.streaming.encoding.encoding import Encoding

__all__ = ["common_encoding", "common_graph", "common_places", "mean_graph"]


def common_encoding(encodings: Sequence[Encoding]) -> Encoding:
    """Return the places of all folds, unscaled: each branch as wide as in the fold in which it is widest.

    Parameters
    ----------
    encodings : sequence of Encoding
        One a fold; of the same branches in the same layout.

    Raises
    ------
    BundleError
        If they are not.

    Examples
    --------
    >>> from mlaas4hep.streaming.encoding.encoding import Feature
    >>> common_encoding([Encoding((Feature("Jet_pt", True, w, scale=0.1),)) for w in (1, 3)]).columns
    ('Jet_pt_0', 'Jet_pt_1', 'Jet_pt_2')
    """
    first = encodings[0]
    for number, other in enumerate(encodings):
        if (other.branches, other.layout, other.collections) != (first.branches, first.layout, first.collections):
            raise BundleError("model.onnx", f"fold {number} has other branches, layout or collections than fold 0")
    widths = [max(column) for column in zip(*([f.width for f in one.features] for one in encodings), strict=True)]
    features = tuple(replace(f.unscaled, width=width) for f, width in zip(first.features, widths, strict=True))
    return Encoding(features, first.layout, first.collections)


def common_places(encoding: Encoding, common: Encoding) -> npt.NDArray[np.int64]:
    """Return where a fold's places are in the vector of all, int64 ``[encoding.width]``."""
    place = {name: number for number, name in enumerate(common.columns)}
    return np.array([place[name] for name in encoding.columns], np.int64)


def common_graph(graph: bytes, encoding: Encoding, common: Encoding) -> bytes:
    """Let the graph of a fold take the values of all places.

    Parameters
    ----------
    graph : bytes
        Completed graph of the fold: ``features`` are the raw values of its own places.
    encoding, common : Encoding
        The fold's places, and those of all.

    Returns
    -------
    bytes
        The same graph with ``features`` ``[batch, common.width]``.
    """
    import onnx
    from onnx.helper import make_node, make_tensor_value_info

    model = onnx.load_model_from_string(graph)
    if encoding.columns == common.columns:
        return graph
    model = onnx.compose.add_prefix(model, "fold.", rename_outputs=False)
    inner = model.graph.input[0].name
    del model.graph.input[:]
    model.graph.input.append(make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, ["batch", common.width]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(common_places(encoding, common), "places"))
    model.graph.node.insert(0, make_node("Gather", [FEATURES, "places"], [inner], axis=1))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def mean_graph(graphs: Sequence[bytes], columns: int) -> bytes:
    """Make one graph that gives the mean of several.

    Parameters
    ----------
    graphs : sequence of bytes
        From :func:`common_graph`.
    columns : int
        Columns of their outputs.

    Returns
    -------
    bytes
        A graph in the form that :func:`~mlaas4hep.bundle.graph.complete_graph` completes with the unscaled encoding of all places: of ``x``, 0 where
        absent, and ``mask``.

    Raises
    ------
    BundleError
        If the graphs are of different operator sets.
    """
    import onnx
    from onnx.helper import make_node, make_tensor_value_info

    models = [onnx.load_model_from_string(graph) for graph in graphs]
    opsets: list[Any] = [{entry.domain or "ai.onnx": entry.version for entry in model.opset_import} for model in models]
    if any(other != opsets[0] for other in opsets):
        raise BundleError("model.onnx", f"the folds' graphs have different operator sets: {opsets}")
    width = models[0].graph.input[0].type.tensor_type.shape.dim[1].dim_value
    nodes = [make_node("Where", ["mask", "nan", "x"], ["raw"])]
    weights = [
        onnx.numpy_helper.from_array(np.array(np.nan, np.float32), "nan"),
        onnx.numpy_helper.from_array(np.array(len(graphs), np.float32), "models"),
    ]
    answers = []
    for number, model in enumerate(models):
        part = onnx.compose.add_prefix(model, f"fold{number}.").graph
        nodes.append(make_node("Identity", ["raw"], [part.input[0].name]))
        nodes.extend(part.node)
        weights.extend(part.initializer)
        answers.append(part.output[0].name)
    nodes += [make_node("Sum", answers, ["sum"]), make_node("Div", ["sum", "models"], ["mean"])]
    graph = onnx.helper.make_graph(
        nodes,
        "mean",
        [
            make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", width]),
            make_tensor_value_info("mask", onnx.TensorProto.BOOL, ["batch", width]),
        ],
        [make_tensor_value_info("mean", onnx.TensorProto.FLOAT, ["batch", columns])],
        weights,
    )
    whole = onnx.helper.make_model(
        graph, opset_imports=list(models[0].opset_import), ir_version=max(model.ir_version for model in models)
    )
    return bytes(whole.SerializeToString())
