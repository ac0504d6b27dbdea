"""Numbers for MLflow and Weights & Biases, where their packages are installed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlaas4hep.errors import MissingExtraError

__all__ = ["MLflowLogger", "WandbLogger"]


class MLflowLogger:
    """Keeps a run of an experiment in MLflow.

    Parameters
    ----------
    folder : Path
        A local file store, used where no server is named.
    experiment : str
        Name of the experiment, made if it is not there.
    run : str, optional
        Name of the run.
    tracking_uri : str, optional
        A server.

    Raises
    ------
    MissingExtraError
        If MLflow is not installed.
    """

    def __init__(
        self, folder: Path, experiment: str = "mlaas4hep", run: str | None = None, tracking_uri: str | None = None
    ) -> None:
        client = _package("mlflow.tracking", "MLflow", "mlflow").MlflowClient
        if tracking_uri is None:
            folder.mkdir(parents=True, exist_ok=True)
            tracking_uri = folder.resolve().as_uri()
        # A client of its own: mlflow's functions would change what the user's own program logs to.
        self._client = client(tracking_uri=tracking_uri)
        known = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if known is None else known.experiment_id
        tags = {} if run is None else {"mlflow.runName": run}
        self.run_id: str = self._client.create_run(number, tags=tags).info.run_id

    def resume(self, epoch: int) -> None:
        """Go on in a run of its own."""
        self._client.set_tag(self.run_id, "resumed_in_epoch", str(epoch))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Keep numbers."""
        for name, value in numbers.items():
            self._client.log_metric(self.run_id, name, float(value), step=step)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self.run_id)


class WandbLogger:
    """Keeps a run in Weights & Biases.

    Parameters
    ----------
    folder : Path
        For its files.
    project : str
    run : str, optional
        Name of the run.
    mode : str, optional
        ``"offline"`` keeps everything in the folder.

    Raises
    ------
    MissingExtraError
        If its package is not installed.
    """

    def __init__(
        self, folder: Path, project: str = "mlaas4hep", run: str | None = None, mode: str | None = None
    ) -> None:
        wandb = _package("wandb", "wandb", "wandb")
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(project=project, name=run, dir=str(folder), mode=mode)
        # Its own steps must rise, but numbers of epochs and of batches come in turns.
        self._run.define_metric("epoch/*", step_metric="epoch/number")
        self._run.define_metric("loss", step_metric="events")

    def resume(self, epoch: int) -> None:
        """Go on in a run of its own."""
        self._run.config.update({"resumed_in_epoch": epoch})

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Keep numbers."""
        of_epoch = any(name.startswith("epoch/") for name in numbers)
        self._run.log({**numbers, "epoch/number" if of_epoch else "events": step})

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def _package(module: str, package: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(package, extra) from error
