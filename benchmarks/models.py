"""The built-in models on the Higgs files: held-out AUC, time, size, all on the same events.

Usage: models.py [MODEL …]; all of them take about a quarter of an hour on one core.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from measure import describe_run, write_result

ROOT = Path(__file__).parent.parent
FILES = [str(ROOT / "examples" / "data" / name) for name in ("VBF_HToTauTau.root", "GluGluToHToTauTau.root")]

SPREAD = "vector.normalisation={'*_pt': log, '*_mass': log, '*_sumEt': log, '*': standard}"
RUNS: dict[str, list[str]] = {
    "mlp": ["training.epochs=12"],
    "deep_sets": [SPREAD, "training.epochs=12"],
    "trees": [],
    "transformer": [SPREAD, "training.epochs=16", "training.batch_size=256"],
}
SPLIT = ["split.test=0.2", "split.validation=0.1"]


def measure(name: str) -> dict[str, Any]:
    """Train one model and return what it gave."""
    from mlaas4hep.training.configuration import read_configuration
    from mlaas4hep.training.configured import open_configured
    from mlaas4hep.training.progress import LineProgress
    from mlaas4hep.training.workflow import train

    settings = [f"data.files=[{', '.join(FILES)}]", "data.labels=[1, 0]", f"model={name}", *SPLIT, *RUNS[name]]
    configuration = read_configuration(overrides=settings)
    dataset = open_configured(configuration)
    _ = dataset.encoding  # the statistics are no part of the training
    start = time.perf_counter()
    result = train(
        dataset,
        configuration.model,
        model_settings=configuration.model_settings,
        params=configuration.training,
        progress=LineProgress(sys.stderr),
    )
    seconds = time.perf_counter() - start
    assert result.evaluation is not None
    module = getattr(result.trainer, "module", None)
    return {
        "auc": result.evaluation.auc,
        "auc_error": result.evaluation.auc_error,
        "test_events": result.evaluation.events,
        "epochs": len(result.history.epochs),
        "best_epoch": result.history.best_epoch,
        "seconds": seconds,
        "parameters": None if module is None else sum(parameter.numel() for parameter in module.parameters()),
        "settings": [*SPLIT, *RUNS[name]],
    }


def main(names: list[str]) -> None:
    """Measure the models and print a table."""
    import torch

    torch.set_num_threads(1)
    found = {name: measure(name) for name in names or RUNS}
    print(f"{'model':12} {'AUC':>16} {'epochs':>7} {'s':>6} {'parameters':>11}")
    for name, row in found.items():
        parameters = "" if row["parameters"] is None else f"{row['parameters']:,}"
        auc = f"{row['auc']:.4f} ± {row['auc_error']:.4f}"
        print(f"{name:12} {auc:>16} {row['epochs']:7} {row['seconds']:6.0f} {parameters:>11}")
    write_result("models", {**describe_run(["torch", "numpy"]), "models": found})


if __name__ == "__main__":
    main(sys.argv[1:])
