"""Open a bundle, check that it is whole, and predict with it."""

from __future__ import annotations

import json
import tempfile
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.archive import unpack
from mlaas4hep.bundle.graph import FEATURES
from mlaas4hep.bundle.k_fold import UNPROVEN, KFold
from mlaas4hep.bundle.manifest import Manifest, file_sha256
from mlaas4hep.bundle.session import open_session
from mlaas4hep.errors import BundleError, FeatureError
from mlaas4hep.streaming.encoding.encoding import Encoding

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Bundle"]

NEEDED_FILES = ("model.onnx", "labels.txt", "params.json", "encoding.json", "specs.json")
MOST_PLACES = 1_000_000  # a bundle may come from anybody; the widest NanoAOD has some 2,500
ROWS_AT_ONCE = 4096  # 2 MB for 125 places: stays in the cache, and memory does not grow with the number of events


class Bundle:
    """A trained model with its preprocessing and all that explains it; :meth:`open` makes one.

    Parameters
    ----------
    folder : Path
        The bundle's files.
    source : Path
        What the user named: that folder, or an archive of it.
    temporary : tempfile.TemporaryDirectory, optional
        What to remove when the bundle is closed.
    """

    def __init__(self, folder: Path, source: Path, temporary: tempfile.TemporaryDirectory[str] | None = None) -> None:
        self.folder, self.source, self._temporary = folder, source, temporary
        self.manifest = Manifest.from_dict(self._json("manifest.json"), str(source))
        self._verify()

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open a bundle and verify the checksum of each of its files.

        Parameters
        ----------
        path : str or Path
            A folder, or an archive of one, which is unpacked into a temporary folder; :meth:`close` or the end of a
            ``with`` block removes that.

        Raises
        ------
        BundleError
            If it is missing, not a bundle, damaged or incomplete.
        ArchiveError
            If the archive holds anything that must not be unpacked.
        """
        source = Path(path)
        if source.is_dir():
            return cls(source, source)
        if not source.is_file():
            raise BundleError(str(path), "there is no such file or folder")
        temporary = tempfile.TemporaryDirectory(prefix="mlaas4hep-bundle-", ignore_cleanup_errors=True)
        try:
            folder = unpack(source, Path(temporary.name), required=("manifest.json", *NEEDED_FILES))
            return cls(folder, source, temporary)
        except BaseException:
            temporary.cleanup()
            raise

    def close(self) -> None:
        """Remove the temporary folder, if there is one."""
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Bundle {self.name}: {self.encoding.width} places -> {self.output} of {', '.join(self.labels)}>"

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.manifest.name

    @property
    def output(self) -> str:
        """Name of the graph's output: ``probabilities`` or ``values``."""
        return self.manifest.output

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each column of the output."""
        return self.manifest.labels

    @cached_property
    def encoding(self) -> Encoding:
        """The features, their places and scaling."""
        try:
            encoding = Encoding.from_dict(self._json("encoding.json"))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise BundleError(str(self.source), f"encoding.json is damaged: {error}") from error
        if (
            any(feature.width < (0 if feature.jagged else 1) for feature in encoding.features)
            or not 1 <= encoding.width <= MOST_PLACES
        ):
            raise BundleError(
                str(self.source), f"encoding.json has {encoding.width} places; right is 1 to {MOST_PLACES}"
            )
        return encoding

    @cached_property
    def params(self) -> dict[str, Any]:
        """Content of ``params.json``."""
        return dict(self._json("params.json"))

    @cached_property
    def specs(self) -> dict[str, Any]:
        """Content of ``specs.json``."""
        return dict(self._json("specs.json"))

    @property
    def k_fold(self) -> KFold | None:
        """How events are divided among several models; None for a bundle of one."""
        return self.manifest.k_fold

    @cached_property
    def digest(self) -> str:
        """The sha256 of the manifest, which has those of all other files: it is another one for every other bundle."""
        return file_sha256(self.folder / "manifest.json")

    def session(self) -> onnxruntime.InferenceSession:
        """Return the session that executes the graph, on one thread; opened on first use and then kept."""
        return self._session

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return self._open("model.onnx")

    @cached_property
    def _fold_sessions(self) -> tuple[onnxruntime.InferenceSession, ...]:
        if self.k_fold is None:
            return ()
        return tuple(self._open(f"folds/{fold}/model.onnx") for fold in range(self.k_fold.folds))

    def _open(self, file: str) -> onnxruntime.InferenceSession:
        session = open_session(self.folder / file)
        for kind, values, name, columns in (
            ("input", session.get_inputs(), FEATURES, self.encoding.width),
            ("output", session.get_outputs(), self.output, len(self.labels)),
        ):
            found = [(value.name, value.type, *value.shape[1:]) for value in values]
            if found != [(name, "tensor(float)", columns)]:
                raise BundleError(
                    str(self.source), f"'{file}' has the {kind} {found}; right is '{name}', float, {columns} wide"
                )
        return session

    def predict(self, raw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Predict events from their physical values.

        Parameters
        ----------
        raw : float32 array of shape ``[n, width]``
            In the order of ``encoding.columns``; NaN, or anything not finite, where absent.

        Returns
        -------
        float32 array of shape ``[n, len(labels)]``
            Probability of each class, or the event's value.

        Raises
        ------
        FeatureError
            If the number of places is another one.
        """
        return self._predict(self._session, self._checked(raw))

    def predict_by_fold(self, raw: npt.NDArray[np.float32], folds: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Predict each event with the model that has not seen it.

        Parameters
        ----------
        raw : float32 array of shape ``[n, width]``
            As for :meth:`predict`.
        folds : int64 array of shape ``[n]``
            The fold of each event, as :class:`~mlaas4hep.bundle.k_fold.KFold` tells it; -1 for the mean of all models.

        Returns
        -------
        float32 array of shape ``[n, len(labels)]``

        Raises
        ------
        FeatureError
            If the number of places is another one.
        """
        raw = self._checked(raw)
        result = np.empty((len(raw), len(self.labels)), np.float32)
        for fold in np.unique(folds):
            session = self._session if fold == UNPROVEN else self._fold_sessions[fold]
            rows = np.flatnonzero(folds == fold)
            result[rows] = self._predict(session, raw[rows])
        return result

    def _checked(self, raw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        raw = np.asarray(raw)
        if raw.ndim != 2 or raw.shape[1] != self.encoding.width:
            raise FeatureError(
                f"model '{self.name}' takes values of shape [n, {self.encoding.width}]; got {list(raw.shape)}"
            )
        return np.ascontiguousarray(raw, np.float32)

    def _predict(self, session: onnxruntime.InferenceSession, raw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        result = np.empty((len(raw), len(self.labels)), np.float32)
        for start in range(0, len(raw), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            result[rows] = session.run(None, {FEATURES: raw[rows]})[0]
        return result

    def _verify(self) -> None:
        """Check that every file is there and is the one that was written, and that the parts fit each other."""
        of_folds = () if self.k_fold is None else self.k_fold.files
        for file in sorted({*NEEDED_FILES, *of_folds, *self.manifest.sha256}):
            path = PurePosixPath(file)
            if str(path) != file or path.is_absolute() or ".." in path.parts or file == "." or "\\" in file:
                raise BundleError(str(self.source), f"its manifest names the file '{file}', which is not inside it")
            if file not in self.manifest.sha256:
                raise BundleError(str(self.source), f"its manifest has no checksum of '{file}'")
            if not (self.folder / file).is_file():
                raise BundleError(str(self.source), f"'{file}' is missing")
            if file_sha256(self.folder / file) != self.manifest.sha256[file]:
                raise BundleError(str(self.source), f"'{file}' is not the file that was written: its checksum differs")
        labels = tuple((self.folder / "labels.txt").read_text(encoding="utf-8", errors="replace").splitlines())
        if labels != self.labels or self.encoding.width != self.manifest.width:
            raise BundleError(str(self.source), "manifest, labels.txt and encoding.json do not fit each other")

    def _json(self, file: str) -> Any:
        try:
            return json.loads((self.folder / file).read_bytes())
        except OSError as error:
            raise BundleError(str(self.source), f"'{file}' cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise BundleError(str(self.source), f"'{file}' is not JSON: {error}") from error
