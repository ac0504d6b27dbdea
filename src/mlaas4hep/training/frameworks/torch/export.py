"""From a module to a graph: what the module gives, and ONNX.

Both follow from one tracing by ``torch.export``. What an output means is read off the last operation of that trace (a
sigmoid, a softmax, …), never guessed from values.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator

import torch

from mlaas4hep.errors import ModelFileError

__all__ = ["last_operation", "quiet", "to_onnx", "trace", "wants_mask"]

OPSET = 18  # what the exporter writes without converting
SHAPE_ONLY = {
    "view",
    "reshape",
    "squeeze",
    "unsqueeze",
    "flatten",
    "clone",
    "contiguous",
    "to",
    "_to_copy",
    "alias",
    "detach",
}
SQUASHES = {
    "sigmoid": "sigmoid",
    "softmax": "softmax",
    "_softmax": "softmax",
    "log_softmax": "log_softmax",
    "_log_softmax": "log_softmax",
}
NOTING = ("torch.onnx", "torch.export", "onnxscript", "lightning", "lightning.fabric", "lightning.pytorch")
EXAMPLE_EVENTS = 3  # not 0 or 1, which torch.export takes for fixed sizes


def wants_mask(module: torch.nn.Module, source: str) -> bool:
    """Return whether ``forward`` takes the mask beside the values, by its signature.

    Raises
    ------
    ModelFileError
        If it takes neither one nor two arguments.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    named_mask = len(positional) > 1 and positional[1].name == "mask"
    wanted = len(required) == 2 or (named_mask and len(required) < 2)
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(required) > 2 or (not positional and not variadic):
        names = ", ".join(p.name for p in required) or "no argument"
        raise ModelFileError(source, f"forward takes {names}; it must be forward(x) or forward(x, mask)")
    return wanted


def trace(module: torch.nn.Module, width: int, source: str) -> torch.export.ExportedProgram:
    """Trace a module as it predicts, for any number of events.

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU.
    width : int
        Number of places of the feature vector.
    source : str
        Where the module comes from, for messages.

    Raises
    ------
    ModelFileError
        If the module cannot take events of that width, or cannot be traced.
    """
    arguments: tuple[torch.Tensor, ...] = (torch.zeros(EXAMPLE_EVENTS, width),)
    if wants_mask(module, source):
        arguments += (torch.zeros(EXAMPLE_EVENTS, width, dtype=torch.bool),)
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), quiet():
            try:
                result = module(*arguments)
            except Exception as error:  # whatever the user's code raises
                raise ModelFileError(source, f"forward fails on {width} features: {_line(error)}") from error
            if not isinstance(result, torch.Tensor):
                raise ModelFileError(source, f"forward returns {type(result).__name__}; it must return one tensor")
            dynamic = tuple({0: torch.export.Dim.DYNAMIC} for _ in arguments)
            try:
                return torch.export.export(module, arguments, dynamic_shapes=dynamic)
            except Exception as error:  # torch.export has no base class of its own errors
                raise ModelFileError(
                    source,
                    f"the module cannot be exported, so no bundle could be made of it: {_line(error)}",
                ) from error
    finally:
        module.train(was_training)


def last_operation(program: torch.export.ExportedProgram) -> str | None:
    """Return ``sigmoid``, ``softmax`` or ``log_softmax`` if that is a trace's last operation, reshaping apart, or None."""
    node = next(node for node in program.graph.nodes if node.op == "output").args[0]
    while isinstance(node, (tuple, list)):
        node = node[0]
    while node.op == "call_function" and _name(node) in SHAPE_ONLY:
        node = node.args[0]
    return SQUASHES.get(_name(node)) if node.op == "call_function" else None


def to_onnx(program: torch.export.ExportedProgram, source: str) -> bytes:
    """Convert a trace to ONNX with the weights inside.

    Raises
    ------
    ModelFileError
        If an operation of it has no counterpart in ONNX.
    """
    try:
        with quiet():
            converted = torch.onnx.export(program, (), dynamo=True, opset_version=OPSET, verbose=False)
            if converted is None:
                raise RuntimeError("the exporter gave nothing")
            return bytes(converted.model_proto.SerializeToString())
    except Exception as error:  # the exporter wraps whatever went wrong in classes of its own
        cause = error.__cause__ or error
        raise ModelFileError(source, f"the module cannot be converted to ONNX: {_line(cause)}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's and Lightning's notes, which are not about what the user did, from the terminal."""
    loggers = [logging.getLogger(name) for name in NOTING]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _name(node: torch.fx.Node) -> str:
    """Return an operation's name without its overload, as in ``softmax`` for ``aten.softmax.int``."""
    return str(node.target).removeprefix("aten.").partition(".")[0]


def _line(error: BaseException) -> str:
    """Return the first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
