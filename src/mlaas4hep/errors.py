"""Every error that a person or a client can cause, each with its parts as attributes.

The command line prints the message as one line and exits with 2; the server maps the classes to status codes in one table. A message says what was
wrong, where, and what would be right. Errors that nobody should ever see (defects of ours) are ordinary Python exceptions and keep their traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "AnswerError",
    "ArchiveError",
    "ArchiveTooLargeError",
    "BranchNotFoundError",
    "BranchTypeError",
    "BranchesDifferError",
    "BundleError",
    "ExpressionError",
    "FeatureError",
    "LabelError",
    "MLaaS4HEPError",
    "MissingExtraError",
    "ModelFileError",
    "ModelNameError",
    "ModelNotFoundError",
    "OverloadedError",
    "PortInUseError",
    "RequestError",
    "SettingError",
    "SourceError",
    "TrainingError",
    "TreeNotFoundError",
    "UnknownSettingError",
    "WeightError",
    "WorkerError",
    "nearest_names",
]


def nearest_names(name: str, candidates: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """Return the candidates that look most like ``name``, best first.

    Letters' case is ignored in the comparison, because it is the commonest slip.

    Parameters
    ----------
    name : str
        What was asked for.
    candidates : iterable of str
        What there is.
    count : int
        How many to return at most.

    Examples
    --------
    >>> nearest_names("Jet_Pt", ["nJet", "Jet_phi", "Jet_pt", "Muon_mass"], count=2)
    ('Jet_pt', 'Jet_phi')
    """
    spelling: dict[str, str] = {}
    for candidate in candidates:
        spelling.setdefault(candidate.lower(), candidate)
    return tuple(spelling[match] for match in difflib.get_close_matches(name.lower(), spelling, n=count, cutoff=0.5))


def quoted(names: Iterable[str], limit: int = 6) -> str:
    """Return names in quotes, separated by commas, with a count in place of those beyond ``limit``."""
    listed = list(names)
    text = ", ".join(f"'{name}'" for name in listed[:limit])
    return text + (f" and {len(listed) - limit} more" if len(listed) > limit else "")


class MLaaS4HEPError(Exception):
    """Base of all errors that have one clear line for the person who meets them."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes send their errors: the parts, not what the constructor takes, make one again.
        return _restored, (type(self), self.args, self.__dict__.copy())


def _restored(kind: type[MLaaS4HEPError], args: tuple[Any, ...], parts: dict[str, Any]) -> MLaaS4HEPError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(parts)
    return error


class SettingError(MLaaS4HEPError):
    """A setting, option or argument has a value that its rule does not allow.

    Parameters
    ----------
    setting : str
        Its full name, as in ``training.epochs``.
    rule : str
        What it must be, as in ``an integer ≥ 1``.
    got : object
        The value that came instead.
    where : str
        The file, and line if known, that it came from.
    """

    def __init__(self, setting: str, rule: str, got: object, where: str = "") -> None:
        self.setting, self.rule, self.got, self.where = setting, rule, got, where
        super().__init__(f"setting '{setting}' must be {rule}; got {got!r}" + (f" ({where})" if where else ""))


class UnknownSettingError(SettingError):
    """There is no setting of that name."""

    def __init__(self, setting: str, candidates: Iterable[str], where: str = "") -> None:
        self.setting, self.where = setting, where
        known = list(candidates)
        self.nearest = nearest_names(setting, known)
        self.rule, self.got = f"one of {quoted(known, len(known))}", setting
        hint = f"nearest: {quoted(self.nearest)}" if self.nearest else f"there are {quoted(known, 20)}"
        MLaaS4HEPError.__init__(self, f"no setting '{setting}'; {hint}" + (f" ({where})" if where else ""))


class SourceError(MLaaS4HEPError):
    """An input file is missing, cannot be read, or is not what its name says."""

    def __init__(self, file: str, reason: str) -> None:
        self.file, self.reason = file, reason
        super().__init__(f"{file}: {reason}")


class TreeNotFoundError(MLaaS4HEPError):
    """There is no tree of that name in a file."""

    def __init__(self, tree: str, file: str, available: Sequence[str]) -> None:
        self.tree, self.file, self.available = tree, file, tuple(available)
        there = f"it holds {quoted(available)}" if available else "it holds no tree at all"
        super().__init__(f"no tree '{tree}' in {file}; {there}")


class BranchNotFoundError(MLaaS4HEPError):
    """There is no branch of that name in a tree."""

    def __init__(self, branch: str, tree: str, file: str, candidates: Iterable[str]) -> None:
        self.branch, self.tree, self.file = branch, tree, file
        self.nearest = nearest_names(branch, candidates)
        hint = f"; nearest: {quoted(self.nearest)}" if self.nearest else ""
        super().__init__(f"no branch '{branch}' in tree '{tree}' of {file}{hint}")


class BranchTypeError(MLaaS4HEPError):
    """A branch was asked for that holds no numbers, or not in a shape that a model can take."""

    def __init__(self, branch: str, file: str, reason: str) -> None:
        self.branch, self.file, self.reason = branch, file, reason
        super().__init__(f"branch '{branch}' of {file} cannot be used: {reason}")


class BranchesDifferError(MLaaS4HEPError):
    """The files of one dataset do not hold the same branches, or not with the same types."""

    def __init__(self, file: str, first_file: str, difference: str) -> None:
        self.file, self.first_file, self.difference = file, first_file, difference
        super().__init__(f"{file} does not match {first_file}: {difference}")


class ExpressionError(MLaaS4HEPError):
    """An expression of a selection, new column or object cut cannot be read or evaluated.

    Parameters
    ----------
    what : str
        What the expression is for, as in ``selection`` or ``new column 'HT'``.
    text : str
        The expression.
    problem : str
        What is wrong with it.
    at : int
        The character of the text at which it is wrong, counted from 0.
    hint : str
        What would be right.

    Examples
    --------
    >>> print(ExpressionError("selection", "nJet >= 2 and METpt > 30", "no branch 'METpt'", 14, "nearest: 'MET_pt'"))
    selection 'nJet >= 2 and METpt > 30': no branch 'METpt' at character 14; nearest: 'MET_pt'
    """

    def __init__(self, what: str, text: str, problem: str, at: int, hint: str = "") -> None:
        self.what, self.text, self.problem, self.at, self.hint = what, text, problem, at, hint
        first = max(0, min(at - 60, len(text) - 120))
        shown = ("…" if first else "") + text[first : first + 120] + ("…" if first + 120 < len(text) else "")
        shown = "".join(character if character.isprintable() else " " for character in shown)
        super().__init__(f"{what} '{shown}': {problem} at character {at}" + (f"; {hint}" if hint else ""))

    def __reduce__(self) -> tuple[type[ExpressionError], tuple[str, str, str, int, str]]:
        # An error of a worker process travels to the one that waits for it.
        return type(self), (self.what, self.text, self.problem, self.at, self.hint)

    @property
    def caret(self) -> str:
        """The text with a caret below the place, on two lines: for a terminal."""
        return f"{self.text}\n{' ' * self.at}^"


class LabelError(MLaaS4HEPError):
    """The labels do not fit the files, or do not make a classification."""


class WeightError(MLaaS4HEPError):
    """The weights of the events cannot be trained with: one is not a number, or they do not add up.

    Parameters
    ----------
    problem : str
        What is wrong.
    file, entry, column : str, int, str
        The event and the column that it was found at, where it is one event's.
    """

    def __init__(self, problem: str, file: str = "", entry: int = -1, column: str = "") -> None:
        self.problem, self.file, self.entry, self.column = problem, file, entry, column
        super().__init__(f"{problem}, at entry {entry} of {file}" if file else problem)

    def __reduce__(self) -> tuple[type[WeightError], tuple[str, str, int, str]]:
        # An error of a worker process travels to the one that waits for it.
        return type(self), (self.problem, self.file, self.entry, self.column)


class MissingExtraError(MLaaS4HEPError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"{package} is not installed; pip install 'mlaas4hep[{extra}]'")


class ModelFileError(MLaaS4HEPError):
    """A user's Python file with a model cannot be used."""

    def __init__(self, file: str, reason: str) -> None:
        self.file, self.reason = file, reason
        super().__init__(f"model file {file}: {reason}")


class TrainingError(MLaaS4HEPError):
    """The training cannot go on, as when its loss is no longer a number."""


class BundleError(MLaaS4HEPError):
    """A bundle is damaged, incomplete, or does not give the numbers that it should."""

    def __init__(self, bundle: str, reason: str) -> None:
        self.bundle, self.reason = bundle, reason
        super().__init__(f"bundle {bundle}: {reason}")


class ArchiveError(MLaaS4HEPError):
    """An archive holds something that must not be unpacked, or more of it than is allowed."""


class ArchiveTooLargeError(ArchiveError):
    """An archive holds more bytes or more members than is allowed."""


class ModelNameError(MLaaS4HEPError):
    """A model's name is not one that is accepted."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"model name {name[:140]!r} is not accepted; a name has 1 to 128 letters, digits, '_', '.' or '-' and begins with a letter or digit"
        )


class ModelNotFoundError(MLaaS4HEPError):
    """There is no model of that name on the server."""

    def __init__(self, name: str, candidates: Iterable[str] = ()) -> None:
        self.name, self.nearest = name, nearest_names(name, candidates)
        hint = f"; nearest: {quoted(self.nearest)}" if self.nearest else ""
        super().__init__(f"no model '{name}'{hint}")


class FeatureError(MLaaS4HEPError):
    """The values sent for a prediction do not fit the features of the model."""


class RequestError(MLaaS4HEPError):
    """A request is not one that the server understands; ``status`` is the HTTP status that says so."""

    def __init__(self, message: str, status: int = 400) -> None:
        self.status = status
        super().__init__(message)


class OverloadedError(MLaaS4HEPError):
    """The server has as much to do as it accepts; ``retry_after`` is the number of seconds to wait before asking again."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class PortInUseError(MLaaS4HEPError):
    """Another program listens on the port already."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        super().__init__(f"port {port} on {host} is in use; stop what listens there, or choose another with --port")


class AnswerError(MLaaS4HEPError):
    """The server refused a request of the client, or could not be reached.

    Parameters
    ----------
    message : str
        One line for the person.
    status : int
        The HTTP status; 0 where no answer came at all.
    body : str
        The body of the answer as it came.
    """

    def __init__(self, message: str, status: int = 0, body: str = "") -> None:
        self.status, self.body = status, body
        super().__init__(message)


class WorkerError(MLaaS4HEPError):
    """A worker process ended by itself.

    Parameters
    ----------
    worker : int
        Its number.
    exit_code : int or None
        As the operating system gave it: negative for a signal.
    """

    def __init__(self, worker: int, exit_code: int | None) -> None:
        self.worker, self.exit_code = worker, exit_code
        how = (
            f"was ended by signal {-exit_code}"
            if exit_code is not None and exit_code < 0
            else f"ended with {exit_code}"
        )
        hint = "; where memory ran out, fewer workers or a smaller 'memory' need less" if exit_code == -9 else ""
        super().__init__(f"worker process {worker} {how} while it read events{hint}")
