"""Who is answered by the gateway, and how often: this machine only, JSON only, a known key, within its rate.

It spends its owner's money, so a web page that the owner visits must not reach it: another host's name is refused (DNS
rebinding), and so is a body that is not JSON (which a page may send across origins without asking). Knows no budget: that is
counted where the answer is made.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections import deque
from typing import Any, Final, cast

import msgspec
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.types import Message, Scope

from fabstir.api.gateway_errors import TooMany, request_id
from fabstir.domain.errors import error
from fabstir.ports.clock import Clock
from fabstir.renter.gateway_keys import KeyCard, KeyRing

MAX_HEADER_BYTES: Final = 32 << 10
MINUTE: Final = 60.0
OPEN_PATHS: Final = frozenset(("/health", "/openapi.json"))
"""Answered without a key."""
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")
"""A host in brackets or not, and a port."""
CLIENT: Final = "fabstir_client"
"""Where a request's scope has who asks."""
Connection = ASGIConnection[Any, Any, Any, Any]


class Client(msgspec.Struct, frozen=True):
    """Who asks."""

    card: KeyCard | None = None
    """None: the gateway's owner, by `renter.gateway_key` or where no keys are asked for."""

    @property
    def owner(self) -> str:
        """Of what is kept for it."""
        return self.card.id if self.card else ""

    def may_use(self, *names: str) -> bool:
        """The key is not bound to other models."""
        allowed = self.card.models if self.card else None
        return allowed is None or not set(names).isdisjoint(allowed)


class Guard:
    """Of one gateway. Memory: for each key with a rate, the times of a minute's requests."""

    def __init__(self, clock: Clock, key: str | None = None, ring: KeyRing | None = None) -> None:
        self._clock = clock
        self._key = key
        self._ring = ring
        self._times: dict[str, deque[float]] = {}

    def admit(self, connection: Connection, _handler: BaseRouteHandler) -> None:
        """For each request, before its body is read. Raises HTTPException, Refused (`api_key_invalid`, `rate_limited`), LocalFault
        (`config_invalid`).
        """
        _same_machine(connection)
        if connection.scope["path"] in OPEN_PATHS:
            return
        client = self._client(connection)
        if client.card is not None and client.card.per_minute is not None:
            self._count(client.card, client.card.per_minute)
        cast("dict[str, Any]", connection.scope)[CLIENT] = client

    def _client(self, connection: Connection) -> Client:
        cards = self._ring.cards if self._ring else None
        if self._key is None and cards is None:
            return Client()
        given = _given_key(connection)
        if self._key is not None and hmac.compare_digest(given.encode(), self._key.encode()):
            return Client()
        card = self._ring.find(given) if self._ring and cards else None
        if card is None:
            raise error("api_key_invalid")
        return Client(card)

    def _count(self, card: KeyCard, most: int) -> None:
        """One more request within a minute."""
        now, times = self._clock.monotonic(), self._times.setdefault(card.id, deque())
        while times and times[0] <= now - MINUTE:
            times.popleft()
        if len(times) >= most:
            raise TooMany(
                f"{len(times)} requests of this key in the last minute, at most {most}", times[0] + MINUTE - now
            )
        times.append(now)


def client_of(connection: Connection) -> Client:
    """Who asks, as `Guard.admit` found it."""
    client: Client = cast("dict[str, Any]", connection.scope)[CLIENT]
    return client


async def with_request_id(message: Message, scope: Scope) -> None:
    """Every answer says its id, under the names of both vendors."""
    if message["type"] == "http.response.start":
        name = request_id(scope).encode()
        headers = [*message["headers"], (b"x-request-id", name), (b"request-id", name)]
        message["headers"] = headers


def _given_key(connection: Connection) -> str:
    """As OpenAI's clients send it, or as Anthropic's do."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else connection.headers.get("x-api-key", "")


def _same_machine(connection: Connection) -> None:
    host = connection.headers.get("host", "")
    if not _is_this_machine(host):
        raise HTTPException(status_code=403, detail=f"host {host[:80]!r} is not this machine")
    origin = connection.headers.get("origin")
    if origin is not None and not _is_page_of_this_machine(origin):
        raise HTTPException(status_code=403, detail=f"origin {origin[:80]!r} is not this machine")
    if sum(len(name) + len(value) for name, value in connection.scope["headers"]) > MAX_HEADER_BYTES:
        raise HTTPException(status_code=431, detail=f"more than {MAX_HEADER_BYTES} bytes of headers")
    kind = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
    sent = connection.headers.get("content-length", "0") != "0" or "transfer-encoding" in connection.headers
    if connection.scope.get("method") == "POST" and sent and kind != "application/json":
        raise HTTPException(status_code=415, detail="the body must be application/json")


def _is_page_of_this_machine(origin: str) -> bool:
    scheme, _, address = origin.partition("://")
    return scheme in ("http", "https") and _is_this_machine(address)


def _is_this_machine(address: str) -> bool:
    parts = _HOST.fullmatch(address)
    host = (parts[1] or parts[2]).lower() if parts else ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
