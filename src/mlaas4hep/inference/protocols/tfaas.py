"""The routes of TFaaS, so that its clients work unchanged.

Bodies are judged by what they are, not by what their ``Content-Type`` says: the Python client and curl send JSON as a form's type, and mark
archives as compressed bodies. Errors are ``{"error": "…"}`` with the status that fits.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import psutil
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from mlaas4hep.errors import MLaaS4HEPError, RequestError
from mlaas4hep.inference.engine import Engine, Served
from mlaas4hep.inference.names import check_model_name
from mlaas4hep.inference.parameters import FILE, file_names, full_parameters
from mlaas4hep.inference.protocols.row import RowRequest, parse_object, parse_row
from mlaas4hep.inference.protocols.uploads import stage_bundle, stage_form
from mlaas4hep.inference.settings import ServerSettings
from mlaas4hep.inference.web.answers import json_answer
from mlaas4hep.inference.web.bodies import header, read_body, read_form
from mlaas4hep.inference.web.page import ModelCard, favicon, security_headers, start_page

__all__ = ["TFaaS"]

SMALL_BODY = 1 << 20


class TFaaS:
    """The protocol of TFaaS over an engine.

    Parameters
    ----------
    engine : Engine
        Runs the predictions and knows the repository.
    settings : ServerSettings
        Limits and base path.
    """

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self.engine, self.settings = engine, settings
        self.repository = engine.repository
        self.started = time.monotonic()
        self.get_requests = self.post_requests = 0

    @property
    def prediction_paths(self) -> tuple[str, ...]:
        """Paths of requests that :meth:`begin` answers."""
        return ("/json", "/predict/json")

    def routes(self) -> list[Route]:
        """Return all routes but those of predictions."""
        return [
            Route("/", self.page, methods=["GET"]),
            Route("/upload", self.upload, methods=["POST"]),
            Route("/bundle", self.upload, methods=["POST"]),
            Route("/models", self.models, methods=["GET"]),
            Route("/models/{name}", self.model, methods=["GET"]),
            Route("/params", self.default_parameters, methods=["GET"]),
            Route("/params", self.set_default, methods=["POST"]),
            Route("/params/{name}", self.stored_parameters, methods=["GET"]),
            Route("/delete", self.delete, methods=["DELETE"]),
            Route("/delete/{name}", self.delete, methods=["DELETE"]),
            Route("/status", self.status, methods=["GET"]),
            Route("/favicon.ico", self.favicon, methods=["GET"]),
        ]

    def begin(self, body: bytes) -> asyncio.Future[bytes]:
        """Begin to answer the body of a prediction request; what is awaited is the body of the answer."""
        request = parse_row(body)
        served = self.engine.ready(request.model)
        if served is None:
            return asyncio.ensure_future(self._load_and_predict(request))
        return self._submit(served, request)

    async def _load_and_predict(self, request: RowRequest) -> bytes:
        return await self._submit(await self.engine.load(request.model), request)

    def _submit(self, served: Served, request: RowRequest) -> asyncio.Future[bytes]:
        rows = served.model.features.read(request.keys, request.rows, normalised=request.normalised)
        return self.engine.submit(served, rows.values, rows.cut, _all_as_json if request.many else _first_as_json)

    async def upload(self, request: Request) -> Response:
        """Take a model in, as a form or as an archive, publish it, and have it ready before saying so."""
        is_form = "form-data" in request.headers.get("content-type", "").lower()
        if is_form and request.url.path.rstrip("/").endswith("/bundle"):
            raise RequestError("a bundle is a tar or tar.gz as the body; forms go to /upload", status=415)
        with self.repository.stage() as folder:
            if is_form:
                form = await read_form(
                    request.scope, request.receive, self.settings.upload_bytes, _made(folder / "parts")
                )
                name, staged = await asyncio.to_thread(stage_form, form, folder)
            else:
                name, staged = await stage_bundle(request.scope, request.receive, self.settings.upload_bytes, folder)
            await asyncio.to_thread(self.repository.publish, staged, name)
        await self.engine.renew(name)
        if is_form:
            await asyncio.to_thread(self.repository.set_default, name)
        return Response(status_code=200)

    async def models(self, request: Request) -> Response:
        """List the parameters of all models."""
        return json_answer([dict(version.parameters) for version in self.repository.models.values()])

    async def model(self, request: Request) -> Response:
        """Answer the parameters of one model."""
        return json_answer(dict(self.repository.find(request.path_params["name"]).parameters))

    async def stored_parameters(self, request: Request) -> Response:
        """Answer the params.json of a model as it is stored."""
        return await self._stored(request.path_params["name"])

    async def default_parameters(self, request: Request) -> Response:
        """Answer the params.json of the default model."""
        return await self._stored(None)

    async def _stored(self, name: str | None) -> Response:
        file = self.repository.find(name).folder / FILE
        return Response(await asyncio.to_thread(file.read_bytes), media_type="application/json")

    async def set_default(self, request: Request) -> Response:
        """Choose the default model: the one that the ``name`` of the posted parameters names."""
        posted = parse_object(await read_body(request.scope, request.receive, SMALL_BODY))
        try:
            parameters = full_parameters(posted)
        except ValueError as error:
            raise RequestError(str(error), status=422) from None
        if not parameters["name"]:
            raise RequestError("the parameters have no 'name'; it says which model becomes the default")
        version = self.repository.find(check_model_name(parameters["name"]))
        for name in file_names(parameters):
            if not (version.folder / name).is_file():
                raise RequestError(f"model '{version.name}' has no file '{name}'", status=422)
        await asyncio.to_thread(self.repository.set_default, version.name)
        return Response(status_code=200)

    async def delete(self, request: Request) -> Response:
        """Remove a model, named in the path, in the query or in a form."""
        name = request.path_params.get("name") or request.query_params.get("model") or ""
        if not name and "form-data" in header(request.scope, b"content-type").lower():
            form = await read_form(request.scope, request.receive, SMALL_BODY)
            name = form.fields.get("model", "")
        if not name:
            raise RequestError("no model name is provided")
        await asyncio.to_thread(self.repository.delete, name)
        self.engine.forget(name)
        return Response(status_code=200)

    async def status(self, request: Request) -> Response:
        """Answer the state of the machine and of the server."""
        memory, swap, load = psutil.virtual_memory(), psutil.swap_memory(), os.getloadavg()
        return json_answer(
            {
                "CPU": psutil.cpu_percent(percpu=True),
                "Load": dict(zip(("load1", "load5", "load15"), load, strict=True)),
                "Memory": {"Virtual": _memory(memory), "Swap": _memory(swap)},
                "NGo": len(asyncio.all_tasks()),
                "Uptime": time.monotonic() - self.started,
                "getRequests": self.get_requests,
                "postRequests": self.post_requests,
                "models": {name: _statistics(stats) for name, stats in sorted(self.engine.statistics.items())},
            }
        )

    async def page(self, request: Request) -> Response:
        """Answer the start page."""
        cards = [await self._card(name) for name in self.repository.models]
        address = f"{request.url.scheme}://{request.headers['host']}{self.settings.base}"
        return HTMLResponse(start_page(cards, address, self.settings.base), headers=security_headers())

    async def favicon(self, request: Request) -> Response:
        """Answer the icon."""
        return Response(favicon(), media_type="image/svg+xml", headers={"Cache-Control": "max-age=86400"})

    async def _card(self, name: str) -> ModelCard:
        version = self.repository.find(name)
        about = (name, str(version.parameters["description"]), version.version, name == self.repository.default)
        try:
            description = await self.engine.describe(name)
        except MLaaS4HEPError as error:
            return ModelCard(*about, problem=str(error))
        return ModelCard(*about, description.inputs, description.outputs, description.labels, description.example)


def _first_as_json(answer: npt.NDArray[Any]) -> bytes:
    return _all_as_json(answer[0])


def _all_as_json(answer: npt.NDArray[Any]) -> bytes:
    if answer.dtype == np.float16:
        answer = answer.astype(np.float32)
    return orjson.dumps(np.ascontiguousarray(answer), option=orjson.OPT_SERIALIZE_NUMPY)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _memory(state: Any) -> Mapping[str, float]:
    return {"total": state.total, "free": state.free, "used": state.used, "usedPercent": state.percent}


def _statistics(statistics: Any) -> Mapping[str, float]:
    return {name: getattr(statistics, name) for name in statistics.__slots__}
