"""What the fork server imports and compiles before it makes worker processes, so that each begins its work at once.

Nothing here may start a thread or open a connection.
"""

from __future__ import annotations

import numpy as np

import mlaas4hep.streaming.formats.root
import mlaas4hep.streaming.stream.worker_process  # noqa: F401 - workers begin there
from mlaas4hep.streaming.encoding.block import KernelPlan, pack
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.streaming.formats.base import Column

__all__: list[str] = []


def _load_kernel() -> None:
    encoding = Encoding((Feature("value", jagged=False, width=1),))
    block = pack({"value": Column(np.zeros(1, np.float32), None)}, encoding, 1)
    row = np.zeros(1, np.int64)
    block.encode(KernelPlan(encoding), row, row, np.empty((1, 1), np.float32), np.empty((1, 1), np.bool_))


_load_kernel()
