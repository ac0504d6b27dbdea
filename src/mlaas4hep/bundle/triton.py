"""A bundle as a folder of a Triton model repository: ``NAME/config.pbtxt``, ``NAME/labels.txt``, ``NAME/VERSION/model.onnx``."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from mlaas4hep.bundle.graph import FEATURES
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.errors import BundleError

__all__ = ["export_triton", "triton_config"]

MAX_BATCH_SIZE = 4096
CONFIG_FILE = "config.pbtxt"


def triton_config(bundle: Bundle) -> str:
    """Return the ``config.pbtxt`` of a bundle.

    Parameters
    ----------
    bundle : Bundle
    """
    # What is quoted is text of a protobuf: its escapes are those of JSON for what a name may hold.
    return f"""\
name: {json.dumps(bundle.name)}
backend: "onnxruntime"
max_batch_size: {MAX_BATCH_SIZE}
input [
  {{
    name: "{FEATURES}"
    data_type: TYPE_FP32
    dims: [ {bundle.encoding.width} ]
  }}
]
output [
  {{
    name: "{bundle.output}"
    data_type: TYPE_FP32
    dims: [ {len(bundle.labels)} ]
    label_filename: "labels.txt"
  }}
]
dynamic_batching {{
}}
parameters {{
  key: "intra_op_thread_count"
  value: {{ string_value: "1" }}
}}
"""


def export_triton(bundle: Bundle, out: Path) -> Path:
    """Put a bundle into a Triton model repository, as the next version of its model.

    Parameters
    ----------
    bundle : Bundle
        Of a k-fold, the graph that gives the mean is exported.
    out : Path
        The repository; made if it is not there.

    Returns
    -------
    Path
        The folder of the version; it is whole or not there.

    Raises
    ------
    BundleError
        If a model of that name and of another shape is there already, or nothing can be written.
    """
    model = out / bundle.name
    files = {CONFIG_FILE: triton_config(bundle).encode(), "labels.txt": (bundle.folder / "labels.txt").read_bytes()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{bundle.name}.", dir=out) as temporary:
            staged = Path(temporary) / bundle.name
            version = staged / "1"
            version.mkdir(parents=True)
            shutil.copyfile(bundle.folder / "model.onnx", version / "model.onnx")
            if not model.exists():
                for name, content in files.items():
                    (staged / name).write_bytes(content)
                staged.rename(model)
                return model / "1"
            for name, content in files.items():
                if not (model / name).is_file() or (model / name).read_bytes() != content:
                    raise BundleError(
                        str(model), f"its {name} is another; only versions of one model go into one folder"
                    )
            numbers = [int(path.name) for path in model.iterdir() if path.is_dir() and path.name.isdecimal()]
            target = model / str(max(numbers, default=0) + 1)
            version.rename(target)
            return target
    except OSError as error:
        raise BundleError(str(out), f"it cannot be written: {error.strerror or error}") from error
