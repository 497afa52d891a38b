"""Answers of a host over HTTP: OpenAI's chat completions and `/v1/inference`, for a renter whose session stands.

The one way from HTTP to the session: the request becomes a `prompt`, the messages of its answer become events or one body. What
is served and when it stops is the session's business; a renter that acknowledges nothing gets W tokens and then the reason. What
fails before the first message is a status, what fails later an event. Whoever goes away has its answer cancelled.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Any, Final

import msgspec
from litestar import Request, Response, post
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream
from litestar.types import ExceptionHandlersMap

from fabstir.api.dialect import Asked, unsupported
from fabstir.api.errors import retry_after
from fabstir.api.host_paid import Collected, PaidChatWriter, PaidError
from fabstir.api.inference import InferenceAnswer, InferenceRequest, check_model, read_inference
from fabstir.api.openai_types import read_chat
from fabstir.domain.errors import FabstirError, error
from fabstir.host.http_session import Heard, HttpSession
from fabstir.host.http_sessions import HttpSessions
from fabstir.host.node import HostNode
from fabstir.protocol.messages import Error, Prompt, encode

AnyRequest = Request[Any, Any, Any]
Body = Response[Any] | Stream
Tell = Callable[[Heard], Iterable[msgspec.Struct]]
DONE: Final = b"data: [DONE]\n\n"


def answer_routes(node: HostNode, sessions: HttpSessions) -> list[HTTPRouteHandler]:
    """The two routes of one node."""
    most = node.settings.max_message_bytes

    @post(
        "/v1/chat/completions",
        status_code=200,
        request_max_body_size=most,
        exception_handlers=IN_OPENAIS_SHAPE,
    )
    async def completions(request: AnyRequest) -> Body:
        """A chat completion in the session that the token stands for."""
        session = session_of(request, sessions)
        asked = read_chat(await request.body())
        check_model(asked.model, session.ready)
        writer = PaidChatWriter(asked, os.urandom(16).hex(), int(time.time()))
        events = _Answer(session, prompt_of(asked.asked(), session, node))
        await events.begin()
        if not asked.stream:
            return Response(writer.whole(await events.collect()))
        return _stream(events, writer.begin(), writer.heard, writer.broken, DONE)

    @post("/v1/inference", status_code=200, request_max_body_size=most)
    async def inference(request: AnyRequest) -> Body:
        """One prompt in the session that the token stands for, in the protocol's words."""
        session = session_of(request, sessions)
        asked, chain_id = read_inference(await request.body()), node.offer.market.chain_id
        asked.check(session.ready, chain_id)
        events = _Answer(session, _native(asked, session, node))
        await events.begin()
        if not asked.stream:
            return Response(InferenceAnswer.of(asked, await events.collect(), session.ready, chain_id))
        return _stream(events, (), lambda heard: (heard,), lambda fault: (Error.of(fault),), b"")

    return [completions, inference]


def session_of(request: AnyRequest, sessions: HttpSessions) -> HttpSession:
    """By the token in `Authorization: Bearer`. Raises Refused (`session_unauthorized`), PeerFault (`request_invalid`)."""
    require_json(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise error("session_unauthorized", "no `Authorization: Bearer` with a session's token")
    return sessions.find(token.strip())


def require_json(request: AnyRequest) -> None:
    """A page of another origin may send other bodies unasked. Raises PeerFault (`request_invalid`)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    sent = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if request.method == "POST" and sent and kind != "application/json":
        raise error("request_invalid", "the body must be application/json")


def prompt_of(asked: Asked, session: HttpSession, node: HostNode) -> Prompt:
    """OpenAI's request as the session's next prompt; the conversation comes with each. Raises InvalidParameter: calls are read out of an
    answer by whoever asks for it, which the gateway does."""
    if asked.controls.get("tools"):
        raise unsupported("tools", "a host gives the answer's text as it is; the renter's gateway reads calls")
    return Prompt(
        session_id=session.ready.session_id,
        message_index=_next_index(session, node),
        content=asked.question.content,
        role=asked.question.role,
        tool_call_id=asked.question.tool_call_id,
        conversation_context=asked.conversation,
        **asked.options(),
    )


def _native(asked: InferenceRequest, session: HttpSession, node: HostNode) -> Prompt:
    return Prompt(
        session_id=session.ready.session_id,
        message_index=_next_index(session, node),
        content=asked.prompt,
        conversation_context=asked.conversation_context,
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        seed=asked.seed,
        stop=asked.stop,
    )


def _next_index(session: HttpSession, node: HostNode) -> int:
    ledger = node.book.get(session.job)
    if ledger is None:
        raise error("job_closed")
    return ledger.message_index


class _Answer:
    """One answer, looked into before anything of it is sent. Memory: its first message."""

    def __init__(self, session: HttpSession, prompt: Prompt) -> None:
        self._heard = session.answer(prompt)
        self._first: Heard | None = None

    async def begin(self) -> None:
        """Raises what the host answers in place of a first message."""
        self._first = await anext(self._heard)

    async def messages(self) -> AsyncGenerator[Heard, None]:
        """All of them."""
        async with aclosing(self._heard) as heard:
            if self._first is not None:
                yield self._first
            async for message in heard:
                yield message

    async def collect(self) -> Collected:
        """The whole answer, or what there is of one that is cut off."""
        answer = Collected()
        try:
            async with aclosing(self.messages()) as messages:
                async for message in messages:
                    answer.take(message)
        except FabstirError as fault:
            answer.fault = fault
        return answer


def _stream(
    answer: _Answer,
    beginning: Iterable[msgspec.Struct],
    heard: Tell,
    broken: Callable[[FabstirError], Iterable[msgspec.Struct]],
    end: bytes,
) -> Stream:
    async def events() -> AsyncIterator[bytes]:
        async with aclosing(answer.messages()) as messages:
            for event in beginning:
                yield _event(event)
            try:
                async for message in messages:
                    if told := b"".join(map(_event, heard(message))):
                        yield told
            except FabstirError as fault:
                for event in broken(fault):
                    yield _event(event)
                return
        if end:
            yield end

    return Stream(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


def _event(event: msgspec.Struct) -> bytes:
    return b"data: " + encode(event) + b"\n\n"


def _respond(fault: FabstirError, status: int | None = None) -> Response[PaidError]:
    headers = {"x-should-retry": "true" if fault.retryable else "false"}
    if fault.retryable:
        headers["retry-after"] = retry_after(fault)
    return Response(PaidError.told(fault), status_code=status or fault.http_status, headers=headers)


def _ours(_request: AnyRequest, fault: FabstirError) -> Response[PaidError]:
    return _respond(fault)


def _framework(_request: AnyRequest, refused: HTTPException) -> Response[PaidError]:
    return _respond(error("request_invalid", refused.detail), refused.status_code)


IN_OPENAIS_SHAPE: Final[ExceptionHandlersMap] = {FabstirError: _ours, HTTPException: _framework}
