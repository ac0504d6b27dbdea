"""The pieces of the demonstration that are not a layer's own: its data, held-out events, and the comparison with the server.

``mlaas4hep demo`` walks through the whole flow with them: files → training → bundle → server → predictions by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas4hep.errors import SourceError

if TYPE_CHECKING:
    from mlaas4hep.inference.client import TFaaSClient
    from mlaas4hep.streaming.dataset import Dataset

__all__ = ["HIGGS_FILES", "Comparison", "HeldOutEvent", "compare_with_server", "example_files", "held_out_events"]

HIGGS_FILES = ("VBF_HToTauTau.root", "GluGluToHToTauTau.root")
"""Simulated Higgs boson decays to two tau leptons: production by vector-boson fusion, and by gluon fusion."""


@dataclass(frozen=True)
class HeldOutEvent:
    """An event of the test part as a person has it: its identity, its class, and its values by branch.

    Parameters
    ----------
    file : int
        Index of its file.
    entry : int
        Its entry there.
    identifiers : mapping of str to int
        Run, luminosity section and event number.
    label : str
        Name of its class.
    values : mapping of str to float or list of float
        Physical value of each feature; a list for a jagged branch.
    """

    file: int
    entry: int
    identifiers: Mapping[str, int]
    label: str
    values: Mapping[str, float | list[float]]


@dataclass(frozen=True)
class Comparison:
    """What the server and the offline prediction say of one event.

    Parameters
    ----------
    event : HeldOutEvent
    served, offline : sequence of float
        Probability of each class.
    """

    event: HeldOutEvent
    served: Sequence[float]
    offline: Sequence[float]

    @property
    def difference(self) -> float:
        """Largest difference between the two."""
        return max(abs(one - other) for one, other in zip(self.served, self.offline, strict=True))


def example_files(folder: Path | None = None) -> list[str]:
    """Return the two Higgs files.

    Parameters
    ----------
    folder : Path, optional
        Where they are; when not given, where the package or the repository has them.

    Raises
    ------
    SourceError
        If they are not there.
    """
    package = Path(__file__).parent
    folders = [folder] if folder else [package / "example_data", package.parents[1] / "examples" / "data"]
    for place in folders:
        files = [place / name for name in HIGGS_FILES]
        if all(file.is_file() for file in files):
            return [str(file) for file in files]
    raise SourceError(
        str(folders[-1]), f"the example files {' and '.join(HIGGS_FILES)} are not there; say where with --data"
    )


def held_out_events(dataset: Dataset, count: int, seed: int = 0) -> list[HeldOutEvent]:
    """Draw some events of the test part.

    Parameters
    ----------
    dataset : Dataset
        With labels.
    count : int
        How many.
    seed : int
        What the drawing follows from.
    """
    from mlaas4hep.streaming.stream.reading import OpenFiles

    batch = next(iter(dataset.stream("test", batch_size=count, seed=seed)))
    files = OpenFiles(dataset.catalog)
    events = []
    for identity, label in zip(batch.id, batch.y, strict=True):
        file, entry = int(identity["file"]), int(identity["entry"])
        columns = files[file].read(entry, entry + 1, dataset.features)
        values = {
            name: c.content.tolist() if c.offsets is not None else c.content.item() for name, c in columns.items()
        }
        identifiers = {name: int(identity[name]) for name in dataset.roles.identifiers}
        events.append(HeldOutEvent(file, entry, identifiers, dataset.classes[label], values))
    files.close()
    return events


def compare_with_server(
    client: TFaaSClient, model: str, events: Sequence[HeldOutEvent], scores: Path
) -> list[Comparison]:
    """Ask the server for each event by the names of its features, and look up the offline prediction.

    Parameters
    ----------
    client : TFaaSClient
    model : str
        Name of the model on the server.
    events : sequence of HeldOutEvent
    scores : Path
        Parquet file of ``mlaas4hep predict`` over the events' files.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(scores)
    columns = [name for name in table.column_names if name.startswith("probability_")]
    comparisons = []
    for event in events:
        served: list[Any] = client.predict(keys=list(event.values), values=list(event.values.values()), model=model)
        row = table.filter((pc.field("file") == event.file) & (pc.field("entry") == event.entry)).to_pylist()[0]
        comparisons.append(Comparison(event, served, [row[name] for name in columns]))
    return comparisons
