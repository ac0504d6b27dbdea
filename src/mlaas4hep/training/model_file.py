"""Load and call a user's Python file with ``def model(idim)``.

Whatever is wrong in it is said with the file and the line, as the person who wrote it needs to know it.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlaas4hep.errors import ModelFileError, nearest_names, quoted
from mlaas4hep.training.frameworks.base import Task

__all__ = ["call_model", "load_model_function"]

FUNCTION = "model"
NOT_YET = ("keras", "tensorflow")


def load_model_function(path: str | Path) -> Callable[..., Any]:
    """Execute a Python file and return its function ``model``.

    Parameters
    ----------
    path : str or Path
        The file. Modules beside it can be imported from it.

    Returns
    -------
    callable
        ``model(idim)`` or ``model(idim, classes)``.

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


def call_model(function: Callable[..., Any], task: Task, source: str) -> Any:
    """Call a user's function and return what it returns.

    Parameters
    ----------
    function : callable
        Gets the number of features, and the number of classes if it has a parameter ``classes``.
    task : Task
        Says both.
    source : str
        Its file, for messages.

    Raises
    ------
    ModelFileError
        If it takes other arguments, or fails.
    """
    wanted = {"classes": task.classes} if _takes_classes(function) else {}
    try:
        inspect.signature(function).bind(task.width, **wanted)
    except TypeError as error:
        raise ModelFileError(source, f"model{inspect.signature(function)} must be model(idim): {error}") from error
    try:
        return function(task.width, **wanted)
    except (Exception, SystemExit) as error:
        raise ModelFileError(source, _what_happened(error, Path(source))) from error


def _takes_classes(function: Callable[..., Any]) -> bool:
    return "classes" in inspect.signature(function).parameters


def _same(filename: str | None, path: Path) -> bool:
    return filename is not None and Path(filename).resolve() == path.resolve()


def _what_happened(error: BaseException, path: Path) -> str:
    """Return the deepest line of the user's file that an error passed through, and the error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _same(frame.filename, path)]
    where = f"line {frames[-1].lineno}: " if frames else ""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in NOT_YET:
        return f"{where}{error.name} is not installed, and Keras models are not supported yet"
    lines = str(error).splitlines()
    return f"{where}{type(error).__name__}" + (f": {lines[0]}" if lines else "")
