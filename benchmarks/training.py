"""Time of an epoch of training from the stream, with a cache, beside the same loop on tensors that are in memory already.

The Higgs files, each tiled to 120,000 events, and dense layers (128, 64). Every work is an epoch of training alone: no validation, no export.

- "bare loop, tensors in memory": forward, loss, backward and optimiser on slices of tensors that were shuffled before; nothing else at all;
- "our loop, arrays in memory": what trains a model here, on the same slices;
- "our loop, stream with cache": the same on the stream;
- "our loop, stream from ROOT": without a cache;
- "Lightning's Trainer, tensors in memory": the bare loop's step as a LightningModule.

Usage: training.py [RUNS]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from inputs import HIGGS, HIGGS_LABELS, tiled
from measure import describe_run, interleave, median_ratio, write_result
from torch import nn

import mlaas4hep
from mlaas4hep.streaming.stream.batch import Batch
from mlaas4hep.training.frameworks.base import FitSettings, NoProgress, Task
from mlaas4hep.training.frameworks.torch.loop import fit
from mlaas4hep.training.frameworks.torch.objective import choose_objective

AT_MOST = 1.15
BATCHES = (256, 1024, 4096)
REFERENCE = "bare loop, tensors in memory"


class InMemory:
    """Batches that are there already."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches, self.epoch = batches, 0

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def works_of(dataset: Any, size: int, folder: Path) -> tuple[dict[str, Callable[[], float]], dict[str, list[float]]]:
    """Return the works for one size of batches, and where they write the shares of time that waited for data."""
    width = dataset.encoding.width
    objective = choose_objective(None, (3, 1), None, Task(width, 2), "benchmark")
    kept = [Batch(*(part.copy() for part in batch)) for batch in dataset.stream(batch_size=size, seed=1)]
    tensors = [tuple(torch.from_numpy(part) for part in batch[:4]) for batch in kept]
    cached = dataset.stream(batch_size=size, seed=1, cache=folder / "cache")
    from_root = dataset.stream(batch_size=size, seed=1)
    waiting: dict[str, list[float]] = {}

    def network() -> nn.Sequential:
        torch.manual_seed(1)
        layers = (nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
        return nn.Sequential(*layers)

    def bare() -> float:
        net = network()
        optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
        begun = time.perf_counter()
        for x, mask, y, weight in tensors:
            loss = objective.mean_loss(net(x), x, mask, y, weight)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return time.perf_counter() - begun

    def ours(name: str, batches: Any) -> float:
        batches.epoch = 0
        history = fit(
            network(),
            objective,
            lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
            takes_mask=False,
            train=batches,
            validation=None,
            settings=FitSettings(1, 1, 1, folder / "checkpoints"),
            progress=NoProgress(),
        )
        waiting.setdefault(name, []).append(history.epochs[0].waiting)
        return history.epochs[0].seconds

    def lightning() -> float:
        return lightning_epoch(network(), objective, tensors)

    works: dict[str, Callable[[], float]] = {REFERENCE: bare}
    for name, batches in {
        "our loop, arrays in memory": InMemory(kept),
        "our loop, stream with cache": cached,
        "our loop, stream from ROOT": from_root,
    }.items():
        works[name] = lambda name=name, batches=batches: ours(name, batches)  # type: ignore[misc]
    return {**works, "Lightning's Trainer, tensors in memory": lightning}, waiting


def lightning_epoch(net: nn.Module, objective: Any, tensors: list[Any]) -> float:
    """Return the seconds of an epoch in Lightning's Trainer, with all that can be left out left out."""
    import lightning.pytorch as lightning

    from mlaas4hep.training.frameworks.torch.export import quiet

    class Module(lightning.LightningModule):  # type: ignore[misc]  # Lightning is not checked
        def __init__(self) -> None:
            super().__init__()
            self.net, self.seconds = net, 0.0

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            x, mask, y, weight = batch
            return objective.mean_loss(self.net(x), x, mask, y, weight)  # type: ignore[no-any-return]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

        def on_train_epoch_start(self) -> None:
            self.seconds = -time.perf_counter()

        def on_train_epoch_end(self) -> None:
            self.seconds += time.perf_counter()

    class Loader:
        def __iter__(self) -> Iterator[Any]:
            return iter(tensors)

    module = Module()
    with quiet():
        lightning.Trainer(max_epochs=1, accelerator="cpu", devices=1, barebones=True).fit(module, Loader())
    return module.seconds


def main(runs: int, folder: Path) -> None:
    """Measure, print the table, write the result."""
    torch.set_num_threads(1)
    dataset = mlaas4hep.open(tiled(HIGGS, 5), labels=HIGGS_LABELS)
    about = describe_run(["mlaas4hep", "numpy", "torch", "lightning"])
    title = (
        f"an epoch of {dataset.events} Higgs events, {dataset.encoding.width} places, dense layers 128-64, one thread"
    )
    print(f"{title}; median of {runs} interleaved runs")
    print(f"{about['machine']}; " + ", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    rows = []
    for size in BATCHES:
        works, waiting = works_of(dataset, size, folder)
        seconds = interleave(works, runs)
        print(f"\n{f'batches of {size}':40} {'k events/s':>10} {'time / bare':>12} {'at most':>8} {'waiting':>8}")
        for name, taken in seconds.items():
            row = {
                "batch_size": size,
                "work": name,
                "thousand_events_per_second": round(dataset.events / statistics.median(taken) / 1000, 1),
                "ratio": round(median_ratio(taken, seconds[REFERENCE]), 3),
                "at_most": AT_MOST if name == "our loop, stream with cache" else None,
                "waiting": round(statistics.median(waiting[name]), 3) if name in waiting else None,
                "seconds": taken,
            }
            rows.append(row)
            shown = ["" if row[key] is None else row[key] for key in ("at_most", "waiting")]
            rate, ratio = row["thousand_events_per_second"], row["ratio"]
            print(f"{name:40} {rate:>10} {ratio:>12} {shown[0]:>8} {shown[1]:>8}")
    path = write_result("training", {**about, "title": title, "reference": REFERENCE, "rows": rows})
    print(f"\nwritten to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    data = Path(__file__).parent / "data"
    data.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data) as name:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, Path(name))
