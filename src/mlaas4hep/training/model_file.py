"""Load and call a user's Python file with ``def model(idim)``.

Whatever is wrong in it is said with the file and the line, as the person who wrote it needs to know it.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlaas4hep.errors import MLaaS4HEPError, ModelFileError, UnknownSettingError, nearest_names, quoted
from mlaas4hep.training.frameworks.base import Task
from mlaas4hep.training.frameworks.keras.backend import choose_backend

__all__ = ["call_model", "load_model_function"]

FUNCTION = "model"
EXTRAS = {"keras": "keras", "tensorflow": "tensorflow", "xgboost": "xgboost", "sklearn": "sklearn"}
"""Package that a model may need → extra of this package that installs it."""


def load_model_function(path: str | Path) -> Callable[..., Any]:
    """Execute a Python file and return its function ``model``.

    Parameters
    ----------
    path : str or Path
        The file. Modules beside it can be imported from it.

    Returns
    -------
    callable
        ``model(idim)``, or with further parameters as :func:`call_model` says.

    Raises
    ------
    ModelFileError
        If the file is missing, is not Python, fails, or has no such function.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(str(path), "there is no such file")
    spec = importlib.util.spec_from_file_location(f"mlaas4hep_model_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ModelFileError(str(path), "it is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    beside = str(path.resolve().parent)
    sys.path.insert(0, beside)
    sys.modules[spec.name] = module  # dataclasses and pickle look a class's module up there
    choose_backend()  # before the file imports Keras
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        elsewhere = "" if _same(error.filename, path) else f"{error.filename}, "
        raise ModelFileError(str(path), f"{elsewhere}line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise ModelFileError(str(path), _what_happened(error, path)) from error
    finally:
        sys.path.remove(beside)
    function = getattr(module, FUNCTION, None)
    if not callable(function):
        functions = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        near = nearest_names(FUNCTION, functions)
        hint = f"; nearest: {quoted(near)}" if near else ""
        raise ModelFileError(str(path), f"it defines no function 'model'; it must have def model(idim){hint}")
    return function  # type: ignore[no-any-return]


def call_model(
    function: Callable[..., Any], task: Task, source: str, settings: Mapping[str, object] | None = None
) -> Any:
    """Call a user's function and return what it returns.

    Parameters
    ----------
    function : callable
        Gets what it asks for by the names of its parameters: ``idim`` (number of places of the feature vector), ``classes``,
        ``targets``, ``outputs`` (numbers to give for an event), ``encoding``, ``task``. A first parameter of another name
        gets the number of places.
    task : Task
        Says all of these.
    source : str
        Its file, for messages.
    settings : mapping of str to object, optional
        Further arguments by name.

    Raises
    ------
    ModelFileError
        If it takes other arguments, or fails.
    UnknownSettingError
        If it has no parameter of a setting's name.

    Examples
    --------
    >>> call_model(lambda idim, outputs, depth=2: (idim, outputs, depth), Task(125, 3), "f", {"depth": 4})
    (125, 3, 4)
    """
    signature = inspect.signature(function)
    given = {
        "idim": task.width,
        "classes": task.classes,
        "targets": task.targets,
        "outputs": task.outputs,
        "encoding": task.encoding,
        "task": task,
    }
    first = next(iter(signature.parameters), None)
    positional = () if first in given else (task.width,)
    names = [name for name in signature.parameters if name not in given and (name != first or not positional)]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    for name in settings or {}:
        if name not in names and not takes_any:
            raise UnknownSettingError(f"model.{name}", [f"model.{known}" for known in names])
    wanted = {name: value for name, value in given.items() if name in signature.parameters} | dict(settings or {})
    try:
        signature.bind(*positional, **wanted)
    except TypeError as error:
        raise ModelFileError(source, f"model{signature} must be model(idim): {error}") from error
    choose_backend()
    try:
        with warnings.catch_warnings():
            # Model files of the original say Dense(32, input_shape=(idim,)), which Keras 3 takes and complains of.
            warnings.filterwarnings("ignore", "Do not pass an `input_shape`", UserWarning)
            return function(*positional, **wanted)
    except MLaaS4HEPError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelFileError(source, _what_happened(error, Path(source))) from error


def _same(filename: str | None, path: Path) -> bool:
    return filename is not None and Path(filename).resolve() == path.resolve()


def _what_happened(error: BaseException, path: Path) -> str:
    """Return the deepest line of the user's file that an error passed through, and the error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _same(frame.filename, path)]
    where = f"line {frames[-1].lineno}: " if frames else ""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in EXTRAS:
        other = "; or write 'import keras', which runs on PyTorch" if package == "tensorflow" else ""
        return f"{where}{package} is not installed; pip install 'mlaas4hep[{EXTRAS[package]}]'{other}"
    lines = str(error).splitlines()
    return f"{where}{type(error).__name__}" + (f": {lines[0]}" if lines else "")
