"""Open files as a dataset: from what a person writes to a catalogue, columns with their roles, and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from mlaas4hep.errors import SettingError, SourceError
from mlaas4hep.streaming.access.checksums import Checksums
from mlaas4hep.streaming.access.faults import BAD_FILE_ERRORS, Faults, OnBadFile
from mlaas4hep.streaming.access.idle_readers import signature_of
from mlaas4hep.streaming.access.losses import Loss, LossReport
from mlaas4hep.streaming.access.opening import Opener, size_of
from mlaas4hep.streaming.access.retry import RetryPolicy
from mlaas4hep.streaming.access.sources import DEFAULT_REDIRECTOR, SourceFile, find_files, read_list
from mlaas4hep.streaming.catalog import build_catalog
from mlaas4hep.streaming.dataset import Dataset
from mlaas4hep.streaming.encoding.encoding import Layout
from mlaas4hep.streaming.encoding.normalisation import Normalisation
from mlaas4hep.streaming.encoding.vector import Clip, VectorSettings
from mlaas4hep.streaming.features import GeneratorLevel, choose_features
from mlaas4hep.streaming.formats import ColumnType, Reader, format_of
from mlaas4hep.streaming.identity import IDENTIFIERS
from mlaas4hep.streaming.labels import Labels, LabelValue, is_expression, parse_labels
from mlaas4hep.streaming.selecting.alignment import Alignment, MissingBranch
from mlaas4hep.streaming.selecting.lumi_mask import LumiMask
from mlaas4hep.streaming.selecting.preprocessing import Preprocessing
from mlaas4hep.streaming.selecting.selection import EventSelection
from mlaas4hep.streaming.selecting.view import View
from mlaas4hep.streaming.splitting import Split
from mlaas4hep.streaming.statistics.scan import label_values
from mlaas4hep.streaming.statistics.specs import Specs
from mlaas4hep.streaming.targets import Targets
from mlaas4hep.streaming.weights.cross_sections import weighting_of_some_files
from mlaas4hep.streaming.weights.weighting import Weighting

__all__ = ["open_dataset"]

MOST_SHOWN = 5
"""Branches that a note names; ``excluded`` names all."""

TYPED_BY_VALUES = ("csv", "json")
"""Formats in which the type of a column follows from its values, so that two files may differ in it."""


def open_dataset(
    files: str | Path | Sequence[str | Path],
    labels: str | Sequence[LabelValue] | None = None,
    *,
    tree: str = "Events",
    dtype: str | None = None,
    branches: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] = (),
    identifiers: Sequence[str] | None = None,
    generator_level: GeneratorLevel = "keep",
    split: Split | None = None,
    max_events: int = -1,
    selection: str | EventSelection | None = None,
    new_columns: Mapping[str, str] | None = None,
    object_cuts: Mapping[str, str] | None = None,
    lumi_mask: str | Path | LumiMask | None = None,
    target: str | Sequence[str] | None = None,
    weights: str | Mapping[str, Any] | Weighting | None = None,
    normalisation: Normalisation = "minmax",
    clip: Clip | None = None,
    layout: Layout = "flat",
    max_objects: int | Mapping[str, int] | None = None,
    order_by: str | Mapping[str, str] | None = None,
    collections: Mapping[str, str | Sequence[str]] | None = None,
    preproc: str | Path | Preprocessing | None = None,
    missing_branch: MissingBranch = "error",
    specs: Specs | str | Path | None = None,
    redirector: str | Sequence[str] = DEFAULT_REDIRECTOR,
    on_bad_file: OnBadFile = "fail",
    retry: RetryPolicy | None = None,
    checksums: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Open files as one dataset; reads their metadata, and no event.

    Parameters
    ----------
    files : str, Path, or sequence of them
        Paths, folders, patterns, URLs, ``/store/…`` names; a string may be a comma-separated list or name a text file that holds one.
    labels : str, sequence, or None
        One label a file; or the name of a branch or new column that holds the label, or an expression that gives it (``"nGenTop >= 1"``).
    tree : str
        Name of the TTree or RNTuple.
    dtype : str, optional
        Format of the files whatever their extensions: ``root``, ``parquet``, ``arrow``, ``csv``, ``json``, ``avro`` or ``hdf5``.
    branches : str or sequence of str, optional
        Names or patterns (``Jet_*``) of the features, a comma-separated text of them, or a text file with one a line. All branches of numbers and all
        new columns when not given.
    exclude : str or sequence of str
        The same for branches that are no features.
    identifiers : sequence of str, optional
        Branches that identify an event. When not given: ``run``, ``luminosityBlock`` and ``event`` where the files have all three, else file and
        entry.
    generator_level : {"keep", "drop"}
        Whether branches that only simulation has may be features.
    split : Split, optional
        How events are divided into test, validation and training.
    max_events : int
        Use only about so many events, from each file in proportion and before any selection; -1 for all.
    selection : str or EventSelection, optional
        Which events are taken: ``"nJet >= 2 and MET_pt > 30"``. The language is in docs/selection.md.
    new_columns : mapping of str to str, optional
        Name → expression: ``{"HT": "sum(Jet_pt)"}``.
    object_cuts : mapping of str to str, optional
        Collection → condition on its members: ``{"Jet": "pt > 30"}``.
    lumi_mask : str, Path or LumiMask, optional
        Certified luminosity sections, as a JSON file; events of others are left out.
    target : str or sequence of str, optional
        Columns or expressions whose values are to be predicted, in place of labels.
    weights : str, mapping or Weighting, optional
        Branch or expression with the weight of an event, or settings by name (``cross_sections``, ``negative``, ``balance_classes``, …): see
        docs/weights.md.
    normalisation, clip, layout, max_objects, order_by, collections
        What the event vector shall be, as :class:`~mlaas4hep.streaming.encoding.vector.VectorSettings` and docs/encoding.md say.
    preproc : str, Path or Preprocessing, optional
        A Python file with ``def preprocessing(rec)``, which changes the columns of events before anything else sees them. It is executed.
    missing_branch : {"error", "fill", "intersect"}
        What is done about a branch that some files lack: raise an error, take its values there as absent, or do without the branch.
    specs : Specs, str or Path, optional
        Statistics that are known already, or the file that holds them; they must be of these files. ``"beside"`` keeps them in the folder of the
        first file, under a name that follows from files and settings, and takes them from there the next time.
    redirector : str or sequence of str
        What is put before a ``/store/…`` name that is no local file; several are tried in order.
    on_bad_file : {"fail", "skip", "quarantine"}
        What is done with a file that cannot be opened or read: raise the error; go on without the events concerned; or go on without any further
        event of that file. What is missing stands in ``losses`` of the dataset and of each stream.
    retry : RetryPolicy, optional
        How often a fault of the network is met with another attempt, before the next redirector and before a file counts as bad.
    checksums : str or Path, optional
        A file as ``sha256sum`` writes it (or with adler32): every input file is read and compared once, when it is catalogued.
    progress : callable, optional
        Called with the number of files opened and of all.

    Returns
    -------
    Dataset

    Raises
    ------
    SourceError
        If a file is missing, cannot be read, or is not what its name says.
    TreeNotFoundError, BranchNotFoundError, BranchTypeError, BranchesDifferError
        If tree or branches are not there, hold no numbers, or differ from file to file.
    ExpressionError
        If an expression cannot be read, or does not fit the branches.
    LabelError
        If the labels do not fit the files.
    SettingError
        If another argument has a value that it must not have.

    Examples
    --------
    >>> import mlaas4hep
    >>> dataset = mlaas4hep.open(["examples/data/VBF_HToTauTau.root", "examples/data/GluGluToHToTauTau.root"], labels=[1, 0])
    >>> dataset
    <Dataset of 2 files, 48000 events, tree 'Events'
      features: 33 branches, 10 flat and 23 jagged
      identifiers: run, luminosityBlock, event
      classes: 0, 1
      split: 20% test, 10% validation>
    >>> batch = next(dataset.batches(batch_size=256, fold="train"))
    >>> batch.x.shape, batch.x.dtype
    ((256, 125), dtype('float32'))
    """
    if isinstance(max_events, bool) or not isinstance(max_events, int) or (max_events < 1 and max_events != -1):
        raise SettingError("max_events", "an integer ≥ 1, or -1 for all", max_events)
    branches = read_list(branches) if isinstance(branches, str) else branches
    exclude = read_list(exclude) if isinstance(exclude, str) else exclude
    sources = find_files(files, redirector)
    by_file, label_column = parse_labels(labels)
    known_labels = Labels() if by_file is None else Labels.of_files(by_file, [source.path for source in sources])
    targets = _targets(target, labels)
    chosen = _event_selection(selection, new_columns, object_cuts, lumi_mask)
    weighting = Weighting.from_value(weights)
    vector = VectorSettings(
        normalisation=normalisation,
        clip=clip,
        layout=layout,
        max_objects=max_objects,
        order_by=order_by,
        collections=collections,
    )
    purposes = dict.fromkeys(() if targets is None else targets.columns, "target")
    purposes |= {} if label_column is None else {label_column: "label"}
    purposes |= {} if weighting.branch is None else {weighting.branch: "weight"}
    preprocessing = preproc if isinstance(preproc, Preprocessing | None) else Preprocessing.load(preproc)
    faults = Faults(on_bad_file=on_bad_file, retry=retry or RetryPolicy())
    opener = Opener(tree, faults, None if checksums is None else Checksums.read(checksums), dtype)
    losses = LossReport()
    with ExitStack() as until_catalogued:
        usable, first = _first_usable(sources, opener, losses, until_catalogued)
        view = View(preprocessing=preprocessing)
        first = view.preprocessed(first)
        named = {*first.columns, *first.skipped, *chosen.new_columns}
        derived = purposes | {name: "weights.flatten" for name in weighting.flatten if name not in purposes}
        chosen = chosen.deriving(
            {name: purpose for name, purpose in derived.items() if name not in named and is_expression(name)}
        )
        view = replace(view, selection=chosen)
        seen = view.of(first)
        roles = choose_features(
            seen,
            tree,
            branches=branches,
            exclude=exclude,
            identifiers=IDENTIFIERS if identifiers is None else identifiers,
            identifiers_required=identifiers is not None,
            purposes=purposes,
            generator_level=generator_level,
        )
        extra = [*weighting.flatten, *_order_columns(vector, seen.columns)]
        wanted = tuple(dict.fromkeys((*roles.read, *(name for name in extra if name in seen.columns))))
        view = view.bound(seen, wanted)
        alignment = Alignment(
            view.branches(wanted),
            missing_branch,
            named=[name for name in branches or () if name in first.columns],
            required=view.branches(
                [name for name in wanted if name not in roles.features or name not in first.columns]
            ),
            widen=format_of(usable[0].path, dtype) in TYPED_BY_VALUES,
        )
        catalog, settled, lost = build_catalog(usable, opener, alignment, view, first, progress)
        if any(not kind.same_kind(first.columns[name]) for name, kind in settled.columns.items()) or settled.filled:
            view = replace(view, types=settled.columns)
            seen = view.of(first)
        if settled.left_out:
            roles = roles.without(settled.left_out)
            wanted = tuple(name for name in wanted if name not in settled.left_out)
            view = view.bound(seen, wanted)
        new = {name: seen.columns[name] for name in wanted if name not in catalog.columns}
        counters = {name: kind for name, kind in seen.columns.items() if _is_counter(name, kind)}
        catalog = replace(catalog, columns={**counters, **catalog.columns, **new}, view=view)
        losses.extend(lost)
        until_catalogued.pop_all()
        # It is read next: no need to open it again.
        signature = signature_of(usable[0].path)
        catalog.idle.give(usable[0].path, signature if signature and signature[2] == size_of(first) else None, seen)
    if max_events >= 0:
        catalog = catalog.first(max_events)
    if catalog.entries == 0:
        others = len(catalog.files) - 1
        raise SourceError(
            catalog.files[0].path,
            f"tree '{tree}' holds no event" + (f", nor do the {others} other files" if others else ""),
        )
    left_out = set(losses.whole_files)
    places = [place for place, source in enumerate(sources) if source.path not in left_out]
    found: Labels | Targets
    if targets is not None:
        found = targets
    elif by_file is not None:
        found = known_labels.of_some_files(places)
    elif label_column is not None:
        found = Labels.of_branch(label_column, label_values(catalog, label_column, losses))
    else:
        found = Labels()
    if left_out:
        weighting = weighting_of_some_files(weighting, [source.path for source in sources], places)
    notes = [*_no_numbers(seen.skipped), *settled.lines(), *(preprocessing.notes if preprocessing is not None else ())]
    dataset = Dataset(
        catalog, roles, found, split or Split(), None, losses, vector=vector, weighting=weighting, notes=notes
    )
    if specs is None:
        return dataset
    if isinstance(specs, Specs):
        return dataset.with_specs(specs)
    if specs == "beside":
        return dataset.with_specs_beside()
    try:
        return dataset.with_specs(Specs.read(specs))
    except SettingError as error:
        raise SettingError(error.setting, error.rule, error.got, str(specs)) from error


def _event_selection(
    selection: str | EventSelection | None,
    new_columns: Mapping[str, str] | None,
    object_cuts: Mapping[str, str] | None,
    lumi_mask: str | Path | LumiMask | None,
) -> EventSelection:
    """Return the selection that the arguments mean together."""
    if isinstance(selection, EventSelection):
        given = {"new_columns": new_columns, "object_cuts": object_cuts, "lumi_mask": lumi_mask}
        for name, value in given.items():
            if value is not None:
                raise SettingError(name, "part of the EventSelection where 'selection' is one", value)
        return selection
    if lumi_mask is not None and not isinstance(lumi_mask, LumiMask):
        lumi_mask = LumiMask.read(lumi_mask)
    return EventSelection(selection, new_columns, object_cuts, lumi_mask)


def _targets(target: str | Sequence[str] | None, labels: object) -> Targets | None:
    if target is None:
        return None
    if labels is not None:
        raise SettingError(
            "target", "left out where there are labels: an event has a class or values to predict", target
        )
    return Targets((target,) if isinstance(target, str) else tuple(target))


def _first_usable(
    sources: Sequence[SourceFile], opener: Opener, losses: LossReport, open_until: ExitStack
) -> tuple[Sequence[SourceFile], Reader]:
    """Return the files from the first one on that can be opened, and that one open; those before it are lost, or the error goes up."""
    problem: Exception | None = None
    for place, source in enumerate(sources):
        try:
            reader = opener.reader(source)
        except BAD_FILE_ERRORS as error:
            problem = problem or error
            losses.add(Loss(source.path, 0, None, opener.faults.lose(source.path, error)))
        else:
            open_until.callback(reader.close)
            return sources[place:], reader
    assert problem is not None  # there is at least one file  # noqa: S101
    raise problem


def _no_numbers(skipped: Mapping[str, str]) -> list[str]:
    """Return the line that says which branches are left out because they hold no numbers."""
    if not skipped:
        return []
    shown = [f"'{name}' {why}" for name, why in islice(skipped.items(), MOST_SHOWN)]
    more = f", and {len(skipped) - len(shown)} more" if len(skipped) > len(shown) else ""
    what = "1 branch is" if len(skipped) == 1 else f"{len(skipped)} branches are"
    return [f"{what} left out: {', '.join(shown)}{more}"]


def _order_columns(vector: VectorSettings, columns: Mapping[str, ColumnType]) -> list[str]:
    """Return the columns that objects may be ordered by."""
    keys = [vector.order_by] if isinstance(vector.order_by, str) else list((vector.order_by or {}).values())
    members = [key.lstrip("+-") for key in keys]
    return [
        name
        for name, kind in columns.items()
        if kind.jagged and any(name == member or name.endswith(f"_{member}") for member in members)
    ]


def _is_counter(name: str, kind: ColumnType) -> bool:
    """Whether a column may hold the number of objects of a collection: ``nJet`` of ``Jet``."""
    return name[:1] in ("n", "N") and not kind.jagged and kind.dtype.kind in "iu"
