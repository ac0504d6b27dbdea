"""One training from its beginning, or from a checkpoint, to its end.

All that the rest of a training follows from is in its checkpoints: weights, optimiser, schedule, random numbers, the
position in the stream, the best weights so far and the epochs' results. An unbroken run and one that was killed and
resumed take the same steps.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from mlaas4hep.bundle.graph import Output
from mlaas4hep.errors import TrainingError
from mlaas4hep.training.checkpoint import LAST, Checkpoints, refuse_another_run
from mlaas4hep.training.evaluation import evaluate
from mlaas4hep.training.frameworks.base import Batches, EpochResult, EventBatch, FitSettings, History, Progress
from mlaas4hep.training.frameworks.torch.learning_rate import Schedule, find_learning_rate
from mlaas4hep.training.frameworks.torch.ranks import Ranks
from mlaas4hep.training.frameworks.torch.stepping import Stepper, TensorBatch, check_loss
from mlaas4hep.training.interruption import StopRequest, TrainingInterrupted
from mlaas4hep.training.seeding import load_random_state, random_state

__all__ = ["Run"]

UNSEEN_BATCHES = 16  # of an accelerator: to look at each loss at once would be to wait for each step


@dataclasses.dataclass
class _Place:
    """How far the current epoch is: its number from 0 on, what was done of it, and whether all batches were."""

    epoch: int = 0
    batch: int = 0
    events: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    trained: bool = False

    def __str__(self) -> str:
        return f"epoch {self.epoch + 1}, batch {self.batch}"


class Run:
    """One training, from its beginning or a checkpoint to its end."""

    def __init__(
        self,
        module: nn.Module,
        stepper: Stepper,
        schedule: Schedule,
        train: Batches,
        validation: Batches | None,
        settings: FitSettings,
        progress: Progress,
        ranks: Ranks,
        stop: StopRequest,
    ) -> None:
        self.module, self.stepper, self.schedule = module, stepper, schedule
        self.train, self.validation = train, validation
        self.settings, self.progress, self.ranks, self.stop = settings, progress, ranks, stop
        # The stream knows where it is; batches that do not are gone on with at the beginning of an epoch.
        self._position: Any = train if hasattr(train, "state_dict") and hasattr(train, "load_state_dict") else None
        self.place = _Place()
        self.results: list[EpochResult] = []
        self.best_epoch = 0
        self.best: dict[str, torch.Tensor] = {}
        self.checkpoints = Checkpoints(settings.checkpoints)
        self._saved = time.monotonic()
        self._filler: TensorBatch | None = None
        self._unseen: list[tuple[torch.Tensor, TensorBatch, int, int]] = []
        self._before: torch.Tensor | None = None
        self._look_after = 1 if stepper.device.type == "cpu" else UNSEEN_BATCHES
        self._needs_two = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())

    def to_its_end(self) -> History:
        """Go through the epochs that are left, and give the module the best weights."""
        if not self._resumed() and self.settings.find_learning_rate:
            self._choose_learning_rate()
        self._saved = time.monotonic()
        while self.place.epoch < self.settings.epochs and not self._patience_is_over():
            if not self.place.trained:
                self._learn()
            self._judge()
            self.place = _Place(self.place.epoch + 1)
            if self._position is None:
                self._save()  # what has no position in the middle can be gone on from here only
        self._save()
        if self.ranks.rank == 0:
            self.checkpoints.write_best(self.best, self.best_epoch)
            self.checkpoints.forget_previous()
        if self.best:
            self.module.load_state_dict(self.best)
        return History(tuple(self.results), self.best_epoch)

    def _learn(self) -> None:
        """Learn from what is left of the epoch's batches."""
        self.module.train()
        place, begun = self.place, time.perf_counter()
        before, waited = place.seconds, place.waited
        batches = iter(self.train)
        try:
            while True:
                asked = time.perf_counter()
                batch = next(batches, None)
                now = time.perf_counter()
                waited += now - asked
                given = None if batch is None else self._tensors(batch)
                due = time.monotonic() - self._saved >= self.settings.checkpoint_every
                said = self.ranks.agree(events=0 if given is None else len(given[0]), save=due, stop=bool(self.stop))
                if not said.with_batch and batch is None:
                    break
                if not place.batch and said.with_batch < self.ranks.size:
                    raise TrainingError(
                        f"only {said.with_batch} of {self.ranks.size} processes have events to learn from; start fewer:"
                        " a class's clusters are shared, and there must be one for each process"
                    )
                self._step(given, self.ranks.size / max(1, said.with_batch), said.events)
                place.waited, place.seconds = waited, before + time.perf_counter() - begun
                if said.save or said.stop:
                    self._look()
                    self._save(said.stop)
                if said.stop:
                    self._leave()
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()
        self._look()
        place.trained = True
        place.seconds = before + time.perf_counter() - begun

    def _step(self, batch: TensorBatch | None, share: float, events: int) -> None:
        place = self.place
        place.batch += 1
        if batch is None or (self._needs_two and len(batch[0]) == 1):
            # One event has no spread to normalise with; it comes in other company in the next epoch.
            if self.ranks.size == 1:
                return
            doubled = self._filler or tuple(torch.cat([part, part]) for part in batch or ())
            self.stepper.step(doubled, 0.0)  # type: ignore[arg-type]
        else:
            loss = self.stepper.step(batch, share)
            self._unseen.append((loss, batch, place.batch, events))
            if self.ranks.size > 1 and self._filler is None:
                self._filler = tuple(part.clone() for part in batch)  # type: ignore[assignment]
        self.schedule.after_step()
        if len(self._unseen) >= self._look_after:
            self._look()

    def _look(self) -> None:
        """Look at the losses of the last batches."""
        for loss, batch, number, events in self._unseen:
            value, place = loss.item(), self.place
            if not math.isfinite(value):
                where = f"epoch {place.epoch + 1}, batch {number}"
                before = None if self._before is None else self._before.cpu().numpy()
                rate, features = self.stepper.learning_rate, self.settings.features
                check_loss(value, where, rate, batch[0].cpu().numpy(), features, before)
            self._before = batch[0]
            place.loss_sum += value * len(batch[0])
            place.events += len(batch[0])
            self.progress.waiting(place.waited / place.seconds if place.seconds else 0.0)
            self.progress.advance(events, value)
        self._unseen.clear()

    def _judge(self) -> None:
        """Judge the module on validation events, and keep its weights if they are the best so far."""
        self.ranks.same_buffers(self.module)
        loss = auc = share = math.nan
        begun = time.perf_counter()
        if self.validation is not None:
            loss, auc, share = self._validate(self.validation)
        place = self.place
        seconds = place.seconds + time.perf_counter() - begun
        sums = self.ranks.gather((place.loss_sum, place.events))
        mean = sum(total for total, _ in sums) / max(1, sum(events for _, events in sums))
        waiting = place.waited / seconds if seconds else 0.0
        result = EpochResult(place.epoch + 1, mean, loss, auc, share, seconds, waiting)
        best = min((known.validation_loss for known in self.results), default=math.inf)
        self.results.append(result)
        if self.validation is None or loss < best:
            self.best_epoch = result.epoch
            self.best = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items()}
        self.schedule.after_epoch(mean if self.validation is None else loss)
        self.progress.epoch(result)

    @torch.no_grad()
    def _validate(self, validation: Batches) -> tuple[float, float, float]:
        """Return loss, AUC and accuracy over the validation events of all processes."""
        self.module.eval()
        objective, parallel = self.stepper.objective, self.stepper.module
        self.stepper.module = self.module  # processes do not wait for each other here
        losses, parts = 0.0, []
        try:
            for batch in validation:
                if self.stop and self.ranks.size == 1:
                    self._save(stopping=True)
                    self._leave()
                x, mask, y, weight = self._tensors(batch)
                given = self.stepper.forward(x, mask)
                losses += objective.mean_loss(given, x, mask, y, weight).item() * len(x)
                prediction = objective.prediction(given, x, mask).cpu().numpy()
                parts.append((prediction, batch.y.copy(), batch.weight.copy()))
        finally:
            self.stepper.module = parallel
        gathered = self.ranks.gather((losses, parts))
        everywhere = [part for _, own in gathered for part in own]
        events = sum(len(y) for _, y, _ in everywhere)
        loss = sum(total for total, _ in gathered) / max(1, events)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the validation loss is {loss} after epoch {self.place.epoch + 1},"
                f" at a learning rate of {self.stepper.learning_rate:g}; a smaller one may help"
            )
        if objective.output in (Output.RECONSTRUCTION, Output.VALUES):
            return loss, math.nan, math.nan
        predictions, classes, weights = (np.concatenate(column) for column in zip(*everywhere, strict=True))
        judged = evaluate(predictions, classes, weights)
        return loss, judged.auc, judged.accuracy

    def _patience_is_over(self) -> bool:
        return self.validation is not None and len(self.results) - self.best_epoch >= self.settings.patience > 0

    def _tensors(self, batch: EventBatch) -> TensorBatch:
        """Return a batch as tensors that share memory with the stream's arrays, or as copies on an accelerator."""
        x, mask, y, weight = (torch.from_numpy(array) for array in (batch.x, batch.mask, batch.y, batch.weight))
        if self.stepper.device.type == "cpu":
            return x, mask, y, weight
        device = self.stepper.device
        return x.to(device), mask.to(device), y.to(device), weight.to(device)

    def _choose_learning_rate(self) -> None:
        """Search a learning rate, and go back to the beginning with it."""
        weights = {name: value.clone() for name, value in self.module.state_dict().items()}
        state, epoch = random_state(), self.train.epoch
        batches = iter(self.train)
        try:
            rate = find_learning_rate(self.stepper, (self._tensors(batch) for batch in batches))
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()
            self.module.load_state_dict(weights)
            load_random_state(state)
            self.train.epoch = epoch
        rate = self.ranks.gather(rate)[0]
        for group in self.stepper.optimiser.param_groups:
            group["lr"] = rate
        self.progress.note(f"learning rate {rate:.3g}: there the loss falls fastest")

    # Checkpoints

    def _of(self) -> dict[str, Any]:
        """Return what the steps follow from, beside the stream itself."""
        module, optimiser = self.module, self.stepper.optimiser
        shapes = {name: list(value.shape) for name, value in module.state_dict().items()}
        return {
            **self.settings.run,
            "seed": self.settings.seed,
            "precision": self.settings.precision,
            "clip": self.settings.clip,
            "processes": self.ranks.size,
            "optimiser": type(optimiser).__name__,
            "model": repr(module),
            "weights": str(shapes),
        }

    def _save(self, stopping: bool = False) -> None:
        """Write a checkpoint; only the first process does."""
        stream = None if self._position is None else self._position.state_dict()
        if stream is None and self.place.batch:
            return
        own = self.ranks.gather({"random": random_state(), "stream": stream, "place": dataclasses.asdict(self.place)})
        if self.ranks.rank == 0:
            state = {
                "of": self._of(),
                "weights": self.module.state_dict(),
                "optimiser": self.stepper.optimiser.state_dict(),
                "schedule": self.schedule.state_dict(),
                "scaler": self.stepper.scaler.state_dict(),
                "best": self.best,
                "best_epoch": self.best_epoch,
                "results": [dataclasses.asdict(result) for result in self.results],
                "processes": own,
            }
            self.checkpoints.write(state, str(self.place))
            if stopping and self.best:
                self.checkpoints.write_best(self.best, self.best_epoch)
        self._saved = time.monotonic()

    def _resumed(self) -> bool:
        """Go on from the newest checkpoint; return whether there was one."""
        if not self.settings.resume:
            return False
        state = self.checkpoints.read()
        for line in self.checkpoints.warnings:
            self.progress.note(f"warning: {line}")
        if state is None:
            self.progress.note(f"no checkpoint in {self.settings.checkpoints}: the training begins")
            return False
        path = self.settings.checkpoints / LAST
        refuse_another_run(path, state["of"], self._of())
        own = state["processes"][self.ranks.rank]
        if own["stream"] is not None and self._position is not None:
            if own["stream"]["of"] != self._position.state_dict()["of"]:
                raise TrainingError(
                    f"{path} is of other files, features or settings of the stream; without --resume the training begins anew"
                )
            self._position.load_state_dict(own["stream"])
        else:
            self.train.epoch = own["place"]["epoch"]
        self.module.load_state_dict(state["weights"])
        self.stepper.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.stepper.scaler.load_state_dict(state["scaler"])
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.results = [EpochResult(**result) for result in state["results"]]
        self.place = _Place(**own["place"])
        load_random_state(own["random"])
        self.progress.note(f"goes on after {self.place}")
        self.progress.resume(self.place.epoch + 1, self.place.events)
        return True

    def _leave(self) -> None:
        """Leave the training after a signal."""
        best = f"; the best epoch so far is {self.best_epoch}" if self.best else ""
        raise TrainingInterrupted(
            f"stopped in {self.place}{best}; --resume goes on from {self.settings.checkpoints / LAST}",
            self.stop.number or signal.SIGINT,
        )
