"""A bundle's graph as a PyTorch program: every node of the ONNX graph becomes the PyTorch operation of the same meaning.

It works from the graph and not from the module that was trained, so that it takes the same raw values, does the same preprocessing, and is there for
models of every framework. What it makes is compared with the graph before it is given away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlaas4hep.errors import BundleError

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["torch_module"]

Operation = Callable[..., Any]


def torch_module(model: onnx.ModelProto) -> torch.nn.Module:
    """Return a module that computes what a graph computes: ``forward(features)`` gives its output.

    Parameters
    ----------
    model : onnx.ModelProto
        With one input and one output.

    Raises
    ------
    BundleError
        If an operation of the graph has no counterpart here; names it.
    """
    import numpy as np
    import onnx
    import torch

    graph = model.graph
    operations = _operations()
    steps: list[tuple[Operation, list[str], list[str], dict[str, Any]]] = []
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            constants[node.output[0]] = onnx.numpy_helper.to_array(attributes["value"])
            continue
        if node.op_type not in operations or node.domain not in ("", "ai.onnx") or len(node.output) != 1:
            raise BundleError(
                "model.onnx", f"operation '{node.op_type}' has no counterpart in PyTorch here; use the ONNX file itself"
            )
        steps.append((operations[node.op_type], list(node.input), list(node.output), attributes))
    taken, given = graph.input[0].name, graph.output[0].name

    class Graph(torch.nn.Module):
        """The graph."""

        def __init__(self) -> None:
            super().__init__()
            self.numbers: dict[str, int] = {}
            for number, (name, value) in enumerate(constants.items()):
                self.numbers[name] = number
                self.register_buffer(f"constant_{number}", torch.from_numpy(np.array(value)))

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            """Compute the graph's output."""
            values: dict[str, Any] = {"": None, taken: features}
            values |= {name: getattr(self, f"constant_{number}") for name, number in self.numbers.items()}
            for operation, inputs, outputs, attributes in steps:
                # Shapes and axes have to be known while the program is made: they are read from the constants themselves.
                known = [constants.get(name) for name in inputs]
                values[outputs[0]] = operation([values[name] for name in inputs], attributes, known)
            result: torch.Tensor = values[given]
            return result

    return Graph().eval()


def _operations() -> Mapping[str, Operation]:
    """Return what does each operation of ONNX: called with the inputs, the attributes, and the inputs that are constants, as arrays."""
    import torch
    from torch.nn import functional

    def of(function: Callable[..., Any]) -> Operation:
        return lambda inputs, _attributes, _known: function(*inputs)

    return {
        "Abs": of(torch.abs),
        "Add": of(torch.add),
        "And": of(torch.logical_and),
        "BatchNormalization": _batch_normalisation,
        "Cast": _cast,
        "Concat": lambda inputs, attributes, _: torch.cat(list(inputs), dim=attributes["axis"]),
        "Div": of(torch.div),
        "Elu": lambda inputs, attributes, _: functional.elu(inputs[0], attributes.get("alpha", 1.0)),
        "Erf": of(torch.erf),
        "Exp": of(torch.exp),
        "Flatten": lambda inputs, attributes, _: inputs[0].flatten(attributes.get("axis", 1)),
        "Gather": lambda inputs, attributes, _: _gather(inputs, attributes.get("axis", 0)),
        "Gelu": _gelu,
        "Gemm": _gemm,
        "Identity": lambda inputs, _attributes, _known: inputs[0],
        "IsNaN": of(torch.isnan),
        "LayerNormalization": _layer_normalisation,
        "LeakyRelu": lambda inputs, attributes, _: functional.leaky_relu(inputs[0], attributes.get("alpha", 0.01)),
        "LessOrEqual": of(torch.le),
        "Log": of(torch.log),
        "LogSoftmax": lambda inputs, attributes, _: functional.log_softmax(inputs[0], attributes.get("axis", -1)),
        "MatMul": of(torch.matmul),
        "Max": of(torch.maximum),
        "Min": of(torch.minimum),
        "Mul": of(torch.mul),
        "Neg": of(torch.neg),
        "Not": of(torch.logical_not),
        "Pow": of(torch.pow),
        "Reciprocal": of(torch.reciprocal),
        "ReduceMean": _reduced(torch.mean),
        "ReduceSum": _reduced(torch.sum),
        "Relu": of(torch.relu),
        "Reshape": _reshape,
        "Sigmoid": of(torch.sigmoid),
        "Softmax": lambda inputs, attributes, _: functional.softmax(inputs[0], attributes.get("axis", -1)),
        "Softplus": of(functional.softplus),
        "Sqrt": of(torch.sqrt),
        "Squeeze": _squeeze,
        "Sub": of(torch.sub),
        "Tanh": of(torch.tanh),
        "Transpose": lambda inputs, attributes, _: inputs[0].permute(list(attributes["perm"])),
        "Unsqueeze": _unsqueeze,
        "Where": of(torch.where),
    }


def _gemm(inputs: Sequence[Any], attributes: Mapping[str, Any], _: object) -> Any:
    a, b = inputs[0], inputs[1]
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    result = attributes.get("alpha", 1.0) * (a @ b) if attributes.get("alpha", 1.0) != 1 else a @ b
    return result if len(inputs) < 3 else result + attributes.get("beta", 1.0) * inputs[2]


def _cast(inputs: Sequence[Any], attributes: Mapping[str, Any], _: object) -> Any:
    import torch

    kinds = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}
    if attributes["to"] not in kinds:
        raise BundleError("model.onnx", f"a cast to type {attributes['to']} has no counterpart in PyTorch here")
    return inputs[0].to(kinds[attributes["to"]])


def _axes(attributes: Mapping[str, Any], known: Sequence[Any]) -> list[int]:
    if "axes" in attributes:
        return list(attributes["axes"])
    return [] if len(known) < 2 or known[1] is None else [int(axis) for axis in known[1]]


def _reduced(function: Callable[..., Any]) -> Operation:
    def reduce(inputs: Sequence[Any], attributes: Mapping[str, Any], known: Sequence[Any]) -> Any:
        axes = _axes(attributes, known) or list(range(inputs[0].ndim))
        return function(inputs[0], dim=axes, keepdim=bool(attributes.get("keepdims", 1)))

    return reduce


def _unsqueeze(inputs: Sequence[Any], attributes: Mapping[str, Any], known: Sequence[Any]) -> Any:
    result = inputs[0]
    for axis in sorted(_axes(attributes, known)):
        result = result.unsqueeze(axis)
    return result


def _squeeze(inputs: Sequence[Any], attributes: Mapping[str, Any], known: Sequence[Any]) -> Any:
    return inputs[0].squeeze(tuple(_axes(attributes, known)))


def _reshape(inputs: Sequence[Any], _: object, known: Sequence[Any]) -> Any:
    if known[1] is None:
        raise BundleError("model.onnx", "a shape that is worked out while it runs has no counterpart in PyTorch here")
    shape = [inputs[0].shape[place] if size == 0 else int(size) for place, size in enumerate(known[1])]
    return inputs[0].reshape(shape)


def _batch_normalisation(inputs: Sequence[Any], attributes: Mapping[str, Any], _: object) -> Any:
    from torch.nn import functional

    x, weight, bias, mean, variance = inputs
    return functional.batch_norm(x, mean, variance, weight, bias, eps=attributes.get("epsilon", 1e-5))


def _layer_normalisation(inputs: Sequence[Any], attributes: Mapping[str, Any], _: object) -> Any:
    from torch.nn import functional

    axis = attributes.get("axis", -1) % inputs[0].ndim
    bias = inputs[2] if len(inputs) > 2 else None
    return functional.layer_norm(inputs[0], inputs[0].shape[axis:], inputs[1], bias, attributes.get("epsilon", 1e-5))


def _gelu(inputs: Sequence[Any], attributes: Mapping[str, Any], _: object) -> Any:
    from torch.nn import functional

    approximate = attributes.get("approximate", b"none")
    return functional.gelu(
        inputs[0], approximate=approximate.decode() if isinstance(approximate, bytes) else approximate
    )


def _gather(inputs: Sequence[Any], axis: int) -> Any:
    values, indices = inputs
    picked = values.index_select(axis, indices.reshape(-1))
    return picked.reshape((*values.shape[:axis], *indices.shape, *values.shape[axis + 1 :]))
