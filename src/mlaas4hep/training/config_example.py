"""Write a commented configuration from the declared settings, so that it can never be out of date."""

from __future__ import annotations

import dataclasses
from typing import Any

from mlaas4hep.training.config import GROUPS
from mlaas4hep.training.models import BUILT_IN

__all__ = ["example_configuration"]

HEAD = """\
# A configuration of 'mlaas4hep train'. Every setting stands here with its default; those after a '#' are not set.
# Each can be given on the command line instead: mlaas4hep train FILE training.epochs=3
"""
MODEL_NOTE = """\
# What is trained. One of our models by its name, with its settings beside it, or your own file with def model(idim):
#   model: {file: my_model.py}
"""


def example_configuration(model: str = "mlp") -> str:
    """Return a configuration in YAML with every setting, its rule and its explanation.

    Parameters
    ----------
    model : str
        The built-in model whose settings are shown as set; those of the others are shown as comments.

    Examples
    --------
    >>> [line for line in example_configuration().splitlines() if "epochs:" in line]
    ['  epochs: 20']
    """
    parts = [HEAD]
    for name, kind in GROUPS.items():
        if name == "training":
            parts.append(_model(model))
        parts.append(f"# {_first_line(kind)}\n{name}:\n" + "".join(_lines(kind)))
    return "\n".join(parts)


def _model(chosen: str) -> str:
    kind = BUILT_IN[chosen].settings
    others = "".join(
        f"#   {name}: {one.says}\n" + "".join(f"#     {line}" for line in _names(one.settings))
        for name, one in BUILT_IN.items()
        if name != chosen
    )
    return f"{MODEL_NOTE}model:\n  name: {chosen}  # {BUILT_IN[chosen].says}\n{''.join(_lines(kind))}# The other models:\n{others}"


def _names(kind: type) -> list[str]:
    return [f"{item.name}: {_yaml(_shown(item))}  # {item.metadata['says']}\n" for item in dataclasses.fields(kind)]


def _lines(kind: type) -> list[str]:
    """Return the lines of a group: what a setting is for, and what it must be, before the setting itself."""
    lines = []
    for item in dataclasses.fields(kind):
        lines.append(f"  # {item.metadata['says']} ({item.metadata['rule'].says})\n")
        comment = "" if _is_set(item) else "# "
        lines.append(f"  {comment}{item.name}: {_yaml(_shown(item))}\n")
    return lines


def _is_set(item: Any) -> bool:
    return item.default not in (None, "", ()) or item.name in ("files", "labels")


def _shown(item: Any) -> Any:
    return item.default if item.default not in (None, "", ()) else item.metadata["example"]


def _yaml(value: Any) -> str:
    import yaml

    if value is None:
        return ""
    plain = list(value) if isinstance(value, tuple) else value
    return (
        str(yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10_000))
        .removesuffix("...\n")
        .strip()
    )


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").splitlines()[0]
