"""Train real processes, kill some of them, and print as JSON what became of it: ``killed_runs.py FOLDER FILE FILE``.

What takes long to import is imported once; each training is a process of its own, forked from this one.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

EVERY = 0.05  # seconds between checkpoints
BATCH = 16
EPOCHS = 3
KILLS = 5


def train(folder: Path, files: list[str], log: Path, *, resume: bool, workers: int) -> None:
    """Train a network with dropout on shuffled events; tell each batch, and in the end the weights."""
    import torch
    from torch import nn

    import mlaas4hep
    from mlaas4hep.training.frameworks.base import FitSettings, NoProgress, Task
    from mlaas4hep.training.frameworks.torch.trainer import make_trainer

    class Told(NoProgress):
        def __init__(self) -> None:
            self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

        def advance(self, events: int, loss: float) -> None:
            os.write(self.log, f"{time.monotonic()}\n".encode())

        def note(self, line: str) -> None:
            os.write(self.log, f"# {line}\n".encode())

    torch.set_num_threads(1)
    dataset = mlaas4hep.open(files, labels=[0, 1], branches=["MET_pt", "Jet_pt", "nElectron"])
    torch.manual_seed(1)
    width = dataset.encoding.width
    module = nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))
    trainer = make_trainer(module, Task(width, 2), "killed")
    settings = FitSettings(EPOCHS, 9, 7, folder / "checkpoints", resume=resume, checkpoint_every=EVERY)
    stream = dataset.stream("train", batch_size=BATCH, seed=7, pool_bytes=20_000, run_bytes=20_000, workers=workers)
    history = trainer.fit(stream, dataset.stream("validation", shuffle=False), settings, Told())
    result = {
        "weights": {name: value.tolist() for name, value in module.state_dict().items()},
        "losses": [(epoch.loss, epoch.validation_loss, epoch.auc) for epoch in history.epochs],
        "best": history.best_epoch,
    }
    (folder / "result.json").write_text(json.dumps(result))


class Child:
    """A training in a process of its own."""

    def __init__(self, folder: Path, files: list[str], number: int, *, resume: bool, workers: int = 0) -> None:
        self.log = folder / f"log{number}"
        self.log.touch()
        self.process = os.fork()
        if self.process == 0:
            try:
                train(folder, files, self.log, resume=resume, workers=workers)
                os._exit(0)
            except BaseException as error:  # whatever it is, it is told to whoever reads the output
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)

    def told(self) -> tuple[list[float], str]:
        """Return the times of its batches, and from where it went on."""
        lines = self.log.read_text().split("\n")[:-1]
        notes = [line for line in lines if line.startswith("#")]
        return [float(line) for line in lines if not line.startswith("#")], " ".join(notes)

    def wait(self) -> int:
        """Return how it ended: negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def main(folder: Path, files: list[str]) -> dict[str, object]:
    """Train once without a break and once with five."""
    unbroken, broken = folder / "unbroken", folder / "broken"
    unbroken.mkdir()
    broken.mkdir()
    child = Child(unbroken, files, 0, resume=False)
    assert child.wait() == 0
    batches = len(child.told()[0])
    per_epoch = batches // EPOCHS
    draw = random.Random(4)
    targets = sorted(draw.randrange(20, batches - 20) for _ in range(KILLS))
    kills = []
    for number, target in enumerate(targets):
        child = Child(broken, files, number, resume=True, workers=int(number == 2))
        while True:
            times, note = child.told()
            begun = position(note, per_epoch)
            if begun + len(times) >= target:
                break
            time.sleep(0.0005)
        os.kill(child.process, signal.SIGKILL)
        ended = child.wait()
        times, note = child.told()
        kills.append({"status": ended, "begun": begun, "times": times, "note": note})
    child = Child(broken, files, KILLS, resume=True)
    assert child.wait() == 0
    times, note = child.told()
    kills.append({"status": 0, "begun": position(note, per_epoch), "times": times, "note": note})
    results = [json.loads((one / "result.json").read_text()) for one in (unbroken, broken)]
    return {"batches": batches, "per_epoch": per_epoch, "runs": kills, "results": results, "every": EVERY}


def position(note: str, per_epoch: int) -> int:
    """Return how many batches of the whole training were done where a process went on."""
    found = re.search(r"goes on after epoch (\d+), batch (\d+)", note)
    return (int(found[1]) - 1) * per_epoch + int(found[2]) if found else 0


if __name__ == "__main__":
    import mlaas4hep.streaming.stream.stream
    import mlaas4hep.training.frameworks.torch.loop
    import mlaas4hep.training.frameworks.torch.trainer  # noqa: F401

    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2:])))
