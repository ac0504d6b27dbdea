"""What could not be read: which file, which events, why. Nothing is missing without being named here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Loss", "LossReport"]


@dataclass(frozen=True, slots=True)
class Loss:
    """Consecutive events of one file that were not delivered.

    Parameters
    ----------
    file : str
        The file, as the catalogue names it.
    start, stop : int
        The entries ``start … stop - 1``; ``stop`` is None where the file could not be opened, so that nobody knows how many it holds.
    reason : str
    """

    file: str
    start: int
    stop: int | None
    reason: str

    @property
    def events(self) -> int | None:
        """Number of events, if it is known."""
        return None if self.stop is None else self.stop - self.start


class LossReport:
    """All that was lost in one pass, each event once.

    Parameters
    ----------
    losses : iterable of Loss

    Examples
    --------
    >>> report = LossReport([Loss("a.root", 0, 500, "the file ends at byte 1000"), Loss("b.root", 0, None, "no such file")])
    >>> report.events, report.files
    (500, ('a.root', 'b.root'))
    >>> print(report)
    file    entries  reason
    a.root  0–499    the file ends at byte 1000
    b.root  all      no such file
    500 events of 1 file and 1 whole file were lost
    """

    def __init__(self, losses: Iterable[Loss] = ()) -> None:
        self._losses: dict[tuple[str, int, int | None], Loss] = {}
        self.extend(losses)

    def add(self, loss: Loss) -> None:
        """Add a loss; one that is known already counts once."""
        self._losses.setdefault((loss.file, loss.start, loss.stop), loss)

    def extend(self, losses: Iterable[Loss]) -> None:
        """Add several."""
        for loss in losses:
            self.add(loss)

    def __iter__(self) -> Iterator[Loss]:
        return iter(self._losses.values())

    def __len__(self) -> int:
        return len(self._losses)

    @property
    def files(self) -> tuple[str, ...]:
        """Files that lost something, in the order in which it was noticed."""
        return tuple(dict.fromkeys(loss.file for loss in self))

    @property
    def whole_files(self) -> tuple[str, ...]:
        """Files that could not be opened at all."""
        return tuple(loss.file for loss in self if loss.stop is None)

    @property
    def events(self) -> int:
        """Number of different events that were lost, without those of files that could not be opened."""
        return sum(self.events_of(file) for file in self.files)

    def events_of(self, file: str) -> int:
        """Return how many events of a file were lost; passes with other runs may have noticed the same events."""
        spans = sorted((loss.start, loss.stop) for loss in self if loss.file == file and loss.stop is not None)
        events = reached = 0
        for start, stop in spans:
            events += max(0, stop - max(start, reached))
            reached = max(reached, stop)
        return events

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return {"events": self.events, "whole_files": list(self.whole_files), "losses": [asdict(loss) for loss in self]}

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def __str__(self) -> str:
        if not len(self):
            return "nothing was lost"
        rows = [("file", "entries", "reason")]
        rows += [
            (loss.file, "all" if loss.stop is None else f"{loss.start}–{loss.stop - 1}", loss.reason) for loss in self
        ]
        first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
        lines = [f"{file:<{first}}  {entries:<{second}}  {reason}" for file, entries, reason in rows]
        parts = len(set(self.files) - set(self.whole_files))
        summary = []
        if parts:
            summary.append(f"{self.events} events of {parts} file{'s' * (parts != 1)}")
        if whole := len(self.whole_files):
            summary.append(f"{whole} whole file{'s' * (whole != 1)}")
        lost_one = not parts and whole == 1
        return "\n".join([*lines, f"{' and '.join(summary)} {'was' if lost_one else 'were'} lost"])

    def __repr__(self) -> str:
        return f"<LossReport of {len(self)} losses in {len(self.files)} files>"
