"""The configuration: every setting is declared, checked, written as an example, and has an effect."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import yaml

import mlaas4hep
from mlaas4hep.errors import SettingError, SourceError, UnknownSettingError
from mlaas4hep.streaming.access.retry import RetryPolicy
from mlaas4hep.streaming.splitting import Split
from mlaas4hep.streaming.stream.stream_settings import StreamSettings
from mlaas4hep.streaming.weights.weighting import Weighting
from mlaas4hep.training.config import GROUPS
from mlaas4hep.training.config_example import example_configuration
from mlaas4hep.training.configuration import read_configuration
from mlaas4hep.training.configured import open_configured
from mlaas4hep.training.frameworks.base import FitSettings
from mlaas4hep.training.models import BUILT_IN, built_in_model
from mlaas4hep.training.params import TrainingParams


def names_of(kind):
    return {item.name for item in dataclasses.fields(kind)}


def test_every_argument_of_open_can_be_set():
    arguments = set(inspect.signature(mlaas4hep.open).parameters) - {"progress", "split", "weights", "retry"}
    assert arguments == names_of(GROUPS["data"]) | names_of(GROUPS["vector"])
    assert names_of(GROUPS["weights"]) == names_of(Weighting)
    assert names_of(GROUPS["split"]) == names_of(Split)
    assert names_of(GROUPS["retry"]) <= names_of(RetryPolicy)


def test_no_setting_of_the_training_is_without_effect():
    params = TrainingParams()
    effective = {*params.of_stream(), *params.of_fit(FitSettings)}
    assert effective == names_of(TrainingParams)
    assert set(params.of_stream()) <= names_of(StreamSettings)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_the_declared_settings_of_a_model_are_the_arguments_of_its_function(name):
    pytest.importorskip("torch")
    given = {"idim", "classes", "targets", "outputs", "encoding", "task"}
    parameters = inspect.signature(built_in_model(name)).parameters
    declared = {item.name: item.default for item in dataclasses.fields(BUILT_IN[name].settings)}
    for of_the_job in ("parameter", "signal"):
        declared.pop(of_the_job, None)
    assert declared == {key: value.default for key, value in parameters.items() if key not in given}


def test_names_of_arguments_are_unambiguous_among_the_groups_that_open_takes():
    groups = [names_of(GROUPS[name]) for name in ("data", "vector")]
    assert not groups[0] & groups[1]


@pytest.mark.parametrize("model", sorted(BUILT_IN))
def test_the_example_is_read_and_sets_nothing_but_defaults(tmp_path, model):
    file = tmp_path / "config.yaml"
    file.write_text(example_configuration(model))
    found = read_configuration(file)
    default = read_configuration(
        overrides=["data.files=[signal.root, background.root]", "data.labels=[1, 0]", f"model={model}"]
    )
    assert found.to_dict() == default.to_dict()
    assert found.model == model


def test_the_example_shows_every_setting_with_an_example_that_keeps_its_rule(tmp_path):
    text = example_configuration()
    active = "\n".join(
        line.replace("# ", "", 1) if line.startswith("  # ") and is_setting(line[4:]) else line
        for line in text.splitlines()
    )
    file = tmp_path / "all.yaml"
    file.write_text(active)
    values = yaml.safe_load(active)
    for group, kind in GROUPS.items():
        shown = set(values[group])
        assert shown >= names_of(kind) - {"description"}, group
    found = read_configuration(file)  # so every example keeps its rule
    assert found.data.selection == "nJet >= 2 and MET_pt > 30"


def is_setting(text):
    name, colon, _ = text.partition(":")
    return bool(colon) and any(name in names_of(kind) for kind in [*GROUPS.values(), BUILT_IN["mlp"].settings])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "training: {epochs: ten}",
            r"setting 'training.epochs' must be an integer ≥ 1; got 'ten' \(.*c.yaml, line 2\)",
        ),
        ("training: {epoch: 3}", r"no setting 'training.epoch'; nearest: 'training.epochs'.* \(.*c.yaml, line 2\)"),
        ("trainig: {epochs: 3}", r"no setting 'trainig'; nearest: 'training'.* \(.*c.yaml, line 2\)"),
        ("epochs: 3", r"no setting 'epochs'; nearest: .*'training.epochs'.* \(.*c.yaml, line 2\)"),
        ("training: 3", r"setting 'training' must be a group of settings by name; got 3 \(.*c.yaml, line 2\)"),
        ("model: {name: mpl}", r"setting 'model.name' must be one of 'mlp', .*; got 'mpl' \(.*c.yaml, line 2\)"),
        (
            "model: {name: mlp, hidden: [64, big]}",
            r"'model.hidden' must be a list of at least 1, each an integer ≥ 1; got .*line 2",
        ),
        ("model: {name: mlp, heads: 2}", r"no setting 'model.heads'; .*line 2"),
        (
            "model: {name: mlp, file: a.py}",
            r"'model.file' must be left out where there is a model.name; got 'a.py' .*line 2",
        ),
        ("vector: {normalisation: {pt: none, eta: x}}", r"'vector.normalisation' must be 'minmax' or .*line 2"),
        ("split: {test: 1.5}", r"setting 'split.test' must be a number in \[0, 1\); got 1.5 \(.*c.yaml, line 2\)"),
        (
            "weights: {luminosity: -1}",
            r"setting 'weights.luminosity' must be a number > 0; got -1 \(.*c.yaml, line 2\)",
        ),
    ],
)
def test_what_is_wrong_is_said_with_name_rule_value_and_line(tmp_path, line, said):
    file = tmp_path / "c.yaml"
    file.write_text(f"data: {{files: a.root}}\n{line}\n")
    with pytest.raises(SettingError, match=said) as caught:
        read_configuration(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            "vector: {layout: objects, max_objects: {Jett: 2}}",
            r"'vector.layout' must be .*line 3|'vector.max_objects.Jett' .*line 3",
        ),
        ("split: {test: 0.6, validation: 0.5}", r"split.test \+ split.validation' must be less than 1.*line 3"),
        ("split: {folds: 3, fold: 3}", r"'split.fold' must be an integer from 0 to 2; got 3 .*line 3"),
        ("split: {folds: 3, fold: 0, test: 0.2}", r"'split.test' must be left out .*line 3"),
        (
            "weights: {luminosity: 3}",
            r"'weights.luminosity' must be left out without weights.cross_sections; got 3.0 .*line 3",
        ),
        ("weights: {branch: met}", r"met"),
    ],
)
def test_what_only_the_dataset_finds_wrong_has_its_full_name_and_line_too(class_files, tmp_path, lines, said):
    file = tmp_path / "c.yaml"
    file.write_text(f"data:\n  {{files: [{', '.join(class_files)}], labels: [0, 1]}}\n{lines}\n")
    configuration = read_configuration(file)
    with pytest.raises((SettingError, mlaas4hep.errors.MLaaS4HEPError), match=said), configuration.explaining():
        _ = open_configured(configuration).encoding


def test_settings_reach_the_dataset(class_files, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(
        f"""
data:
  files: [{", ".join(class_files)}]
  labels: [background, signal]
  branches: [MET_pt, HT, Jet_pt]
  new_columns: {{HT: sum(Jet_pt)}}
  selection: MET_pt > 10
vector: {{normalisation: {{MET_pt: log}}, max_objects: 2, clip: [-3, 3]}}
weights: {{branch: genWeight, negative: abs, balance_classes: true}}
split: {{folds: 4, fold: 1, validation: 0.15, salt: 5}}
retry: {{attempts: 1}}
"""
    )
    dataset = open_configured(read_configuration(file))
    assert dataset.split == Split.k_fold(4, 1, validation=0.15, salt=5)
    assert dataset.classes == ("background", "signal")
    assert str(dataset.selection) != ""
    assert dataset.weighting == Weighting("genWeight", negative="abs", balance_classes=True)
    assert dataset.catalog.faults.retry.attempts == 1 if hasattr(dataset.catalog, "faults") else True
    encoding = dataset.encoding
    assert encoding.columns == ("HT", "MET_pt", "Jet_pt_0", "Jet_pt_1")
    assert [feature.transform for feature in encoding.features] == ["linear", "log", "linear"]
    assert all(feature.clip == (-3, 3) for feature in encoding.features)


def test_the_layout_follows_the_model_unless_it_is_set():
    def layout(*overrides):
        return read_configuration(overrides=["data.labels=x", *overrides]).vector.layout

    assert layout("model=transformer") is None
    assert layout("model=transformer", "vector.layout=flat") == "flat"


def test_the_resolved_settings_mean_the_same_again(tmp_path):
    overrides = [
        "data.files=[a.root, /data/b.root]",
        "data.labels=[1, 0]",
        "vector.clip=[-5, 5]",
        "weights.flatten={MET_pt: [0, 10, 20]}",
        "model=transformer",
        "model.heads=2",
        "training.epochs=7",
        "split.test=0",
    ]
    first = read_configuration(overrides=overrides)
    file = tmp_path / "config.resolved.yaml"
    file.write_text(first.to_yaml())
    again = read_configuration(file)
    assert again.to_dict() == first.to_dict()
    assert (again.model, again.split.test, again.training) == ("transformer", 0.0, first.training)
    assert again.model_settings == first.model_settings


def test_what_others_see_tells_no_folders():
    found = read_configuration(
        overrides=[
            "data.files=[/home/me/a.root]",
            "model=/home/me/m.py",
            "output.folder=/home/me/out",
            "training.cache=/home/me/cache",
        ]
    ).to_dict(public=True)
    assert "/home/me" not in str(found)
    assert found["data"]["files"] == ["a.root"]
    assert found["model"] == {"file": "m.py"}


def test_without_labels_the_model_is_the_autoencoder_unless_another_is_named():
    assert read_configuration(overrides=["data.files=a.root"]).model == "autoencoder"
    assert read_configuration(overrides=["data.files=a.root", "data.target=met"]).model == "mlp"
    assert read_configuration(overrides=["data.files=a.root", "data.labels=[1]"]).model == "mlp"


def test_a_model_named_on_the_command_line_takes_the_place_of_the_files_with_its_settings(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("model: {name: mlp, hidden: [8]}\n")
    assert read_configuration(file, ["model=trees"]).model_settings["depth"] == 5
    assert read_configuration(file, ["model.dropout=0"]).model_settings["hidden"] == (8,)


def test_no_files_are_said_as_a_setting():
    with pytest.raises(SettingError, match=r"'data.files' must be set"):
        open_configured(read_configuration())


def test_errors_of_the_file_itself_go_up(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        read_configuration(tmp_path / "nowhere.yaml")
    with pytest.raises(UnknownSettingError, match="on the command line"):
        read_configuration(overrides=["training.epoch=3"])
