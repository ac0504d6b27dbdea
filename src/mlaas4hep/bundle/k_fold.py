"""What a bundle of several models says: which of them has not seen an event.

Model ``f`` was tested on the events whose fold is ``f`` and learned from the others, so it is the one whose answer for them is honest. The fold
follows from the event's identity alone; where that cannot be known for certain, the mean of all models is used and the event is flagged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.splitting import HASH_VERSION, Split, entry_identity, event_identity

__all__ = ["UNPROVEN", "IdentityKind", "KFold"]

IdentityKind = Literal["identifiers", "entry"]

UNPROVEN = -1
"""The fold of an event that could not be told: it gets the mean of all models."""

MOST_FOLDS = 1000


@dataclass(frozen=True, slots=True)
class KFold:
    """How the models of a bundle divide the events.

    Parameters
    ----------
    folds : int
        How many models.
    salt : int
        Of the split.
    hash_version : int
        Of the hash that makes folds of identities.
    identifiers : tuple of str
        Branches that identify an event, in the order in which they are hashed; empty where the file and the entry do.
    kind : {"identifiers", "entry"}
        What an event's identity is made of.

    Raises
    ------
    ValueError
        If the parts do not fit each other.

    Examples
    --------
    >>> KFold(5, 0, 1, ("run", "event"), "identifiers").of_identifiers([np.array([1, 1]), np.array([7, 8])])
    array([2, 0])
    """

    folds: int
    salt: int = 0
    hash_version: int = HASH_VERSION
    identifiers: tuple[str, ...] = ()
    kind: IdentityKind = "entry"

    def __post_init__(self) -> None:
        if not 2 <= self.folds <= MOST_FOLDS:
            raise ValueError(f"'folds' is {self.folds}; right is 2 to {MOST_FOLDS}")
        if self.kind not in ("identifiers", "entry") or (self.kind == "identifiers") != bool(self.identifiers):
            raise ValueError(f"'kind' is {self.kind!r} and there are {len(self.identifiers)} identifiers")

    @property
    def known(self) -> bool:
        """Whether this package knows the hash, so that folds can be told at all."""
        return self.hash_version == HASH_VERSION

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files of all models in the bundle."""
        return tuple(f"folds/{fold}/{name}" for fold in range(self.folds) for name in ("model.onnx", "encoding.json"))

    def of_identifiers(self, values: list[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
        """Return the fold of each event from the values of its identifiers, in their order; int64 ``[n]``."""
        return self._split.fold_of(event_identity(values, self.salt))

    def of_entries(self, file_uuid: str, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the fold of each entry of a file that was trained on; int64 ``[n]``."""
        return self._split.fold_of(entry_identity(file_uuid, entries, self.salt))

    @property
    def _split(self) -> Split:
        return Split.k_fold(self.folds, 0, validation=0, salt=self.salt)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {**asdict(self), "identifiers": list(self.identifiers)}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> KFold:
        """Make it from what :meth:`to_dict` gave.

        Raises
        ------
        ValueError, KeyError, TypeError
            If a part is missing or wrong.
        """
        return cls(
            int(description["folds"]),
            int(description["salt"]),
            int(description["hash_version"]),
            tuple(str(name) for name in description["identifiers"]),
            description["kind"],
        )
