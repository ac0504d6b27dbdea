"""Who of several processes that train one model writes and speaks: the first."""

from __future__ import annotations

import os

__all__ = ["is_first_process"]


def is_first_process() -> bool:
    """Return whether this is the first of the processes that ``torchrun`` started, or the only one.

    Examples
    --------
    >>> is_first_process()
    True
    """
    return int(os.environ.get("RANK", "0")) == 0
