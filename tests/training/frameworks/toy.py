"""Toy events whose classes overlap, in batches as the stream gives them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ToyBatch(NamedTuple):
    x: np.ndarray
    mask: np.ndarray
    y: np.ndarray
    weight: np.ndarray


class ToyBatches:
    """Events in batches, in another order each epoch."""

    def __init__(self, batch, size=64, seed=None):
        self.batch, self.size, self.seed, self.epoch = batch, size, seed, 0

    def __iter__(self):
        n = len(self.batch.y)
        order = np.arange(n) if self.seed is None else np.random.default_rng((self.seed, self.epoch)).permutation(n)
        self.epoch += 1
        for start in range(0, n, self.size):
            yield ToyBatch(*(array[order[start : start + self.size]] for array in self.batch))


def toy_events(n, classes=2, width=5, seed=0):
    """Normal features, the first one shifted by the class; a fifth of the others absent."""
    random = np.random.default_rng(seed)
    y = random.integers(0, max(classes, 1), n)
    x = random.normal(size=(n, width)).astype(np.float32)
    x[:, 0] += 2 * y
    mask = random.random((n, width)) < 0.2
    mask[:, 0] = False
    x[mask] = 0
    return ToyBatch(x, mask, y.astype(np.int64), np.ones(n, np.float32))
