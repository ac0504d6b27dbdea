"""Open files as what a bundle predicts on: with the columns, cuts and preprocessing that its training saw, events that the cut rejects included."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlaas4hep.bundle.preprocessing import PREPROCESSING_FILE
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.errors import BranchNotFoundError, BranchTypeError, BundleError, SettingError
from mlaas4hep.streaming.access.faults import OnBadFile
from mlaas4hep.streaming.access.sources import DEFAULT_REDIRECTOR
from mlaas4hep.streaming.dataset import Dataset
from mlaas4hep.streaming.expressions import parse
from mlaas4hep.streaming.open_dataset import open_dataset
from mlaas4hep.streaming.selecting.preprocessing import Preprocessing
from mlaas4hep.streaming.selecting.selection import EventSelection

__all__ = ["SELECTED", "open_for_bundle"]

SELECTED = "selected_by_the_bundle"
"""Column that holds whether an event passes the cut of the training, in a dataset of :func:`open_for_bundle`."""


def open_for_bundle(
    bundle: Bundle,
    files: str | Path | Sequence[str | Path],
    *,
    tree: str | None = None,
    dtype: str | None = None,
    redirector: str | Sequence[str] = DEFAULT_REDIRECTOR,
    selection: bool = True,
    preproc: str | Path | None = None,
    allow_preprocessing: bool = False,
    further: Sequence[str] = (),
    missing_branch: Literal["error", "fill"] = "error",
    on_bad_file: OnBadFile = "fail",
    checksums: str | Path | None = None,
) -> Dataset:
    """Open files as what a bundle predicts on: its features, and the identifiers that its training data had.

    Parameters
    ----------
    bundle : Bundle
    files : str, Path, or sequence of them
        As :func:`mlaas4hep.open` takes them.
    tree : str, optional
        Name of the tree; that of the training data when not given.
    dtype, redirector, on_bad_file, checksums
        As for :func:`mlaas4hep.open`.
    selection : bool
        Whether the cut of the training is evaluated, as the column :data:`SELECTED`. New columns and cuts on objects always apply: the model
        cannot do without.
    preproc : str or Path, optional
        The Python file that the training preprocessed events with; it must be the same to the byte. It is executed.
    allow_preprocessing : bool
        Whether the copy of that file in the bundle may be executed: the code of whoever made the bundle.
    further : sequence of str
        Further columns to read, of the files or made by the training.
    missing_branch : {"error", "fill"}
        What is done about a feature that some of the files lack: raise an error, or take its values there as absent.

    Returns
    -------
    Dataset
        Its ``notes`` say what is not as it was in the training. Where the files lack the identifiers, it has none.

    Raises
    ------
    MLaaS4HEPError
        If the files cannot be opened, a feature is missing or of another kind, or preprocessing is needed and not allowed.
    """
    data = bundle.manifest.data
    trained = _part(bundle, "selection")
    chosen = _selection_of(bundle, trained, [*bundle.encoding.sources, *further], cut=selection)
    notes = []
    if trained.get("lumi_mask"):
        notes.append(
            f"model '{bundle.name}' was trained with a luminosity mask; it is not applied, since it is of the training's data"
        )
    k_fold = bundle.k_fold
    identifiers = tuple(k_fold.identifiers if k_fold is not None else data.get("identifiers") or ())
    settings: dict[str, Any] = {
        "tree": tree or data.get("tree", "Events"),
        "dtype": dtype,
        "branches": [*bundle.encoding.sources, *further, *([SELECTED] if SELECTED in chosen.new_columns else [])],
        "selection": chosen,
        "preproc": _preprocessing(bundle, preproc, allow=allow_preprocessing),
        "missing_branch": missing_branch,
        "redirector": redirector,
        "on_bad_file": on_bad_file,
        "checksums": checksums,
    }
    try:
        dataset = open_dataset(files, identifiers=identifiers, **settings)
    except BranchNotFoundError as error:
        if error.branch not in identifiers:
            raise
        notes.append(f"{error.file} has no branch '{error.branch}': events are identified by file and entry only")
        dataset = open_dataset(files, identifiers=(), **settings)
    for feature in bundle.encoding.features:
        if dataset.catalog.columns[feature.branch].jagged != feature.jagged:
            wanted, found = ("a list", "one value") if feature.jagged else ("one value", "a list")
            raise BranchTypeError(
                feature.branch,
                dataset.files[0],
                f"model '{bundle.name}' takes {wanted} an event, the file holds {found}",
            )
    dataset.notes = (*dataset.notes, *notes)
    return dataset


def _part(bundle: Bundle, name: str) -> Mapping[str, Any]:
    """Return a part of what the manifest says of the data; empty where there is none."""
    part = bundle.manifest.data.get(name) or {}
    if not isinstance(part, Mapping):
        raise BundleError(str(bundle.source), f"manifest.json is damaged: 'data.{name}' is {type(part).__name__}")
    return part


def _selection_of(bundle: Bundle, trained: Mapping[str, Any], wanted: Sequence[str], *, cut: bool) -> EventSelection:
    """Return the selection of the training with its cut as a column, without the new columns that nothing here needs: labels, as a rule.

    Those may be made of branches that only simulation has.
    """
    try:
        condition = trained.get("cut") if cut else None
        new = {str(name): str(text) for name, text in (trained.get("new_columns") or {}).items()}
        if condition:
            new[SELECTED] = str(condition)
        object_cuts = {str(name): str(text) for name, text in (trained.get("object_cuts") or {}).items()}
    except AttributeError as error:
        raise BundleError(str(bundle.source), f"manifest.json is damaged: 'data.selection': {error}") from error
    needed = {*wanted, SELECTED}
    # From the last to the first, since a column may use those before it; a name may also be that of a collection.
    for name in reversed(list(new)):
        if name in needed or any(name.startswith(f"{collection}_") for collection in needed):
            needed.update(parse(new[name]).names)
        else:
            del new[name]
    return EventSelection(None, new, object_cuts)


def _preprocessing(bundle: Bundle, file: str | Path | None, *, allow: bool) -> Preprocessing | None:
    """Return the preprocessing of the training, if it may be executed."""
    trained = _part(bundle, "preprocessing")
    if not trained:
        if file is not None:
            raise SettingError(
                "preproc", f"left out, since model '{bundle.name}' was trained without preprocessing", str(file)
            )
        return None
    name, digest = str(trained.get("file", "?")), str(trained.get("sha256", "?"))
    if file is not None:
        source = Path(file)
    elif allow:
        source = bundle.folder / PREPROCESSING_FILE
        if PREPROCESSING_FILE not in bundle.manifest.sha256:
            raise BundleError(str(bundle.source), f"it has no copy of its preprocessing '{name}'; name the file itself")
    else:
        raise SettingError(
            "preproc",
            f"the file '{name}' (sha256 {digest[:12]}…) that model '{bundle.name}' was trained with, or the bundle's copy must be allowed "
            "(--allow-preprocessing), since it is a Python program that is executed",
            file,
        )
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError("preproc", f"a file that can be read ({error})", str(source)) from error
    found = hashlib.sha256(text.encode()).hexdigest()
    if found != digest:
        raise SettingError(
            "preproc",
            f"the file that model '{bundle.name}' was trained with, sha256 {digest}",
            f"{source}, sha256 {found}",
        )
    return Preprocessing(str(source), text)
