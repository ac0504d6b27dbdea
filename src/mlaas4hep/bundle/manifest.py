"""What a bundle says of itself: where it comes from, what it measured, and the checksum of each of its files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mlaas4hep.bundle.k_fold import KFold
from mlaas4hep.errors import BundleError

__all__ = ["FORMAT_VERSION", "Manifest", "Parity", "file_sha256", "installed_versions"]

FORMAT_VERSION = 1

PLAIN_PARTS = {
    **dict.fromkeys(("name", "created", "framework", "output"), str),
    **dict.fromkeys(("data", "training", "metrics", "versions"), dict),
}


@dataclass(frozen=True, slots=True)
class Parity:
    """How well the graph in the bundle gives the numbers of the framework that was trained.

    Parameters
    ----------
    events : int
        Number of held-out events that both predicted.
    largest_difference : float
        Largest difference of any number of any event; of values beyond 1, relative to them.
    tolerance : float
        What it was allowed to be.
    """

    events: int
    largest_difference: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of ``manifest.json``.

    Parameters
    ----------
    name : str
        Name of the model.
    created : str
        Time of writing, ISO 8601 in UTC.
    framework : str
        What it was trained with, as in ``torch``.
    output : str
        ``probabilities`` (one column a class) or ``values`` (one column a target, or an event's reconstruction error).
    labels : tuple of str
        Name of each column of the output.
    width : int
        Number of places of the feature vector.
    parity : Parity
        The comparison with the framework.
    data : mapping
        Files (name, uuid, entries), tree, split, events of each fold, branches that are no feature and why.
    training : mapping
        Settings, seed, the epoch that was kept.
    metrics : mapping
        What the evaluation on held-out events gave.
    versions : mapping
        Versions of Python and the packages.
    sha256 : mapping
        Checksum of each other file of the bundle.
    format_version : int
        Of the bundle's layout.
    k_fold : KFold, optional
        How events are divided among several models; None for a bundle of one.
    """

    name: str
    created: str
    framework: str
    output: str
    labels: tuple[str, ...]
    width: int
    parity: Parity
    data: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    k_fold: KFold | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON; ``k_fold`` only where there are several models."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "k_fold"}
        values |= {"labels": list(self.labels), "parity": asdict(self.parity)}
        return values if self.k_fold is None else {**values, "k_fold": self.k_fold.to_dict()}

    @classmethod
    def from_dict(cls, description: object, bundle: str) -> Manifest:
        """Make it from what :meth:`to_dict` gave; keys that are not known are passed over.

        Parameters
        ----------
        description : object
            What the JSON holds.
        bundle : str
            Name of the bundle, for the message.

        Raises
        ------
        BundleError
            If it is of another format version, or a part is missing or of another type.
        """
        if not isinstance(description, dict):
            raise BundleError(bundle, "manifest.json must hold an object")
        version = description.get("format_version")
        if version != FORMAT_VERSION:
            raise BundleError(bundle, f"its format version is {version!r}; this package reads {FORMAT_VERSION}")
        try:
            known = {item.name: description[item.name] for item in fields(cls) if item.name != "k_fold"}
            k_fold = description.get("k_fold")
            known["k_fold"] = None if k_fold is None else KFold.from_dict(k_fold)
            known["parity"] = Parity(**known["parity"])
            known["labels"] = tuple(str(label) for label in known["labels"])
            known["sha256"] = {str(name): str(digest) for name, digest in known["sha256"].items()}
            known["width"] = int(known["width"])
        except KeyError as error:
            raise BundleError(bundle, f"manifest.json has no '{error.args[0]}'") from error
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BundleError(bundle, f"manifest.json is damaged: {error}") from error
        for name, kind in PLAIN_PARTS.items():
            if not isinstance(known[name], kind):
                raise BundleError(bundle, f"manifest.json is damaged: '{name}' is {type(known[name]).__name__}")
        return cls(**known)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed.

    Examples
    --------
    >>> sorted(installed_versions(["numpy", "no-such-package"]))
    ['numpy', 'python']
    """
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
