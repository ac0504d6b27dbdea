"""From a training to scores of files, with all that stands between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot

import mlaas4hep
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.bundle.verify import verify_bundle
from mlaas4hep.errors import SettingError
from mlaas4hep.inference.client import TFaaSClient
from mlaas4hep.inference.predictor import predict_files
from mlaas4hep.inference.server import serve_in_process
from mlaas4hep.streaming.splitting import Split, event_identity
from mlaas4hep.training.k_fold import train_k_fold
from mlaas4hep.training.workflow import train

PARAMS = {"epochs": 1, "patience": 1}
BRANCHES = ["MET_pt", "nJet", "Jet_pt"]


def test_a_bundle_carries_the_preprocessing_of_its_training(higgs_files: list[str], tmp_path: Path) -> None:
    program = tmp_path / "roots.py"
    program.write_text("def preprocessing(rec):\n    rec['root'] = rec['MET_pt'] ** 0.5\n    return rec\n")
    dataset = mlaas4hep.open(higgs_files, labels=[1, 0], branches=["root", "nJet"], preproc=program, max_events=4000)
    train(dataset, "mlp", params=PARAMS, out=tmp_path / "m.tar.gz")
    program.write_text("raise SystemExit('executed')\n")
    with pytest.raises(SettingError, match="a Python program that is executed"):
        predict_files(tmp_path / "m.tar.gz", higgs_files, tmp_path / "s.parquet")
    with pytest.raises(SettingError, match="sha256"):
        predict_files(tmp_path / "m.tar.gz", higgs_files, tmp_path / "s.parquet", preproc=program)
    predict_files(tmp_path / "m.tar.gz", higgs_files, tmp_path / "s.parquet", allow_preprocessing=True)
    events = uproot.open(higgs_files[0])["Events"].arrays(["MET_pt", "nJet"], library="np")
    with Bundle.open(tmp_path / "m.tar.gz") as bundle:
        columns = {"root": np.sqrt(events["MET_pt"]), "nJet": events["nJet"]}
        raw = np.stack([columns[name] for name in bundle.encoding.columns], axis=1).astype(np.float32)
        expected = bundle.predict(raw)[:, 1]
    np.testing.assert_allclose(pq.read_table(tmp_path / "s.parquet")["probability_1"][:24_000], expected, atol=1e-6)


def test_every_event_of_a_k_fold_is_scored_by_the_model_that_was_tested_on_it(
    higgs_files: list[str], tmp_path: Path
) -> None:
    dataset = mlaas4hep.open(higgs_files, labels=[1, 0], branches=BRANCHES, max_events=6000)
    result = train_k_fold(dataset, "mlp", folds=3, params=PARAMS, out=tmp_path / "folds.tar.gz")
    assert result.bundle is not None
    assert verify_bundle(tmp_path / "folds.tar.gz").graphs == 4
    predict_files(tmp_path / "folds.tar.gz", higgs_files[1], tmp_path / "s.parquet")
    rows = pq.read_table(tmp_path / "s.parquet")
    identity = event_identity([rows[name].to_numpy() for name in ("run", "luminosityBlock", "event")])
    folds = Split.k_fold(3, 0).fold_of(identity)
    np.testing.assert_array_equal(rows["fold"], folds)
    with Bundle.open(tmp_path / "folds.tar.gz") as bundle:
        raw = np.concatenate([block[0] for block in mlaas4hep.open(higgs_files[1]).raw_blocks(bundle.encoding)])
        parts = [bundle.predict_by_fold(raw, np.full(len(raw), fold)) for fold in range(3)]
        np.testing.assert_allclose(np.mean(parts, axis=0), bundle.predict(raw), atol=1e-6)
    expected = np.choose(folds, [part[:, 1] for part in parts])
    np.testing.assert_allclose(rows["probability_1"], expected, atol=1e-6)
    assert np.abs(parts[0] - parts[1]).max() > 1e-3
    with serve_in_process(tmp_path / "models") as server:
        client = TFaaSClient(server.url)
        client.upload_bundle(tmp_path / "folds.tar.gz")
        event = uproot.open(higgs_files[1])["Events"].arrays(BRANCHES, entry_stop=1)[0].to_list()
        served = client.predict(keys=list(event), values=list(event.values()), model="folds")
    assert served[1] == pytest.approx(np.mean(parts, axis=0)[0, 1], abs=1e-6)
