"""``mlaas4hep demo``: the whole flow on two small files, from ROOT to a served prediction."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlaas4hep.demo import Comparison
    from mlaas4hep.streaming.dataset import Dataset
    from mlaas4hep.training.workflow import TrainingResult

__all__ = ["HELP", "add_arguments", "run"]

HELP = "walk through the whole flow: read ROOT files, train, write a bundle, serve it, predict"

CLASSES = {"1": "VBF", "0": "gluon fusion"}
TOLERANCE = 1e-6
AUC_BAND = (0.87, 0.93)
"""What these features allow: a boosted tree reaches 0.885, and far above it an identifier has leaked."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("mlaas4hep-demo"),
        metavar="DIR",
        help="folder for what it writes (default: %(default)s)",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the two Higgs files (default: those of the package)"
    )
    parser.add_argument(
        "--epochs", type=int, default=20, help="passes over the training events at most (default: %(default)s)"
    )
    parser.add_argument(
        "--verbose", type=int, nargs="?", const=1, choices=(0, 1, 2), help="2: show the traceback of an error"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the five steps; 0 only if every comparison held."""
    from mlaas4hep.cli.console import Stopwatch

    clock = Stopwatch()
    arguments.out.mkdir(parents=True, exist_ok=True)
    dataset = read(arguments)
    result = train(arguments, dataset)
    scores = write(arguments, dataset, result)
    comparisons = serve(arguments, dataset, scores)
    return conclude(arguments, result, comparisons, clock.seconds)


def read(arguments: argparse.Namespace) -> Dataset:
    """Step 1: what is in the files."""
    import mlaas4hep
    from mlaas4hep.cli.console import Stopwatch, heading, progress_of_events, show_table
    from mlaas4hep.demo import example_files

    heading("1. Read: two files of simulated Higgs boson decays to tau leptons")
    dataset = mlaas4hep.open(example_files(arguments.data), labels=list(CLASSES), generator_level="drop")
    for file, label in zip(dataset.catalog.files, CLASSES.values(), strict=True):
        print(f"{Path(file.path).name}: {file.entries:,} events, {label}")
    clock = Stopwatch()
    with progress_of_events("Specs") as progress:
        specs = dataset.compute_specs(progress)
    seconds = clock.seconds
    rows = [
        (name, "jagged" if name in specs.jagged else "flat", str(specs.ranges.widest.get(name, 1)), f"{specs.ranges.minimum[name]:.5g}",
         f"{specs.ranges.maximum[name]:.5g}", f"{specs.statistics[name].mean:.5g}")
        for name in (*specs.flat, *specs.jagged)
    ]  # fmt: skip
    show_table(
        ("branch", "kind", "widest", "minimum", "maximum", "mean"),
        rows,
        numbers=("widest", "minimum", "maximum", "mean"),
    )
    rate = dataset.events / seconds / 1000
    print(
        f"{dataset.events:,} events read in {seconds:.2f} s, {rate:.0f} thousand events/s (the first time includes compiling)"
    )
    kinds = f"{len(specs.flat)} flat branches, {len(specs.jagged)} jagged ones padded to the widest training event"
    print(f"{len(dataset.features)} features make {dataset.encoding.width} places: {kinds}")
    for reason in ("generator level", "identifier"):
        print(f"left out, {reason}: {', '.join(name for name, why in dataset.excluded.items() if why == reason)}")
    return dataset


def train(arguments: argparse.Namespace, dataset: Dataset) -> TrainingResult:
    """Step 2: the PyTorch example classifier."""
    from mlaas4hep.cli.console import Stopwatch, heading
    from mlaas4hep.training.progress import progress_for
    from mlaas4hep.training.workflow import train as train_model

    heading("2. Train: VBF (1) against gluon fusion (0), PyTorch example classifier")
    counts = {fold: sum(dataset.class_counts(fold).values()) for fold in ("train", "validation", "test")}
    parts = f"{counts['train']:,} events train, {counts['validation']:,} choose the epoch, {counts['test']:,} are evaluated once"
    print(f"{parts}; split by event identity")
    clock = Stopwatch()
    result = train_model(
        dataset,
        "pytorch",
        params={"epochs": arguments.epochs},
        out=arguments.out / "higgs.tar.gz",
        description="VBF against gluon fusion, example classifier",
        progress=progress_for(),
    )
    print(f"trained in {clock.seconds:.1f} s; {result}")
    return result


def write(arguments: argparse.Namespace, dataset: Dataset, result: TrainingResult) -> Path:
    """Step 3: the bundle, the plots, and the scores of all events."""
    from mlaas4hep.cli.console import heading, progress_of_events
    from mlaas4hep.inference.predictor import predict_files

    heading("3. Write: the bundle, which holds the model, its preprocessing and all that explains it")
    assert result.bundle is not None  # noqa: S101 - asked for above
    assert result.manifest is not None  # noqa: S101
    parity = result.manifest.parity
    agreement = f"equals PyTorch within {parity.largest_difference:.1e} on {parity.events:,} events"
    print(f"{result.bundle}: {result.bundle.stat().st_size / 1024:.0f} kB; {agreement}")
    for plot in result.save_plots(arguments.out):
        print(plot)
    scores: Path = arguments.out / "scores.parquet"
    with progress_of_events("Scoring") as progress:
        summary = predict_files(result.bundle, dataset.files, scores, progress=progress)
    print(
        f"{scores}: scores of all {summary.events:,} events, {summary.events / summary.seconds / 1000:.0f} thousand events/s"
    )
    return scores


def serve(arguments: argparse.Namespace, dataset: Dataset, scores: Path) -> list[Comparison]:
    """Step 4: upload, list, predict by name, compare, delete."""
    import tempfile

    from mlaas4hep.cli.console import heading, show_table
    from mlaas4hep.demo import compare_with_server, held_out_events
    from mlaas4hep.inference.client import TFaaSClient
    from mlaas4hep.inference.server import serve_in_process

    heading("4. Serve: the TFaaS client uploads the bundle and asks for 5 held-out events by feature name")
    with tempfile.TemporaryDirectory() as models, serve_in_process(models) as server:
        client = TFaaSClient(server.url)
        client.upload_bundle(arguments.out / "higgs.tar.gz")
        print(f"{server.url} serves {', '.join(model['name'] for model in client.models())}")
        comparisons = compare_with_server(client, "higgs", held_out_events(dataset, 5), scores)
        rows = [
            (f"{c.event.identifiers['run']}:{c.event.identifiers['luminosityBlock']}:{c.event.identifiers['event']}", CLASSES[c.event.label],
             f"{c.served[1]:.6f}", f"{c.offline[1]:.6f}", f"{c.difference:.1e}", "yes" if (c.served[1] > 0.5) == (c.event.label == "1") else "no")
            for c in comparisons
        ]  # fmt: skip
        titles = ("run:lumi:event", "true class", "P(VBF) served", "offline", "difference", "right")
        show_table(titles, rows, numbers=titles[2:5])
        client.delete("higgs")
        print(f"deleted; the server holds {len(client.models())} models and stops")
    return comparisons


def conclude(
    arguments: argparse.Namespace, result: TrainingResult, comparisons: list[Comparison], seconds: float
) -> int:
    """Step 5: whether all held, and what to run next."""
    from mlaas4hep.cli.console import heading

    largest = max(comparison.difference for comparison in comparisons)
    heading("5. Next")
    out = arguments.out
    print(f"  mlaas4hep serve --models {out / 'models'} &")
    print(f"  tfaas_client.py --url=http://localhost:8083 --bundle={out / 'higgs.tar.gz'}")
    print(f"  mlaas4hep predict --model {out / 'higgs.tar.gz'} --files YOUR_FILES.root --out scores.root")
    print("  workflow.py --files=a.root,b.root --labels=1,0 --model=YOUR_MODEL.py --fout=yours.tar.gz\n")
    failures = []
    if not largest <= TOLERANCE:
        failures.append(f"server and offline prediction differ by {largest:.1e}, more than {TOLERANCE:.0e}")
    assert result.evaluation is not None  # noqa: S101 - there are labels and test events
    if not AUC_BAND[0] <= result.evaluation.auc <= AUC_BAND[1]:
        failures.append(f"the AUC is not between {AUC_BAND[0]} and {AUC_BAND[1]}; above, the model has seen the answer")
    for failure in failures:
        print(f"FAILED: {failure}")
    if not failures:
        print(
            f"All comparisons held: server and offline prediction agree within {largest:.1e}. {seconds:.0f} s in all."
        )
    return 1 if failures else 0
