"""The renter's gateway: OpenAI's dialect on this machine, paid for behind the scenes.

Any OpenAI client works against it with nothing but a base URL. Each request is one answer of a market
session: found, paid, moved to another host where one dies, all of it invisible to the client. Listens on
loopback only, because it spends its owner's money. Keeps no text.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
import structlog
from litestar import Litestar, Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.response import Stream
from litestar.types import ExceptionHandlersMap

from fabstir.api.openai_types import (
    FINISH,
    AnswerMessage,
    ChatRequest,
    Choice,
    Chunk,
    ChunkChoice,
    Completion,
    Delta,
    ErrorAnswer,
    ErrorBody,
    Usage,
    read_request,
)
from fabstir.api.routes import ModelCard, ModelList
from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import to_hex
from fabstir.renter.answer import AnswerReport
from fabstir.renter.market import Market
from fabstir.renter.pool import Pool
from fabstir.renter.session import Session

MAX_BODY_BYTES: Final = 8 << 20
EVENT_STREAM: Final = "text/event-stream"
UNAUTHORIZED: Final = 401
encode: Final = msgspec.json.Encoder().encode
log = structlog.get_logger()


class GatewayHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How the gateway is."""

    status: str
    """`ok`, or `no_host` while nobody serves anything."""
    models: int
    hosts: int
    busy: int


def gateway_app(market: Market, pool: Pool, api_key: str | None = None) -> Litestar:
    """The application. With `api_key`, requests must carry it as a bearer token."""
    routes = [_completions(pool), _models(market), _health(market, pool)]
    guards = [_guard(api_key)] if api_key else []
    return Litestar(
        routes,
        guards=guards,
        exception_handlers=HANDLERS,
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        logging_config=None,
    )


def _guard(api_key: str) -> Any:
    def check(connection: Any, _handler: Any) -> None:
        given = connection.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), api_key.encode()):
            raise HTTPException(status_code=UNAUTHORIZED, detail="the API key is missing or wrong")

    return check


def _completions(pool: Pool) -> Any:
    @post("/v1/chat/completions", status_code=200)
    async def completions(request: Request[Any, Any, Any]) -> Response[Any] | Stream:
        asked = read_request(await request.body())
        answer = _Answer(asked)
        await answer.begin(pool)
        if asked.stream:
            return Stream(answer.events(), media_type=EVENT_STREAM, headers={"cache-control": "no-cache"})
        return Response(await answer.whole())

    return completions


class _Answer:
    """One request on its way. Holds a session from `begin` until the answer has ended, however it ends."""

    def __init__(self, asked: ChatRequest) -> None:
        self._asked = asked
        self._id = f"chatcmpl-{os.urandom(12).hex()}"
        self._created = int(time.time())
        self._held = AsyncExitStack()
        self._session: Session | None = None
        self._pieces: AsyncGenerator[str, None] | None = None
        self._first: str | None = None

    async def begin(self, pool: Pool) -> None:
        """Take a session and wait for the first text, so that what fails before it is an HTTP error. Raises FabstirError."""
        conversation, question = self._asked.conversation()
        try:
            self._session = await self._held.enter_async_context(pool.session(self._asked.model, conversation))
            self._pieces = self._session.prompt(question, **self._asked.options())
            self._held.push_async_callback(self._pieces.aclose)
            self._first = await anext(self._pieces, None)
        except BaseException:
            await self._held.aclose()
            raise

    async def _text(self) -> AsyncIterator[str]:
        if self._first is not None and self._pieces is not None:
            yield self._first
            async for piece in self._pieces:
                yield piece

    async def whole(self) -> Completion:
        """The answer in one piece."""
        async with self._held:
            text = "".join([piece async for piece in self._text()])
            report = self._report
        choice = Choice(AnswerMessage(text), FINISH.get(report.finish_reason, "stop"))
        return Completion(
            id=self._id, created=self._created, model=self._asked.model, choices=(choice,), usage=_usage(report)
        )

    async def events(self) -> AsyncIterator[bytes]:
        """The answer as server-sent events. Leaving early, as when the client goes away, cancels it."""
        async with self._held:
            yield self._event(Delta(role="assistant", content=""))
            try:
                async for piece in self._text():
                    yield self._event(Delta(content=piece))
            except FabstirError as fault:
                yield b"data: " + encode(_error(fault)) + b"\n\n"
                return
            report = self._report
            yield self._event(Delta(), FINISH.get(report.finish_reason, "stop"))
            if self._asked.stream_options is not None and self._asked.stream_options.include_usage:
                yield _data(self._chunk((), _usage(report)))
            yield b"data: [DONE]\n\n"

    @property
    def _report(self) -> AnswerReport:
        report = self._session.last if self._session else None
        if report is None:
            raise AssertionError("an answer that ended has a report")
        return report

    def _event(self, delta: Delta, finish: str | None = None) -> bytes:
        return _data(self._chunk((ChunkChoice(delta, finish),)))

    def _chunk(self, choices: tuple[ChunkChoice, ...], usage: Usage | None = None) -> Chunk:
        return Chunk(id=self._id, created=self._created, model=self._asked.model, choices=choices, usage=usage)


def _data(chunk: Chunk) -> bytes:
    return b"data: " + encode(chunk) + b"\n\n"


def _usage(report: AnswerReport) -> Usage:
    prompt, completion = report.prompt_tokens, report.completion_tokens
    return Usage(prompt, completion, prompt + completion)


def _models(market: Market) -> Any:
    @get("/v1/models")
    async def models() -> ModelList:
        return ModelList(
            data=tuple(
                ModelCard(
                    id=model.name,
                    created=0,
                    owned_by=f"{model.hosts} host(s)",
                    model_id=to_hex(model.model_id),
                    price_per_mtok=str(model.cheapest),
                    context_size=model.context_size,
                    max_answer_tokens=model.context_size,
                )
                for model in await market.models()
            )
        )

    return models


def _health(market: Market, pool: Pool) -> Any:
    @get("/health")
    async def health() -> Response[GatewayHealth]:
        models = await market.models()
        hosts = sum(model.hosts for model in models)
        found = GatewayHealth(status="ok" if hosts else "no_host", models=len(models), hosts=hosts, busy=pool.busy)
        return Response(found, status_code=200 if hosts else 503)

    return health


# -- errors, in OpenAI's shape ----------------------------------------------------------------------------------------------


def _error(fault: FabstirError, param: str | None = None) -> ErrorAnswer:
    kind = "invalid_request_error" if fault.http_status < 500 else "api_error"
    return ErrorAnswer(ErrorBody(message=str(fault), type=kind, code=fault.code, param=param))


def _ours(_request: Request[Any, Any, Any], fault: FabstirError) -> Response[ErrorAnswer]:
    param = fault.detail.partition(":")[0] if fault.code == "request_invalid" and ":" in fault.detail else None
    headers = {"retry-after": "5"} if fault.retryable else {}
    return Response(_error(fault, param), status_code=fault.http_status, headers=headers)


def _framework(_request: Request[Any, Any, Any], refused: HTTPException) -> Response[ErrorAnswer]:
    return Response(_error(error("request_invalid", refused.detail)), status_code=refused.status_code)


def _unforeseen(_request: Request[Any, Any, Any], raised: Exception) -> Response[ErrorAnswer]:
    log.error("request_failed", exc_info=raised)
    return Response(_error(error("node_failed")), status_code=500)


HANDLERS: Final[ExceptionHandlersMap] = {FabstirError: _ours, HTTPException: _framework, Exception: _unforeseen}
