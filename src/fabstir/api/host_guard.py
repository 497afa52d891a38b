"""Who is answered by a host's API at all: asked for by a name of its own, from no foreign web page, not too often; and who its operator is.

In front of every route and of the WebSocket, before a body is read. A session's rights are its signatures' business. Against DNS
rebinding a name must be known (an IP address cannot be rebound); against pages of others an origin must be. Callers on this machine are
not counted: behind a proxy that does not say for whom it asks (`X-Forwarded-For`, which uvicorn reads) everybody would be one of them.
"""

from __future__ import annotations

import hmac
import ipaddress
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast
from urllib.parse import urlsplit

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from fabstir.domain.errors import FabstirError, error
from fabstir.ops.metrics import Metrics
from fabstir.ports.clock import Clock
from fabstir.protocol.limits import Buckets, is_loopback, network_of
from fabstir.protocol.messages import Error, encode

MAX_HEADER_BYTES: Final = 32 << 10
OPERATOR: Final = "fabstir_operator"
"""Where a request's scope says whether its operator asks."""
OPERATORS_PATHS: Final = frozenset(("/metrics",))
ANYBODY: Final = "*"
Event = dict[str, Any]


class ApiRules(msgspec.Struct, frozen=True, kw_only=True):
    """What an API is told at its start. Frozen; made from `fabstir.ops.config`."""

    names: frozenset[str] = frozenset()
    """Lower case, beside addresses and `localhost`."""
    origins: frozenset[str] = frozenset()
    operator_key: str | None = None
    max_per_address: int = 64
    requests_per_minute: int = 600


class HostGuard:
    """In front of `app`. Memory: the buckets of 4096 addresses, a number for each address with a WebSocket."""

    def __init__(self, app: ASGIApp, rules: ApiRules, clock: Clock, metrics: Metrics) -> None:
        self.app: Final = app
        self._rules = rules
        self._clock = clock
        self._metrics = metrics
        self._buckets = Buckets(rules.requests_per_minute)
        self._sockets: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<HostGuard {self._buckets!r}, WebSockets of {len(self._sockets)} addresses>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or one handshake."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        who = _caller(scope)
        try:
            self._examine(scope, headers, who)
        except _Wait as wait:
            return await self._refuse(scope, receive, send, wait.fault, wait.seconds)
        except FabstirError as fault:
            return await self._refuse(scope, receive, send, fault)
        if who is None or scope["type"] != ScopeType.WEBSOCKET:
            return await self.app(scope, receive, send)
        self._sockets[who] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._sockets[who] -= 1
            if not self._sockets[who]:
                del self._sockets[who]

    def _examine(self, scope: Scope, headers: dict[str, str], who: str | None) -> None:
        """Raises Refused (`origin_refused`, `operator_only`, `rate_limited`), PeerFault (`request_invalid`)."""
        if who is not None:
            self._count(scope, who)
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size > MAX_HEADER_BYTES:
            raise error("request_invalid", f"{size} bytes of headers, at most {MAX_HEADER_BYTES}")
        host = headers.get("host", "")
        self._require_name(host)
        if (origin := headers.get("origin")) is not None:
            self._require_origin(origin, host)
        operator = self._is_operator(headers.get("authorization", ""), host, who)
        cast(Event, scope)[OPERATOR] = operator
        if scope["path"] in OPERATORS_PATHS and not operator:
            raise error("operator_only")

    def _count(self, scope: Scope, who: str) -> None:
        waits = self._buckets.take(who, self._clock.monotonic())
        if waits:
            fault = error("rate_limited", f"{who}: more than {self._rules.requests_per_minute} requests a minute")
            raise _Wait(fault, waits)
        if scope["type"] == ScopeType.WEBSOCKET and self._sockets[who] >= self._rules.max_per_address:
            fault = error(
                "rate_limited", f"{self._sockets[who]} WebSockets of {who}, at most {self._rules.max_per_address}"
            )
            raise _Wait(fault, 5)

    def _require_name(self, host: str) -> None:
        name = _hostname(host)
        if not (is_loopback(name) or _is_address(name) or name in self._rules.names):
            raise error("origin_refused", f"host {host[:80]!r} is none of this API's names")

    def _require_origin(self, origin: str, host: str) -> None:
        allowed = self._rules.origins
        if ANYBODY in allowed or origin.lower() in allowed:
            return
        parts = urlsplit(origin) if origin.startswith(("http://", "https://")) else None
        same = parts is not None and (parts.netloc.lower() == host.lower())
        ours = parts is not None and is_loopback(_hostname(parts.netloc)) and is_loopback(_hostname(host))
        if not (same or ours):
            raise error("origin_refused", f"origin {origin[:80]!r} is not in `api.allowed_origins`")

    def _is_operator(self, authorization: str, host: str, who: str | None) -> bool:
        key = self._rules.operator_key
        if key is None:
            return who is None and is_loopback(_hostname(host))
        scheme, _, given = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode())

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, fault: FabstirError, seconds: float | None = None
    ) -> None:
        self._metrics.failure(fault.code)
        websocket = scope["type"] == ScopeType.WEBSOCKET
        if websocket:
            await receive()
        kind = "websocket.http.response" if websocket else "http.response"
        reply = cast(Callable[[Event], Awaitable[None]], send)
        headers = [(b"content-type", b"application/json")]
        if seconds is not None:
            headers.append((b"retry-after", str(max(1, math.ceil(seconds))).encode()))
        status = 431 if fault.code == "request_invalid" else fault.http_status
        await reply({"type": f"{kind}.start", "status": status, "headers": headers})
        await reply({"type": f"{kind}.body", "body": encode(Error.of(fault))})


class _Wait(Exception):
    """Too often; and when there is room again."""

    def __init__(self, fault: FabstirError, seconds: float) -> None:
        super().__init__()
        self.fault = fault
        self.seconds = seconds


def _caller(scope: Scope) -> str | None:
    """Who is counted; None for this machine."""
    client = scope.get("client")
    if client is None or is_loopback(client[0]):
        return None
    return network_of(client[0])


def _hostname(host: str) -> str:
    """Without its port, lower case; empty where it is no host."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower() if "@" not in host and "/" not in host else ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
