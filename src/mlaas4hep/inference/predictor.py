"""Score files offline: the same graph on the same raw values as the server's, one row an entry.

One thread reads, others encode and predict, and the caller's writes; what is on its way is bounded in bytes, whatever the number of files.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlaas4hep import __version__
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.errors import SettingError
from mlaas4hep.inference.inputs import open_for_bundle
from mlaas4hep.inference.score_files import open_score_file, remove_leftovers
from mlaas4hep.inference.score_targets import ScoreTarget, is_done, targets_in, the_target
from mlaas4hep.inference.scoring import ScoredRun, Scorer
from mlaas4hep.streaming.access.losses import LossReport
from mlaas4hep.streaming.catalog import Run
from mlaas4hep.streaming.dataset import Dataset
from mlaas4hep.streaming.selecting.lumi_mask import LumiMask
from mlaas4hep.streaming.selecting.selection import LUMINOSITY_COLUMNS
from mlaas4hep.streaming.statistics.scan import RUN_BYTES
from mlaas4hep.streaming.stream.reading import LostRun, read_ahead

__all__ = ["PredictionSummary", "open_for_bundle", "predict_files"]

QUEUE_BYTES = 2 * RUN_BYTES


@dataclass(frozen=True)
class PredictionSummary:
    """What a prediction over files did.

    Parameters
    ----------
    events : int
        Number of rows that were written.
    selected : int
        Those of them that have scores.
    unproven : int
        Those of a k-fold that got the mean of all models, since nobody can tell which of them has seen the event.
    cut_values : int
        Values that were left out because an event held more than the model has places.
    seconds : float
        Time that it took.
    outputs : tuple of Path
        Files that were written.
    done_before : tuple of Path
        Files that were there already, whole.
    losses : LossReport
        What could not be read.
    notes : tuple of str
        What a person should know, a line each.
    """

    events: int
    selected: int
    unproven: int
    cut_values: int
    seconds: float
    outputs: tuple[Path, ...]
    done_before: tuple[Path, ...]
    losses: LossReport
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "events": self.events,
            "selected": self.selected,
            "unproven": self.unproven,
            "cut_values": self.cut_values,
            "seconds": self.seconds,
            "outputs": [str(path) for path in self.outputs],
            "done_before": [str(path) for path in self.done_before],
            "losses": self.losses.to_dict(),
            "notes": list(self.notes),
        }


def predict_files(
    bundle: Bundle | str | Path,
    files: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    out_dir: str | Path | None = None,
    suffix: str = ".scores",
    format: str = "root",  # noqa: A002 - what it is called everywhere
    branches: Sequence[str] = (),
    lumi_mask: str | Path | LumiMask | None = None,
    resume: bool = False,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
    **inputs: Any,
) -> PredictionSummary:
    """Score every event of some files.

    Parameters
    ----------
    bundle : Bundle, str or Path
        The model: a bundle, or the folder or archive of one.
    files : str, Path, or sequence of them
        As :func:`mlaas4hep.open` takes them.
    out : str or Path, optional
        One file for the scores of all: ``.root``, ``.parquet`` or ``.csv``. One row an entry of the files, in their order: ``file`` (index),
        ``entry``, the identifiers, ``selected``, of a k-fold ``fold`` (-1 where it cannot be proven), and the scores, NaN where not selected.
    out_dir : str or Path, optional
        A folder in place of ``out``: one file for each input, without the column ``file``; as a friend of the input's tree it fits entry by entry.
    suffix, format : str
        Of the names in ``out_dir``: ``NAME.root`` gets ``NAME.scores.root``; ``root``, ``parquet`` or ``csv``.
    branches : sequence of str
        Columns with one value an event that are copied beside the scores: of the files, or made by the training.
    lumi_mask : str, Path or LumiMask, optional
        Certification file; events of other luminosity sections are not selected.
    resume : bool
        Whether outputs that are whole, of the same files, bundle and settings, are left as they are.
    threads : int
        Threads that encode and predict.
    progress : callable, optional
        Called with the number of events done and of all.
    **inputs
        Of :func:`~mlaas4hep.inference.inputs.open_for_bundle`: ``tree``, ``selection``, ``preproc``, ``on_bad_file``, ``checksums``, …

    Returns
    -------
    PredictionSummary

    Raises
    ------
    MLaaS4HEPError
        If the bundle, the files or the outputs cannot be used. An output is whole or not there.
    """
    if not isinstance(bundle, Bundle):
        with Bundle.open(bundle) as opened:
            return predict_files(
                opened,
                files,
                out,
                out_dir=out_dir,
                suffix=suffix,
                format=format,
                branches=branches,
                lumi_mask=lumi_mask,
                resume=resume,
                threads=threads,
                progress=progress,
                **inputs,
            )
    start = time.perf_counter()
    if (out is None) == (out_dir is None):
        raise SettingError("out", "given, or else out_dir, and not both", None if out is None else str(out))
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 256:
        raise SettingError("threads", "an integer from 1 to 256", threads)
    if lumi_mask is not None and not isinstance(lumi_mask, LumiMask):
        lumi_mask = LumiMask.read(lumi_mask)
    further = (*branches, *(LUMINOSITY_COLUMNS if lumi_mask is not None else ()))
    dataset = open_for_bundle(bundle, files, further=further, **inputs)
    scorer = Scorer(bundle, dataset, branches, lumi_mask, number_files=out is not None)
    if out is not None:
        targets = [the_target(Path(out), dataset.files)]
    else:
        assert out_dir is not None  # noqa: S101
        targets = targets_in(Path(out_dir), dataset.files, suffix, f".{format.lstrip('.')}")
    settings = {
        "selection": inputs.get("selection", True),
        "lumi_mask": None
        if lumi_mask is None
        else hashlib.sha256(json.dumps(lumi_mask.to_dict()).encode()).hexdigest(),
        "tree": dataset.catalog.tree,
    }
    job = _Job(bundle, dataset, scorer, settings)
    done = [target for target in targets if resume and is_done(target, job.about(target))]
    return job.run(
        [target for target in targets if target not in done],
        tuple(target.path for target in done),
        threads,
        progress or (lambda _done, _total: None),
        start,
    )


class _Job:
    """A prediction that is under way."""

    def __init__(self, bundle: Bundle, dataset: Dataset, scorer: Scorer, settings: Mapping[str, Any]) -> None:
        self._bundle, self._dataset, self._scorer, self._settings = bundle, dataset, scorer, settings

    def about(self, target: ScoreTarget) -> dict[str, Any]:
        """Return what a file of scores says of itself."""
        files = [self._dataset.catalog.files[index] for index in target.files]
        names = {file.path for file in files}
        losses = [loss for loss in self._dataset.losses.to_dict()["losses"] if loss["file"] in names]
        return {
            "made_by": f"mlaas4hep {__version__}",
            "bundle": self._bundle.name,
            "bundle_sha256": self._bundle.digest,
            "inputs": [{"name": file.path, "uuid": file.uuid, "entries": file.entries} for file in files],
            "columns": list(self._scorer.types),
            "settings": dict(self._settings),
            "losses": losses,
        }

    def run(
        self,
        targets: Sequence[ScoreTarget],
        done_before: tuple[Path, ...],
        threads: int,
        progress: Callable[[int, int], None],
        start: float,
    ) -> PredictionSummary:
        """Write the targets, one after the other, from one pass over their files."""
        catalog = self._dataset.catalog
        runs_of: dict[int, list[Run]] = {}
        for run in catalog.runs(RUN_BYTES, self._scorer.columns_read):
            runs_of.setdefault(run.file, []).append(run)
        wanted = [[run for index in target.files for run in runs_of.get(index, ())] for target in targets]
        total = sum(run.events for runs in wanted for run in runs)
        events = selected = unproven = cut_values = 0
        with closing(self._scored([run for runs in wanted for run in runs], threads)) as scored:
            for target, runs in zip(targets, wanted, strict=True):
                _make_folder(target.path)
                remove_leftovers(target.path)
                with open_score_file(target.path, self._scorer.types, lambda target=target: self.about(target)) as file:  # type: ignore[misc]
                    for _ in runs:
                        rows = next(scored)
                        file.write(rows.columns)
                        events += rows.run.events
                        selected += rows.selected
                        unproven += rows.unproven
                        cut_values += rows.cut_values
                        progress(events, total)
        return PredictionSummary(
            events,
            selected,
            unproven,
            cut_values,
            time.perf_counter() - start,
            tuple(target.path for target in targets),
            done_before,
            self._dataset.losses,
            self._dataset.notes,
        )

    def _scored(self, runs: Sequence[Run], threads: int) -> Generator[ScoredRun, None, None]:
        """Give the rows of each run, in order."""
        waiting: deque[Future[ScoredRun]] = deque()
        with (
            read_ahead(self._dataset.catalog, runs, self._scorer.columns_read, QUEUE_BYTES) as following,
            ThreadPoolExecutor(threads, thread_name_prefix="mlaas4hep-score") as pool,
        ):
            try:
                while (loaded := following()) is not None:
                    if isinstance(loaded, LostRun):
                        self._dataset.losses.add(loaded.loss)
                    waiting.append(pool.submit(self._scorer.score, loaded))
                    while len(waiting) > threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError("out", f"a place that can be written ({error.strerror or error})", str(path)) from error
