"""Answers over HTTP: JSON, and errors as one object with one line.

One table says which status each class of error has. Anything that is not in it is a defect of ours: the client gets an identifier and nothing else,
the log gets the identifier and the traceback.
"""

from __future__ import annotations

import errno
import logging
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mlaas4hep.errors import (
    ArchiveError,
    ArchiveTooLargeError,
    BundleError,
    FeatureError,
    MLaaS4HEPError,
    ModelNameError,
    ModelNotFoundError,
    OverloadedError,
    RequestError,
)

__all__ = ["STATUS", "error_answer", "json_answer", "refusal"]

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

logger = logging.getLogger(__name__)

STATUS: Mapping[type[MLaaS4HEPError], int] = {
    ModelNameError: 400,
    ModelNotFoundError: 404,
    ArchiveTooLargeError: 413,
    ArchiveError: 422,
    BundleError: 422,
    FeatureError: 422,
    OverloadedError: 503,
}


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer with a JSON body."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer ``{"error": message}``."""
    return json_answer({"error": message}, status, headers)


def error_answer(error: Exception) -> Response:
    """Return the answer for an error."""
    if isinstance(error, RequestError):
        return refusal(error.status, str(error))
    if isinstance(error, OverloadedError):
        return refusal(503, str(error), {"Retry-After": str(error.retry_after)})
    if isinstance(error, MLaaS4HEPError):
        for kind, status in STATUS.items():
            if isinstance(error, kind):
                return refusal(status, str(error))
    if isinstance(error, HTTPException):
        return refusal(error.status_code, error.detail or HTTPStatus(error.status_code).phrase, error.headers)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        logger.error("the disk of the server is full: %s", error)
        return refusal(507, "the disk of the server is full")
    number = uuid.uuid4().hex[:12]
    logger.error("error %s", number, exc_info=error)
    return refusal(500, f"the server has a defect; its log has the details as error {number}")
