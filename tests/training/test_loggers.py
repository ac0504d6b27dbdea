"""What loggers keep, read back by what people read it with."""

from __future__ import annotations

import csv
import importlib.util
import math
import struct
import sys

import pytest

import mlaas4hep
from mlaas4hep.errors import MissingExtraError, UnknownSettingError
from mlaas4hep.training.frameworks.base import EpochResult, NoProgress
from mlaas4hep.training.loggers import LoggedProgress, make_logger
from mlaas4hep.training.loggers_tensorboard import checksum
from mlaas4hep.training.workflow import train

EPOCHS = [EpochResult(1, 0.6, 0.5, math.nan, 0.7, 1.0), EpochResult(2, 0.5, 0.45, 0.8, 0.75, 1.0, 0.1)]


def run(logger, epochs=EPOCHS, first=1):
    progress = LoggedProgress([logger], seconds=0.0)
    progress.begin(len(epochs), 20)
    if first > 1:
        progress.resume(first, 0)
    for epoch in epochs[first - 1 :]:
        for batch in range(2):
            progress.advance(10, epoch.loss + 0.1 * batch)
        progress.epoch(epoch)
    progress.end()


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tensorboard_scalars(folder):
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.iterdir()):
        for raw in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(raw)
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_csv_has_a_line_an_epoch_and_gaps_where_nothing_is_known(tmp_path):
    run(make_logger("csv", tmp_path / "new"))
    first, second = rows(tmp_path / "new" / "epochs.csv")
    assert first == {
        "epoch": "1",
        "validation_loss": "0.5",
        "loss": "0.6",
        "auc": "",
        "accuracy": "0.7",
        "seconds": "1.0",
        "waiting": "",
    }
    assert second["auc"] == "0.8"
    losses = rows(tmp_path / "new" / "losses.csv")
    assert [row["events"] for row in losses] == ["10", "20", "30", "40"]
    assert [float(row["loss"]) for row in losses] == pytest.approx([0.6, 0.7, 0.5, 0.6])


def test_csv_goes_on_where_a_killed_training_is_resumed(tmp_path):
    run(make_logger("csv", tmp_path))
    again = [EPOCHS[0], EpochResult(2, 0.4, 0.4, 0.9, 0.8, 1.0), EpochResult(3, 0.3, 0.3, 0.9, 0.8, 1.0)]
    run(make_logger("csv", tmp_path), again, first=2)
    assert [(row["epoch"], row["loss"]) for row in rows(tmp_path / "epochs.csv")] == [
        ("1", "0.6"),
        ("2", "0.4"),
        ("3", "0.3"),
    ]
    assert [row["events"] for row in rows(tmp_path / "losses.csv")][-4:] == ["30", "40", "50", "60"]


def test_csv_of_a_new_training_replaces_that_of_an_old_one(tmp_path):
    run(make_logger("csv", tmp_path))
    run(make_logger("csv", tmp_path), EPOCHS[:1])
    assert len(rows(tmp_path / "epochs.csv")) == 1
    assert len(rows(tmp_path / "losses.csv")) == 2


def test_tensorboard_reads_every_number(tmp_path):
    run(make_logger("tensorboard", tmp_path))
    found = tensorboard_scalars(tmp_path)
    assert found["epoch/loss"] == {1: pytest.approx(0.6), 2: pytest.approx(0.5)}
    assert found["epoch/auc"] == {2: pytest.approx(0.8)}
    assert found["loss"] == {
        10: pytest.approx(0.6),
        20: pytest.approx(0.7),
        30: pytest.approx(0.5),
        40: pytest.approx(0.6),
    }


def test_each_record_is_complete_and_its_checksums_fit(tmp_path):
    run(make_logger("tensorboard", tmp_path))
    (path,) = tmp_path.iterdir()
    data, records = path.read_bytes(), 0

    def masked(part):
        value = checksum(part)
        return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF

    while data:
        (length,), (first,) = struct.unpack("<Q", data[:8]), struct.unpack("<I", data[8:12])
        message, (second,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
        assert (first, second) == (masked(data[:8]), masked(message))
        data, records = data[16 + length :], records + 1
    assert records == 1 + 4 + 2  # version, losses, epochs


def test_losses_between_two_lines_are_averaged_over_events(tmp_path):
    progress = LoggedProgress([make_logger("csv", tmp_path)], seconds=1e9)
    progress.begin(1, 40)
    for events, loss in ((10, 1.0), (10, 0.5), (20, 0.3)):
        progress.advance(events, loss)
    progress.end()
    kept = rows(tmp_path / "losses.csv")
    assert sum(float(row["loss"]) * n for row, n in zip(kept, (10, 30), strict=True)) == pytest.approx(21)


def test_a_training_is_kept_while_it_is_shown(class_files, tmp_path):
    shown = []

    class Shown(NoProgress):
        def epoch(self, result):
            shown.append(result)

    dataset = mlaas4hep.open(class_files, labels=["0", "1"], branches=["MET_pt", "nElectron"])
    loggers = [make_logger(name, tmp_path / name) for name in ("csv", "tensorboard")]
    result = train(dataset, params={"epochs": 2}, progress=LoggedProgress(loggers, Shown()))
    kept = rows(tmp_path / "csv" / "epochs.csv")
    assert [float(row["loss"]) for row in kept] == [one.loss for one in result.history.epochs]
    assert tuple(shown) == result.history.epochs
    assert set(tensorboard_scalars(tmp_path / "tensorboard")["epoch/validation_loss"]) == {1, 2}


def test_a_logger_that_is_not_known_is_named():
    with pytest.raises(UnknownSettingError, match="nearest: 'tensorboard'"):
        make_logger("tensorbord", "nowhere")


@pytest.mark.parametrize(("name", "package"), [("mlflow", "MLflow"), ("wandb", "wandb")])
def test_a_package_that_is_missing_is_said_with_its_extra(name, package, tmp_path, monkeypatch):
    for module in (name, f"{name}.tracking"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"^{package} is not installed; pip install 'mlaas4hep\[{name}\]'$"):
        make_logger(name, tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed")
@pytest.mark.filterwarnings("ignore")  # of its own dependencies
def test_mlflow_keeps_every_number_in_a_local_file_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = make_logger("mlflow", tmp_path / "runs", experiment="higgs", run="first")
    run(logger)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "runs").as_uri())
    assert client.get_run(logger.run_id).info.status == "FINISHED"
    kept = {one.step: one.value for one in client.get_metric_history(logger.run_id, "epoch/loss")}
    assert kept == {1: 0.6, 2: 0.5}
    assert len(client.get_metric_history(logger.run_id, "loss")) == 4
