"""ONNX models, executed by ONNX Runtime.

A model is a program from anybody, so its graph is looked through before ONNX Runtime sees it: only operators of the standard, of its machine-learning
part and of ONNX Runtime itself, or functions that the model defines; data beside the graph only inside the model's own folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.inference.names import is_base_name
from mlaas4hep.inference.runtimes.base import RuntimeFailure, Tensor

__all__ = ["OnnxRuntime", "check_graph", "load"]

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
MAX_DIMENSIONS = 16
MAX_ELEMENTS = 1 << 26  # of one row of an input: 256 MiB of float32
TYPES: Mapping[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bool)": np.dtype(np.bool_),
    **{
        f"tensor({name})": np.dtype(name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
}


def load(file: Path) -> OnnxRuntime:
    """Check and load a model file.

    Raises
    ------
    ValueError
        If the model must not or cannot be executed; says why.
    """
    check_graph(file)
    return OnnxRuntime(file)


def check_graph(file: Path) -> None:
    """Look through a model for what must not be executed.

    Raises
    ------
    ValueError
        If it is not ONNX, uses operators from elsewhere, or refers to data outside its folder.
    """
    import onnx

    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as error:  # protobuf's own class of error differs between its implementations
        raise ValueError(f"'{file.name}' is not an ONNX model") from error
    functions = {(function.domain, function.name) for function in model.functions}
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in _all_nodes(nodes):
            if node.domain not in DOMAINS and (node.domain, node.op_type) not in functions:
                raise ValueError(
                    f"'{file.name}' uses operator '{node.op_type}' of domain '{node.domain}'; only standard operators are accepted"
                )
            for attribute in node.attribute:
                _check_data([attribute.t, *attribute.tensors], file)
    for graph in _all_graphs(model):
        _check_data(graph.initializer, file)
        for sparse in graph.sparse_initializer:
            _check_data([sparse.values, sparse.indices], file)


def _all_nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    """Yield nodes and those of the graphs inside them, without recursion, since the nesting is the sender's."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting.extend(graph.node)


def _all_graphs(model: Any) -> Iterator[Any]:
    yield model.graph
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in _all_nodes(nodes):
            for attribute in node.attribute:
                yield from (attribute.g, *attribute.graphs)


def _check_data(tensors: Iterable[Any], file: Path) -> None:
    for tensor in tensors:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if not (location or tensor.external_data):
            continue
        beside = file.parent / location
        if not is_base_name(location) or beside.is_symlink() or not beside.is_file():
            raise ValueError(f"'{file.name}' keeps data in '{location}', which is no file of the model's folder")


class OnnxRuntime:
    """A session of ONNX Runtime.

    One thread executes it and does not spin while it waits: with several models in one process, or several processes on one machine, more threads
    make small networks slower.

    Parameters
    ----------
    file : path
        The model, checked already.

    Raises
    ------
    ValueError
        If ONNX Runtime cannot load it.
    """

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has a class of error for each of its status codes, and no common base
            raise ValueError(f"'{file.name}' cannot be loaded by ONNX Runtime: {_reason(error)}") from error
        self.inputs: Sequence[Tensor] = tuple(_tensor(node) for node in self._session.get_inputs())
        self.outputs: Sequence[Tensor] = tuple(_tensor(node) for node in self._session.get_outputs())
        for tensor in self.inputs:
            if len(tensor.shape) > MAX_DIMENSIONS or prod(size for size in tensor.shape[1:] if size) > MAX_ELEMENTS:
                raise ValueError(f"'{file.name}' has an input '{tensor.name}' of absurd shape {list(tensor.shape)}")

    def run(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Execute the model; see :class:`~mlaas4hep.inference.runtimes.base.Runtime`."""
        try:
            result: list[npt.NDArray[Any]] = self._session.run(outputs, inputs)
        except Exception as error:  # as above: no common base
            raise RuntimeFailure(_reason(error)) from error
        return result


def _tensor(node: Any) -> Tensor:
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in node.shape or ())
    return Tensor(node.name, TYPES.get(node.type), shape)


def _reason(error: Exception) -> str:
    """Return the last part of a message of ONNX Runtime, which begins with codes and source files of its own."""
    return str(error).splitlines()[0].rsplit(" : ", 1)[-1][:300] if str(error) else type(error).__name__
