"""A model that sees objects, from files to its graph: what the stream gave it and what the graph makes of raw values are the same."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

import mlaas4hep
from mlaas4hep.bundle.graph import Output, complete_graph
from mlaas4hep.streaming.encoding.encoding import Encoding
from mlaas4hep.streaming.encoding.objects import flat_of, objects_of
from mlaas4hep.streaming.encoding.vector import VectorSettings
from mlaas4hep.training.frameworks.torch.export import to_onnx, trace


class MeanOverObjects(torch.nn.Module):
    """Embeds every object, averages over those that there are, and adds the flat features."""

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self.encoding = encoding
        self.embeddings = torch.nn.ModuleDict(
            {c.name: torch.nn.Linear(len(c.members), 8) for c in encoding.collections}
        )
        self.last = torch.nn.LazyLinear(2)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        parts = [flat_of(self.encoding, x, mask)[0]]
        for name, objects in objects_of(self.encoding, x, mask).items():
            present = (~objects.mask).unsqueeze(-1).float()
            embedded = torch.relu(self.embeddings[name](objects.x)) * present
            parts.append(embedded.sum(1) / present.sum(1).clamp(min=1))
        return self.last(torch.cat(parts, dim=1))


@pytest.mark.parametrize("order_by", [None, "pt", {"Jet": "mass"}])
def test_a_model_of_objects_gives_the_same_from_its_graph_for_any_number_of_events(
    higgs_files: list[str], order_by: str | dict[str, str] | None
) -> None:
    dataset = mlaas4hep.open(higgs_files, labels=[1, 0], generator_level="drop")
    settings = VectorSettings(
        normalisation={"*_pt": "log", "*_mass": "log", "*": "standard"},
        clip=(-4, 4),
        layout="objects",
        max_objects={"Jet": 3, "Tau": 1},
        order_by=order_by,
    )
    encoding = dataset.specs.make_encoding(settings)
    torch.manual_seed(1)
    module = MeanOverObjects(encoding).eval()
    module(torch.zeros(1, encoding.width), torch.zeros(1, encoding.width, dtype=torch.bool))
    graph = complete_graph(to_onnx(trace(module, encoding.width, "test"), "test"), encoding, Output.LOGITS, 2)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    raw, _, cut = next(dataset.raw_blocks(encoding, max_events=500))
    batch = next(iter(dataset.stream(encoding=encoding, shuffle=False, batch_size=500)))
    assert cut > 0
    with torch.no_grad():
        expected = torch.softmax(module(torch.from_numpy(batch.x), torch.from_numpy(batch.mask)), dim=1).numpy()
    assert np.ptp(expected[:, 0]) > 0.05
    for events in (1, 7, 500):
        (given,) = session.run(None, {"features": raw[:events]})
        np.testing.assert_allclose(given, expected[:events], atol=1e-6)
