"""Epochs of ROOT's RDataLoader: one for each line on standard input, the seconds of it on standard output.

Usage: root_epochs.py TASK.json, in the environment of requirements.txt; benchmarks/peers.py does it. The same branches, padded to the same places,
shuffled; it neither scales nor masks.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import ROOT

# Batches in memory: its own setting, and one as large as our pools.
SETTINGS = {"defaults": 10, "large buffer": 128}


def main(task: dict[str, Any]) -> None:
    """Run epochs as they are asked for."""
    jagged = {feature["branch"]: feature["width"] for feature in task["features"] if feature["jagged"]}
    columns = [feature["branch"] for feature in task["features"]]
    for line in sys.stdin:
        start = time.perf_counter()
        loader = ROOT.Experimental.ML.RDataLoader(
            ROOT.RDataFrame(task["tree"], task["files"]),
            task["batch_size"],
            SETTINGS[line.strip()],
            columns=[*columns, task["target"]],
            max_vec_sizes=jagged,
            target=task["target"],
            shuffle=True,
            drop_remainder=False,
            set_seed=1,
        )
        events = sum(len(x) for x, _ in loader.as_numpy())
        print(json.dumps({"seconds": time.perf_counter() - start, "events": events}), flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
