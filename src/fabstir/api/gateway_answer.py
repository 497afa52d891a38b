"""One request of the gateway as an ASGI response, whatever its dialect: a session of the pool, a question, and the answer whole
or as server-sent events.

The one way from the gateway to the market. It watches the client while it works: who goes away is not answered any further and
pays for nothing more, unless the request has an idempotency key (then its repetition gets the answer). What fails before the
first text is raised and becomes an HTTP error; what fails later is an event of the stream. Keeps no text beyond the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Final

import msgspec
import structlog
from litestar.types import Receive, Scope, Send

from fabstir.api.dialect import Asked, Event, Writer
from fabstir.api.gateway_guard import Client
from fabstir.api.idempotency import Answers
from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import to_hex
from fabstir.protocol.answer_reader import AnswerForm, AnswerReader
from fabstir.protocol.context.plan import as_text
from fabstir.protocol.controls import Controls
from fabstir.renter.answer import AnswerReport
from fabstir.renter.pool import Pool
from fabstir.renter.session import Session

OK: Final = 200
CONTEXT_HEADER: Final = "x-fabstir-context"
"""Fates of the messages before the question, how many of each, and the tokens that the model was given."""
encode: Final = msgspec.json.Encoder().encode

log = structlog.get_logger()


class Desk:
    """What every answer of a gateway shares."""

    def __init__(self, pool: Pool, answers: Answers) -> None:
        self.pool: Final = pool
        self.answers: Final = answers


class Once(msgspec.Struct, frozen=True):
    """A request that may be repeated."""

    key: str
    fingerprint: bytes
    """Of the path and the body."""


class GatewayAnswer:
    """The response to one request. Memory: the answer's text where it is not streamed."""

    def __init__(self, desk: Desk, client: Client, asked: Asked, writer: Writer, once: Once | None = None) -> None:
        self._desk = desk
        self._client = client
        self._asked = asked
        self._writer = writer
        self._once = once

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Serve until the answer is over or the client is gone. Raises FabstirError before anything was sent."""
        work = asyncio.ensure_future(self._work(send))
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

    async def _work(self, send: Send) -> None:
        if self._once is None:
            await self.serve(send)
        else:
            name, fingerprint = self._once.key, self._once.fingerprint
            await self._desk.answers.answer(self._client.owner, name, fingerprint, self.serve, send)

    async def serve(self, send: Send) -> bool:
        """Whoever listens. False where the answer broke off after its beginning."""
        pool, asked = self._desk.pool, self._asked
        model = await pool.market.resolve(asked.model)
        if not self._client.may_use(asked.model, to_hex(model)):
            raise error("api_key_forbidden", f"the model {asked.model[:80]!r}")
        async with (
            pool.session(asked.model, asked.conversation) as session,
            pool.market.spending.bill(self._client.card) as bill,
            aclosing(session.prompt(asked.question, allow=bill.allow, **asked.options())) as pieces,
        ):
            answer = (_Streamed if asked.stream else _Whole)(send, self._writer, session, asked)
            return await answer.serve(pieces)


class _Whole:
    """An answer in one piece."""

    def __init__(self, send: Send, writer: Writer, session: Session, asked: Asked) -> None:
        self._send = send
        self._writer = writer
        self._session = session
        self._asked = asked

    async def serve(self, pieces: AsyncGenerator[str, None]) -> bool:
        text = "".join([piece async for piece in pieces])
        reader = self._reader()
        parts = [*reader.feed(text), *reader.end()]
        answer = self._writer.whole(parts, self._session.records(), _report(self._session))
        await send_whole(self._send, answer, self._session)
        return True

    def _reader(self) -> AnswerReader:
        """Once a host answers: it knows how its model writes."""
        return AnswerReader(AnswerForm.of(Controls(**self._asked.controls), self._session.capabilities))


class _Streamed(_Whole):
    """An answer as events."""

    async def serve(self, pieces: AsyncGenerator[str, None]) -> bool:
        writer, seen, whole = self._writer, 0, True
        first = await anext(pieces, None)
        reader = self._reader()
        await _start(self._send, "text/event-stream; charset=utf-8", self._session)
        await self._tell(writer.begin())
        try:
            piece = first
            while piece is not None:
                records = self._session.records(seen)
                seen += len(records)
                await self._tell(writer.piece(reader.feed(piece), records))
                piece = await anext(pieces, None)
        except FabstirError as fault:
            whole = False
            await self._tell(writer.broken(fault))
        else:
            rest, silent = reader.end(), self._session.records(seen)
            if rest or silent:  # what was held back, and tokens without text, as the end of a turn is one
                await self._tell(writer.piece(rest, silent))
            await self._tell(writer.end(_report(self._session)))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        return whole

    async def _tell(self, events: Iterable[Event]) -> None:
        body = b"".join(map(_as_text, events))
        if body:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})


def _as_text(event: Event) -> bytes:
    data = event.data if isinstance(event.data, bytes) else encode(event.data)
    name = f"event: {event.name}\n".encode() if event.name else b""
    return name + b"data: " + data + b"\n\n"


async def send_whole(send: Send, answer: msgspec.Struct, session: Session | None = None) -> None:
    """An answer in one piece."""
    body = encode(answer)
    await _start(send, "application/json", session, len(body))
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _start(send: Send, kind: str, session: Session | None, length: int | None = None) -> None:
    headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-cache")]
    if session is not None and session.plan is not None:
        headers.append((CONTEXT_HEADER.encode(), as_text(session.plan).encode()))
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": OK, "headers": headers})


async def _disconnected(receive: Receive) -> None:
    """Return once the client is gone. The body was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _report(session: Session) -> AnswerReport:
    if session.last is None:
        raise AssertionError("an answer that ended has a report")
    return session.last
