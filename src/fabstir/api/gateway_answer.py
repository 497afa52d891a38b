"""One request of the gateway as an ASGI response: a session of the pool, a question, and the answer whole or as
server-sent events.

It watches the client while it works: who goes away is not answered any further and pays for nothing more. What fails
before the first text is raised and becomes an HTTP error; what fails later is an event of the stream. Keeps no text
beyond the answer.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import msgspec
import structlog
from litestar.types import Receive, Scope, Send

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
    Usage,
)
from fabstir.domain.errors import FabstirError
from fabstir.renter.answer import AnswerReport
from fabstir.renter.pool import Pool
from fabstir.renter.session import Session

OK: Final = 200
encode: Final = msgspec.json.Encoder().encode

log = structlog.get_logger()


class ChatAnswer:
    """The response to one request. Memory: the answer's text where it is not streamed."""

    def __init__(self, pool: Pool, asked: ChatRequest) -> None:
        self._pool = pool
        self._asked = asked
        self._id = f"chatcmpl-{os.urandom(12).hex()}"
        self._created = int(time.time())

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Serve until the answer is over or the client is gone. Raises FabstirError before anything was sent."""
        work = asyncio.ensure_future(self._serve(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            else:
                log.info("client_gone")
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _serve(self, send: Send) -> None:
        conversation, question = self._asked.conversation()
        async with (
            self._pool.session(self._asked.model, conversation) as session,
            aclosing(session.prompt(question, **self._asked.options())) as pieces,
        ):
            answer = self._stream if self._asked.stream else self._whole
            await answer(send, session, pieces)

    async def _whole(self, send: Send, session: Session, pieces: AsyncGenerator[str, None]) -> None:
        text = "".join([piece async for piece in pieces])
        report = _report(session)
        choice = Choice(AnswerMessage(text), FINISH.get(report.finish_reason, "stop"))
        body = encode(
            Completion(
                id=self._id, created=self._created, model=self._asked.model, choices=(choice,), usage=_usage(report)
            )
        )
        await _start(send, "application/json", len(body))
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _stream(self, send: Send, session: Session, pieces: AsyncGenerator[str, None]) -> None:
        first = await anext(pieces, None)
        await _start(send, "text/event-stream; charset=utf-8")
        await _event(send, self._chunk(Delta(role="assistant", content=first or "")))
        try:
            async for piece in pieces:
                await _event(send, self._chunk(Delta(content=piece)))
        except FabstirError as fault:
            await _event(send, ErrorAnswer.of(fault))
        else:
            report = _report(session)
            await _event(send, self._chunk(Delta(), FINISH.get(report.finish_reason, "stop")))
            if self._asked.stream_options is not None and self._asked.stream_options.include_usage:
                chunk = self._chunk(Delta())
                await _event(send, msgspec.structs.replace(chunk, choices=(), usage=_usage(report)))
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _chunk(self, delta: Delta, finish: str | None = None) -> Chunk:
        choices = (ChunkChoice(delta, finish),)
        return Chunk(id=self._id, created=self._created, model=self._asked.model, choices=choices)


async def _start(send: Send, kind: str, length: int | None = None) -> None:
    headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-cache")]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": OK, "headers": headers})


async def _event(send: Send, data: Chunk | ErrorAnswer) -> None:
    await send({"type": "http.response.body", "body": b"data: " + encode(data) + b"\n\n", "more_body": True})


async def _disconnected(receive: Receive) -> None:
    """Return once the client is gone. The body was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _report(session: Session) -> AnswerReport:
    if session.last is None:
        raise AssertionError("an answer that ended has a report")
    return session.last


def _usage(report: AnswerReport) -> Usage:
    prompt, completion = report.prompt_tokens, report.completion_tokens
    return Usage(prompt, completion, prompt + completion)
