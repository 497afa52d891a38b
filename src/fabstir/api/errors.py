"""Errors over HTTP, in the one shape that the session protocol has (`fabstir.protocol.messages.Error`).

A fault of ours keeps its code and its status from the catalogue; what the framework refuses (no such path, wrong
method, a body that is none) becomes `request_invalid` with the framework's status. What nobody foresaw is `node_failed`
without details; the log has them.
"""

from __future__ import annotations

import math
from typing import Any, Final

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap

from fabstir.domain.errors import FabstirError, error
from fabstir.protocol.messages import Error

RETRY_SECONDS: Final = 5
"""Where a fault does not say how long to wait."""

log = structlog.get_logger()


def respond(fault: FabstirError, status: int | None = None) -> Response[Error]:
    """`fault` as an HTTP answer."""
    headers = {"retry-after": retry_after(fault)} if fault.retryable else {}
    return Response(Error.of(fault), status_code=status or fault.http_status, headers=headers)


def retry_after(fault: FabstirError) -> str:
    """The header's value: what the fault says, or RETRY_SECONDS."""
    return str(max(1, math.ceil(RETRY_SECONDS if fault.retry_after is None else fault.retry_after)))


def _ours(_request: Request[Any, Any, Any], fault: FabstirError) -> Response[Error]:
    return respond(fault)


def _framework(_request: Request[Any, Any, Any], refused: HTTPException) -> Response[Error]:
    return respond(error("request_invalid", refused.detail), refused.status_code)


def _unforeseen(_request: Request[Any, Any, Any], raised: Exception) -> Response[Error]:
    log.error("request_failed", exc_info=raised)
    return respond(error("node_failed"))


HANDLERS: Final[ExceptionHandlersMap] = {FabstirError: _ours, HTTPException: _framework, Exception: _unforeseen}
