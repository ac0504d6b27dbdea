"""The feature vector: which branch goes to which place, and how a value is scaled.

Flat branches come first, in sorted order, then the jagged ones in sorted order, each taking as many places as it is wide; in the layout ``objects``
the members of a collection come last, object by object. A place that an event does not fill is *absent*: its mask is True and its value 0. The same
description drives the kernel that encodes events for training, the preprocessing inside the exported graph, and the server's matching of names, so
that the three cannot disagree.

In the layout ``flat`` the order, the names of the places and the scaling are those of the original MLaaS4HEP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.encoding.objects import Collection, check_collections

__all__ = ["LAYOUTS", "TRANSFORMS", "Encoding", "Feature", "Layout", "Transform"]

Transform = Literal["linear", "log"]
TRANSFORMS: tuple[Transform, ...] = ("linear", "log")

Layout = Literal["flat", "objects"]
LAYOUTS: tuple[Layout, ...] = ("flat", "objects")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Feature:
    """One branch and its places in the vector.

    Parameters
    ----------
    branch : str
        Name of the branch.
    jagged : bool
        Whether an event holds a list of values rather than one.
    width : int
        Number of places: 1 for a flat branch, the widest event for a jagged one. A longer event is cut off.
    shift, scale : float
        The scaled value is ``u = (value - shift) * scale``, in float32.
    transform : {"linear", "log"}
        What is done with ``u``: nothing, or ``(log(1 + max(0, u)) - log_shift) * log_scale``, worked out in float64 and rounded to float32.
    log_shift, log_scale : float
        Of the logarithm; without a meaning where the transform is linear.
    clip : tuple of float, optional
        Smallest and largest scaled value; what lies outside is set to the nearer one. Either may be infinite.
    """

    branch: str
    jagged: bool
    width: int
    shift: float = 0.0
    scale: float = 1.0
    transform: Transform = "linear"
    log_shift: float = 0.0
    log_scale: float = 1.0
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.transform not in TRANSFORMS:
            raise ValueError(f"the transform of '{self.branch}' must be 'linear' or 'log'; got {self.transform!r}")
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"'{self.branch}' must be clipped to (low, high) with low < high; got {self.clip!r}")

    @property
    def unscaled(self) -> Feature:
        """The same branch and places with values as they are."""
        return Feature(self.branch, self.jagged, self.width)


@dataclass(frozen=True)
class Encoding:
    """The description of the whole vector.

    Parameters
    ----------
    features : tuple of Feature
        In the order of their first places.
    layout : {"flat", "objects"}
        Whether the places of a branch stand side by side, or those of an object of a collection do.
    collections : tuple of Collection
        In the layout ``objects`` their members are the last features, collection by collection, and equally wide within each.

    Raises
    ------
    ValueError
        If layout, collections and features do not fit each other.

    Examples
    --------
    >>> met, pt, eta = Feature("MET_pt", False, 1), Feature("Jet_pt", True, 2), Feature("Jet_eta", True, 2)
    >>> Encoding((met, eta, pt)).columns
    ('MET_pt', 'Jet_eta_0', 'Jet_eta_1', 'Jet_pt_0', 'Jet_pt_1')
    >>> Encoding((met, eta, pt), "objects", (Collection("Jet", ("Jet_eta", "Jet_pt")),)).columns
    ('MET_pt', 'Jet_eta_0', 'Jet_pt_0', 'Jet_eta_1', 'Jet_pt_1')
    """

    features: tuple[Feature, ...]
    layout: Layout = "flat"
    collections: tuple[Collection, ...] = ()

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be 'flat' or 'objects'; got {self.layout!r}")
        if self.collections:
            check_collections(self)

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the features' branches, in the order of their first places."""
        return tuple(feature.branch for feature in self.features)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Branches to read: those of the features, and those that collections are ordered by."""
        keys = (collection.order_by for collection in self.collections if collection.order_by is not None)
        return tuple(dict.fromkeys((*self.branches, *keys)))

    @cached_property
    def width(self) -> int:
        """Number of places of the vector."""
        return sum(feature.width for feature in self.features)

    @cached_property
    def strides(self) -> Mapping[str, int]:
        """Distance between two neighbouring places of each branch."""
        together = {name: len(c.members) for c in self.collections for name in c.members}
        return {name: together.get(name, 1) if self.layout == "objects" else 1 for name in self.branches}

    @cached_property
    def first_places(self) -> Mapping[str, int]:
        """First place of each branch."""
        places: dict[str, int] = {}
        place = 0
        together = {} if self.layout == "flat" else {c.members[0]: c.members for c in self.collections}
        for feature in self.features:
            if feature.branch in places:
                continue
            members = together.get(feature.branch, (feature.branch,))
            places.update({name: place + position for position, name in enumerate(members)})
            place += feature.width * len(members)
        return places

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Name of each place: the branch, or ``branch_0 … branch_{width-1}`` for a jagged one."""
        names = [""] * self.width
        for feature in self.features:
            for position, place in enumerate(self.places(feature.branch)):
                names[place] = f"{feature.branch}_{position}" if feature.jagged else feature.branch
        return tuple(names)

    def places(self, branch: str) -> range:
        """Return the places of a branch.

        Raises
        ------
        KeyError
            If it is no feature.
        """
        first, stride = self.first_places[branch], self.strides[branch]
        return range(first, first + self._widths[branch] * stride, stride)

    @cached_property
    def shifts(self) -> Floats:
        """What is subtracted at each place, float32 of shape ``[width]``."""
        return self._at_places(lambda feature: feature.shift, np.float32)

    @cached_property
    def scales(self) -> Floats:
        """What the difference is multiplied with at each place, float32 of shape ``[width]``."""
        return self._at_places(lambda feature: feature.scale, np.float32)

    @cached_property
    def logarithmic(self) -> npt.NDArray[np.bool_]:
        """Whether there is a logarithm at each place, bool of shape ``[width]``."""
        return self._at_places(lambda feature: feature.transform == "log", np.bool_)

    @cached_property
    def log_shifts(self) -> npt.NDArray[np.float64]:
        """What is subtracted from the logarithm at each place, float64 of shape ``[width]``."""
        return self._at_places(lambda feature: feature.log_shift, np.float64)

    @cached_property
    def log_scales(self) -> npt.NDArray[np.float64]:
        """What that is multiplied with at each place, float64 of shape ``[width]``."""
        return self._at_places(lambda feature: feature.log_scale, np.float64)

    @cached_property
    def clips(self) -> tuple[Floats, Floats] | None:
        """Smallest and largest scaled value at each place, float32 of shape ``[width]``; None if nothing is clipped."""
        if all(feature.clip is None for feature in self.features):
            return None
        low = self._at_places(lambda feature: -np.inf if feature.clip is None else feature.clip[0], np.float32)
        high = self._at_places(lambda feature: np.inf if feature.clip is None else feature.clip[1], np.float32)
        return low, high

    @property
    def unscaled(self) -> Encoding:
        """The same vector with values as they are: places, collections and order alike."""
        return replace(self, features=tuple(feature.unscaled for feature in self.features))

    def scale_raw(self, raw: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Scale raw values; the plain form of what the kernel and the exported graph do.

        Parameters
        ----------
        raw : float32 array of shape ``[n, width]``
            Physical values; NaN, or anything not finite, where absent.

        Returns
        -------
        x : float32 array of shape ``[n, width]``
            Scaled values, 0 where absent.
        mask : bool array of shape ``[n, width]``
            True where absent.

        Examples
        --------
        >>> encoding = Encoding((Feature("MET_pt", False, 1, shift=10.0, scale=0.5),))
        >>> encoding.scale_raw(np.array([[12.0], [np.nan]], np.float32))
        (array([[1.], [0.]], dtype=float32), array([[False], [ True]]))
        """
        mask = ~np.isfinite(raw)
        x = np.asarray((raw - self.shifts) * self.scales, np.float32)
        if self.logarithmic.any():
            # Positive first: the other side of the choice must not warn of logarithms that nobody takes.
            logarithm = np.log1p(np.where(x > 0, x, np.float32(0)), dtype=np.float64)
            x = np.where(self.logarithmic, ((logarithm - self.log_shifts) * self.log_scales).astype(np.float32), x)
        if self.clips is not None:
            x = np.clip(x, *self.clips)
        return np.where(mask, np.float32(0), x), mask

    def unscale(self, x: npt.NDArray[Any]) -> Floats:
        """Bring scaled values back to raw ones, float32 of the same shape; what was clipped or below a logarithm's zero stays at the border.

        Parameters
        ----------
        x : float array of shape ``[n, width]``
            NaN where absent.

        Examples
        --------
        >>> Encoding((Feature("MET_pt", False, 1, shift=10.0, scale=0.5),)).unscale(np.array([[1.0]]))
        array([[12.]], dtype=float32)
        """
        # In float64, so that scaling again gives back the value to the last bits of a float32.
        values = np.asarray(x, np.float64)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            if self.logarithmic.any():
                values = np.where(self.logarithmic, np.expm1(values / self.log_scales + self.log_shifts), values)
            return (values / self.scales.astype(np.float64) + self.shifts).astype(np.float32)

    def cut_report(self, counts: npt.NDArray[np.int64]) -> dict[str, int]:
        """Return how many objects were cut off.

        Parameters
        ----------
        counts : int64 array of shape ``[features]``
            What :meth:`mlaas4hep.streaming.encoding.block.EventBlock.encode` added up.

        Returns
        -------
        dict of str to int
            Collection, or jagged branch that belongs to none → objects; only those of which there were too many.

        Examples
        --------
        >>> pt, eta = Feature("Jet_pt", True, 2), Feature("Jet_eta", True, 2)
        >>> Encoding((eta, pt), collections=(Collection("Jet", ("Jet_eta", "Jet_pt")),)).cut_report(np.array([3, 3]))
        {'Jet': 3}
        """
        owner = {name: collection.name for collection in self.collections for name in collection.members}
        report: dict[str, int] = {}
        for branch, count in zip(self.branches, counts.tolist(), strict=True):
            if count:
                name = owner.get(branch, branch)
                report[name] = max(report.get(name, 0), count)
        return report

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain values for JSON."""
        features = [asdict(feature) for feature in self.features]
        for described in features:
            if described["clip"] is not None:
                described["clip"] = [bound if np.isfinite(bound) else None for bound in described["clip"]]
        collections = [asdict(collection) | {"members": list(collection.members)} for collection in self.collections]
        return {"version": 2, "layout": self.layout, "features": features, "collections": collections}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Encoding:
        """Make the description from what :meth:`to_dict` gave, or gave when there was only the layout ``flat`` (version 1).

        Raises
        ------
        ValueError, KeyError, TypeError
            If it is of another version or layout, or a feature or collection is not whole.
        """
        if description.get("version") not in (1, 2):
            raise ValueError(f"encoding must be version 1 or 2; got {description.get('version')!r}")
        return cls(
            tuple(_feature(f) for f in description["features"]),
            description["layout"],
            tuple(
                Collection(
                    str(c["name"]),
                    tuple(str(name) for name in c["members"]),
                    None if c["order_by"] is None else str(c["order_by"]),
                    bool(c["descending"]),
                )
                for c in description.get("collections", ())
            ),
        )

    @cached_property
    def _widths(self) -> Mapping[str, int]:
        return {feature.branch: feature.width for feature in self.features}

    def _at_places(self, value: Callable[[Feature], Any], dtype: Any) -> npt.NDArray[Any]:
        """Return one value of each feature at all of its places."""
        values = np.empty(self.width, dtype)
        for feature in self.features:
            values[list(self.places(feature.branch))] = value(feature)
        return values


def _feature(description: Mapping[str, Any]) -> Feature:
    clip = description.get("clip")
    if clip is not None:
        low, high = clip
        clip = (-np.inf if low is None else float(low), np.inf if high is None else float(high))
    return Feature(
        str(description["branch"]),
        bool(description["jagged"]),
        int(description["width"]),
        float(description["shift"]),
        float(description["scale"]),
        description.get("transform", "linear"),
        float(description.get("log_shift", 0.0)),
        float(description.get("log_scale", 1.0)),
        clip,
    )
