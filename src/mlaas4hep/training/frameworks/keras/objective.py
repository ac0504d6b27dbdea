"""What a Keras model's output means, which loss goes with it, and what that loss wants to be compared with.

Keras' losses say whether they take probabilities or logits; the last activation says what there is. Where both speak they must agree: a linear
output under ``binary_crossentropy`` trains without an error and never learns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.graph import Output
from mlaas4hep.errors import ModelFileError
from mlaas4hep.training.frameworks.base import EventBatch, Task
from mlaas4hep.training.frameworks.keras.library import keras

__all__ = ["KerasObjective", "choose_objective", "last_activation"]

SPARSE = ("SparseCategoricalCrossentropy",)
ONE_COLUMN = ("BinaryCrossentropy", "BinaryFocalCrossentropy")
CROSS_ENTROPIES = (*SPARSE, *ONE_COLUMN, "CategoricalCrossentropy", "CategoricalFocalCrossentropy")
SHAPE_ONLY = ("Flatten", "Reshape", "Squeeze", "Identity")
SQUASHES = ("sigmoid", "softmax")


@dataclass(frozen=True)
class KerasObjective:
    """What the training makes small, and what the prediction is.

    Parameters
    ----------
    output : Output
        What the model gives.
    columns : int
        Width of that.
    sparse : bool
        Whether the loss takes class indices where there is one column a class, rather than a one for the true class.
    loss : object
        For ``model.compile``; None where the model is compiled already.
    """

    output: Output
    columns: int
    sparse: bool
    loss: object

    def target(self, batch: EventBatch) -> npt.NDArray[Any]:
        """Return what the loss compares the output with.

        For a reconstruction the values and behind them the mask, ``[n, 2 width]``; else targets, class indices, or ``[n, classes]``.
        """
        if self.output is Output.RECONSTRUCTION:
            return np.concatenate([batch.x, batch.mask], axis=1, dtype=np.float32)
        if self.output is Output.VALUES:
            return batch.y.reshape(len(batch.y), -1)
        if self.columns == 1:
            return batch.y.astype(np.float32)[:, np.newaxis]
        return batch.y if self.sparse else np.eye(self.columns, dtype=np.float32)[batch.y]


def choose_objective(model: Any, columns: int, task: Task, source: str) -> KerasObjective:
    """Join what a model gives with the loss that it is compiled with, or with the one that fits.

    Parameters
    ----------
    model : keras.Model
    columns : int
        Width of its output.
    task : Task
    source : str
        Where the model comes from, for messages.

    Raises
    ------
    ModelFileError
        If the output does not fit the task, or the loss not the output.
    """
    given = model.loss if model.compiled else None
    if isinstance(given, (list, tuple, dict)):
        raise ModelFileError(source, "it is compiled with several losses; right is one, for one output")
    name, from_logits = _describe(given)
    _check_width(columns, task, source)
    if task.kind == "regression":
        return KerasObjective(Output.VALUES, columns, sparse=False, loss=None if given else "mean_squared_error")
    if task.kind == "reconstruction":
        return KerasObjective(
            Output.RECONSTRUCTION, columns, sparse=False, loss=_over_present_places(given, task.width)
        )
    last = last_activation(model)
    if (last == "sigmoid" and columns > 1) or (last == "softmax" and columns == 1):
        right = "sigmoid, or nothing" if columns == 1 else "softmax, or nothing"
        raise ModelFileError(source, f"its last activation is {last} on {columns} outputs; right is {right}")
    if name in CROSS_ENTROPIES and columns == 1 and name not in ONE_COLUMN:
        raise ModelFileError(source, f"its output is 1 wide, but {name} needs 2 or more outputs, one a class")
    if last is None and given is None:
        raise ModelFileError(source, "what its output means cannot be seen; compile it with a loss that says so")
    if name in CROSS_ENTROPIES:
        if last is not None and from_logits == (last in SQUASHES):
            have = f"its last activation, {last}, gives " + ("probabilities" if last in SQUASHES else "logits")
            right = (
                "leave out from_logits=True" if from_logits else "end in sigmoid or softmax, or say from_logits=True"
            )
            raise ModelFileError(
                source, f"{have}, but {name} takes {'logits' if from_logits else 'probabilities'}; {right}"
            )
        output = Output.LOGITS if from_logits else Output.PROBABILITIES
    else:
        output = Output.PROBABILITIES if last in SQUASHES else Output.LOGITS
    if given is not None:
        return KerasObjective(output, columns, sparse=name in SPARSE, loss=None)
    kind = keras.losses.BinaryCrossentropy if columns == 1 else keras.losses.SparseCategoricalCrossentropy
    return KerasObjective(output, columns, sparse=True, loss=kind(from_logits=output is Output.LOGITS))


def last_activation(model: Any) -> str | None:
    """Return the name of a model's last activation, ``linear`` where there is none; None where the model's parts cannot be seen.

    Examples
    --------
    >>> last_activation(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Activation("softmax")]))
    'softmax'
    """
    outputs = getattr(model, "outputs", None)
    if not outputs:
        return None
    tensor = outputs[0]
    while True:
        history = getattr(tensor, "_keras_history", None)
        if history is None:
            return None
        operation, node = history.operation, history.node_index
        if isinstance(operation, keras.Model):
            return last_activation(operation)
        kind = type(operation).__name__
        if kind not in SHAPE_ONLY:
            break
        tensor = operation._inbound_nodes[node].input_tensors[0]
    if kind.lower() in SQUASHES:  # the layer Softmax, or an operation of keras.ops
        return kind.lower()
    activation = getattr(operation, "activation", None)
    return str(getattr(activation, "__name__", type(activation).__name__)) if activation is not None else "linear"


def _check_width(columns: int, task: Task, source: str) -> None:
    allowed: tuple[int, ...]
    if task.kind == "reconstruction":
        allowed, what = (task.width,), f"without labels it must give back its {task.width} features"
    elif task.kind == "regression":
        allowed, what = (task.targets,), f"for {task.targets} targets"
    else:
        allowed, what = ((1, 2) if task.classes == 2 else (task.classes,)), f"for {task.classes} classes"
    if columns not in allowed:
        right = " or ".join(f"[events, {count}]" for count in allowed)
        hint = "; a classifier needs labels" if task.kind == "reconstruction" else ""
        raise ModelFileError(source, f"its output has shape [events, {columns}]; {what} it must be {right}{hint}")


def _describe(loss: Any) -> tuple[str, bool]:
    """Return the class name of a loss, whichever way it is named, and whether it takes logits."""
    if loss is None:
        return "", False
    try:
        found = keras.losses.get(loss)
    except ValueError:
        found = loss
    name = str(getattr(found, "__name__", type(found).__name__))
    if "_" in name or name.islower():  # a function; its class is called alike
        name = "".join(part.capitalize() for part in name.split("_"))
    config = found.get_config() if isinstance(found, keras.losses.Loss) else {}
    return name, bool(config.get("from_logits") or (config.get("fn_kwargs") or {}).get("from_logits", False))


def _over_present_places(given: Any, width: int) -> Any:
    """Return a loss that looks at places with values only; its target holds the mask too."""
    loss = keras.losses.get(given if given is not None else "mean_squared_error")

    def present_places(target: Any, output: Any) -> Any:
        x, absent = target[:, :width], target[:, width:]
        return loss(x, output * (1 - absent) + x * absent)

    return present_places
