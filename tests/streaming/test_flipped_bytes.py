"""A damaged ROOT file never ends or holds up the process or takes its memory; where a checksum shows the damage it is an error."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import awkward as ak
import pytest
import uproot
from tests.conftest import make_events
from tests.streaming.test_root_baskets import COMPRESSIONS, plain_branches, write

CHILD = Path(__file__).with_name("flips.py")
EVENTS = 60
CHECKED = {b"ZL", b"XZ", b"L4"}
"""Compressions whose blocks carry a checksum; ZSTD's do not."""


def damaged(path: Path, damages: list[dict[str, Any]], tree: str = "Events") -> list[str]:
    """What becomes of each damaged copy of a file, each read in one child process."""
    text = "\n".join(map(json.dumps, damages))
    child = subprocess.run(
        [sys.executable, str(CHILD), str(path), tree], input=text, capture_output=True, text=True, timeout=280
    )
    outcomes = [json.loads(line) for line in child.stdout.splitlines()]
    after = damages[len(outcomes)] if len(outcomes) < len(damages) else None
    assert child.returncode == 0, f"ended with {child.returncode} at {after}: {child.stderr[-2000:]}"
    return outcomes


def written(kind: str, path: Path, compression: Any) -> Path:
    columns = make_events(EVENTS, seed=8)
    if kind == "TTree":
        return write(path, columns, [20, 40], compression)
    table = ak.Array({name: ak.Array(values) for name, values in columns.items()})
    with uproot.recreate(path, compression=compression) as file:
        writable = file.mkrntuple("Events", table[:20])
        writable.extend(table[20:40])
        writable.extend(table[40:])
    return path


def covered_places(path: Path) -> list[int]:
    """Bytes of compressed values and of their checksums: all of a basket but its key and the header of its block."""
    data = path.read_bytes()
    places: list[int] = []
    for branch in plain_branches(path).values():
        for seek, size in zip(branch.seek.tolist(), branch.size.tolist(), strict=True):
            block = seek + int.from_bytes(data[seek + 14 : seek + 16], "big")
            if data[block : block + 2] in CHECKED:
                places.extend(range(block + 9, seek + size))
    return places


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
def test_a_flipped_byte_anywhere_neither_crashes_nor_hangs_nor_takes_much_memory(
    tmp_path: Path, kind: str, compression: str
) -> None:
    path = written(kind, tmp_path / "f.root", COMPRESSIONS[compression]())
    size = path.stat().st_size
    chooser = random.Random(f"{kind} {compression}")
    header = chooser.sample(range(110), 20)
    anywhere = [chooser.randrange(size) for _ in range(45)]
    flips: list[dict[str, Any]] = [
        {"at": [place], "xor": chooser.choice((1, 0x80, 0xFF, 1 << chooser.randrange(8)))}
        for place in header + anywhere
    ]
    several = [{"at": [chooser.randrange(size) for _ in range(4)], "xor": 0xFF} for _ in range(10)]
    outcomes = Counter(damaged(path, flips + several))
    assert set(outcomes) <= {"refused", "same", "other values"}
    assert outcomes["refused"] > 5


@pytest.mark.parametrize("compression", ["ZLIB", "LZMA", "LZ4"])
def test_a_flipped_byte_that_a_checksum_of_a_tree_covers_is_an_error(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "f.root", make_events(900, seed=8), [300, 600], COMPRESSIONS[compression]())
    places = covered_places(path)
    chooser = random.Random(compression)
    flips = [{"at": [place], "xor": 1 << chooser.randrange(8)} for place in chooser.sample(places, 60)]
    assert Counter(damaged(path, flips)) == {"refused": 60}


@pytest.mark.parametrize(("kind", "compression"), [("TTree", "ZSTD"), ("RNTuple", "LZ4")])
def test_a_file_that_is_cut_off_anywhere_is_an_error(tmp_path: Path, kind: str, compression: str) -> None:
    path = written(kind, tmp_path / "f.root", COMPRESSIONS[compression]())
    size = path.stat().st_size
    chooser = random.Random(kind)
    cuts = [*range(300), *chooser.sample(range(300, size - 2048), 100), *range(size - 2048, size)]
    cuts.sort(reverse=True)
    assert Counter(damaged(path, [{"cut": cut} for cut in cuts])) == {"refused": len(cuts)}


def test_absurd_numbers_in_a_file_that_root_wrote_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "f.root"
    shutil.copyfile(Path(__file__).parent.parent / "data" / "root-tree-types.root", path)
    chooser = random.Random(9)
    size = path.stat().st_size
    flips = [{"at": list(range(place, place + 4)), "xor": 0x7F} for place in chooser.sample(range(size - 4), 60)]
    assert set(damaged(path, flips)) <= {"refused", "same", "other values"}
