"""The models on disk: a folder that several servers may share.

::

    MODELS/higgs/1/         a version: a bundle
    MODELS/higgs/2/         the live one is the highest
    MODELS/old/             a TFaaS model folder (params.json directly inside) is version 1
    MODELS/.mlaas4hep/      what is being written or removed, and the name of the default model

A version is complete before it is visible: it is staged on the same file system, loaded and run once, and renamed into place. Nothing that is
visible is changed afterwards. What other programs do to the folder is seen by looking again.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.errors import BundleError, ModelNotFoundError, RequestError, SettingError
from mlaas4hep.inference.model import Model
from mlaas4hep.inference.names import check_model_name, is_model_name
from mlaas4hep.inference.parameters import FILE, read_parameters
from mlaas4hep.inference.staging import Staging

__all__ = ["ModelVersion", "Repository"]

logger = logging.getLogger(__name__)

INTERNAL = ".mlaas4hep"
LOOKS = 3


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model on disk.

    Parameters
    ----------
    name : str
        Name of the model.
    version : int
        Number of the version, from 1.
    folder : path
        Where its files are.
    parameters : mapping
        Its params.json with every key of today, and ``name`` as it is known here.
    identity : tuple of int
        Changes when the folder is replaced or its params.json is written anew.
    """

    name: str
    version: int
    folder: Path
    parameters: Mapping[str, Any] = field(repr=False)
    identity: tuple[int, ...] = field(repr=False)


class Repository:
    """Models in a folder.

    Parameters
    ----------
    root : path
        The folder; made if it is not there.

    Raises
    ------
    SettingError
        If it cannot be made or is no folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        try:
            self.staging = Staging(self.root / INTERNAL)
        except OSError as error:
            raise SettingError("models", "a folder that can be written", f"{root} ({error.strerror})") from error
        self._models: Mapping[str, ModelVersion] = {}
        self._default: str | None = None
        self._broken: dict[str, str] = {}
        self._looking = threading.Lock()
        self.refresh()

    @property
    def models(self) -> Mapping[str, ModelVersion]:
        """The live version of each model, in order of names, as last seen."""
        return self._models

    @property
    def default(self) -> str | None:
        """Name of the model that answers requests without one; None where there is none."""
        return self._default if self._default in self._models else None

    def find(self, name: str | None = None) -> ModelVersion:
        """Return the live version of a model, the default one without a name.

        Raises
        ------
        ModelNameError
            If the name is not one of a model.
        ModelNotFoundError
            If there is no such model.
        RequestError
            If there is no default model.
        """
        if name is None:
            name = self.default
            if name is None:
                raise RequestError("the request names no model, and the server has no default one")
        version = self._models.get(name)
        if version is None:
            raise ModelNotFoundError(check_model_name(name), self._models)
        return version

    def refresh(self) -> None:
        """Look at the folder again."""
        # One at a time: a look that began before a publish must not replace the one after it.
        with self._looking:
            self._look()

    def _look(self) -> None:
        models: dict[str, ModelVersion] = {}
        broken: dict[str, str] = {}
        with suppress(FileNotFoundError):
            for folder in sorted(self.root.iterdir()):
                if is_model_name(folder.name) and folder.is_dir():
                    try:
                        version = self._newest(folder)
                    except (BundleError, OSError) as error:
                        if folder.exists():
                            broken[folder.name] = str(error)
                    else:
                        if version:
                            models[folder.name] = version
        for name, reason in broken.items():
            if self._broken.get(name) != reason:
                logger.warning("model '%s' is passed over: %s", name, reason)
        self._models, self._broken, self._default = models, broken, self._read_default()

    def publish(self, folder: Path, name: str) -> ModelVersion:
        """Make a complete folder the next version of a model, and live.

        Parameters
        ----------
        folder : path
            Files of the model, on the file system of the repository (see :attr:`staging`). It is moved away on success.
        name : str
            Name of the model; a version is added where it is known already.

        Raises
        ------
        ModelNameError, BundleError
            If the model cannot be served under that name; nothing is changed then.
        """
        check_model_name(name)
        if (folder / "manifest.json").exists():
            try:
                Bundle.open(folder)  # verifies the checksum of each file
            except BundleError as error:
                raise BundleError(name, error.reason) from error  # which names the model, not a folder of the server
        Model(folder, name)
        _make_durable(folder)
        while True:
            parent = self.root / name
            parent.mkdir(exist_ok=True)
            version = max(self._versions(parent), default=0) + 1
            try:
                folder.rename(parent / str(version))
            except OSError as error:
                # Another server took the number, or removed the model, in this moment: look again.
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT) and folder.exists():
                    continue
                raise
            break
        self.refresh()
        logger.info("published model '%s' version %d", name, version)
        return self._load(name, version, parent / str(version))

    def delete(self, name: str) -> bool:
        """Remove a model with all its versions; return whether there was one.

        It is moved out of sight as a whole first, so that a part of it is never seen.
        """
        check_model_name(name)
        doomed = self.staging.trash / f"{name}-{uuid.uuid4().hex}"
        try:
            (self.root / name).rename(doomed)
        except FileNotFoundError:
            return False
        finally:
            self.refresh()
        shutil.rmtree(doomed, ignore_errors=True)
        logger.info("removed model '%s'", name)
        return True

    def set_default(self, name: str) -> None:
        """Choose the model that answers requests without a name, for all servers over the folder."""
        version = self.find(name)
        target = self.root / INTERNAL / "default.json"
        temporary = target.with_name(f"default-{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(orjson.dumps({"name": version.name}))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        self._default = version.name

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """Give an empty folder on the repository's file system, and remove it with all that is left in it."""
        with self.staging.folder() as folder:
            yield folder

    def _read_default(self) -> str | None:
        try:
            name = orjson.loads((self.root / INTERNAL / "default.json").read_bytes())["name"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return name if is_model_name(name) else None

    def _newest(self, folder: Path) -> ModelVersion | None:
        for attempt in range(LOOKS):
            versions = self._versions(folder)
            if not versions:
                return None
            number = max(versions)
            try:
                return self._load(folder.name, number, versions[number])
            except (BundleError, OSError) as error:
                # Somebody removed it in this moment, and may have published it anew: look once more.
                if attempt + 1 == LOOKS or not isinstance(error.__cause__ or error, FileNotFoundError):
                    raise
        return None

    @staticmethod
    def _versions(folder: Path) -> dict[int, Path]:
        versions = {1: folder} if (folder / FILE).is_file() else {}
        for child in folder.iterdir():
            if child.name.isascii() and child.name.isdecimal() and child.name[0] != "0" and child.is_dir():
                versions.setdefault(int(child.name), child)
        return versions

    def _load(self, name: str, number: int, folder: Path) -> ModelVersion:
        about_folder, about_file = folder.stat(), (folder / FILE).stat()
        identity = (about_folder.st_dev, about_folder.st_ino, about_file.st_ino, about_file.st_mtime_ns)
        known = self._models.get(name)
        if known and (known.version, known.identity) == (number, identity):
            return known
        return ModelVersion(name, number, folder, {**read_parameters(folder), "name": name}, identity)


def _make_durable(folder: Path) -> None:
    """Have the files on the disk before their name is: a rename may outlive a power cut that the data does not."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
