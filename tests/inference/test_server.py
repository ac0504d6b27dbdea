"""The server as a whole, in a process of its own, with real clients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlaas4hep.errors import AnswerError
from mlaas4hep.inference.client import TFaaSClient
from tests.inference.conftest import expected_probabilities


def test_a_model_is_uploaded_listed_asked_by_name_and_deleted(client: TFaaSClient, bundle: Path) -> None:
    assert client.models() == []
    client.upload_bundle(bundle)
    assert [model["name"] for model in client.models()] == ["higgs"]
    answer = client.predict(keys=["Jet_pt", "nJet", "MET_pt", "MET_phi"], values=[[50.0, 40.0], 2, 30.0, 1.0], model="higgs")
    expected = expected_probabilities(np.array([[1, 30, 2, np.nan, np.nan, 50, 40, np.nan]], np.float32))[0]
    assert answer == pytest.approx(expected, abs=1e-6)
    client.delete("higgs")
    assert client.models() == []
    with pytest.raises(AnswerError, match="no model 'higgs'") as caught:
        client.predict(values=[1.0], model="higgs")
    assert caught.value.status == 404
