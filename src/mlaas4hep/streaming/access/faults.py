"""What happens when a file is bad: try again, try elsewhere, then fail, skip or quarantine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args
from urllib.parse import urlsplit

from mlaas4hep.errors import (
    BranchesDifferError,
    BranchNotFoundError,
    MLaaS4HEPError,
    SettingError,
    SourceError,
    TreeNotFoundError,
)
from mlaas4hep.streaming.access.credentials import explained
from mlaas4hep.streaming.access.retry import RetryPolicy, is_remote, may_pass

__all__ = ["BAD_FILE_ERRORS", "Faults", "OnBadFile"]

OnBadFile = Literal["fail", "skip", "quarantine"]

BAD_FILE_ERRORS = (SourceError, TreeNotFoundError, BranchesDifferError, BranchNotFoundError)
"""Errors that say of a file that it cannot be used, whatever it was that broke it."""

Result = TypeVar("Result")


@dataclass(kw_only=True)
class Faults:
    """The rules for bad files, and what is known of them by now; one object for a dataset.

    Parameters
    ----------
    on_bad_file : {"fail", "skip", "quarantine"}
        What is done once attempts and locations are used up: raise the error, lose the run of events that was wanted, or lose every further run
        of that file too.
    retry : RetryPolicy
        Attempts at each location.

    Attributes
    ----------
    quarantined : dict of str to str
        Files from which nothing is read any more, and why.
    """

    on_bad_file: OnBadFile = "fail"
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    quarantined: dict[str, str] = field(default_factory=dict)
    _failed_hosts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.on_bad_file not in get_args(OnBadFile):
            raise SettingError("on_bad_file", "'fail', 'skip' or 'quarantine'", self.on_bad_file)
        if not isinstance(self.retry, RetryPolicy):
            raise SettingError("retry", "a RetryPolicy", self.retry)

    def attempt(self, locations: Sequence[str], action: Callable[[str], Result]) -> Result:
        """Do something with a file at the first of its locations where it works.

        Parameters
        ----------
        locations : sequence of str
            Names under which the same file can be had, in order of preference; those on hosts that failed before come last.
        action : callable
            Called with a location. A :class:`~mlaas4hep.errors.SourceError` that may pass is tried again there, another one at the next
            location; any other error goes up.

        Raises
        ------
        SourceError
            The last one; where there were several locations, with the reason of each.
        """
        errors: list[SourceError] = []
        for location in sorted(locations, key=lambda name: urlsplit(name).netloc in self._failed_hosts):
            error = None
            for _ in self.retry.attempts_at(location):
                try:
                    result = action(location)
                except SourceError as fault:
                    error = explained(fault)
                    if not may_pass(fault):
                        break
                else:
                    self._failed_hosts.discard(urlsplit(location).netloc)
                    return result
            assert error is not None  # there is at least one attempt  # noqa: S101
            errors.append(error)
            if is_remote(location) and may_pass(error):
                self._failed_hosts.add(urlsplit(location).netloc)
        if len(errors) == 1:
            raise errors[0]
        reasons = "; ".join(f"{error.file}: {error.reason}" for error in errors)
        raise SourceError(locations[0], f"it cannot be had from any of {len(errors)} places: {reasons}") from errors[-1]

    def lose(self, file: str, error: MLaaS4HEPError) -> str:
        """Return why a file's events are lost; raises the error instead where that is the rule.

        Parameters
        ----------
        file : str
            Name in the catalogue.
        error : MLaaS4HEPError
        """
        if self.on_bad_file == "fail":
            raise error
        reason = error.reason if isinstance(error, SourceError) else str(error)
        if self.on_bad_file == "quarantine":
            self.quarantined[file] = reason
        return reason
