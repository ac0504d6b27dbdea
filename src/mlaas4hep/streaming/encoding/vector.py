"""What the event vector shall be, as a person sets it, and how it follows from the statistics of training events."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from mlaas4hep.errors import SettingError, nearest_names, quoted
from mlaas4hep.streaming.encoding.encoding import LAYOUTS, Encoding, Feature, Layout
from mlaas4hep.streaming.encoding.normalisation import NORMALISATIONS, Normalisation, chosen_normalisation, scaling
from mlaas4hep.streaming.encoding.objects import Collection, find_collections
from mlaas4hep.streaming.formats.base import ColumnType
from mlaas4hep.streaming.statistics.statistics import BranchStatistics

if TYPE_CHECKING:
    from mlaas4hep.streaming.statistics.specs import Specs

__all__ = ["Clip", "VectorSettings", "encoding_from"]

Bounds = tuple[float, float]
Clip = Bounds | Mapping[str, Bounds]
"""Smallest and largest scaled value of all branches, or name or pattern of branches → these."""

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class VectorSettings:
    """What the event vector shall be.

    Parameters
    ----------
    normalisation : str or mapping of str to str
        Name of a normalisation, or name or pattern of branches → name.
    clip : (low, high) or mapping of str to (low, high), optional
        Smallest and largest scaled value, for all branches or for those of a name or pattern. One of the two may be infinite.
    layout : {"flat", "objects"}
        Branch by branch, or object by object.
    max_objects : int or mapping of str to int, optional
        Objects of every collection (and values of every other list), or collection or list → objects. What an event has more is cut off and
        counted. As many as the training event with the most when not given.
    order_by : str or mapping of str to str, optional
        Member by which objects are ordered before they are cut off: ``"pt"`` for every collection that has it, or ``{"Jet": "btagDeepB"}``. The
        largest comes first, with or without a ``-`` before the name; a ``+`` puts the smallest first.
    collections : mapping of str to str or sequence of str, optional
        Collections whose names do not show them: name → branches or patterns of them, or the branch that counts the objects, whose members are then
        all lists that begin with the collection's name and ``_``.

    Raises
    ------
    SettingError
        If one of them has a value that it must not have.
    """

    normalisation: Normalisation = "minmax"
    clip: Clip | None = None
    layout: Layout = "flat"
    max_objects: int | Mapping[str, int] | None = None
    order_by: str | Mapping[str, str] | None = None
    collections: Mapping[str, str | Sequence[str]] | None = None

    def __post_init__(self) -> None:
        for _, kind in _entries("normalisation", self.normalisation) or [("", None)]:
            if kind not in list(NORMALISATIONS):
                raise SettingError("normalisation", f"one of {', '.join(NORMALISATIONS)}", kind)
        for name, bounds in _entries("clip", self.clip):
            _check_bounds(name, bounds)
        if self.layout not in LAYOUTS:
            raise SettingError("layout", " or ".join(f"'{layout}'" for layout in LAYOUTS), self.layout)
        for name, objects in _entries("max_objects", self.max_objects):
            if isinstance(objects, bool) or not isinstance(objects, int) or objects < 1:
                raise SettingError(name, "an integer ≥ 1", objects)
        for name, key in _entries("order_by", self.order_by):
            if not isinstance(key, str) or not key.lstrip("+-"):
                raise SettingError(name, "the name of a member, as in 'pt'", key)
        for name, members in _entries("collections", self.collections):
            listed = [members] if isinstance(members, str) else members
            if not isinstance(self.collections, Mapping) or not _are_names(listed):
                raise SettingError(
                    name, "branches, patterns of them, or a counter for each name of a collection", members
                )

    @property
    def knows_objects(self) -> bool:
        """Whether any of them has to do with collections."""
        return self.layout == "objects" or any((self.max_objects, self.order_by, self.collections))


def encoding_from(specs: Specs, settings: VectorSettings, columns: Mapping[str, ColumnType] | None = None) -> Encoding:
    """Make the event vector from the statistics of training events.

    Parameters
    ----------
    specs : Specs
    settings : VectorSettings
    columns : mapping of str to ColumnType, optional
        Further branches that can be read: counters, and what objects are ordered by, need not be features.

    Raises
    ------
    SettingError
        If the settings do not fit the data.
    """
    features = {feature.branch: _scaled(feature, specs, settings) for feature in specs.encoding.features}
    if not settings.knows_objects:
        return Encoding(tuple(features.values()))
    members = _collections(specs, settings, columns or {})
    for collection, names in members.items():
        widest = max(features[name].width for name in names)
        features.update({name: replace(features[name], width=widest) for name in names})
        _no_member(settings.max_objects, collection, names)
    owner = {name: collection for collection, names in members.items() for name in names}
    _narrow(features, owner, members, settings.max_objects)
    keys = _order_keys(members, settings.order_by, columns or {}, features)
    collections = tuple(Collection(name, members[name], *keys.get(name, (None, True))) for name in sorted(members))
    if settings.layout == "flat":
        return Encoding(tuple(features.values()), "flat", collections)
    if not collections:
        raise SettingError(
            "layout",
            "'flat' where there are no collections; counters 'n<name>' show them, or the setting 'collections' declares them",
            settings.layout,
        )
    last = [name for collection in collections for name in collection.members]
    first = [name for name in features if name not in owner]
    return Encoding(tuple(features[name] for name in (*first, *last)), "objects", collections)


def _scaled(feature: Feature, specs: Specs, settings: VectorSettings) -> Feature:
    """Return a feature of the original's vector with the scaling and the clip that are set."""
    kind = chosen_normalisation(settings.normalisation, feature.branch)
    if kind != "minmax":
        known = specs.train_statistics.get(feature.branch)
        if known is None and kind != "none":
            raise SettingError("normalisation", "'minmax' or 'none' with specs that hold nothing but ranges", kind)
        feature = replace(feature, **scaling(kind, known or BranchStatistics())._asdict())
    clip = settings.clip
    if isinstance(clip, Mapping):
        clip = _chosen(clip, feature.branch)
    return feature if clip is None else replace(feature, clip=(float(clip[0]), float(clip[1])))


def _collections(
    specs: Specs, settings: VectorSettings, columns: Mapping[str, ColumnType]
) -> dict[str, tuple[str, ...]]:
    """Return the members of each collection, declared or found, as far as they are features."""
    lists = {name: _lengths(specs, name) for name in specs.jagged}
    declared: dict[str, tuple[str, ...]] = {}
    for collection, wanted in (settings.collections or {}).items():
        setting = f"collections.{collection}"
        flat = isinstance(wanted, str) and (wanted in specs.flat or (wanted in columns and not columns[wanted].jagged))
        patterns = [f"{collection}_*"] if flat else [wanted] if isinstance(wanted, str) else list(wanted)
        names: dict[str, None] = {}
        for pattern in patterns:
            matching = [pattern] if pattern in lists else fnmatch.filter(sorted(lists), pattern)
            if not matching:
                rule = f"names or patterns of lists that are features; nearest: {quoted(nearest_names(pattern, lists))}"
                raise SettingError(setting, rule.removesuffix("; nearest: "), pattern)
            names.update(dict.fromkeys(matching))
        elsewhere = [name for members in declared.values() for name in members if name in names]
        if elsewhere:
            raise SettingError(setting, "lists that are in no other collection", elsewhere[0])
        first, *others = names
        for other in others:
            if lists[other] != lists[first]:
                raise SettingError(setting, f"lists as long as '{first}' in every event", other)
        declared[collection] = tuple(names)
    counters: dict[str, Hashable | None] = {name: None for name, kind in columns.items() if not kind.jagged}
    counters.update({name: _counted(specs, name) for name in specs.flat})
    taken = {name for members in declared.values() for name in members}
    found = find_collections(lists, counters, taken)
    return {**found, **declared}


def _lengths(specs: Specs, name: str) -> Hashable:
    """Return what is known of the lengths of a list: the longest, and where statistics say it, how many values there are."""
    widest = specs.ranges.widest[name]
    known = specs.statistics.get(name)
    return (widest, None if known is None else known.count + known.not_finite)


def _counted(specs: Specs, name: str) -> Hashable | None:
    """Return the same as :func:`_lengths` of the lists that a flat branch would count."""
    known = specs.statistics.get(name)
    if known is None:
        return (int(specs.ranges.maximum[name]), None)
    return (int(known.range[1]), round(known.mean * known.count))


def _no_member(max_objects: object, collection: str, names: Iterable[str]) -> None:
    for name in names:
        if isinstance(max_objects, Mapping) and name in max_objects:
            raise SettingError(
                f"max_objects.{name}", f"set for the collection '{collection}', whose branches are cut alike", name
            )


def _narrow(
    features: dict[str, Feature],
    owner: Mapping[str, str],
    members: Mapping[str, Sequence[str]],
    max_objects: int | Mapping[str, int] | None,
) -> None:
    """Give lists as many places as ``max_objects`` says."""
    if isinstance(max_objects, int):
        features.update({n: replace(f, width=max_objects) for n, f in features.items() if f.jagged})
        return
    loose = [name for name, feature in features.items() if feature.jagged and name not in owner]
    for name, objects in (max_objects or {}).items():
        if name not in members and name not in loose:
            candidates = nearest_names(name, (*members, *loose)) or tuple(sorted(members))
            raise SettingError(f"max_objects.{name}", f"for a collection or a list, as {quoted(candidates)}", name)
        for branch in members.get(name, (name,)):
            features[branch] = replace(features[branch], width=objects)


def _order_keys(
    members: Mapping[str, Sequence[str]],
    order_by: str | Mapping[str, str] | None,
    columns: Mapping[str, ColumnType],
    features: Mapping[str, Feature],
) -> dict[str, tuple[str, bool]]:
    """Return for each collection that is ordered the branch of the key, and whether the largest comes first."""
    jagged = {name for name, feature in features.items() if feature.jagged}
    jagged |= {name for name, kind in columns.items() if kind.jagged}
    wanted = dict.fromkeys(members, order_by) if isinstance(order_by, str) else dict(order_by or {})
    keys = {}
    for collection, text in wanted.items():
        if collection not in members:
            candidates = nearest_names(collection, members) or tuple(sorted(members))
            raise SettingError(f"order_by.{collection}", f"for a collection, as {quoted(candidates)}", collection)
        name = text.lstrip("+-")
        branch = next((found for found in (f"{collection}_{name}", name) if found in jagged), None)
        if branch is not None and (branch.startswith(f"{collection}_") or branch in members[collection]):
            keys[collection] = (branch, not text.startswith("+"))
        elif not isinstance(order_by, str):
            there = [found for found in sorted(jagged) if found.startswith(f"{collection}_")]
            near = nearest_names(f"{collection}_{name}", there) or tuple(there)
            raise SettingError(f"order_by.{collection}", f"a branch of that collection, as {quoted(near, 3)}", text)
    if isinstance(order_by, str) and not keys:
        raise SettingError("order_by", f"a branch of one of the collections {quoted(sorted(members))}", order_by)
    return keys


def _entries(setting: str, value: object) -> list[tuple[str, object]]:
    """Return the full name and value of each part of a setting that may be one value or a mapping."""
    if isinstance(value, Mapping):
        return [(f"{setting}.{name}", part) for name, part in value.items()]
    return [] if value is None else [(setting, value)]


def _chosen(by_pattern: Mapping[str, Value], branch: str) -> Value | None:
    """Return what stands for a branch: under its own name, or under the first pattern that matches."""
    if branch in by_pattern:
        return by_pattern[branch]
    return next((value for pattern, value in by_pattern.items() if fnmatch.fnmatchcase(branch, pattern)), None)


def _are_names(value: object) -> bool:
    return isinstance(value, Sequence) and len(value) > 0 and all(isinstance(name, str) for name in value)


def _check_bounds(setting: str, bounds: object) -> None:
    if isinstance(bounds, Sequence) and len(bounds) == 2 and all(isinstance(b, (int, float)) for b in bounds):
        low, high = bounds
        if low < high and (math.isfinite(low) or math.isfinite(high)):
            return
    raise SettingError(setting, "two numbers (low, high) with low < high", bounds)
