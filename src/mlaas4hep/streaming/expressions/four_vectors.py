"""Four-vectors of objects: their sums, and what the package vector says of these.

Only events that have every object of a sum are worked out; the others give NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.expressions.reductions import add_up
from mlaas4hep.streaming.expressions.values import FourVectors, Misuse, Numbers, Objects, align

__all__ = ["azimuth", "plus", "pseudorapidity", "quantity", "total"]

Doubles = npt.NDArray[np.float64]

SYSTEMS = (("pt", "eta", "phi", "mass"), ("px", "py", "pz", "e"), ("pt", "eta", "phi", "e"))
CARTESIAN = ("px", "py", "pz", "E")
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
    """Return a property of four-vectors: ``mass``, ``pt``, ``eta`` or ``phi``.

    Parameters
    ----------
    value : Objects or FourVectors
        Objects, or a sum of them.
    name : str
        As the package vector names it. The mass of a sum with E < p is negative: ``-sqrt(p² - E²)``.

    Returns
    -------
    Numbers
        One value an event, or a list where a term has lists; NaN where an object is absent or not finite.
    """
    import vector

    summed, there, offsets = _summed(value.terms if isinstance(value, FourVectors) else (value,))
    result = np.full(len(there), np.nan)
    result[there] = getattr(vector.array(dict(zip(CARTESIAN, summed, strict=True))), name)
    return Numbers(result, offsets)


def total(value: Objects) -> Objects:
    """Return the sum over each event's list of objects; a list of none gives the null vector."""
    if not value.is_list:
        raise Misuse("sum needs a list of objects an event; there is one object an event")
    summed, there, offsets = _summed((value,))
    sums = {}
    for name, part in zip(CARTESIAN, summed, strict=True):
        whole = np.full(len(there), np.nan)
        whole[there] = part
        sums[name] = add_up(Numbers(whole, offsets))
    return Objects(f"sum({value.name})", CARTESIAN, sums.__getitem__, is_list=False)


def _summed(terms: Sequence[Objects]) -> tuple[Doubles, npt.NDArray[np.bool_], npt.NDArray[np.int64] | None]:
    """Add terms up.

    Returns
    -------
    summed : float64 array of shape ``[4, n]``
        px, py, pz and E where every object is there.
    there : bool array of shape ``[events]`` or ``[values]``, with n True
        Where every object is there and finite.
    offsets : int64 array, or None
        Of the lists, where a term has lists.
    """
    systems = [components(term) for term in terms]
    members = [term.member(member) for term, system in zip(terms, systems, strict=True) for member in system.values()]
    contents, offsets = align(members)
    there = np.ones(contents[0].shape, np.bool_)
    for content in contents:
        there &= np.isfinite(content)
    chosen = np.flatnonzero(there)
    total = np.zeros((4, len(chosen)))
    remaining = iter(contents)
    for system in systems:
        _add(tuple(system), [next(remaining) for _ in system], chosen, total)
    return total, there, offsets


def _add(system: tuple[str, ...], parts: list[npt.NDArray[Any]], chosen: npt.NDArray[np.int64], total: Doubles) -> None:
    """Add the chosen four-vectors to a sum, float64 ``[4, n]``.

    The package vector would add objects in their own coordinates, and go from polar ones to Cartesian and back for each sum: four times the time.
    """
    if system[0] == "px":
        total += np.stack([np.asarray(part[chosen], np.float64) for part in parts])
        return
    from mlaas4hep.streaming.expressions import kernels

    # The kernel is compiled for two types only: as NanoAOD has them, and everything else.
    kind = np.float32 if all(part.dtype == np.float32 for part in parts) else np.float64
    pt, eta, phi, last = (np.ascontiguousarray(part, kind) for part in parts)
    kernels.add_polar(pt, eta, phi, last, system[3] == "mass", chosen, total)


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
