"""One model, loaded from its folder and ready to predict.

What can be wrong with a model is found when it is loaded: its files, its sizes against its encoding and labels, and whether it runs at all.
Publishing loads a model for that reason, and the server loads it again, in the same way, when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mlaas4hep.errors import BundleError
from mlaas4hep.inference import runtimes
from mlaas4hep.inference.features import FeatureReader
from mlaas4hep.inference.parameters import read_parameters
from mlaas4hep.inference.runtimes import Runtime, RuntimeFailure, Tensor
from mlaas4hep.streaming.encoding.encoding import Encoding

__all__ = ["Model"]

MAX_TEXT = 64 << 20
SLICE = 4096  # rows in one call of the runtime, so that a large request does not need large memory


class Model:
    """A model with everything that a prediction needs.

    Parameters
    ----------
    folder : path
        A bundle, or a TFaaS model folder: ``params.json``, the model file, and where there are any ``encoding.json`` and the labels.
    name : str
        What it is called; the name of the folder by default.

    Raises
    ------
    BundleError
        If it cannot be served; says why.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        self.folder, self.name = folder, name or folder.name
        self.parameters: Mapping[str, Any] = read_parameters(folder)
        self.encoding = self._read_encoding()
        self.labels = self._read_labels()
        try:
            self.runtime: Runtime = runtimes.load(self._model_file())
        except ValueError as error:
            raise BundleError(self.name, str(error)) from error
        self.input = self._choose_input()
        self.output = self._choose_output()
        self.features = FeatureReader(self.name, self.encoding, self.width)
        self._check_sizes()

    @cached_property
    def width(self) -> int | None:
        """Number of values of one row; None where the model accepts any."""
        if self.encoding:
            return self.encoding.width
        sizes = self.input.shape[1:]
        return None if None in sizes else prod(size for size in sizes if size is not None)

    def predict(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Run the model.

        Parameters
        ----------
        rows : float32 array of shape ``[n, width]``
            Raw values, NaN where absent.

        Returns
        -------
        array of shape ``[n, …]``
            What the model answers for each row.

        Raises
        ------
        RuntimeFailure
            If the model cannot be run on these rows.
        """
        if not len(rows):
            return np.empty((0, 0), np.float32)
        batch = self.input.shape[0] if self.input.shape else None
        if batch is None and len(rows) <= SLICE:
            return self._run(rows)
        step = batch or SLICE
        answers = []
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            # A model that takes a fixed number of rows gets the last ones repeated, and those answers are dropped.
            full = part if batch is None else np.resize(part, (step, rows.shape[1]))
            answers.append(self._run(full)[: len(part)])
        return np.concatenate(answers)

    def _run(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        tensor: npt.NDArray[Any] = rows
        sizes = self.input.shape[1:]
        try:
            if len(sizes) != 1:
                tensor = rows.reshape(len(rows), *(-1 if size is None else size for size in sizes))
            if self.input.dtype != np.float32:
                tensor = tensor.astype(self.input.dtype)
        except (ValueError, RuntimeWarning) as error:
            raise RuntimeFailure(f"rows of shape {rows.shape} do not fit input {self.input.shape}") from error
        answer = self.runtime.run({self.input.name: tensor}, (self.output.name,))[0]
        if answer.ndim == 0 or len(answer) != len(rows):
            raise RuntimeFailure(f"{len(rows)} rows gave an answer of shape {answer.shape}")
        return answer.reshape(-1, 1) if answer.ndim == 1 else answer

    def _model_file(self) -> Path:
        named: str = self.parameters["model"]
        if named:
            file = self.folder / named
            if not file.is_file():
                raise BundleError(self.name, f"params.json names the model file '{named}', which is not there")
            return file
        files = sorted(file for file in self.folder.iterdir() if file.suffix.lower() in runtimes.RUNTIMES)
        if len(files) != 1:
            raise BundleError(self.name, "params.json does not say which file is the model ('model')")
        return files[0]

    def _read_text(self, name: str) -> bytes:
        try:
            with (self.folder / name).open("rb") as file:
                text = file.read(MAX_TEXT + 1)
        except OSError as error:
            raise BundleError(self.name, f"'{name}' cannot be read: {error.strerror}") from error
        if len(text) > MAX_TEXT:
            raise BundleError(self.name, f"'{name}' has more than {MAX_TEXT} bytes")
        return text

    def _read_encoding(self) -> Encoding | None:
        if not (self.folder / "encoding.json").is_file():
            return None
        try:
            encoding = Encoding.from_dict(orjson.loads(self._read_text("encoding.json")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(self.name, f"encoding.json is damaged: {error}") from error
        for feature in encoding.features:
            if feature.width < 0 or (feature.width != 1 and not feature.jagged):
                raise BundleError(self.name, f"encoding.json gives branch '{feature.branch}' {feature.width} places")
        return encoding

    def _read_labels(self) -> tuple[str, ...]:
        named = self.parameters["labels"]
        if not named:
            return ()
        try:
            lines = self._read_text(named).decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise BundleError(self.name, f"'{named}' is not UTF-8 text") from error
        return tuple(line.strip() for line in lines if line.strip())

    def _choose_input(self) -> Tensor:
        inputs = self.runtime.inputs
        if len(inputs) != 1 or inputs[0].dtype is None or not inputs[0].shape:
            shown = ", ".join(f"'{tensor.name}'" for tensor in inputs) or "none"
            raise BundleError(self.name, f"a model with one input of rows of numbers is needed; its inputs: {shown}")
        return inputs[0]

    def _choose_output(self) -> Tensor:
        """Return the output that params.json names, else 'probabilities', else the first that holds numbers.

        What older files name is an operation of a TensorFlow graph, which no longer exists once the graph is ONNX.
        """
        numbers = [tensor for tensor in self.runtime.outputs if tensor.dtype is not None]
        if not numbers:
            raise BundleError(self.name, "it has no output of numbers")
        for name in (self.parameters["output_name"], self.parameters["output_node"], "probabilities"):
            for tensor in numbers:
                if tensor.name == name:
                    return tensor
        return numbers[0]

    def _check_sizes(self) -> None:
        """Compare the sizes that the files of the model give, and run it once."""
        sizes = self.input.shape[1:]
        if self.encoding and None not in sizes and prod(s for s in sizes if s is not None) != self.encoding.width:
            shape = list(self.input.shape)
            raise BundleError(
                self.name,
                f"encoding.json has {self.encoding.width} places, input '{self.input.name}' has shape {shape}",
            )
        if self.width is None:
            return
        try:
            answer = self.predict(np.zeros((1, self.width), np.float32))
        except RuntimeFailure as error:
            raise BundleError(self.name, f"it cannot be run: {error}") from error
        classes = prod(answer.shape[1:])
        # One probability may stand for two classes.
        if self.labels and len(self.labels) != classes and (classes, len(self.labels)) != (1, 2):
            raise BundleError(self.name, f"there are {len(self.labels)} labels and {classes} values in an answer")
