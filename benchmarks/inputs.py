"""The files that benchmarks read, made once from the small ones of the repository, and uproot's ways to read them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import uproot
from measure import Work
from tile import tile

__all__ = ["HIGGS", "HIGGS_LABELS", "NANOAOD", "tiled", "uproot_works"]

HERE = Path(__file__).parent
HIGGS = [HERE.parent / "examples" / "data" / name for name in ("VBF_HToTauTau.root", "GluGluToHToTauTau.root")]
HIGGS_LABELS = [1, 0]
NANOAOD = HERE.parent / "tests" / "data" / "nanoAOD_2015_CMS_Open_Data_ttbar.root"


def tiled(sources: Sequence[Path], times: int) -> list[str]:
    """Return files with so many times as many events as the sources hold."""
    folder = HERE / "data"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{source.stem}_x{times}.root" for source in sources]
    for source, file in zip(sources, files, strict=True):
        if not file.exists():
            tile(source, file, times)
    return [str(file) for file in files]


def uproot_works(files: Sequence[str], branches: Sequence[str], events: int) -> list[Work]:
    """Return the ways to read all events of some branches with uproot alone; the fastest is the reference."""
    names = list(branches)

    def whole() -> None:
        for file in files:
            uproot.open(file, object_cache=None, array_cache=None)["Events"].arrays(names, array_cache=None, how=dict)

    def by_cluster() -> None:
        for file in files:
            tree = uproot.open(file, object_cache=None, array_cache=None)["Events"]
            for start, stop in itertools.pairwise(tree.common_entry_offsets(filter_name=names)):
                tree.arrays(names, entry_start=start, entry_stop=stop, array_cache=None, how=dict)

    def by_bytes() -> None:
        for file in files:
            tree = uproot.open(file, object_cache=None, array_cache=None)["Events"]
            for _ in tree.iterate(names, step_size="100 MB", how=dict):
                pass

    return [
        Work("uproot, each file whole", whole, events),
        Work("uproot, cluster by cluster", by_cluster, events),
        Work("uproot, 100 MB steps", by_bytes, events),
    ]
