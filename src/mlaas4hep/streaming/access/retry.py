"""When to try again, and for how long: what a fault of the network or of a server costs before a file counts as lost."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mlaas4hep.errors import SettingError, SourceError

__all__ = ["RetryPolicy", "is_remote", "may_pass"]

REFUSALS = (
    "[3010]",
    "[3011]",
    "[3016]",
    "[3028]",
    "[3030]",
    "Auth failed",
    "Invalid address",
    "CERTIFICATE",
    "UNKNOWN_CA",
)
"""What a client says when it will get the same answer again: not authorised, not found, a folder, no such user, no such host, a certificate that is
not accepted."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often a file is tried at one location, and how long to wait in between.

    Before attempt ``n + 1`` passes ``first_wait · 2**(n - 1)`` seconds, at most ``longest_wait``, of which a random part (up to ``jitter``) is left
    out, so that many jobs do not come back to a server at the same moment.

    Parameters
    ----------
    attempts : int
        Attempts at one location, the first included.
    first_wait, longest_wait : float
        Seconds.
    jitter : float
        Between 0 and 1.
    total_time : float
        Seconds after which no further attempt begins. A single attempt is limited by the time limits of the client.
    seed : int
        What the random part follows from, together with the name of the file.

    Examples
    --------
    >>> list(RetryPolicy(attempts=4, first_wait=1, longest_wait=3, jitter=0).waits("f.root"))
    [0.0, 1.0, 2.0, 3.0]
    """

    attempts: int = 3
    first_wait: float = 1.0
    longest_wait: float = 30.0
    jitter: float = 0.5
    total_time: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise SettingError("retry.attempts", "an integer ≥ 1", self.attempts)
        for name in ("first_wait", "longest_wait", "total_time"):
            if not getattr(self, name) >= 0:
                raise SettingError(f"retry.{name}", "a number of seconds ≥ 0", getattr(self, name))
        if not 0 <= self.jitter <= 1:
            raise SettingError("retry.jitter", "a number between 0 and 1", self.jitter)

    def waits(self, name: str) -> Iterator[float]:
        """Iterate over the seconds to wait before each attempt, 0 before the first."""
        generator = random.Random(f"{self.seed} {name}")
        yield 0.0
        wait = float(self.first_wait)
        for _ in range(self.attempts - 1):
            yield min(wait, float(self.longest_wait)) * (1 - self.jitter * generator.random())
            wait *= 2

    def attempts_at(self, name: str) -> Iterator[int]:
        """Iterate over the numbers of the attempts, each when it is time for it."""
        end = time.monotonic() + self.total_time
        for number, wait in enumerate(self.waits(name)):
            if number and time.monotonic() + wait > end:
                return
            if wait:
                time.sleep(wait)
            yield number


def is_remote(path: str) -> bool:
    """Whether a name is a URL rather than a path.

    Examples
    --------
    >>> is_remote("root://host//store/f.root"), is_remote("/data/f.root")
    (True, False)
    """
    return "://" in path


def may_pass(error: SourceError) -> bool:
    """Whether a fault may be gone at the next attempt: one of the network or a server, not one of the file itself."""
    cause = error.__cause__
    if cause is None or not is_remote(error.file) or isinstance(cause, FileNotFoundError | PermissionError):
        return False
    if any(sign in str(cause) for sign in REFUSALS) or 400 <= int(getattr(cause, "status", 0) or 0) < 500:
        return False
    # Errors of the HTTP client are not all OSErrors; a server that goes away within an answer gives such a one.
    return isinstance(cause, OSError) or type(cause).__module__.startswith(("aiohttp", "fsspec", "botocore"))
