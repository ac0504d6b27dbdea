"""Split events into folds by identity.

The same event is always in the same fold, whatever the order of files, the chunking or the number of workers, because its fold depends on nothing but
its identifiers: run, luminosity section and event number, or the file's uuid and the entry where there are no such. Everything that learns from data
(specs, weights, models) reads training events only.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import SettingError

__all__ = ["FOLDS", "HASH_VERSION", "Fold", "Split", "entry_identity", "event_identity"]

Fold = Literal["train", "validation", "test"]
FOLDS: tuple[Fold, ...] = get_args(Fold)

HASH_VERSION = 1
"""Number of the hash below; recorded wherever a fold must be found again."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class Split:
    """How events are divided into test, validation and training.

    Parameters
    ----------
    test : float
        Fraction of all events that is evaluated once, at the end; in ``[0, 1)``.
    validation : float
        Fraction of all events, cut from the training side, that stops the training and chooses the epoch; ``test + validation < 1``.
    salt : int
        Another salt gives another, independent division.
    folds, fold : int, optional
        Of a k-fold, which :meth:`k_fold` makes: into how many equal parts the events are divided, and which of them is the test part.

    Raises
    ------
    SettingError
        If nothing would be left to train on, or a value is not what it must be.

    Examples
    --------
    >>> Split(test=0.25, validation=0.25).assign(np.array([0, 2**62, 2**63, 2**64 - 1], np.uint64))
    array([2, 1, 0, 0], dtype=uint8)
    """

    test: float = 0.2
    validation: float = 0.1
    salt: int = 0
    folds: int | None = None
    fold: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("split.test", self.test), ("split.validation", self.validation)):
            if not (isinstance(value, (int, float)) and 0 <= value < 1):
                raise SettingError(name, "a number in [0, 1)", value)
        self._check_folds()
        if self.test + self.validation >= 1:
            raise SettingError(
                "split.test + split.validation",
                "less than 1, or nothing is left to train on",
                self.test + self.validation,
            )

    @classmethod
    def k_fold(cls, folds: int, fold: int, *, validation: float = 0.1, salt: int = 0) -> Split:
        """Make one of the ``folds`` divisions in which, taken together, every event is a test event exactly once.

        Parameters
        ----------
        folds : int
            How many equal parts; at least 2.
        fold : int
            Which of them is the test part, from 0 to ``folds - 1``.
        validation : float
            Fraction of all events, cut from the others; ``1/folds + validation < 1``.
        salt : int
            The same for all ``folds`` divisions; another salt gives other parts.

        Raises
        ------
        SettingError
            If a value is not one of these.

        Examples
        --------
        >>> identity = event_identity([np.arange(6)])
        >>> [Split.k_fold(3, fold).assign(identity).tolist() for fold in range(3)]
        [[0, 2, 0, 0, 2, 2], [2, 0, 0, 0, 0, 0], [0, 1, 2, 2, 0, 0]]
        """
        _check_integer("split.folds", folds, 2)
        return cls(test=1 / folds, validation=validation, salt=salt, folds=folds, fold=fold)

    def assign(self, identity: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
        """Return each event's fold.

        Parameters
        ----------
        identity : uint64 array of shape ``[n]``
            From :func:`event_identity` or :func:`entry_identity`.

        Returns
        -------
        uint8 array of shape ``[n]``
            Index into :data:`FOLDS`: 0 train, 1 validation, 2 test.
        """
        folds = np.zeros(len(identity), np.uint8)
        if self.folds is None or self.fold is None:
            test = _bound(self.test)
            validation = _bound(self.test + self.validation)
        else:
            start, stop = (_edge(edge, self.folds) for edge in (self.fold, self.fold + 1))
            # The test part is turned to the beginning of the circle of 2^64 numbers; validation events are those that follow it.
            identity = identity - np.uint64(start)
            test = np.uint64(stop - start)
            validation = np.uint64(stop - start + int(self.validation * 2**64))
        folds[identity < validation] = 1
        folds[identity < test] = 2
        return folds

    def fold_of(self, identity: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return the fold of a k-fold in which each event is a test event: the number of the one model that has not seen it.

        It is the same for all ``folds`` divisions of one salt.

        Parameters
        ----------
        identity : uint64 array of shape ``[n]``
            From :func:`event_identity` or :func:`entry_identity`, with this split's salt.

        Returns
        -------
        int64 array of shape ``[n]``
            From 0 to ``folds - 1``.

        Raises
        ------
        SettingError
            If this is no division of a k-fold.

        Examples
        --------
        >>> Split.k_fold(4, 0).fold_of(np.array([0, 2**62, 2**63, 2**64 - 1], np.uint64))
        array([0, 1, 2, 3])
        """
        if self.folds is None:
            raise SettingError("split.folds", "an integer ≥ 2: only a k-fold has a model for each event", self.folds)
        inner = np.array([_edge(edge, self.folds) for edge in range(1, self.folds)], np.uint64)
        return np.searchsorted(inner, identity, side="right").astype(np.int64, copy=False)

    def share(self, fold: Fold | None) -> float:
        """Return the share of all events that a fold is expected to have; 1 for None, which is all."""
        shares = {"test": self.test, "validation": self.validation, "train": 1 - self.test - self.validation}
        return 1.0 if fold is None else shares[fold]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, with the version of the hash, as plain values for JSON; ``folds`` and ``fold`` only of a k-fold."""
        settings = {name: value for name, value in asdict(self).items() if value is not None}
        return settings | {"hash_version": HASH_VERSION}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Split:
        """Make the split from what :meth:`to_dict` gave, or from some of its settings by hand; of a k-fold ``test`` may be left out.

        Raises
        ------
        SettingError
            If a name is not known, a value is not what it must be, or the events were divided by another version of the hash.

        Examples
        --------
        >>> Split.from_dict({"test": 0.3, "validation": 0.2})
        Split(test=0.3, validation=0.2, salt=0, folds=None, fold=None)
        >>> Split.from_dict(Split.k_fold(5, 2).to_dict()) == Split.k_fold(5, 2)
        True
        """
        values = dict(settings)
        if values.pop("hash_version", HASH_VERSION) != HASH_VERSION:
            raise SettingError("split.hash_version", str(HASH_VERSION), settings["hash_version"])
        known = cls.__dataclass_fields__
        for name, value in values.items():
            if name not in known:
                raise SettingError(f"split.{name}", f"one of {', '.join(known)}", value)
        folds = values.get("folds")
        if folds is not None and "test" not in values:
            _check_integer("split.folds", folds, 2)
            values["test"] = 1 / folds
        return cls(**values)

    def _check_folds(self) -> None:
        if self.folds is None:
            if self.fold is not None:
                raise SettingError("split.fold", "given together with split.folds", self.fold)
            return
        _check_integer("split.folds", self.folds, 2)
        _check_integer("split.fold", self.fold, 0, self.folds - 1)
        if self.test != 1 / self.folds:
            raise SettingError("split.test", f"1/{self.folds}, since split.folds is {self.folds}", self.test)


def event_identity(identifiers: Sequence[npt.NDArray[Any]], salt: int = 0) -> npt.NDArray[np.uint64]:
    """Hash events' identifiers to numbers that are spread evenly over 64 bits.

    Parameters
    ----------
    identifiers : sequence of integer arrays of shape ``[n]``
        For each identifier its values; the order of the identifiers counts.
    salt : int
        Another salt gives independent numbers.

    Returns
    -------
    uint64 array of shape ``[n]``

    References
    ----------
    The mixing is the finaliser of SplitMix64: G. Steele et al., OOPSLA 2014, https://doi.org/10.1145/2714064.2660195.

    Examples
    --------
    >>> event_identity([np.array([1, 1]), np.array([7, 8])])
    array([8793733114004538096,   67548355532099588], dtype=uint64)
    """
    state = np.full(len(identifiers[0]), _mix_scalar(salt), np.uint64)
    for values in identifiers:
        state ^= values.astype(np.int64).view(np.uint64) if values.dtype.kind in "ib" else values.astype(np.uint64)
        _mix(state)
    return state


def entry_identity(file_uuid: str, entries: npt.NDArray[np.int64], salt: int = 0) -> npt.NDArray[np.uint64]:
    """Hash the file's uuid and the entry, where events have no identifiers.

    Parameters
    ----------
    file_uuid : str
        Of the file; any text will do where a format has no uuid.
    entries : int64 array of shape ``[n]``
        Positions of the events in their file.
    salt : int
        Another salt gives independent numbers.

    Returns
    -------
    uint64 array of shape ``[n]``
    """
    try:
        number = uuid.UUID(file_uuid).int
    except ValueError:
        number = uuid.uuid5(uuid.NAMESPACE_URL, file_uuid).int
    halves = [np.full(len(entries), part, np.uint64) for part in (number >> 64, number & (2**64 - 1))]
    return event_identity([*halves, entries], salt)


def _bound(fraction: float) -> np.uint64:
    return np.uint64(min(int(fraction * 2**64), 2**64 - 1))


def _edge(edge: int, folds: int) -> int:
    """Return where part ``edge`` of equal parts of the 2^64 numbers begins."""
    return 2**64 * edge // folds


def _check_integer(name: str, value: object, least: int, largest: int | None = None) -> None:
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and least <= value
        and (largest is None or value <= largest)
    ):
        return
    raise SettingError(
        name, f"an integer ≥ {least}" if largest is None else f"an integer from {least} to {largest}", value
    )


def _mix(state: npt.NDArray[np.uint64]) -> None:
    """Mix each number in place; a bijection in which every bit depends on every other."""
    state += _GOLDEN
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        state ^= state >> np.uint64(shift)
        state *= multiplier
    state ^= state >> np.uint64(31)


def _mix_scalar(number: int) -> np.uint64:
    state = np.array([number % 2**64], np.uint64)
    _mix(state)
    return np.uint64(state[0])
