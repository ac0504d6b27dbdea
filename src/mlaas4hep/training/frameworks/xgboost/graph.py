"""Trees as ONNX: the same thresholds, the same sums, and absent values on the side that the trees learned.

Written from XGBoost's own JSON, in which every threshold stands with all its digits. Thresholds are values that events have, so one that is rounded
would send events to the other side.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import xgboost

__all__ = ["trees_to_onnx"]

OPSET, TREES_OPSET, IR_VERSION = 18, 3, 8
LOGISTIC = ("binary:logistic", "binary:logitraw", "reg:logistic")


def trees_to_onnx(booster: xgboost.Booster, width: int) -> bytes:
    """Return the graph from scaled values and mask to the trees' sums.

    Parameters
    ----------
    booster : xgboost.Booster
        Of trees, also with dropout (``dart``).
    width : int
        Number of places of the feature vector.

    Returns
    -------
    bytes
        ONNX model with inputs ``x``, float32 ``[batch, width]``, and ``mask``, bool of the same shape; its output ``margin``, float32
        ``[batch, columns]``, has one column a class or target, or one for the second of two classes.

    Raises
    ------
    ValueError
        If the booster is not of trees, or has splits that ONNX does not express.
    """
    import onnx
    from onnx import TensorProto
    from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    attributes, columns = _ensemble(learner)
    graph = make_graph(
        [
            make_node("Where", ["mask", "absent", "x"], ["values"]),
            make_node("TreeEnsembleRegressor", ["values"], ["margin"], domain="ai.onnx.ml", **attributes),
        ],
        "trees",
        [
            make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width]),
            make_tensor_value_info("mask", TensorProto.BOOL, ["batch", width]),
        ],
        [make_tensor_value_info("margin", TensorProto.FLOAT, ["batch", columns])],
        [onnx.numpy_helper.from_array(np.float32(np.nan).reshape(()), "absent")],
    )
    opsets = [make_opsetid("", OPSET), make_opsetid("ai.onnx.ml", TREES_OPSET)]
    return bytes(make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString())


def _ensemble(learner: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the attributes of the operator, and its number of columns."""
    kind = learner["gradient_booster"]["name"]
    if kind not in ("gbtree", "dart"):
        raise ValueError(f"booster '{kind}' is not of trees; right is 'gbtree' or 'dart'")
    booster = learner["gradient_booster"]["gbtree"] if kind == "dart" else learner["gradient_booster"]
    trees, column_of = booster["model"]["trees"], booster["model"]["tree_info"]
    factors = learner["gradient_booster"].get("weight_drop", [1.0] * len(trees))
    parameters = learner["learner_model_param"]
    columns = max(int(parameters["num_class"]), int(parameters.get("num_target", 1)), 1)
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    for number, (tree, column, factor) in enumerate(zip(trees, column_of, factors, strict=True)):
        for name, values in _tree(tree, number, column, factor).items():
            parts.setdefault(name, []).append(values)
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    leaf = joined.pop("leaf")
    modes = np.where(leaf, "LEAF", "BRANCH_LT").tolist()
    attributes = {name: values.tolist() for name, values in joined.items()}
    base = _base_values(parameters["base_score"], learner["objective"]["name"], columns)
    return {**attributes, "nodes_modes": modes, "n_targets": columns, "base_values": base}, columns


def _tree(tree: dict[str, Any], number: int, column: int, factor: float) -> dict[str, npt.NDArray[Any]]:
    """Return one tree's part of each attribute."""
    if any(tree["split_type"]):
        raise ValueError("it splits by categories, which its numbers are not")
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise ValueError("a leaf holds several values; right is multi_strategy='one_output_per_tree'")
    left = np.array(tree["left_children"], np.int64)
    leaf = left < 0
    nodes = np.arange(len(left))
    values = np.array(tree["split_conditions"], np.float32)
    leaves = np.flatnonzero(leaf)
    return {
        "leaf": leaf,
        "nodes_treeids": np.full(len(left), number),
        "nodes_nodeids": nodes,
        "nodes_featureids": np.where(leaf, 0, tree["split_indices"]),
        "nodes_values": np.where(leaf, np.float32(0), values),
        "nodes_truenodeids": np.where(leaf, 0, left),
        "nodes_falsenodeids": np.where(leaf, 0, tree["right_children"]),
        "nodes_missing_value_tracks_true": np.where(leaf, 0, np.array(tree["default_left"], np.int64)),
        "target_treeids": np.full(len(leaves), number),
        "target_nodeids": leaves,
        "target_ids": np.full(len(leaves), column),
        "target_weights": values[leaves] * np.float32(factor),
    }


def _base_values(written: str, objective: str, columns: int) -> list[float]:
    """Return where the sums begin; XGBoost writes it as a probability where its output is one."""
    scores = [float(score) for score in written.strip("[]").split(",")]
    if objective in LOGISTIC and objective != "binary:logitraw":
        scores = [math.log(score / (1 - score)) for score in scores]
    return scores * columns if len(scores) == 1 else scores
