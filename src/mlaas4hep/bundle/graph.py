"""Complete a framework's graph: raw physical values in, probabilities out.

A framework is trained on scaled values and exports a graph that takes them. Here the scaling is put before that graph
and the last step to probabilities after it, so that the file in the bundle needs nothing else: any runtime that
executes ONNX gives the same numbers from the values that stand in a ROOT file.

The graph stays at the operator set that the framework exported (18 for PyTorch), with the oldest IR version that this
set allows (8 for 18). ONNX Runtime reads that since 1.14, and so does every Triton since 23.02.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlaas4hep.errors import BundleError

if TYPE_CHECKING:
    import onnx

    from mlaas4hep.streaming.encoding.encoding import Encoding

__all__ = ["FEATURES", "PROBABILITIES", "VALUES", "Output", "complete_graph", "output_name"]

FEATURES = "features"
PROBABILITIES = "probabilities"
VALUES = "values"

OLDEST_OPSET = 13  # below it Softmax, ReduceSum and Unsqueeze mean or look different
PREFIX = "model."  # of every name inside the framework's part, so that none meets one of ours


class Output(enum.Enum):
    """What the graph of a framework gives for an event."""

    LOGITS = "logits"
    """One number (of the second class) or one a class; sigmoid or softmax is still to be applied."""
    PROBABILITIES = "probabilities"
    """One number (of the second class) or one a class."""
    LOG_PROBABILITIES = "log-probabilities"
    """One number a class."""
    VALUES = "values"
    """One number a target of a regression, standardised as the training saw it."""
    RECONSTRUCTION = "reconstruction"
    """The scaled values again, as an autoencoder gives them; an event's value is the mean squared error."""


def output_name(output: Output) -> str:
    """Return the name of the completed graph's output.

    Examples
    --------
    >>> output_name(Output.LOGITS), output_name(Output.RECONSTRUCTION)
    ('probabilities', 'values')
    """
    return VALUES if output in (Output.RECONSTRUCTION, Output.VALUES) else PROBABILITIES


def complete_graph(
    framework_graph: bytes,
    encoding: Encoding,
    output: Output,
    classes: int,
    targets: tuple[Sequence[float], Sequence[float]] | None = None,
) -> bytes:
    """Put the preprocessing before a framework's graph and the step to probabilities after it.

    Parameters
    ----------
    framework_graph : bytes
        ONNX model. Its first input is the scaled values, float32 of shape ``[batch, width]``; a second one, if there
        is one, the mask, bool of the same shape and True where absent. Its only output has the shape ``[batch]``,
        ``[batch, 1]`` or ``[batch, classes]``; for a reconstruction ``[batch, width]``.
    encoding : Encoding
        Shift, scale, logarithm and clip of each place.
    output : Output
        What that output is.
    classes : int
        Number of classes, or of the targets of a regression; 1 for a reconstruction.
    targets : (scale, shift), optional
        Of a regression: what each standardised value is multiplied by, and what is then added.

    Returns
    -------
    bytes
        ONNX model with input ``features``, float32 ``[batch, width]``, where whatever is not finite counts as absent,
        and output ``probabilities``, float32 ``[batch, classes]``, or for a reconstruction ``values``, float32
        ``[batch, 1]``, for a regression ``[batch, targets]``. ``batch`` is free.
        The scaled values are those of :meth:`Encoding.scale_raw` to the bit (ONNX
        Runtime's Where gives 0 for -0), or to the last bit where there is a logarithm.

    Raises
    ------
    BundleError
        If the framework's graph is not of that form.
    """
    import onnx

    model = _read(framework_graph)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    if not 1 <= len(inputs) <= 2 or len(graph.output) != 1:
        raise _unusable(
            f"it has {len(inputs)} inputs and {len(graph.output)} outputs; right is x, or x and mask, and one output"
        )
    result = graph.output[0]
    dimensions = len(result.type.tensor_type.shape.dim)

    nodes = [*_scaling(encoding, inputs, _consumed(graph.node)), *graph.node]
    tail = _Chain(nodes, result.name)
    if result.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        tail.add("Cast", to=onnx.TensorProto.FLOAT)
    if dimensions == 1:
        tail.add("Unsqueeze", "last_axis")
    width = result.type.tensor_type.shape.dim[1].dim_value if dimensions == 2 else 1
    if output is Output.RECONSTRUCTION:
        _reconstruction_error(tail, inputs[0], width, encoding.width)
    elif output is Output.VALUES:
        _values(tail, width, classes, standardised=targets is not None)
    else:
        _probabilities(tail, output, width, classes)
    columns = 1 if output is Output.RECONSTRUCTION else classes
    tail.nodes[-1].output[0] = output_name(output)

    low, high = encoding.clips or (None, None)
    target_scale, target_shift = targets or ((), ())
    constants = {
        "target_scale": np.asarray(target_scale, np.float32),
        "target_shift": np.asarray(target_shift, np.float32),
        "shift": encoding.shifts,
        "scale": encoding.scales,
        "logarithmic": encoding.logarithmic,
        "log_shift": encoding.log_shifts,
        "log_scale": encoding.log_scales,
        "one_double": np.float64(1),
        "low": low,
        "high": high,
        "largest": np.float32(np.finfo(np.float32).max),
        "zero": np.float32(0),
        "one": np.float32(1),
        "signs": np.array([[-1, 1]], np.float32),
        "last_axis": np.array([1], np.int64),
    }
    used = set(_consumed(nodes))
    ours = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used]
    whole = onnx.helper.make_graph(
        nodes,
        "mlaas4hep",
        [onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, ["batch", encoding.width])],
        [onnx.helper.make_tensor_value_info(output_name(output), onnx.TensorProto.FLOAT, ["batch", columns])],
        [*ours, *graph.initializer],
    )
    opsets = list(model.opset_import)
    completed = onnx.helper.make_model(
        whole,
        opset_imports=opsets,
        ir_version=max(8, onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True)),
        producer_name="mlaas4hep",
    )
    try:
        onnx.checker.check_model(completed, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _unusable(f"completed with its preprocessing it is not valid: {error}") from error
    return bytes(completed.SerializeToString())


class _Chain:
    """Nodes that each take the result of the one before."""

    def __init__(self, nodes: list[onnx.NodeProto], last: str) -> None:
        self.nodes, self.last = nodes, last

    def add(self, operator: str, *others: str, first: str | None = None, **attributes: int) -> str:
        """Append ``operator(first, last, *others)``, ``first`` only if given, and return the name of its result."""
        import onnx

        inputs = [*([first] if first else []), self.last, *others]
        self.last = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, inputs, [self.last], **attributes))
        return self.last


def _scaling(encoding: Encoding, inputs: list[str], consumed: Iterable[str]) -> list[onnx.NodeProto]:
    """Return the nodes from ``features`` to the inputs of the framework's graph.

    ``|raw| <= largest float`` is False for NaN and for both infinities: two operators where IsNaN, IsInf and Or would
    be three.
    """
    from onnx import TensorProto
    from onnx.helper import make_node

    nodes = [
        make_node("Abs", [FEATURES], ["size"]),
        make_node("LessOrEqual", ["size", "largest"], ["present"]),
        make_node("Sub", [FEATURES, "shift"], ["shifted"]),
        make_node("Mul", ["shifted", "scale"], ["scaled"]),
    ]
    scaled = _Chain(nodes, "scaled")
    if encoding.logarithmic.any():
        # In double precision, as the kernel does it: the logarithms of two libraries differ in the last bits of a float.
        scaled.add("Max", "zero")
        scaled.add("Cast", to=TensorProto.DOUBLE)
        scaled.add("Add", "one_double")
        scaled.add("Log")
        scaled.add("Sub", "log_shift")
        scaled.add("Mul", "log_scale")
        scaled.add("Cast", to=TensorProto.FLOAT)
        if not encoding.logarithmic.all():
            scaled.add("Where", "scaled", first="logarithmic")
    if encoding.clips is not None:
        scaled.add("Max", "low")
        scaled.add("Min", "high")
    nodes.append(make_node("Where", ["present", scaled.last, "zero"], [inputs[0]]))
    if len(inputs) == 2 and inputs[1] in consumed:
        nodes.append(make_node("Not", ["present"], [inputs[1]]))
    return nodes


def _probabilities(tail: _Chain, output: Output, width: int, classes: int) -> None:
    """Append the nodes from the framework's output, ``width`` wide, to one probability a class."""
    if width == classes and classes > 1:
        match output:
            case Output.LOGITS:
                tail.add("Softmax", axis=1)
            case Output.LOG_PROBABILITIES:
                tail.add("Exp")
            case _:
                tail.add("Identity")
    elif width == 1 and classes == 2:
        if output is Output.LOGITS:
            # sigmoid of (-z, z): one operator less than 1 - p, and exact where p is almost 1
            tail.add("Mul", "signs")
            tail.add("Sigmoid")
        else:
            second = tail.add("Exp") if output is Output.LOG_PROBABILITIES else tail.last
            tail.add("Sub", first="one")
            tail.add("Concat", second, axis=1)
    else:
        right = "1 or 2 wide" if classes == 2 else f"{classes} wide"
        raise _unusable(f"its output is {width} wide; for {classes} classes it must be {right}")


def _values(tail: _Chain, width: int, targets: int, *, standardised: bool) -> None:
    """Append the nodes from standardised values to those of physics."""
    if width != targets:
        raise _unusable(f"its output is {width} wide; for {targets} targets it must be {targets} wide")
    if standardised:
        tail.add("Mul", "target_scale")
        tail.add("Add", "target_shift")
    else:
        tail.add("Identity")


def _reconstruction_error(tail: _Chain, scaled: str, width: int, expected: int) -> None:
    """Append the mean of the squared difference to the scaled values, over the places that are present."""
    if width != expected:
        raise _unusable(f"its output is {width} wide; a reconstruction must be as wide as the {expected} features")
    from onnx.helper import make_node

    difference = tail.add("Sub", scaled)
    tail.add("Mul", difference)
    tail.add("Where", "zero", first="present")
    error = tail.add("ReduceSum", "last_axis")
    tail.nodes.append(make_node("Cast", ["present"], ["counted"], to=1))
    tail.last = "counted"
    tail.add("ReduceSum", "last_axis")
    tail.add("Max", "one")
    tail.add("Div", first=error)


def _read(framework_graph: bytes) -> onnx.ModelProto:
    """Return the framework's model: functions inlined, names apart from ours, nothing about its machine."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx.inliner import inline_local_functions

    try:
        model = onnx.load_model_from_string(framework_graph)
    except DecodeError as error:
        raise _unusable("it is not ONNX") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise _unusable("its weights lie in a file beside it; export it with the weights inside")
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise _unusable(f"its operator set is {opset}; it must be {OLDEST_OPSET} or later")
    if model.functions:
        model = inline_local_functions(model)
    _strip(model.graph)
    return onnx.compose.add_prefix(model, PREFIX)


def _strip(graph: onnx.GraphProto) -> None:
    """Remove intermediate shapes and the exporter's notes (stack traces with the user's paths), in sub-graphs too."""
    del graph.value_info[:]
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _strip(inner)


def _consumed(nodes: Iterable[Any]) -> Iterable[str]:
    """Give each name that a node takes, in sub-graphs too."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _consumed(inner.node)
                yield from (value.name for value in inner.output)


def _unusable(reason: str) -> BundleError:
    return BundleError("model.onnx", f"the framework's graph cannot be used: {reason}")
