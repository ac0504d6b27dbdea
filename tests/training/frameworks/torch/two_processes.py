"""Train one model in several real processes, and write what each of them ended with: ``two_processes.py FOLDER FILES``.

Each is forked from this one, which imported what takes long; they meet on a port of the loopback interface.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path


def train(rank: int, size: int, port: int, folder: Path, files: list[str], **changes: object) -> None:
    """Train as one of some processes."""
    import numpy as np
    import torch
    from torch import nn

    import mlaas4hep
    from mlaas4hep.training.evaluation import evaluate
    from mlaas4hep.training.frameworks.base import FitSettings, NoProgress, Task
    from mlaas4hep.training.frameworks.torch.trainer import make_trainer

    class Told(NoProgress):
        def __init__(self) -> None:
            self.events: list[int] = []

        def advance(self, events: int, loss: float) -> None:
            self.events.append(events)

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "LOCAL_RANK": str(rank)}
    dataset = mlaas4hep.open(files, labels=[0, 1], branches=["MET_pt", "Jet_pt", "nElectron"])
    width = dataset.encoding.width
    torch.manual_seed(1)
    module = nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 1))
    trainer = make_trainer(module, Task(width, 2), "two")
    # Runs of this size are so few that the shares differ in their number of batches.
    stream = dataset.stream("train", batch_size=64, seed=7, run_bytes=9000)
    validation = dataset.stream("validation", shuffle=False, run_bytes=9000)
    shares = [len(list(stream.shard(one, size))) for one in range(size)]
    told = Told()
    settings = FitSettings(2, 9, 7, folder / "checkpoints", **changes)  # type: ignore[arg-type]
    history = trainer.fit(stream, validation, settings, told)
    parts = [(trainer.predict(b.x, b.mask), b.y.copy(), b.weight.copy()) for b in dataset.stream("validation")]
    over_all = evaluate(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    result = {
        "best": history.best_epoch,
        "over_all": (over_all.log_loss, over_all.auc),
        "weights": {name: value.tolist() for name, value in module.state_dict().items()},
        "epochs": [(epoch.loss, epoch.validation_loss, epoch.auc) for epoch in history.epochs],
        "steps": len(told.events),
        "events": sum(told.events),
        "shares": shares,
        "train": dataset.class_counts("train"),
        "wrote": sorted(path.name for path in (folder / "checkpoints").iterdir()) if rank == 0 else [],
    }
    (folder / f"result{rank}.json").write_text(json.dumps(result))


def together(size: int, folder: Path, files: list[str], **changes: object) -> list[object]:
    """Return what the processes ended with: their results, or None of one that failed."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            try:
                train(rank, size, port, folder, files, **changes)
                os._exit(0)
            except BaseException as error:
                (folder / f"result{rank}.json").write_text(json.dumps({"error": repr(error)}))
                os._exit(1)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return [json.loads((folder / f"result{rank}.json").read_text()) for rank in range(size)]


if __name__ == "__main__":
    import mlaas4hep.streaming.stream.stream
    import mlaas4hep.training.frameworks.torch.loop
    import mlaas4hep.training.frameworks.torch.trainer  # noqa: F401

    place, shared, whole = Path(sys.argv[1]), sys.argv[2:4], sys.argv[4:]
    ended = [together(size, place / f"of{size}", shared) for size in (1, 2)]
    resumed = together(2, place / "of2", shared, resume=True)
    alone = together(1, place / "of2", shared, resume=True)
    print(json.dumps([*ended, together(2, place / "whole", whole), resumed, alone]))
