"""The names that come from outside: of models, and of the files inside them.

Both end up in paths, so both are judged by one rule each, in one place, before anything else sees them.
"""

from __future__ import annotations

import re
import unicodedata

from mlaas4hep.errors import ModelNameError

__all__ = ["base_name", "check_model_name", "is_base_name", "is_model_name"]

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def is_model_name(name: object) -> bool:
    r"""Return whether ``name`` may be the name of a model.

    Examples
    --------
    >>> is_model_name("higgs-2018.v1"), is_model_name("../etc"), is_model_name("higgs\n")
    (True, False, False)
    """
    return isinstance(name, str) and MODEL_NAME.fullmatch(name) is not None


def check_model_name(name: object) -> str:
    """Return ``name`` if it may be the name of a model.

    Raises
    ------
    ModelNameError
        If it may not.
    """
    if not isinstance(name, str) or not is_model_name(name):
        raise ModelNameError(name if isinstance(name, str) else repr(name))
    return name


def is_base_name(name: str) -> bool:
    r"""Return whether ``name`` is a plain file name that stays inside its folder, and is not hidden.

    Examples
    --------
    >>> is_base_name("labels.txt"), is_base_name("/etc/passwd"), is_base_name(".."), is_base_name("a\\b")
    (True, False, False, False)
    """
    return (
        0 < len(name.encode("utf-8", "surrogatepass")) <= 255
        and not name.startswith(".")
        and not any(letter in "/\\" or unicodedata.category(letter)[0] == "C" for letter in name)
    )


def base_name(path: str) -> str:
    r"""Return the last part of a file name as a client sends it, which may be a full path of any system.

    Examples
    --------
    >>> base_name("/home/anna/model.onnx"), base_name("C:\\models\\model.onnx"), base_name("model.onnx")
    ('model.onnx', 'model.onnx', 'model.onnx')
    """
    return re.split(r"[/\\]", path)[-1]
