"""Uploads in the two forms of TFaaS: a multipart form with the files of a model, or an archive of its folder.

Both end as a folder in the repository's staging area; nothing here makes a model visible.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import orjson
from starlette.types import Receive, Scope

from mlaas4hep.bundle.archive import unpack
from mlaas4hep.errors import BundleError, RequestError, quoted
from mlaas4hep.inference.names import check_model_name, is_base_name
from mlaas4hep.inference.parameters import FILE, read_parameters
from mlaas4hep.inference.web.bodies import Form, save_body

__all__ = ["stage_bundle", "stage_form"]

FORM_FILES = ("params", "model", "labels", "op")


async def stage_bundle(scope: Scope, receive: Receive, limit: int, folder: Path) -> tuple[str, Path]:
    """Take in the body of a request as an archive.

    Returns
    -------
    name, folder
        Of the model: the archive's top folder.
    """
    await save_body(scope, receive, limit, folder / "archive")
    (folder / "unpacked").mkdir()
    staged = await asyncio.to_thread(unpack, folder / "archive", folder / "unpacked")
    return check_model_name(staged.name), staged


def stage_form(form: Form, folder: Path) -> tuple[str, Path]:
    """Put the files of a form together as the folder of a model.

    Parameters
    ----------
    form : Form
        Field ``name``; files ``params`` and ``model``, and where there are any ``labels`` and ``op``.
    folder : path
        Where the model's folder is made.

    Returns
    -------
    name, folder
        Of the model.

    Raises
    ------
    RequestError, ModelNameError, BundleError
        If a part is missing, or the parts do not fit together.
    """
    if not form.fields.get("name"):
        raise RequestError("request does not provide name")
    name = check_model_name(form.fields["name"])
    for field in ("params", "model"):
        if field not in form.files:
            raise RequestError(f"request does not provide {field}")
    unknown = [field for field in form.files if field not in FORM_FILES]
    if unknown:
        raise RequestError(f"files {quoted(unknown)} are not known; known are {quoted(FORM_FILES)}")
    staged = folder / name
    staged.mkdir()
    names: dict[str, str] = {}
    for field, file in form.files.items():
        target = FILE if field == "params" else file.name
        if not is_base_name(target):
            raise RequestError(f"the file name of {field} is not accepted: {target[:100]!r}")
        if target.casefold() in (other.casefold() for other in names.values()):
            raise RequestError(f"two files have the name '{target}'")
        file.path.rename(staged / target)
        names[field] = target
    parameters = read_parameters(staged)
    if parameters["name"] != name:
        raise RequestError(f"the form's name is '{name}', but params.json says '{parameters['name']}'", status=422)
    stored = orjson.loads((staged / FILE).read_bytes())
    for field in ("model", "labels", "op"):
        if parameters[field] and parameters[field] != names.get(field):
            there = f"the file is '{names[field]}'" if field in names else "there is no such file"
            raise BundleError(name, f"params.json says '{field}' is '{parameters[field]}', but {there}")
        if field in names:
            stored[field] = names[field]
    stored["timestamp"] = parameters["timestamp"] or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    (staged / FILE).write_bytes(orjson.dumps(stored, option=orjson.OPT_INDENT_2))
    return name, staged
