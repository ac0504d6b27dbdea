"""The number per file that turns generated events into expected ones: cross section × luminosity / sum of the generated weights.

The sum is over all events that were generated, whether or not they are in the files: it stands in each file's tree ``Runs``, or is given. Summing the
weights of the events that are left after a selection would undo the selection's efficiency.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import SettingError, TreeNotFoundError, nearest_names, quoted
from mlaas4hep.streaming.formats.base import Reader
from mlaas4hep.streaming.weights.weighting import Weighting

__all__ = ["RUNS_TREE", "OpenRuns", "file_weights", "samples_of", "weighting_of_some_files"]

RUNS_TREE = "Runs"
"""NanoAOD's tree with one row for each run, or for each job that generated events."""

SUMS = ("genEventSumw", "genEventSumw_")
COUNTS = ("genEventCount", "genEventCount_")

OpenRuns = Callable[[int], AbstractContextManager[Reader]]
"""Opens the tree ``Runs`` of the file of that index for the time of a ``with`` block."""


def file_weights(
    weighting: Weighting, files: Sequence[str], labels: Sequence[int], open_runs: OpenRuns
) -> npt.NDArray[np.float64]:
    """Return the factor of each file's weights.

    Parameters
    ----------
    weighting : Weighting
    files : sequence of str
        Names of the files.
    labels : sequence of int
        Class of each file; empty where classes do not come from files.
    open_runs : callable
        Opens the tree ``Runs`` of a file; called only where the sums are read from there.

    Returns
    -------
    float64 array of shape ``[files]``
        Cross section [pb] × luminosity [1/pb] / sum of the weights of the file's sample; ones without cross sections.

    Raises
    ------
    SettingError
        If there is no number for a file, one sample has two cross sections, a file has no such tree, or a sum is not positive.
    SourceError
        If a file cannot be read.
    """
    if weighting.cross_sections is None:
        return np.ones(len(files))
    samples = samples_of(weighting, files, labels)
    picobarns = _cross_sections(weighting, files, samples)
    if weighting.sum_of_weights is None or weighting.sum_of_weights == "runs":
        names = COUNTS if weighting.branch is None else SUMS
        totals = _add_up(samples, [_sum_from_runs(open_runs, place, file, names) for place, file in enumerate(files)])
    elif isinstance(weighting.sum_of_weights, Mapping):
        totals = _totals_by_name(weighting.sum_of_weights, files, samples, by_sample=weighting.samples is not None)
    else:
        totals = _add_up(samples, _one_each("weights.sum_of_weights", weighting.sum_of_weights, files))
    for sample, total in totals.items():
        if not (np.isfinite(total) and total > 0):
            raise SettingError(
                "weights.sum_of_weights",
                f"positive for sample '{sample}'; give the numbers where the tree '{RUNS_TREE}' does not hold them",
                total,
            )
    luminosity = 1.0 if weighting.luminosity is None else weighting.luminosity
    return np.array([cross * luminosity / totals[sample] for cross, sample in zip(picobarns, samples, strict=True)])


def samples_of(weighting: Weighting, files: Sequence[str], labels: Sequence[int] = ()) -> tuple[str, ...]:
    """Return the name of each file's sample: files of one name were generated as one.

    Raises
    ------
    SettingError
        If there is no cross section for a file, or not one name for each.

    Examples
    --------
    >>> samples_of(Weighting(cross_sections={"VBF_*": 0.24, "DY_*": 6077.0}), ["VBF_1.root", "VBF_2.root", "DY_1.root"])
    ('VBF_*', 'VBF_*', 'DY_*')
    >>> samples_of(Weighting(cross_sections=[0.24, 0.24, 6077.0]), ["a.root", "b.root", "c.root"], [1, 1, 0])
    ('0.24 pb, class 1', '0.24 pb, class 1', '6077 pb, class 0')
    """
    if weighting.samples is not None:
        if len(weighting.samples) != len(files):
            raise SettingError("weights.samples", f"one name for each of the {len(files)} files", weighting.samples)
        return tuple(weighting.samples)
    crossed = weighting.cross_sections
    if crossed is None:
        raise SettingError("weights.cross_sections", "given, where there are samples", None)
    if isinstance(crossed, Mapping):
        keys = _keys("weights.cross_sections", crossed, files)
        numbers = [crossed[key] for key in keys]
    else:
        keys, numbers = [""] * len(files), _one_each("weights.cross_sections", crossed, files)
    return tuple(
        key if _is_pattern(key) else f"{number:.10g} pb" + (f", class {labels[place]}" if len(labels) else "")
        for place, (key, number) in enumerate(zip(keys, numbers, strict=True))
    )


def weighting_of_some_files(weighting: Weighting, files: Sequence[str], places: Sequence[int]) -> Weighting:
    """Return the settings for some of the files, as when others could not be opened.

    Parameters
    ----------
    weighting : Weighting
    files : sequence of str
        All files, which the settings are of.
    places : sequence of int
        Which of them are left.

    Raises
    ------
    SettingError
        If the settings do not fit all files.

    Examples
    --------
    >>> weighting_of_some_files(Weighting(cross_sections=[0.24, 6077.0]), ["VBF.root", "DY.root"], [1]).cross_sections
    (6077.0,)
    """
    if weighting.cross_sections is None:
        return weighting
    samples = samples_of(weighting, files)

    def of_some(setting: str, numbers: Any) -> Any:
        if numbers is None or numbers == "runs":
            return numbers
        if not isinstance(numbers, Mapping):
            each = _one_each(setting, numbers, files)
            return [each[place] for place in places]
        keys = samples if weighting.samples is not None else _keys(setting, numbers, files)
        return {key: numbers[key] for key in dict.fromkeys(keys[place] for place in places)}

    return replace(
        weighting,
        cross_sections=of_some("weights.cross_sections", weighting.cross_sections),
        sum_of_weights=of_some("weights.sum_of_weights", weighting.sum_of_weights),
        samples=None if weighting.samples is None else [samples[place] for place in places],
    )


def _cross_sections(weighting: Weighting, files: Sequence[str], samples: Sequence[str]) -> list[float]:
    given: Any = weighting.cross_sections
    if not isinstance(given, Mapping):
        numbers = _one_each("weights.cross_sections", given, files)
    elif weighting.samples is not None:
        _same_names("weights.cross_sections", given, samples)
        numbers = [given[sample] for sample in samples]
    else:
        numbers = [given[key] for key in _keys("weights.cross_sections", given, files)]
    of_sample: dict[str, float] = {}
    for sample, number in zip(samples, numbers, strict=True):
        if of_sample.setdefault(sample, number) != number:
            raise SettingError(
                "weights.cross_sections", f"the same for all files of sample '{sample}'", [of_sample[sample], number]
            )
    return numbers


def _totals_by_name(
    sums: Mapping[str, float], files: Sequence[str], samples: Sequence[str], *, by_sample: bool
) -> dict[str, float]:
    setting = "weights.sum_of_weights"
    if by_sample:
        _same_names(setting, sums, samples)
        return {sample: sums[sample] for sample in samples}
    sample_of: dict[str, str] = {}
    for key, sample in zip(_keys(setting, sums, files), samples, strict=True):
        if sample_of.setdefault(key, sample) != sample:
            raise SettingError(
                f"{setting}.{key}", "a name of files of one sample", f"those of '{sample_of[key]}' and '{sample}'"
            )
    return _add_up(list(sample_of.values()), [sums[key] for key in sample_of])


def _sum_from_runs(open_runs: OpenRuns, place: int, file: str, names: Sequence[str]) -> float:
    try:
        with open_runs(place) as reader:
            for name in names:
                if name in reader.columns and not reader.columns[name].jagged:
                    content = reader.read(0, reader.entries, [name])[name].content
                    return float(content.sum(dtype=np.float64))
        problem = f"whose tree '{RUNS_TREE}' has no branch '{names[0]}'"
    except TreeNotFoundError:
        problem = f"which has no tree '{RUNS_TREE}'"
    raise SettingError(
        "weights.sum_of_weights", f"given as one number a file (or by name) for {file}, {problem}", "runs"
    )


def _add_up(samples: Sequence[str], sums: Sequence[float]) -> dict[str, float]:
    totals = dict.fromkeys(samples, 0.0)
    for sample, part in zip(samples, sums, strict=True):
        totals[sample] += part
    return totals


def _one_each(setting: str, numbers: Any, files: Sequence[str]) -> list[float]:
    if len(numbers) != len(files):
        raise SettingError(setting, f"one number for each of the {len(files)} files", list(numbers))
    return list(numbers)


def _same_names(setting: str, numbers: Mapping[str, float], samples: Sequence[str]) -> None:
    if set(numbers) != set(samples):
        raise SettingError(
            setting, f"one number for each of the samples {quoted(dict.fromkeys(samples))}", list(numbers)
        )


def _keys(setting: str, numbers: Mapping[str, float], files: Sequence[str]) -> list[str]:
    """Return for each file the one name in a setting that means it; a full name goes before the last part, and both before patterns."""
    found = []
    for file in files:
        short = file.rpartition("/")[2]
        keys = [key for key in (file, short) if key in numbers][:1] or [
            key for key in numbers if fnmatch.fnmatchcase(file, key) or fnmatch.fnmatchcase(short, key)
        ]
        if len(keys) != 1:
            many = f"a name or pattern that means {file}, and only one"
            nearest = nearest_names(short, numbers)
            raise SettingError(setting, many + (f" (nearest: {quoted(nearest)})" if nearest and not keys else ""), keys)
        found.append(keys[0])
    unused = [key for key in numbers if key not in found]
    if unused:
        raise SettingError(setting, "made of names and patterns that mean a file each", unused)
    return found


def _is_pattern(key: str) -> bool:
    return any(sign in key for sign in "*?[")
