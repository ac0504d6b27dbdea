"""The feature vector: which branch goes to which place, and how a value is scaled.

Flat branches come first, in sorted order, then the jagged ones in sorted order, each taking as many places as it is wide. A place that an event
does not fill is *absent*: its mask is True and its value 0. The same description drives the kernel that encodes events for training, the
preprocessing inside the exported graph, and the server's matching of names, so that the three cannot disagree.

The order, the names of the places and the scaling are those of the original MLaaS4HEP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Encoding", "Feature"]


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
        The scaled value is ``(value - shift) * scale``, in float32.
    """

    branch: str
    jagged: bool
    width: int
    shift: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Encoding:
    """The description of the whole vector.

    Parameters
    ----------
    features : tuple of Feature
        In the order of their places.

    Examples
    --------
    >>> encoding = Encoding((Feature("MET_pt", jagged=False, width=1), Feature("Jet_pt", jagged=True, width=2)))
    >>> encoding.columns
    ('MET_pt', 'Jet_pt_0', 'Jet_pt_1')
    >>> encoding.width
    3
    """

    features: tuple[Feature, ...]

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the branches, in the order of their places."""
        return tuple(feature.branch for feature in self.features)

    @cached_property
    def width(self) -> int:
        """Number of places of the vector."""
        return sum(feature.width for feature in self.features)

    @cached_property
    def first_places(self) -> Mapping[str, int]:
        """First place of each branch."""
        places: dict[str, int] = {}
        place = 0
        for feature in self.features:
            places[feature.branch] = place
            place += feature.width
        return places

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Name of each place: the branch, or ``branch_0 … branch_{width-1}`` for a jagged one."""
        return tuple(
            f"{feature.branch}_{position}" if feature.jagged else feature.branch
            for feature in self.features
            for position in range(feature.width)
        )

    @cached_property
    def shifts(self) -> npt.NDArray[np.float32]:
        """What is subtracted at each place, float32 of shape ``[width]``."""
        return np.repeat(np.array([f.shift for f in self.features], np.float32), [f.width for f in self.features])

    @cached_property
    def scales(self) -> npt.NDArray[np.float32]:
        """What the difference is multiplied with at each place, float32 of shape ``[width]``."""
        return np.repeat(np.array([f.scale for f in self.features], np.float32), [f.width for f in self.features])

    def scale_raw(self, raw: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
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
        x = np.where(mask, np.float32(0), (raw - self.shifts) * self.scales).astype(np.float32, copy=False)
        return x, mask

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain values for JSON."""
        return {"version": 1, "layout": "flat", "features": [asdict(feature) for feature in self.features]}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Encoding:
        """Make the description from what :meth:`to_dict` gave.

        Raises
        ------
        ValueError
            If it is of another version or layout, or a feature is not whole.
        """
        if (description.get("version"), description.get("layout")) != (1, "flat"):
            raise ValueError(
                f"encoding must be version 1, layout 'flat'; got {description.get('version')!r}, {description.get('layout')!r}"
            )
        features = tuple(
            Feature(str(f["branch"]), bool(f["jagged"]), int(f["width"]), float(f["shift"]), float(f["scale"]))
            for f in description["features"]
        )
        return cls(features)
