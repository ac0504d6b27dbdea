"""Random numbers that follow from one seed, without disturbing anybody else's."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np

__all__ = ["reproducible"]


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
