"""Signs each HTTP answer of a host with the node's identity (`fabstir.protocol.http_signing`). In front of everything else that answers.

What streams is passed on unsigned: its body is not known before it is sent. Holds an answer's body until it is whole. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from fabstir.ports.clock import Clock
from fabstir.protocol.http_signing import Answer, Request, sign_answer
from fabstir.protocol.node_key import NodeKey

Event = dict[str, Any]


class SignedAnswers:
    """Around `app`. Memory: one answer for each request."""

    def __init__(self, app: ASGIApp, node: Callable[[], NodeKey], clock: Clock) -> None:
        self.app = app
        self._node = node
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or one handshake."""
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        reply = cast(Callable[[Event], Awaitable[None]], send)
        held: list[Event] = []

        async def signed(message: Event) -> None:
            if message["type"] == "http.response.start":
                held.append(message)
                return
            if held:
                begin = held.pop()
                if message["type"] == "http.response.body" and not message.get("more_body", False):
                    self._sign(scope, begin, message.get("body", b""))
                await reply(begin)
            await reply(message)

        await self.app(scope, receive, cast(Send, signed))

    def _sign(self, scope: Scope, begin: Event, body: bytes) -> None:
        asked = cast(Event, scope)
        query = asked["query_string"]
        target = asked["raw_path"].decode("latin-1") + (f"?{query.decode('latin-1')}" if query else "")
        told = [(name.lower(), value) for name, value in begin["headers"]]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in told}
        try:
            answer = Answer(Request(asked["method"], target), begin["status"], headers)
            made = sign_answer(self._node(), answer, body, self._clock.now())
        except ValueError:  # a path that is none: there is nothing that a signature could name
            return
        begin["headers"] = [*begin["headers"], *((name.encode(), value.encode()) for name, value in made)]
