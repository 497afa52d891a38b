"""The renter's gateway: OpenAI's and Anthropic's dialects on this machine, paid for behind the scenes.

Any client of theirs works against it with nothing but a base URL. Each request is one answer of a session of the pool: found,
paid, moved to another host where one dies, all of it invisible to the client. This module has the routes; who is answered
decides `gateway_guard`, what is read and written the dialects, and the one way to the market is `gateway_answer`. Keeps no text
beyond `kept_responses` and `idempotency`. Specification: docs/reference/gateway.md.
"""

from __future__ import annotations

import os
import time
from hashlib import sha256
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response, delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from fabstir.api.anthropic_messages import read_count, read_messages
from fabstir.api.background import Background, QueuedAnswer
from fabstir.api.chat_writer import ChatWriter
from fabstir.api.dialect import Asked, InvalidParameter, Writer
from fabstir.api.embeddings import embeddings_route
from fabstir.api.gateway_answer import Desk, GatewayAnswer, Once
from fabstir.api.gateway_errors import HANDLERS
from fabstir.api.gateway_guard import Client, Guard, client_of, with_request_id
from fabstir.api.gateway_openapi import document
from fabstir.api.gateway_operations import Deleted
from fabstir.api.gateway_views import view_routes
from fabstir.api.idempotency import HEADER, Answers
from fabstir.api.kept_responses import KeptResponse, KeptResponses
from fabstir.api.messages_writer import CountWriter, MessagesWriter
from fabstir.api.openai_responses import ResponsesRequest, read_responses
from fabstir.api.openai_types import read_chat
from fabstir.api.openapi import openapi_route
from fabstir.api.responses_types import ResponseBody
from fabstir.api.responses_writer import ResponsesWriter
from fabstir.protocol.messages import ChatMessage
from fabstir.renter.access import Context
from fabstir.renter.gateway_keys import KeyRing
from fabstir.renter.market import Market
from fabstir.renter.pool import Pool

MAX_BODY_BYTES: Final = 8 << 20
AnyRequest = Request[Any, Any, Any]


def gateway_app(market: Market, pool: Pool, api_key: str | None = None, keys: KeyRing | None = None) -> Litestar:
    """The application. With `api_key`, or where the file of `keys` exists, requests must carry a key."""
    desk, kept = Desk(pool, Answers(market.clock)), KeptResponses(market.clock)
    return Litestar(
        [
            *_openai(desk),
            *_responses(desk, kept),
            *_anthropic(desk),
            embeddings_route(market.embedder),
            *view_routes(market, pool),
            openapi_route(document()),
        ],
        guards=[Guard(market.clock, api_key, keys).admit],
        before_send=[with_request_id],
        exception_handlers=HANDLERS,
        request_max_body_size=MAX_BODY_BYTES,
        debug=False,  # never by an environment variable: its pages show what was asked
        openapi_config=None,
        logging_config=None,
    )


def _openai(desk: Desk) -> list[HTTPRouteHandler]:
    @post("/v1/chat/completions", status_code=200)
    async def completions(request: AnyRequest) -> ASGIApp:
        asked = read_chat(await request.body())
        return await _answer(desk, request, asked.asked(), ChatWriter(asked, _drawn(), int(time.time())))

    return [completions]


def _responses(desk: Desk, kept: KeptResponses) -> list[HTTPRouteHandler]:
    background = Background(kept)

    @post("/v1/responses", status_code=200)
    async def respond(request: AnyRequest) -> ASGIApp:
        asked, client = read_responses(await request.body()), client_of(request)
        before: Context = ()
        if asked.previous_response_id is not None:
            before = _said(kept.get(asked.previous_response_id, client.owner))
        writer = ResponsesWriter(asked, _drawn(), int(time.time()), _Keeping(kept, client, asked, before))
        if asked.background:
            return QueuedAnswer(background, desk, client, asked.asked(before), writer, await _once(request))
        return await _answer(desk, request, asked.asked(before), writer)

    @get("/v1/responses/{name:str}")
    async def response(request: AnyRequest) -> Response[msgspec.Struct]:
        return Response(kept.get(request.path_params["name"], client_of(request).owner).body)

    @post("/v1/responses/{name:str}/cancel", status_code=200)
    async def cancel(request: AnyRequest) -> Response[msgspec.Struct]:
        return Response(await background.cancel(request.path_params["name"], client_of(request).owner))

    @delete("/v1/responses/{name:str}", status_code=200)
    async def forget(request: AnyRequest) -> Deleted:
        name = request.path_params["name"]
        await background.forget(name, client_of(request).owner)
        return Deleted(name)

    return [respond, response, cancel, forget]


def _anthropic(desk: Desk) -> list[HTTPRouteHandler]:
    @post("/v1/messages", status_code=200)
    async def messages(request: AnyRequest) -> ASGIApp:
        asked = read_messages(await request.body())
        return await _answer(desk, request, asked.asked(), MessagesWriter(asked, _drawn()))

    @post("/v1/messages/count_tokens", status_code=200)
    async def count(request: AnyRequest) -> ASGIApp:
        asked = read_count(await request.body())
        return await _answer(desk, request, asked.asked(), CountWriter())

    return [messages, count]


def _said(response: KeptResponse) -> Context:
    """Raises InvalidParameter where there is no answer to go on from."""
    if not response.conversation:
        raise InvalidParameter("previous_response_id", "that response has no answer, or none yet")
    return response.conversation


class _Keeping:
    """What a response is kept with, once it is complete."""

    def __init__(self, kept: KeptResponses, client: Client, asked: ResponsesRequest, before: Context) -> None:
        self._kept = kept
        self._owner = client.owner
        self._asked = asked
        self._before = before

    def __call__(self, answer: ChatMessage, body: ResponseBody) -> None:
        if self._asked.store:
            conversation = (*self._before, *self._asked.messages(), answer)
            self._kept.keep(body.id, KeptResponse(owner=self._owner, conversation=conversation, body=body))


async def _answer(desk: Desk, request: AnyRequest, asked: Asked, writer: Writer) -> ASGIApp:
    """The one way from every dialect to the market."""
    return GatewayAnswer(desk, client_of(request), asked, writer, await _once(request))


async def _once(request: AnyRequest) -> Once | None:
    key = request.headers.get(HEADER)
    if key is None:
        return None
    return Once(key, sha256(request.scope["path"].encode() + b"\n" + await request.body()).digest())


def _drawn() -> str:
    return os.urandom(16).hex()
