"""What a branch of a TTree or a field of an RNTuple holds: a column of numbers, or why it is none."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.numerical import AsDtype, Numerical

from mlaas4hep.streaming.formats.base import ColumnType
from mlaas4hep.streaming.formats.files import reason

__all__ = ["form_column", "tree_column"]


def tree_column(branch: Any, entries: int) -> ColumnType | str | None:
    """Return the type of a branch's column, or why it has none, or None where the branch only holds others."""
    if len(branch.branches) and branch.num_baskets == 0:
        return None
    if _has_packed_lists(branch):
        return "holds lists of Float16_t or Double32_t, which uproot takes for something else"
    try:
        interpretation = branch.interpretation
    except Exception as error:  # one branch that uproot cannot describe leaves the others as they are
        return f"cannot be understood: {reason(error)}"
    size = branch.uncompressed_bytes / max(entries, 1)
    if isinstance(interpretation, AsJagged):
        content, jagged = interpretation.content, True
    else:
        content, jagged = interpretation, False
    if not isinstance(content, Numerical):
        return f"holds {branch.typename or 'objects'}, not numbers"
    dtype, shape = _scalar(content)
    if dtype.kind not in "biuf":
        return f"holds {branch.typename}, not numbers"
    if shape:
        if jagged or len(shape) > 1:
            return f"holds {branch.typename}: lists of lists"
        jagged = True
    return ColumnType(dtype, jagged, size)


def _has_packed_lists(branch: Any) -> bool:
    """Whether a branch holds lists of Float16_t, or of Double32_t with a range: uproot takes the brackets of the list for those of the range."""
    for leaf in branch.member("fLeaves"):
        brackets = leaf.member("fTitle").count("[") if leaf.classname in ("TLeafF16", "TLeafD32") else 0
        if brackets > 1 or (brackets and leaf.classname == "TLeafF16" and leaf.member("fLen") > 1):
            return True
    return False


def _scalar(content: Numerical) -> tuple[np.dtype[Any], tuple[int, ...]]:
    to_dtype = content.to_dtype if isinstance(content, AsDtype) else np.dtype(content.to_dtype)
    base, shape = (to_dtype.base, to_dtype.shape) if to_dtype.subdtype else (to_dtype, ())
    return base.newbyteorder("="), tuple(int(length) for length in shape)


def form_column(form: Any) -> ColumnType | str:
    """Return the type of an RNTuple field's column, or why it has none."""
    jagged = _is_list(form)
    if jagged:
        form = form.content
    if isinstance(form, ak.forms.NumpyForm) and not form.inner_shape:
        # Half floats are widened: neither the kernels nor most of what comes after knows them.
        dtype = np.dtype(np.float32 if form.primitive == "float16" else form.primitive)
        if dtype.kind in "biuf":
            # Pages tell no size a field cheaply; four values a list is a fair guess for objects of an event.
            return ColumnType(dtype, jagged, dtype.itemsize * (4.0 if jagged else 1.0))
    if isinstance(form, ak.forms.RecordForm):
        return f"holds objects with {len(form.fields)} members, not numbers"
    return "holds lists of lists" if _is_list(form) else "holds strings or objects, not numbers"


def _is_list(form: Any) -> bool:
    """Whether an event holds a list, which a string is not."""
    lists = (ak.forms.ListOffsetForm, ak.forms.RegularForm)
    return isinstance(form, lists) and form.parameter("__array__") not in ("string", "bytestring")
