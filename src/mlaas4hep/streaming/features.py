"""Which branches become features, and why the others do not."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mlaas4hep.errors import BranchNotFoundError, BranchTypeError, SettingError, quoted
from mlaas4hep.streaming.formats.base import Reader
from mlaas4hep.streaming.selecting.selection import SelectedReader

__all__ = ["GENERATOR_LEVEL", "BranchRoles", "GeneratorLevel", "choose_features", "is_generator_level"]

GENERATOR_LEVEL = ("gen*", "Gen*", "LHE*", "PSWeight*", "*_genPart*", "*Flavour", "*_genJet*")
"""Patterns of branches that only simulation has: a model that reads them knows the answer, and cannot be applied to data."""

GeneratorLevel = Literal["keep", "drop"]


@dataclass(frozen=True)
class BranchRoles:
    """The branches of a dataset by what they are for.

    Parameters
    ----------
    features : tuple of str
        Branches that go into the event vector, in the file's order.
    identifiers : tuple of str
        Branches that identify an event; empty where the files lack them.
    purposes : mapping of str to str
        Further columns that are read, such as that of the label, and what for.
    excluded : mapping of str to str
        Every other branch, and why it is no feature.
    """

    features: tuple[str, ...]
    identifiers: tuple[str, ...]
    purposes: Mapping[str, str]
    excluded: Mapping[str, str]

    def without(self, left_out: Mapping[str, str]) -> BranchRoles:
        """Return the same without some features.

        Parameters
        ----------
        left_out : mapping of str to str
            Each, and why.
        """
        features = tuple(name for name in self.features if name not in left_out)
        return replace(self, features=features, excluded={**self.excluded, **left_out})

    @property
    def read(self) -> tuple[str, ...]:
        """All columns that have to be read."""
        return tuple(dict.fromkeys((*self.features, *self.identifiers, *self.purposes)))


def is_generator_level(branch: str) -> bool:
    """Whether a branch, by its name, comes from the generator.

    Examples
    --------
    >>> [is_generator_level(name) for name in ("genWeight", "Jet_partonFlavour", "Jet_pt", "GenPart_pt")]
    [True, True, False, True]
    """
    return any(fnmatch.fnmatchcase(branch, pattern) for pattern in GENERATOR_LEVEL)


def choose_features(
    reader: Reader,
    tree: str,
    *,
    branches: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    identifiers: Sequence[str] = (),
    identifiers_required: bool = False,
    purposes: Mapping[str, str] | None = None,
    generator_level: GeneratorLevel = "keep",
) -> BranchRoles:
    """Choose the features among the branches of a file.

    Parameters
    ----------
    reader : Reader
        The first file of the dataset.
    tree : str
        Its tree, for the messages.
    branches : sequence of str, optional
        Names or patterns to take; all branches of numbers when not given.
    exclude : sequence of str
        Names or patterns to leave out.
    identifiers : sequence of str
        Branches that identify an event. Unless required, they count only when the file has them all.
    identifiers_required : bool
        Whether a missing identifier is an error.
    purposes : mapping of str to str, optional
        Column → what it is for ("label", "weight", "target"); such a column is one number an event, and no feature.
    generator_level : {"keep", "drop"}
        Whether branches that only simulation has may be features.

    Raises
    ------
    BranchNotFoundError
        If a name or pattern matches nothing.
    BranchTypeError
        If a branch that was named holds no numbers, or an identifier or a column with a purpose is not one number an event.
    SettingError
        If no feature is left.
    """
    if generator_level not in ("keep", "drop"):
        raise SettingError("generator_level", "'keep' or 'drop'", generator_level)
    purposes = purposes or {}
    known = [name for name in reader.columns if name not in _derived(reader)]
    taken = set(known) if branches is None else _match(branches, reader, tree, named=True)
    left_out = _match(exclude, reader, tree, named=False)

    for name in (*(identifiers if identifiers_required else ()), *purposes):
        _require(name, reader, tree)
    complete = all(name in reader.columns for name in identifiers)
    present = tuple(name for name in identifiers if name in reader.columns)
    for name in present:
        if reader.columns[name].jagged or reader.columns[name].dtype.kind not in "iu":
            raise BranchTypeError(
                name, reader.path, f"an identifier is one integer an event; it holds {reader.columns[name]}"
            )
    for name, purpose in purposes.items():
        if reader.columns[name].jagged:
            raise BranchTypeError(name, reader.path, f"a {purpose} is one value an event; it holds a list")

    excluded = dict(reader.skipped)
    features = []
    for name in known:
        if name in present:
            excluded[name] = "identifier"
        elif name in purposes:
            excluded[name] = purposes[name]
        elif name in left_out:
            excluded[name] = "excluded by name"
        elif name not in taken:
            excluded[name] = "not among the branches asked for"
        elif generator_level == "drop" and any(map(is_generator_level, _made_of(name, reader))):
            excluded[name] = "generator level"
        else:
            features.append(name)
    if not features:
        raise SettingError(
            "branches",
            f"a choice that leaves at least one feature in tree '{tree}' of {reader.path}",
            list(branches or exclude),
        )
    return BranchRoles(tuple(features), present if complete else (), purposes, excluded)


def _derived(reader: Reader) -> Collection[str]:
    """Return the columns that were made for a purpose, and are named by the expression that they are."""
    return reader.derived if isinstance(reader, SelectedReader) else ()


def _made_of(name: str, reader: Reader) -> Collection[str]:
    """Return the column itself, and the branches of the file that it is made of."""
    return {name, *reader.sources([name])} if isinstance(reader, SelectedReader) else {name}


def _require(name: str, reader: Reader, tree: str) -> None:
    if name in reader.skipped:
        raise BranchTypeError(name, reader.path, reader.skipped[name])
    if name not in reader.columns:
        raise BranchNotFoundError(name, tree, reader.path, reader.columns)


def _match(patterns: Sequence[str], reader: Reader, tree: str, *, named: bool) -> set[str]:
    """Return the branches that names and patterns mean; ``named`` says that they must hold numbers."""
    matched: set[str] = set()
    for pattern in patterns:
        if any(sign in pattern for sign in "*?["):
            found = set(fnmatch.filter(reader.columns, pattern))
            if not found and not fnmatch.filter(reader.skipped, pattern):
                raise BranchNotFoundError(pattern, tree, reader.path, reader.columns)
        elif not named and pattern in reader.skipped:
            found = set()
        else:
            _require(pattern, reader, tree)
            found = {pattern}
        matched |= found
    if named and not matched:
        raise SettingError("branches", "names or patterns of branches that hold numbers", quoted(patterns))
    return matched
