from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from mlaas4hep.errors import SettingError, SourceError, UnknownSettingError
from mlaas4hep.streaming.formats import open_reader
from mlaas4hep.streaming.formats.base import Reader
from mlaas4hep.streaming.weights.cross_sections import file_weights, samples_of, weighting_of_some_files
from mlaas4hep.streaming.weights.weighting import Weighting

FILES = ["data/VBF_1.root", "data/VBF_2.root", "data/DY_1.root"]


def never(place: int) -> Any:
    raise AssertionError("no file is opened")


@pytest.fixture
def simulated(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a file with events and the sums over those that were generated."""

    def write(name: str, sums: Sequence[float], counts: Sequence[int], branch: str = "genEventSumw") -> str:
        path = tmp_path / name
        with uproot.recreate(path) as file:
            file.mktree("Events", {"genWeight": np.dtype(np.float32)})
            file["Events"].extend({"genWeight": np.ones(3, np.float32)})
            if sums:
                file.mktree("Runs", {branch: np.dtype(np.float64), "genEventCount": np.dtype(np.int64)})
                file["Runs"].extend({branch: np.array(sums, float), "genEventCount": np.array(counts)})
        return str(path)

    return write


def opener(files: Sequence[str]) -> Callable[[int], Any]:
    @contextmanager
    def open_runs(place: int) -> Iterator[Reader]:
        with closing(open_reader(files[place], "Runs")) as reader:
            yield reader

    return open_runs


def test_without_cross_sections_every_factor_is_one() -> None:
    assert file_weights(Weighting("genWeight"), FILES, (), never).tolist() == [1.0] * 3


def test_the_sum_is_over_all_rows_of_runs_and_all_files_of_the_sample(simulated: Callable[..., str]) -> None:
    files = [
        simulated("VBF_1.root", [100.0, 50.0], [110, 60]),
        simulated("VBF_2.root", [50.0], [55]),
        simulated("DY_1.root", [-10.0, 30.0], [1, 3]),
    ]
    weighting = Weighting("genWeight", cross_sections={"VBF_*": 0.5, "DY_*": 6077.0}, luminosity=1000.0)
    found = file_weights(weighting, files, (), opener(files))
    np.testing.assert_allclose(found, [0.5 * 1000 / 200, 0.5 * 1000 / 200, 6077.0 * 1000 / 20])
    by_number = Weighting("genWeight", cross_sections=[0.5, 0.5, 6077.0], luminosity=1000.0, sum_of_weights="runs")
    np.testing.assert_allclose(file_weights(by_number, files, [1, 1, 0], opener(files)), found)


def test_without_a_branch_of_weights_generated_events_are_counted(simulated: Callable[..., str]) -> None:
    files = [simulated("a.root", [100.0, 50.0], [110, 60])]
    assert file_weights(Weighting(cross_sections=[17.0]), files, (), opener(files)).tolist() == [0.1]


def test_the_name_that_some_versions_of_nanoaod_have_is_understood(simulated: Callable[..., str]) -> None:
    files = [simulated("a.root", [4.0], [1], branch="genEventSumw_")]
    assert file_weights(Weighting("w", cross_sections=[1.0]), files, (), opener(files)).tolist() == [0.25]


@pytest.mark.parametrize(
    ("sums", "branch", "message"),
    [
        ([], "", "which has no tree 'Runs'"),
        ([1.0], "other", "whose tree 'Runs' has no branch 'genEventSumw'"),
    ],
)
def test_a_file_without_the_sum_is_named_with_the_setting(
    simulated: Callable[..., str], sums: list[float], branch: str, message: str
) -> None:
    files = [simulated("a.root", [4.0], [1]), simulated("b.root", sums, [1] * len(sums), branch)]
    with pytest.raises(SettingError, match=rf"setting 'weights.sum_of_weights' .*b.root, {message}"):
        file_weights(Weighting("genWeight", cross_sections=[1.0, 1.0]), files, (), opener(files))


def test_a_file_that_cannot_be_read_is_a_source_error(tmp_path: Path) -> None:
    files = [str(tmp_path / "none.root")]
    with pytest.raises(SourceError, match=r"none\.root"):
        file_weights(Weighting("genWeight", cross_sections=[1.0]), files, (), opener(files))


@pytest.mark.parametrize("total", [0.0, -3.0, np.nan])
def test_a_sum_that_is_not_positive_is_an_error_that_names_the_sample(
    simulated: Callable[..., str], total: float
) -> None:
    files = [simulated("VBF_1.root", [total], [1])]
    with pytest.raises(SettingError, match=r"'weights.sum_of_weights' must be positive for sample 'VBF\*'"):
        file_weights(Weighting("genWeight", cross_sections={"VBF*": 1.0}), files, (), opener(files))


def test_given_sums_are_each_files_own_or_those_of_all_files_of_a_name() -> None:
    crossed: Any = {"VBF_*": 2.0, "DY_1.root": 10.0}
    expected = [2.0 / 40, 2.0 / 40, 10.0 / 5]
    for sums in (
        [10.0, 30.0, 5.0],
        {"VBF_*": 40.0, "data/DY_1.root": 5.0},
        {"VBF_1.root": 10.0, "*_2.root": 30.0, "D*": 5.0},
    ):
        found = file_weights(Weighting(cross_sections=crossed, sum_of_weights=sums), FILES, (), never)
        np.testing.assert_allclose(found, expected)


def test_samples_can_be_named_file_by_file() -> None:
    weighting = Weighting(
        cross_sections={"vbf": 2.0, "dy": 10.0}, samples=["vbf", "vbf", "dy"], sum_of_weights={"vbf": 40.0, "dy": 5.0}
    )
    assert samples_of(weighting, FILES) == ("vbf", "vbf", "dy")
    np.testing.assert_allclose(file_weights(weighting, FILES, (), never), [0.05, 0.05, 2.0])


def test_files_of_one_cross_section_but_another_label_or_pattern_are_samples_of_their_own() -> None:
    ones = Weighting(cross_sections=[1.0, 1.0, 1.0], sum_of_weights=[1.0, 3.0, 5.0])
    np.testing.assert_allclose(file_weights(ones, FILES, [1, 1, 0], never), [0.25, 0.25, 0.2])
    patterns = Weighting(cross_sections={"VBF*": 1.0, "DY*": 1.0}, sum_of_weights=[1.0, 3.0, 5.0])
    np.testing.assert_allclose(file_weights(patterns, FILES, (), never), [0.25, 0.25, 0.2])


@pytest.mark.parametrize(
    "settings",
    [
        {"cross_sections": [2.0, 2.0, 10.0], "sum_of_weights": [1.0, 3.0, 5.0]},
        {"cross_sections": {"V*": 2.0, "DY_1.root": 10.0}, "sum_of_weights": {"*_2.root": 3.0, "*_1.root": 1.0}},
        {
            "cross_sections": {"vbf": 2.0, "dy": 10.0},
            "samples": ["vbf", "vbf", "dy"],
            "sum_of_weights": {"vbf": 3.0, "dy": 5.0},
        },
    ],
)
def test_where_files_are_left_out_the_numbers_of_the_others_stay(settings: dict[str, Any]) -> None:
    left = weighting_of_some_files(Weighting(**settings), FILES, [1])
    assert file_weights(left, FILES[1:2], (), never).tolist() == [2.0 / 3.0]
    assert weighting_of_some_files(Weighting("w"), FILES, [1]) == Weighting("w")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cross_sections": [1.0]}, "'weights.cross_sections' must be one number for each of the 3 files"),
        ({"cross_sections": {"VBF*": 1.0}}, "must be a name or pattern that means data/DY_1.root, and only one"),
        ({"cross_sections": {"*": 1.0, "DY*": 2.0}}, r"means data/DY_1.root, and only one; got \['\*', 'DY\*'\]"),
        ({"cross_sections": {"*": 1.0, "TT*": 2.0}}, r"names and patterns that mean a file each; got \['TT\*'\]"),
        (
            {"cross_sections": [1.0] * 3, "sum_of_weights": [1.0]},
            "'weights.sum_of_weights' must be one number for each",
        ),
        ({"cross_sections": [1.0, 2.0, 3.0], "samples": ["a", "a", "b"]}, "the same for all files of sample 'a'"),
        ({"cross_sections": {"a": 1.0}, "samples": ["a", "a", "b"]}, "one number for each of the samples 'a', 'b'"),
        ({"cross_sections": [1.0] * 3, "samples": ["a"]}, "'weights.samples' must be one name for each of the 3 files"),
        ({"cross_sections": [1.0, 2.0, 3.0], "sum_of_weights": {"*": 1.0}}, "a name of files of one sample"),
    ],
)
def test_numbers_that_do_not_fit_the_files_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        file_weights(Weighting(**settings), FILES, (), never)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"branch": ""}, "'weights.branch' must be the name of a branch"),
        ({"negative": "ignore"}, "'weights.negative' must be 'keep', 'abs', 'drop' or 'error'"),
        ({"balance_classes": 1}, "'weights.balance_classes' must be true or false"),
        ({"cross_sections": [0.0]}, "'weights.cross_sections' must be one positive number of pb a file"),
        ({"cross_sections": 3.0}, "'weights.cross_sections' must be one positive number of pb a file"),
        ({"cross_sections": {"a": float("inf")}}, "'weights.cross_sections.a' must be a positive number of pb"),
        ({"cross_sections": [1.0], "sum_of_weights": "events"}, "by name, or 'runs'; got 'events'"),
        ({"cross_sections": [1.0], "luminosity": -1.0}, "'weights.luminosity' must be a positive number of 1/pb"),
        ({"cross_sections": [1.0], "samples": "a"}, "'weights.samples' must be a list"),
        ({"luminosity": 1.0}, "'weights.luminosity' must be left out without weights.cross_sections"),
        ({"sum_of_weights": "runs"}, "'weights.sum_of_weights' must be left out without"),
        ({"flatten": {"a": 2, "b": 2, "c": 2}}, "'weights.flatten' must be one or two columns"),
        ({"flatten": {"a": 1}}, "'weights.flatten.a' must be a number of bins from 2 to 1000"),
        ({"flatten": {"a": [0.0, 1.0]}}, "'weights.flatten.a' must be"),
        ({"flatten": {"a": [0.0, 2.0, 1.0]}}, "with at least 3 rising edges"),
        ({"flatten": {"a": [0.0, 1.0, float("nan")]}}, "rising edges"),
    ],
)
def test_a_setting_that_is_not_as_it_must_be_is_named_with_its_rule(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Weighting(**settings)


def test_weighting_is_made_of_a_name_or_settings_or_nothing_and_comes_back_from_plain_values() -> None:
    assert not Weighting.from_value(None)
    assert Weighting.from_value("genWeight") == Weighting("genWeight")
    settings = {"branch": "w", "flatten": {"pt": [0.0, 1.0, 2.0], "eta": 3}, "cross_sections": [1.0, 2.0]}
    weighting = Weighting.from_value(settings)
    assert Weighting.from_value(weighting) is weighting
    assert weighting.columns == ("w", "pt", "eta")
    assert Weighting.from_value(weighting.to_dict()) == weighting
    with pytest.raises(
        UnknownSettingError, match=r"no setting 'weights.balance'; nearest: .*'weights.balance_classes'"
    ):
        Weighting.from_value({"balance": True})
    wrong: Any = 3
    with pytest.raises(SettingError, match="'weights' must be the name of a branch, or settings by name"):
        Weighting.from_value(wrong)
