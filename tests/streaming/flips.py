"""Run as a child process with little memory: damages a file at given places, reads it, and says what became of each.

python flips.py FILE TREE < {"at": [places], "xor": byte} or {"cut": bytes}, ever fewer, one a line
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from mlaas4hep.errors import MLaaS4HEPError
from mlaas4hep.streaming.formats import open_reader

MEMORY = 256 << 20
SECONDS = 20
"""A read that takes longer ends the process by SIGALRM: it hangs."""


def read(path: Path, tree: str) -> dict[str, Any]:
    with closing(open_reader(str(path), tree)) as reader:
        return {"": reader.entries} | reader.read(0, reader.entries, sorted(reader.columns))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if one.keys() != other.keys() or one[""] != other[""]:
        return False
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f" and b.dtype.kind == "f") if a is not None else b is None
        for name in one
        if name
        for a, b in zip(one[name], other[name], strict=True)
    )


def outcome(path: Path, tree: str, whole: dict[str, Any]) -> str:
    try:
        found = read(path, tree)
    except MLaaS4HEPError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                return "too much memory"
            cause = cause.__cause__ or cause.__context__
        return "refused" if "\n" not in str(error) and path.name in str(error) else f"unclear: {error}"
    return "same" if same(found, whole) else "other values"


def main() -> None:
    source, tree = Path(sys.argv[1]), sys.argv[2]
    data = source.read_bytes()
    whole = read(source, tree)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path = source.with_name(f"damaged{source.suffix}")
    for line in sys.stdin:
        damage = json.loads(line)
        if "cut" in damage and path.exists():
            os.truncate(path, damage["cut"])
        else:
            changed = bytearray(data[: damage.get("cut")])
            for place in damage.get("at", ()):
                changed[place] ^= damage["xor"]
            path.write_bytes(changed)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        begin = time.monotonic()
        print(json.dumps(outcome(path, tree, whole)), flush=True)
        if time.monotonic() - begin > SECONDS / 2:
            print(f"{damage} took long", file=sys.stderr)
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
