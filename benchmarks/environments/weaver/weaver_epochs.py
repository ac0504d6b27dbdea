"""Epochs of weaver-core's loader: one for each line on standard input, the seconds of it on standard output.

Usage: weaver_epochs.py TASK.json, in the environment of requirements.txt; benchmarks/peers.py does it. The data card asks for the same branches,
scaled and padded to the same places, without a mask and without resampling; each event once, shuffled.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from weaver.utils.dataset import SimpleIterDataset

# Fraction of the files that is fetched at a time, and workers: weaver's own settings, and others that are faster.
SETTINGS = {"defaults": (0.01, 1), "large steps": (0.1, 1), "large steps, two workers": (0.1, 2)}


def data_card(task: dict[str, Any]) -> dict[str, Any]:
    """Describe the features as weaver wants it: inputs of equal length together."""
    inputs: dict[str, Any] = {}
    for feature in task["features"]:
        length = feature["width"] if feature["jagged"] else None
        group = inputs.setdefault(f"places_{length}", {"length": length, "vars": []})
        group["vars"].append([feature["branch"], feature["shift"], feature["scale"], -1e9, 1e9])
    labels = {"type": "custom", "value": {"_label_": f"ak.values_astype({task['label']}, 'int64')"}}
    return {"treename": task["tree"], "inputs": inputs, "labels": labels}


def main(task: dict[str, Any], card: Path) -> None:
    """Run epochs as they are asked for."""
    card.write_text(yaml.safe_dump(data_card(task)))
    for line in sys.stdin:
        fetch_step, workers = SETTINGS[line.strip()]
        start = time.perf_counter()
        dataset = SimpleIterDataset(
            {"_": list(task["files"])},
            str(card),
            for_training=True,
            load_range_and_fraction=((0, 1), 1, 1),
            fetch_step=fetch_step,
        )
        loader = torch.utils.data.DataLoader(dataset, batch_size=task["batch_size"], num_workers=workers)
        events = sum(len(y["_label_"]) for _, y, _ in loader)
        print(json.dumps({"seconds": time.perf_counter() - start, "events": events}), flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[1]).with_suffix(".yaml"))
