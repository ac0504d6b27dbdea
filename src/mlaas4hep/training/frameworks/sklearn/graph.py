"""scikit-learn's estimators as ONNX, with the one output that a bundle needs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlaas4hep.bundle.session import open_session
from mlaas4hep.errors import MissingExtraError, ModelFileError
from mlaas4hep.training.frameworks.torch.export import quiet

__all__ = ["to_onnx"]

OPSETS = {"": 18, "ai.onnx.ml": 3}
OLDEST_OPSET = 13  # that a bundle takes; the converter notes the oldest one in which all operators are as it wrote them
VALUES, MASK, ABSENT, ROWS, CHOSEN = "values", "mask", "absent", "in_rows", "chosen"
TRIED_ROWS = 3


def to_onnx(estimator: Any, width: int, *, nan: bool, second_only: bool, source: str) -> bytes:
    """Convert a fitted estimator.

    Parameters
    ----------
    estimator : scikit-learn estimator
        A classifier's graph gives what ``predict_proba`` gives, or ``decision_function`` where there is no ``predict_proba``.
    width : int
        Number of places of the feature vector.
    nan : bool
        Whether it takes NaN where a value is absent: then the mask is an input too.
    second_only : bool
        Whether a decision is one number, of which the converter makes one of each sign.
    source : str
        Where it comes from, for messages.

    Raises
    ------
    ModelFileError
        If it has no counterpart in ONNX.
    MissingExtraError
        If skl2onnx is not installed.
    """
    import onnx
    from onnx import TensorProto
    from onnx.helper import make_node, make_tensor_value_info

    try:
        from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs
    except ModuleNotFoundError as error:
        raise MissingExtraError("skl2onnx", "sklearn") from error
    with quiet():
        try:
            model = _convert(estimator, width)
            result = model.graph.output[-1]  # a classifier's first output is the class
            element, chosen = result.type.tensor_type.elem_type, result.name
            model = select_model_inputs_outputs(model, outputs=[chosen])
        except Exception as error:  # the converter's errors have no common base
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            said = lines[0] if lines else type(error).__name__
            raise ModelFileError(source, f"{type(estimator).__name__} cannot be converted to ONNX: {said}") from error
    # What shape the converter notes is not always the one that there is; several values of a regression come one below the other.
    session = open_session(model.SerializeToString())
    shape = session.run([chosen], {VALUES: np.zeros((TRIED_ROWS, width), np.float32)})[0].shape
    columns = math.prod(shape) // TRIED_ROWS
    graph = model.graph
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = max(OLDEST_OPSET, opset.version)
    if nan:
        graph.node.insert(0, make_node("Where", [MASK, ABSENT, "x"], [VALUES]))
        graph.initializer.append(onnx.numpy_helper.from_array(np.float32(np.nan).reshape(()), ABSENT))
        del graph.input[:]
        graph.input.append(make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width]))
        graph.input.append(make_tensor_value_info(MASK, TensorProto.BOOL, ["batch", width]))
    if shape != (TRIED_ROWS, columns):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, columns]), "rows"))
        graph.node.append(make_node("Reshape", [chosen, "rows"], [ROWS]))
        chosen = ROWS
    if second_only and columns == 2:
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "second"))
        graph.node.append(make_node("Gather", [chosen, "second"], [CHOSEN], axis=1))
        chosen, columns = CHOSEN, 1
    del graph.output[:]
    graph.output.append(make_tensor_value_info(chosen, element, ["batch", columns]))
    return bytes(model.SerializeToString())


def _convert(estimator: Any, width: int) -> Any:
    """Convert with those of the wanted options that the converter has for this estimator."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    wanted: list[dict[str, bool]] = [{}]
    if hasattr(estimator, "classes_"):
        raw = not hasattr(estimator, "predict_proba")
        wanted = [{"zipmap": False, "raw_scores": True}, {"raw_scores": True}] if raw else [{"zipmap": False}]
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    refused: Exception | None = None
    for options in [*wanted, {}]:
        try:
            return convert_sklearn(
                estimator,
                initial_types=[(VALUES, FloatTensorType([None, width]))],
                target_opset=OPSETS,
                options={id(last): options} if options else None,
            )
        except NameError as error:  # an option that it does not have
            refused = error
    raise refused or RuntimeError("no options")
