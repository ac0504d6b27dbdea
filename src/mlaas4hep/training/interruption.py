"""Ctrl-C and SIGTERM while a model is trained: the first asks to stop after the current batch, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequest", "TrainingInterrupted", "stop_on_signals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):
    """A training was stopped by a signal and its state is saved; the message says how to go on.

    Parameters
    ----------
    message : str
        One line.
    number : int
        The signal.

    Attributes
    ----------
    exit_status : int
        As shells have it: 128 and the signal's number, so 130 for Ctrl-C.

    Examples
    --------
    >>> TrainingInterrupted("stopped", signal.SIGINT).exit_status
    130
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number
        self.exit_status = 128 + number


class StopRequest:
    """Whether the training was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __bool__(self) -> bool:
        return self.number is not None

    def ask(self, number: int) -> None:
        """Take note of a signal; the second one ends what goes on now.

        Raises
        ------
        KeyboardInterrupt
            At the second signal; SystemExit if that is SIGTERM.
        """
        if self.number is None:
            self.number = number
            return
        if number == signal.SIGTERM:
            raise SystemExit(128 + number)
        raise KeyboardInterrupt


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn signals into requests for the time of a ``with`` block; in another thread than the main one they are left alone.

    Yields
    ------
    StopRequest
        To be looked at between batches.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        request.ask(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
