"""The server as an ASGI application: one gate before everything, the prediction paths beside the router, the rest behind it.

The router, with its matching, its request objects and its middleware, costs more than a prediction. So the few paths that predict are looked up in
a table and answered with two messages.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from mlaas4hep.errors import RequestError
from mlaas4hep.inference.engine import Engine
from mlaas4hep.inference.protocols.tfaas import TFaaS
from mlaas4hep.inference.repository import Repository
from mlaas4hep.inference.settings import ServerSettings
from mlaas4hep.inference.web.answers import error_answer, refusal
from mlaas4hep.inference.web.bodies import ClientGoneError, read_body
from mlaas4hep.inference.web.direct import Headers, Predict
from mlaas4hep.inference.web.gate import check_origin

__all__ = ["Application"]

requests_log = logging.getLogger("mlaas4hep.requests")
logger = logging.getLogger(__name__)


class Application:
    """The ASGI application.

    Parameters
    ----------
    settings : ServerSettings
        How it runs.

    Raises
    ------
    SettingError
        If the folder of the models cannot be used.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.repository = Repository(settings.models)
        self.engine = Engine(
            self.repository,
            cache_limit=settings.cache_limit,
            batch_rows=settings.batch_rows,
            queue_rows=settings.queue_rows,
        )
        self.tfaas = TFaaS(self.engine, settings)
        self._predictions = dict.fromkeys(self.tfaas.prediction_paths, self.tfaas.begin)
        self._router = Router(
            self.tfaas.routes(), redirect_slashes=False, default=self._not_found, lifespan=self._lifespan
        )

    @property
    def predictions(self) -> Mapping[bytes, Predict]:
        """What connections answer without the application: nothing where each request is logged."""
        if requests_log.isEnabledFor(logging.INFO):
            return {}
        return {(self.settings.base + path).encode(): self._predict_directly for path in self._predictions}

    def _predict_directly(self, headers: Headers, body: bytes) -> asyncio.Future[bytes]:
        self.tfaas.post_requests += 1
        check_origin(headers)
        return self.tfaas.begin(body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
        elif requests_log.isEnabledFor(logging.INFO):
            await self._logged(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method == "POST":
            self.tfaas.post_requests += 1
        elif method == "GET":
            self.tfaas.get_requests += 1
        try:
            check_origin(scope["headers"])
            path = self._path(scope["path"])
            predict = self._predictions.get(path)
            if predict is None:
                scope["path"], scope["app"] = path, self
                await self._router(scope, receive, send)
                return
            if method != "POST":
                await refusal(405, f"{path} answers POST only", {"Allow": "POST"})(scope, receive, send)
                return
            body = await predict(await read_body(scope, receive, self.settings.json_bytes))
        except ClientGoneError:
            return
        except Exception as error:  # every error has an answer
            await error_answer(error)(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _path(self, path: str) -> str:
        """Return a path without the base and without a slash at its end."""
        base = self.settings.base
        if not path.isprintable():
            raise RequestError("the path has a control character")
        if base:
            if path != base and not path.startswith(base + "/"):
                raise RequestError(f"all paths begin with {base}", status=404)
            path = path[len(base) :]
        return path.removesuffix("/") or "/"

    async def _logged(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status, path = time.perf_counter(), 0, scope["path"]

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, noting)
        finally:
            client = scope["client"][0] if scope.get("client") else "-"
            milliseconds = (time.perf_counter() - started) * 1000
            requests_log.info(
                "client=%s method=%s path=%r status=%d ms=%.2f",
                client,
                scope["method"],
                path,
                status,
                milliseconds,
            )

    @asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        async with self.engine:
            watcher = asyncio.create_task(self._watch())
            try:
                yield
            finally:
                watcher.cancel()
                with suppress(asyncio.CancelledError):
                    await watcher

    async def _watch(self) -> None:
        """See what other programs do to the folder of the models."""
        while True:
            await asyncio.sleep(self.settings.poll_seconds)
            try:
                await asyncio.to_thread(self.repository.refresh)
            except OSError as error:
                logger.warning("the folder of the models cannot be read: %s", error)
            for name in self.engine.loaded:
                if name not in self.repository.models:
                    self.engine.forget(name)

    async def _not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        there = sorted({route.path for route in self.tfaas.routes()} | set(self._predictions))
        raise RequestError(f"there is nothing at this path; there is {', '.join(there)}", status=404)
