"""The stream beside other loaders, on the Higgs files tiled to 240,000 events each: every event once, shuffled, the same places.

Each loader lives in an environment of its own (environments/NAME, made at the first use) and a process of its own, which makes one epoch when it is
asked to, so that all are measured in turn. They run with their own settings and with the best that were found; neither makes a mask, and ROOT's does
not scale.

Usage: peers.py weaver|root [RUNS]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import venv
from pathlib import Path
from typing import Any

from inputs import HIGGS, HIGGS_LABELS, tiled
from measure import Work, measure_and_report

import mlaas4hep

HERE = Path(__file__).parent
BATCH = 512
PEERS = {
    "weaver": ("weaver-core 0.5.3", ("defaults", "large steps", "large steps, two workers"), 8.0),
    "root": ("ROOT RDataLoader 6.40", ("defaults", "large buffer"), 2.0),
}


def environment(name: str) -> Path:
    """Return the Python of a peer's environment, made if it is not there."""
    folder = HERE / "environments" / name
    python = folder / ".venv" / "bin" / "python"
    if not python.exists():
        print(f"installing {name} into {folder / '.venv'} (once)")
        venv.create(folder / ".venv", with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "--quiet", "install", "--requirement", folder / "requirements.txt"], check=True
        )
    return python


class Peer:
    """A process that makes epochs with another loader.

    Parameters
    ----------
    name : str
        Of the environment.
    task : dict
        What is read, and how.
    events : int
        How many an epoch must deliver.
    """

    def __init__(self, name: str, task: dict[str, Any], events: int) -> None:
        self._events = events
        self._folder = tempfile.TemporaryDirectory()
        self._log = (Path(self._folder.name) / "log.txt").open("w")
        description = Path(self._folder.name) / "task.json"
        description.write_text(json.dumps(task))
        self._process = subprocess.Popen(
            [environment(name), HERE / "environments" / name / f"{name}_epochs.py", description],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def epoch(self, setting: str) -> float:
        """Make one epoch and return its seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(setting + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith('{"seconds"'):
                answer = json.loads(line)
                assert answer["events"] == self._events, f"{answer['events']} of {self._events} events were delivered"
                return float(answer["seconds"])
        raise RuntimeError(f"the other loader ended: {Path(self._log.name).read_text()[-2000:]}")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._log.close()
        self._folder.cleanup()


def main(name: str, runs: int) -> None:
    """Measure one peer and the stream."""
    files = tiled(HIGGS, 10)
    dataset = mlaas4hep.open(files, labels=HIGGS_LABELS)
    specs, encoding = dataset.specs, dataset.encoding
    task = {
        "files": files,
        "tree": "Events",
        "batch_size": BATCH,
        "label": "run == 1",
        "target": "run",
        "features": [
            {"branch": f.branch, "jagged": f.jagged, "width": f.width, "shift": f.shift, "scale": f.scale}
            for f in encoding.features
        ],
    }

    def epoch(**settings: Any) -> None:
        stream = mlaas4hep.open(files, labels=HIGGS_LABELS, specs=specs).stream(batch_size=BATCH, **settings)
        assert sum(len(batch.x) for batch in stream) == dataset.events

    title, settings, least = PEERS[name]
    peer = Peer(name, task, dataset.events)
    try:
        references = [
            Work(f"{title}, {setting}", lambda setting=setting: peer.epoch(setting), dataset.events)  # type: ignore[misc]
            for setting in settings
        ]
        measure_and_report(
            name,
            f"{dataset.events} Higgs events, {len(dataset.features)} features, {encoding.width} places, batches of {BATCH}",
            references,
            [Work("epoch of the stream, shuffled", epoch, dataset.events, least)],
            runs,
            ["mlaas4hep", "uproot", "awkward", "numba", "numpy"],
        )
    finally:
        peer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("runs", type=int, nargs="?", default=5)
    arguments = parser.parse_args()
    main(arguments.peer, arguments.runs)
