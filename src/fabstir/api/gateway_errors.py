"""Errors of the gateway in the shape of the dialect that was spoken, each with our stable code, a request id and, where it helps,
when to try again.

A fault of ours keeps its code and its status; what the framework refuses (no such path, wrong method) becomes
`request_invalid` with the framework's status; what nobody foresaw is `node_failed` without details, and the log has them.
"""

from __future__ import annotations

import math
import uuid
from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap, Scope

from fabstir.domain.errors import CATALOGUE, FabstirError, Refused, error

RETRY_SECONDS: Final = 5
"""Where trying again can help and nothing says when."""
ANTHROPIC_PATH: Final = "/v1/messages"
REQUEST_ID: Final = "fabstir_request_id"
"""Where a request's scope has its id."""

log = structlog.get_logger()


class TooMany(Refused):
    """Too many requests, and when there is room again."""

    def __init__(self, detail: str, seconds: float) -> None:
        super().__init__(CATALOGUE["rate_limited"], detail)
        self.retry_after = max(1.0, seconds)


class ErrorBody(msgspec.Struct, frozen=True):
    """OpenAI's error, with our code."""

    message: str
    type: str
    code: str
    """See [errors](errors.md)."""
    category: str
    """refused, peer_fault, local_fault, chain_fault or interrupted; see [errors](errors.md)."""
    retryable: bool
    """Trying the same again can help."""
    param: str | None = None
    """The parameter at fault."""


class ErrorAnswer(msgspec.Struct, frozen=True):
    """The body of a failed request, or the last event of a stream that broke."""

    error: ErrorBody

    @classmethod
    def of(cls, fault: FabstirError, status: int | None = None) -> ErrorAnswer:
        """`fault` in OpenAI's shape."""
        status = status or fault.http_status
        kind = OPENAI_KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
        body = ErrorBody(
            message=str(fault),
            type=kind,
            code=fault.code,
            category=fault.category,
            retryable=fault.retryable,
            param=getattr(fault, "param", None),
        )
        return cls(body)


class MessagesErrorBody(msgspec.Struct, frozen=True):
    """Anthropic's error, with our code."""

    type: str
    message: str
    code: str
    """See [errors](errors.md)."""
    category: str
    """As in OpenAI's shape."""
    retryable: bool
    """Trying the same again can help."""
    param: str | None = None
    """The parameter at fault."""


class MessagesError(msgspec.Struct, frozen=True):
    """The body of a failed request, or the last event of a stream that broke."""

    error: MessagesErrorBody
    request_id: str | None = None
    type: str = "error"

    @classmethod
    def of(cls, fault: FabstirError, status: int | None = None, request_id: str | None = None) -> MessagesError:
        """`fault` in Anthropic's shape."""
        status = status or fault.http_status
        kind = ANTHROPIC_KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
        param = getattr(fault, "param", None)
        body = MessagesErrorBody(kind, str(fault), fault.code, fault.category, fault.retryable, param)
        return cls(body, request_id)


OPENAI_KINDS: Final = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
ANTHROPIC_KINDS: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def request_id(scope: Scope) -> str:
    """Of the request of `scope`; drawn when it is asked for first."""
    found: str = scope.setdefault(REQUEST_ID, f"req_{uuid.uuid4().hex}")  # type: ignore[typeddict-item]
    return found


def respond(request: Request[Any, Any, Any], fault: FabstirError, status: int | None = None) -> Response[Any]:
    """`fault` as an HTTP answer."""
    status = status or fault.http_status
    headers = {"x-should-retry": "true" if fault.retryable else "false"}
    if fault.retryable:
        headers["retry-after"] = str(math.ceil(fault.retry_after or RETRY_SECONDS))
    body: msgspec.Struct = ErrorAnswer.of(fault, status)
    if request.scope["path"].startswith(ANTHROPIC_PATH):
        body = MessagesError.of(fault, status, request_id(request.scope))
    return Response(body, status_code=status, headers=headers)


def _ours(request: Request[Any, Any, Any], fault: FabstirError) -> Response[Any]:
    return respond(request, fault)


def _framework(request: Request[Any, Any, Any], refused: HTTPException) -> Response[Any]:
    answer = respond(request, error("request_invalid", refused.detail), refused.status_code)
    answer.headers.update({name.lower(): value for name, value in (refused.headers or {}).items()})
    return answer


def _unforeseen(request: Request[Any, Any, Any], raised: Exception) -> Response[Any]:
    log.error("request_failed", exc_info=raised)
    return respond(request, error("node_failed"), 500)


HANDLERS: Final[ExceptionHandlersMap] = {FabstirError: _ours, HTTPException: _framework, Exception: _unforeseen}
