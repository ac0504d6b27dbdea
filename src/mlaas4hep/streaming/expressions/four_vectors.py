"""Four-vectors of objects, through the package vector: sums, and what is asked of them.

Only events that have every object of a sum are worked out; the others give NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.expressions.reductions import add_up
from mlaas4hep.streaming.expressions.values import FourVectors, Misuse, Numbers, Objects, align

__all__ = ["azimuth", "plus", "quantity", "total"]

SYSTEMS = (("pt", "eta", "phi", "mass"), ("px", "py", "pz", "e"), ("pt", "eta", "phi", "e"))
ALSO = {"m": "mass", "energy": "e"}


def plus(left: Objects | FourVectors, right: Objects | FourVectors) -> FourVectors:
    """Return the sum of two; each must be made of four-vectors."""
    terms: list[Objects] = []
    for side in (left, right):
        if isinstance(side, Objects):
            components(side)
        terms.extend(side.terms if isinstance(side, FourVectors) else [side])
    return FourVectors(tuple(terms))


def components(term: Objects) -> dict[str, str]:
    """Return which member is which component of a four-vector.

    Raises
    ------
    Misuse
        If the members make no four-vector.
    """
    found: dict[str, str] = {}
    for member in term.members:
        lower = member.lower()
        found.setdefault(ALSO.get(lower, lower), member)
    for system in SYSTEMS:
        if all(component in found for component in system):
            return {component: found[component] for component in system}
    collection = term.name.partition("[")[0]
    raise Misuse(
        f"'{term.name}' has no four-vectors",
        f"they need the branches {collection}_pt, _eta, _phi and _mass, or {collection}_px, _py, _pz and _E",
    )


def quantity(value: Objects | FourVectors, name: str) -> Numbers:
    """Return a property of four-vectors: ``mass``, ``pt``, ``eta``, ``phi``, ``px``, ``py``, ``pz`` or ``E``.

    Parameters
    ----------
    value : Objects or FourVectors
        Objects, or a sum of them.
    name : str
        As the package vector names it.

    Returns
    -------
    Numbers
        One value an event, or a list where a term has lists; NaN where an object is absent or not finite.
    """
    terms = value.terms if isinstance(value, FourVectors) else (value,)
    systems = [components(term) for term in terms]
    members = [term.member(member) for term, system in zip(terms, systems, strict=True) for member in system.values()]
    contents, offsets = align(members)
    length = next((content.size for content in contents if content.ndim), 1)
    there = np.ones(length, np.bool_)
    for content in contents:
        there &= np.isfinite(content)
    present = [np.asarray(content[there], np.float64) for content in contents]
    sizes = [len(system) for system in systems]
    starts = np.cumsum([0, *sizes])
    vectors = [
        _vectors(list(system), present[start : start + size])
        for system, start, size in zip(systems, starts, sizes, strict=False)
    ]
    summed = vectors[0]
    for vector in vectors[1:]:
        summed = summed + vector
    result = np.full(length, np.nan)
    result[there] = np.asarray(getattr(summed, name))
    return Numbers(result, offsets)


def _vectors(system: Sequence[str], contents: Sequence[npt.NDArray[np.float64]]) -> Any:
    import vector

    names = ("E" if component == "e" else component for component in system)
    return vector.zip(dict(zip(names, contents, strict=True)))


def total(value: Objects) -> Objects:
    """Return the sum over each event's list of objects; a list of none gives the null vector."""
    components(value)
    if not value.is_list:
        raise Misuse("sum needs a list of objects an event; there is one object an event")
    return Objects(
        f"sum({value.name})", ("px", "py", "pz", "E"), lambda member: add_up(quantity(value, member)), is_list=False
    )


def azimuth(value: Numbers | Objects | FourVectors) -> Numbers:
    """Return the azimuth of objects; numbers are taken for azimuths already."""
    if isinstance(value, Numbers):
        return value
    if isinstance(value, Objects):
        for member in value.members:
            if member.lower() == "phi":
                return value.member(member)
    return quantity(value, "phi")


def pseudorapidity(value: Objects | FourVectors) -> Numbers:
    """Return the pseudorapidity of objects."""
    if isinstance(value, Objects):
        for member in value.members:
            if member.lower() == "eta":
                return value.member(member)
    return quantity(value, "eta")
