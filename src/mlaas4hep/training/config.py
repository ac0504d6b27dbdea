"""What a configuration of ``mlaas4hep train`` may hold: groups of settings, each with its rule, default and line of explanation.

The command line, the commented example, the checks and the documentation all follow from what is declared here.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlaas4hep.settings import choice, flag, integer, names, number, positive, setting, text
from mlaas4hep.settings_rules import by_name, either, listed, plain
from mlaas4hep.training.params import TrainingParams

__all__ = ["GROUPS", "Data", "Output", "Retry", "SplitSettings", "Vector", "Weights"]

PER_FILE = either(listed(positive(), 1), by_name(positive()))
NORMALISATION = choice("minmax", "standard", "robust", "log", "none")
BOUNDS = listed(number(), 2)


@dataclass(frozen=True)
class Data:
    """What is read: files, the events of them that count, and what is learned of each."""

    files: object = setting(
        either(text(), listed(text(), 1)),
        (),
        "paths, folders, patterns, URLs, /store/… names, or a text file with one a line",
        example=["signal.root", "background.root"],
        path=True,
    )
    labels: object = setting(
        either(plain(), listed(plain(), 1)),
        None,
        "one label a file; or a branch or an expression that gives it; none for an autoencoder",
        example=[1, 0],
    )
    target: object = setting(
        either(text(), listed(text(), 1)),
        None,
        "branches or expressions to predict, in place of labels",
        example="GenMET_pt",
    )
    tree: str = setting(text(), "Events", "name of the TTree or RNTuple")
    dtype: str | None = setting(
        choice("root", "parquet", "arrow", "csv", "json", "avro", "hdf5"),
        None,
        "format of the files whatever their extensions",
        example="root",
    )
    branches: object = setting(
        names(), None, "names or patterns of the features; all if not set", example=["Jet_*", "MET_pt"]
    )
    exclude: tuple[str, ...] = setting(
        names(), (), "names or patterns of branches that are no features", example=["HLT_*"]
    )
    identifiers: object = setting(
        names(),
        None,
        "branches that identify an event; run, luminosityBlock and event if not set",
        example=["run", "event"],
    )
    generator_level: str = setting(
        choice("keep", "drop"), "drop", "whether branches that only simulation has may be features"
    )
    max_events: int = setting(integer(1, also=[-1]), -1, "events to use, from each file in proportion; -1 for all")
    selection: str | None = setting(text(), None, "which events are taken", example="nJet >= 2 and MET_pt > 30")
    new_columns: object = setting(
        by_name(text()), None, "new columns: name → expression", example={"HT": "sum(Jet_pt)"}
    )
    object_cuts: object = setting(
        by_name(text()), None, "objects that are taken: collection → condition", example={"Jet": "pt > 30"}
    )
    lumi_mask: str | None = setting(
        text(), None, "JSON file of certified luminosity sections", example="golden.json", path=True
    )
    preproc: str | None = setting(
        text(), None, "Python file with def preprocessing(rec); it is executed", example="preproc.py", path=True
    )
    missing_branch: str = setting(
        choice("error", "fill", "intersect"), "error", "what to do about a branch that some files lack"
    )
    specs: str | None = setting(
        text(), None, "statistics that are known already", example="global-specs.json", path=True
    )
    redirector: object = setting(
        either(text(), listed(text(), 1)), None, "what is put before /store/… names", example="root://host.example/"
    )
    on_bad_file: str = setting(
        choice("fail", "skip", "quarantine"), "fail", "what to do with a file that cannot be read"
    )
    checksums: str | None = setting(
        text(), None, "file as sha256sum writes it, to compare every file with", example="SHA256SUMS", path=True
    )


@dataclass(frozen=True)
class Vector:
    """What the event vector shall be; see docs/encoding.md."""

    normalisation: object = setting(
        either(NORMALISATION, by_name(NORMALISATION)), "standard", "how values are scaled: all, or by name or pattern"
    )
    clip: object = setting(
        either(BOUNDS, by_name(BOUNDS)),
        None,
        "smallest and largest scaled value: of all, or by name or pattern",
        example=[-5, 5],
    )
    layout: str | None = setting(
        choice("flat", "objects"),
        None,
        "branch by branch, or object by object; what the model needs if not set",
        example="flat",
    )
    max_objects: object = setting(
        either(integer(1), by_name(integer(1))), None, "objects of a collection at most", example={"Jet": 4}
    )
    order_by: object = setting(
        either(text(), by_name(text())), None, "member that objects are ordered by; the largest first", example="pt"
    )
    collections: object = setting(
        by_name(either(text(), listed(text(), 1))),
        None,
        "collections whose names do not show them",
        example={"lepton": "lep_*"},
    )


@dataclass(frozen=True)
class Weights:
    """How events are weighted; see docs/weights.md. Metrics use the signed weights of physics."""

    branch: str | None = setting(text(), None, "branch or expression with an event's weight", example="genWeight")
    negative: str = setting(choice("keep", "abs", "drop", "error"), "keep", "what training does with negative weights")
    cross_sections: object = setting(
        PER_FILE, None, "in pb: one a file, or by name or pattern", example={"VBF*": 0.237}
    )
    luminosity: float | None = setting(positive(), None, "integrated, in 1/pb", example=59_000)
    sum_of_weights: object = setting(
        either(choice("runs"), PER_FILE), None, "of all generated events; from the tree Runs if not set", example="runs"
    )
    samples: object = setting(listed(text(), 1), None, "name of each file's sample", example=["VBF", "ggH"])
    balance_classes: bool = setting(flag(), False, "whether the weights of every class add up to the same")
    flatten: object = setting(
        by_name(either(integer(2), listed(number(), 3))),
        None,
        "columns whose distribution becomes flat: name → bins or edges",
        example={"MET_pt": 20},
    )


@dataclass(frozen=True)
class SplitSettings:
    """How events are divided, by their identity: the same event is always in the same part."""

    test: float | None = setting(
        number(0, 1), None, "share of the events that is judged once, at the end; 0.2 if not set", example=0.2
    )
    validation: float = setting(number(0, 1), 0.1, "share that stops the training and chooses the epoch")
    salt: int = setting(integer(0), 0, "another one gives another division")
    folds: int | None = setting(
        integer(2), None, "k of a k-fold: k models, each event judged by the one that has not seen it", example=5
    )
    fold: int | None = setting(integer(0), None, "train only this model of a k-fold", example=0)


@dataclass(frozen=True)
class Retry:
    """How often a fault of the network is met with another attempt."""

    attempts: int = setting(integer(1), 3, "attempts at one location, the first included")
    first_wait: float = setting(number(0), 1.0, "seconds before the second one, doubled each time")
    longest_wait: float = setting(number(0), 30.0, "seconds between two at most")
    total_time: float = setting(number(0), 300.0, "seconds after which no further one begins")


@dataclass(frozen=True)
class Output:
    """What is written, and where."""

    folder: str = setting(
        text(), "trained", "folder of the bundle, metrics.json, plots and config.resolved.yaml", path=True
    )
    name: str = setting(text(), "model", "name of the model: the bundle is NAME.tar.gz")
    description: str = setting(text(), "", "one line for people, kept in the bundle")
    checkpoints: bool = setting(flag(), True, "whether checkpoints and the framework's own file are kept")


GROUPS: dict[str, type] = {
    "data": Data,
    "vector": Vector,
    "weights": Weights,
    "split": SplitSettings,
    "training": TrainingParams,
    "output": Output,
    "retry": Retry,
}
"""Name of each group → its settings; the group ``model`` depends on the model's name."""
