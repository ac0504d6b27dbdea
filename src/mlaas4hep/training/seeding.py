"""Random numbers that follow from one seed, without disturbing anybody else's, and that can go on where they were."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["load_random_state", "random_state", "reproducible"]


@contextlib.contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed the random numbers of Python, numpy and torch, and put them back as they were afterwards.

    Parameters
    ----------
    seed : int
        At least 0.

    Examples
    --------
    >>> with reproducible(1):
    ...     first = random.random()
    >>> with reproducible(1):
    ...     assert random.random() == first
    """
    import torch

    kept = random.getstate(), np.random.get_state()  # noqa: NPY002 - users' models draw from the global generator
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])  # noqa: NPY002


def random_state() -> dict[str, Any]:
    """Return the states of the random numbers of Python, numpy and torch, as plain values and tensors.

    Examples
    --------
    >>> with reproducible(1):
    ...     state = random_state()
    ...     drawn = random.random(), np.random.rand()
    ...     load_random_state(state)
    ...     assert (random.random(), np.random.rand()) == drawn
    """
    import torch

    version, numbers, normal = random.getstate()
    kind, keys, position, has_normal, cached = np.random.get_state()  # noqa: NPY002
    state: dict[str, Any] = {
        "python": [version, list(numbers), normal],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys, np.int64)),
            int(position),
            int(has_normal),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def load_random_state(state: Mapping[str, Any]) -> None:
    """Let all random numbers go on from a state that :func:`random_state` returned."""
    import torch

    version, numbers, normal = state["python"]
    random.setstate((version, tuple(numbers), normal))
    kind, keys, position, has_normal, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_normal, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
