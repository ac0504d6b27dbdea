"""Collections of objects: jagged branches that describe the same jets, muons or taus.

They are found from counters and prefixes, as NanoAOD names them (``nJet`` and ``Jet_*``), or declared where the naming is other. In the layout
``objects`` the events' vectors can be seen as one array ``[n, objects, members]`` a collection, without a copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection as AnyCollection
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mlaas4hep.errors import SettingError

if TYPE_CHECKING:
    from mlaas4hep.streaming.encoding.encoding import Encoding

__all__ = ["Collection", "ObjectArrays", "check_collections", "find_collections", "flat_of", "objects_of"]


@dataclass(frozen=True, slots=True)
class Collection:
    """Jagged branches that describe the same objects: the values at one position of each are those of one object.

    Parameters
    ----------
    name : str
        As in ``Jet``.
    members : tuple of str
        Branches that are features, in their order.
    order_by : str or None
        Branch by whose values the objects of an event are ordered; it need not be a feature. None for the order of the file.
    descending : bool
        Whether the largest value comes first. Objects without a number come last, and equal ones stay as they are.
    """

    name: str
    members: tuple[str, ...]
    order_by: str | None = None
    descending: bool = True


def find_collections(
    lists: Mapping[str, Hashable], counters: Mapping[str, Hashable | None], taken: AnyCollection[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Find collections by their names: a counter ``nJet`` (or ``NJet``) and lists ``Jet_…``.

    Parameters
    ----------
    lists : mapping of str to hashable
        Jagged branch → what is known of the lengths of its lists, as their sum and the longest. Members of one collection have the same.
    counters : mapping of str to hashable, or None
        Flat branch → the same, taken from its values as if it were a counter; None where that is not known.
    taken : collection of str
        Lists that belong elsewhere.

    Returns
    -------
    dict of str to tuple of str
        Collection → its members, both sorted: the lists that are as long as the counter says, or if there are none, those that most agree with
        each other.

    Examples
    --------
    >>> find_collections({"Jet_pt": 7, "Jet_eta": 7, "Jet_subjets": 14, "PSWeight": 4}, {"nJet": 7, "MET_pt": 31.5})
    {'Jet': ('Jet_eta', 'Jet_pt')}
    """
    counted = {name[1:]: lengths for name, lengths in counters.items() if name[:1] in ("n", "N") and len(name) > 1}
    members: dict[str, list[str]] = {}
    for name in sorted(lists):
        prefixes = [prefix for prefix in counted if name.startswith(f"{prefix}_")]
        if prefixes and name not in taken:
            members.setdefault(max(prefixes, key=len), []).append(name)
    found = {}
    for prefix in sorted(members):
        ((commonest, _),) = Counter(lists[name] for name in members[prefix]).most_common(1)
        counts = counted[prefix]
        if counts is not None and any(lists[name] == counts for name in members[prefix]):
            commonest = counts
        same = tuple(name for name in members[prefix] if lists[name] == commonest)
        # A single list that the counter does not count describes no objects.
        if len(same) > 1 or counts in (None, commonest):
            found[prefix] = same
    return found


class ObjectArrays(NamedTuple):
    """The objects of one collection.

    Attributes
    ----------
    x : float32 array of shape ``[n, max_objects, members]``
        Scaled values, 0 where absent.
    mask : bool array of shape ``[n, max_objects]``
        True where there is no object: where all of its values are absent.
    """

    x: Any
    mask: Any


def objects_of(encoding: Encoding, x: Any, mask: Any) -> dict[str, ObjectArrays]:
    """Return the objects of each collection, as views of a batch.

    An object one of whose values is absent has 0 there and is an object all the same; only one without any value cannot be told from none.

    Parameters
    ----------
    encoding : Encoding
        Of layout ``objects``.
    x : float32 array or tensor of shape ``[n, width]``
    mask : bool array or tensor of shape ``[n, width]``

    Returns
    -------
    dict of str to ObjectArrays
        Collection → objects, with the members in the order of ``Collection.members``.

    Raises
    ------
    SettingError
        If the encoding has another layout.

    Examples
    --------
    >>> import numpy as np
    >>> from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
    >>> features = (Feature("MET_pt", False, 1), Feature("Jet_eta", True, 2), Feature("Jet_pt", True, 2))
    >>> encoding = Encoding(features, "objects", (Collection("Jet", ("Jet_eta", "Jet_pt")),))
    >>> x, mask = encoding.scale_raw(np.array([[30, -1.5, 50, np.nan, np.nan]], np.float32))
    >>> jets = objects_of(encoding, x, mask)["Jet"]
    >>> jets.x.tolist(), jets.mask.tolist()
    ([[[-1.5, 50.0], [0.0, 0.0]]], [[False, True]])
    """
    if encoding.layout != "objects":
        raise SettingError("layout", "'objects', to see a batch as objects", encoding.layout)
    found = {}
    for collection in encoding.collections:
        places = encoding.places(collection.members[0])
        first, members = places.start, len(collection.members)
        part = slice(first, first + len(places) * members)
        # Not len(x): an exporter of graphs would take the number of events for a constant.
        shape = (x.shape[0], len(places), members)
        found[collection.name] = ObjectArrays(x[:, part].reshape(shape), mask[:, part].reshape(shape).all(-1))
    return found


def flat_of(encoding: Encoding, x: Any, mask: Any) -> tuple[Any, Any]:
    """Return the places that belong to no collection, ``x`` and ``mask`` of shape ``[n, f]``, as views of a batch.

    Parameters
    ----------
    encoding, x, mask
        As in :func:`objects_of`.

    Raises
    ------
    SettingError
        If the encoding has another layout.
    """
    if encoding.layout != "objects":
        raise SettingError("layout", "'objects', to see a batch as objects", encoding.layout)
    end = min((encoding.first_places[c.members[0]] for c in encoding.collections), default=encoding.width)
    return x[:, :end], mask[:, :end]


def check_collections(encoding: Encoding) -> None:
    """Raise ValueError if the collections of an encoding do not fit its features and its layout."""
    known = {feature.branch: feature for feature in encoding.features}
    members = [name for collection in encoding.collections for name in collection.members]
    if len(set(members)) != len(members):
        raise ValueError("a branch must not be a member of two collections, nor twice of one")
    for collection in encoding.collections:
        if not collection.members or not all(name in known and known[name].jagged for name in collection.members):
            raise ValueError(f"the members of collection '{collection.name}' must be features that hold lists")
        if len({known[name].width for name in collection.members}) != 1:
            raise ValueError(f"the members of collection '{collection.name}' must be equally wide")
    if encoding.layout == "objects" and encoding.branches[-len(members) :] != tuple(members):
        raise ValueError("in layout 'objects' the members of the collections must be the last features, in their order")
