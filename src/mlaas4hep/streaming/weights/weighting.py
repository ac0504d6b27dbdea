"""Settings of weights: which there are, and what each must be. What they lead to is in :mod:`mlaas4hep.streaming.weights.weights`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from mlaas4hep.errors import SettingError, UnknownSettingError

__all__ = ["NegativeRule", "PerFile", "Weighting"]

NegativeRule = Literal["keep", "abs", "drop", "error"]

PerFile = Sequence[float] | Mapping[str, float]
"""One number a file in the files' order, or by name; see :class:`Weighting`."""

MAX_BINS = 1000


@dataclass(frozen=True)
class Weighting:
    """How events are weighted.

    The physics weight of an event is its ``branch`` times ``cross_sections`` × ``luminosity`` / ``sum_of_weights``; metrics use it as it is. The
    training weight is made of it: first the rule for negative weights, then flattening, then balancing, then a factor that makes the mean 1.

    Parameters
    ----------
    branch : str, optional
        Column or expression with one weight an event (``"genWeight"``, ``"genWeight * puWeight"``); 1 when not given.
    negative : {"keep", "abs", "drop", "error"}
        What training does with a negative weight: take it as it is, take its absolute value, leave the event out, or refuse.
    cross_sections : sequence or mapping of float, optional
        In pb. A sequence has one number a file. A mapping has names: those in ``samples`` where that is given, else of files (as they were opened, or
        the last part of that) or patterns of them (``"DYJets_*"``).
    luminosity : float, optional
        Integrated luminosity in 1/pb; 1 when not given, which makes the weights cross sections in pb.
    sum_of_weights : "runs", or sequence or mapping of float, optional
        What each sample is divided by: the sum over all events that were generated. ``"runs"``, which is also what no value means, reads it from each
        file's tree ``Runs`` (``genEventSumw``; ``genEventCount`` when there is no ``branch``). A sequence has each file's own sum, a mapping the sum
        over all files that a name stands for.
    samples : sequence of str, optional
        The name of each file's sample: files of the same name were generated as one, so their sums of weights are added. When not given, files
        with the same pattern in ``cross_sections`` are one sample, and else files with the same label and cross section.
    balance_classes : bool
        Whether the training weights of every class add up to the same.
    flatten : mapping of str to int or sequence of float
        One or two columns or expressions, each with a number of bins (edges are chosen such that training events are equally many in each) or with
        rising edges. Within each class the weighted distribution over these bins becomes flat. What is below the first or above the last edge counts
        in the first and last bin; events without a value (NaN) are a bin of their own.

    Raises
    ------
    SettingError
        If a setting has a value that it must not have, or needs another one that is missing.

    Examples
    --------
    >>> Weighting("genWeight", negative="abs", cross_sections={"VBF*": 0.237, "GluGlu*": 3.05}, luminosity=11467.0).luminosity
    11467.0
    """

    branch: str | None = None
    negative: NegativeRule = "keep"
    cross_sections: PerFile | None = None
    luminosity: float | None = None
    sum_of_weights: Literal["runs"] | PerFile | None = None
    samples: Sequence[str] | None = None
    balance_classes: bool = False
    flatten: Mapping[str, int | Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.branch is not None and (not isinstance(self.branch, str) or not self.branch.strip()):
            raise SettingError("weights.branch", "the name of a branch, or an expression", self.branch)
        if self.negative not in get_args(NegativeRule):
            raise SettingError("weights.negative", "'keep', 'abs', 'drop' or 'error'", self.negative)
        if not isinstance(self.balance_classes, bool):
            raise SettingError("weights.balance_classes", "true or false", self.balance_classes)
        self._set("cross_sections", _per_file("weights.cross_sections", "pb", self.cross_sections))
        if self.sum_of_weights != "runs":
            self._set("sum_of_weights", _per_file("weights.sum_of_weights", "", self.sum_of_weights))
        if self.luminosity is not None and not _positive(self.luminosity):
            raise SettingError("weights.luminosity", "a positive number of 1/pb", self.luminosity)
        if self.samples is not None:
            if isinstance(self.samples, str) or not all(isinstance(name, str) and name for name in self.samples):
                raise SettingError("weights.samples", "a list with the name of each file's sample", self.samples)
            self._set("samples", tuple(self.samples))
        if self.cross_sections is None:
            for name in ("luminosity", "sum_of_weights", "samples"):
                if getattr(self, name) is not None:
                    raise SettingError(
                        f"weights.{name}", "left out without weights.cross_sections", getattr(self, name)
                    )
        self._set("flatten", _flatten(self.flatten))

    def __bool__(self) -> bool:
        """Whether it makes any weight other than 1."""
        return bool(self.branch is not None or self.cross_sections is not None or self.balance_classes or self.flatten)

    @property
    def columns(self) -> tuple[str, ...]:
        """What must be read of each event."""
        return tuple(dict.fromkeys((*(() if self.branch is None else (self.branch,)), *self.flatten)))

    @classmethod
    def from_value(cls, value: str | Mapping[str, Any] | Weighting | None) -> Weighting:
        """Make it from what a person writes: the name of a branch, settings by name, or nothing.

        Raises
        ------
        SettingError
            If it is something else, or a setting is not known or has a value that it must not have.

        Examples
        --------
        >>> Weighting.from_value("genWeight").branch
        'genWeight'
        """
        if isinstance(value, Weighting):
            return value
        if value is None:
            return cls()
        if isinstance(value, str):
            return cls(branch=value)
        if not isinstance(value, Mapping):
            raise SettingError("weights", "the name of a branch, or settings by name", value)
        known = [one.name for one in fields(cls)]
        for name in value:
            if name not in known:
                raise UnknownSettingError(f"weights.{name}", [f"weights.{one}" for one in known])
        return cls(**value)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values for JSON; :meth:`from_value` takes them back."""
        plain = asdict(self)
        for name in ("cross_sections", "sum_of_weights", "samples"):
            if isinstance(plain[name], tuple):
                plain[name] = list(plain[name])
        plain["flatten"] = {name: bins if isinstance(bins, int) else list(bins) for name, bins in self.flatten.items()}
        return plain

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _per_file(setting: str, unit: str, given: Any) -> tuple[float, ...] | dict[str, float] | None:
    if given is None:
        return None
    number = f"positive number{' of ' + unit if unit else ''}"
    if isinstance(given, Mapping):
        for name, value in given.items():
            if not isinstance(name, str) or not _positive(value):
                raise SettingError(f"{setting}.{name}", f"a {number}", value)
        return {name: float(value) for name, value in given.items()}
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(_positive(value) for value in given):
        also = ", or 'runs'" if setting.endswith("sum_of_weights") else ""
        raise SettingError(setting, f"one {number} a file, or by name{also}", given)
    return tuple(float(value) for value in given)


def _flatten(given: Any) -> dict[str, int | tuple[float, ...]]:
    rule = f"one or two columns, each with a number of bins from 2 to {MAX_BINS}, or with at least 3 rising edges"
    if given is None:
        return {}
    if not isinstance(given, Mapping) or len(given) > 2:
        raise SettingError("weights.flatten", rule, given)
    found: dict[str, int | tuple[float, ...]] = {}
    for name, bins in given.items():
        if isinstance(bins, int) and not isinstance(bins, bool) and 2 <= bins <= MAX_BINS:
            found[name] = bins
        elif isinstance(bins, Sequence) and not isinstance(bins, str) and _rising(bins):
            found[name] = tuple(float(edge) for edge in bins)
        else:
            raise SettingError(f"weights.flatten.{name}", rule.partition("each with ")[2], bins)
    return found


def _rising(edges: Sequence[Any]) -> bool:
    numbers = all(isinstance(edge, (int, float)) and math.isfinite(edge) for edge in edges)
    return numbers and 3 <= len(edges) <= MAX_BINS + 1 and all(low < high for low, high in itertools.pairwise(edges))
