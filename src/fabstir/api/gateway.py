"""The renter's gateway: OpenAI's dialect on this machine, paid for behind the scenes.

Any OpenAI client works against it with nothing but a base URL. Each request is one answer of a session of the pool:
found, paid, moved to another host where one dies, all of it invisible to the client. It spends its owner's money, so it
answers only who reaches it as this machine and sends JSON: a web page that the owner visits can do neither. Keeps no
text. Specification: docs/reference/gateway.md.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog
from litestar import Litestar, Request, Response, get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.types import ASGIApp, ExceptionHandlersMap

from fabstir.api.gateway_answer import ChatAnswer
from fabstir.api.openai_types import ErrorAnswer, InvalidParameter, read_request
from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import to_hex
from fabstir.renter.market import Market, ModelListing
from fabstir.renter.pool import Pool

MAX_BODY_BYTES: Final = 8 << 20
_Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], None]

log = structlog.get_logger()


class GatewayModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in OpenAI's shape, and what OpenAI's shape lacks."""

    id: str
    """What a request calls it: its name, or its model id where hosts give one name to several models."""
    object: str = "model"
    created: int = 0
    """Not known; OpenAI's shape wants a number."""
    owned_by: str = "market"
    name: str
    model_id: str
    price_per_mtok: str
    """The cheapest, in base units for 1,000,000 generated tokens."""
    hosts: int
    context_size: int
    """The largest on offer."""


class GatewayModels(msgspec.Struct, frozen=True, kw_only=True):
    """The models that somebody serves now."""

    object: str = "list"
    data: tuple[GatewayModel, ...]


class GatewayHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How the gateway is."""

    status: str
    """`ok`, or the code of what keeps it from answering."""
    reason: str
    block: int
    """Of the chain; 0 where it cannot be read."""
    models: int
    hosts: int
    """That answered when they were asked for their offer."""
    busy: int
    """Requests at work."""
    idle: int
    """Sessions that wait for a request."""
    token: str
    """What is paid with: an ERC-20 contract, or the zero address for ETH."""
    budget: str
    budget_left: str
    """What may still be deposited, in base units."""


def gateway_app(market: Market, pool: Pool, api_key: str | None = None) -> Litestar:
    """The application. With `api_key`, requests must carry it as a bearer token."""
    return Litestar(
        [_completions(pool), *_models(market), _health(market, pool)],
        guards=[_same_machine, _key_guard(api_key)] if api_key else [_same_machine],
        exception_handlers=HANDLERS,
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        logging_config=None,
    )


# -- who is answered ---------------------------------------------------------------------------------------------------


def _same_machine(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Refuse what a web page could make a browser send: another host's name (DNS rebinding), a body that is not JSON
    (which needs no permission across origins).
    """
    host = urlsplit("//" + connection.headers.get("host", "")).hostname or ""
    if not _is_this_machine(host):
        raise HTTPException(status_code=403, detail=f"host {host[:80]!r} is not this machine")
    kind = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
    if connection.scope.get("method") == "POST" and kind != "application/json":
        raise HTTPException(status_code=415, detail="the body must be application/json")


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _key_guard(api_key: str) -> _Guard:
    expected = f"Bearer {api_key}".encode()

    def check(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
        given = connection.headers.get("authorization", "").encode()
        if connection.scope["path"] != "/health" and not hmac.compare_digest(given, expected):
            raise HTTPException(status_code=401, detail="the API key is missing or wrong")

    return check


# -- routes ------------------------------------------------------------------------------------------------------------


def _completions(pool: Pool) -> HTTPRouteHandler:
    @post("/v1/chat/completions", status_code=200)
    async def completions(request: Request[Any, Any, Any]) -> ASGIApp:
        return ChatAnswer(pool, read_request(await request.body()))

    return completions


def _models(market: Market) -> tuple[HTTPRouteHandler, HTTPRouteHandler]:
    @get("/v1/models")
    async def models() -> GatewayModels:
        return GatewayModels(data=_cards(await market.models()))

    @get("/v1/models/{name:path}")
    async def model(request: Request[Any, Any, Any]) -> GatewayModel:
        wanted = str(request.path_params["name"]).removeprefix("/")
        for card in _cards(await market.models()):
            if wanted in (card.id, card.model_id):
                return card
        raise error("model_unavailable", f"nobody offers {wanted[:80]!r}")

    return models, model


def _cards(listings: tuple[ModelListing, ...]) -> tuple[GatewayModel, ...]:
    names = Counter(listing.name for listing in listings)
    return tuple(
        GatewayModel(
            id=listing.name if names[listing.name] == 1 else to_hex(listing.model_id),
            name=listing.name,
            model_id=to_hex(listing.model_id),
            price_per_mtok=str(listing.cheapest),
            hosts=listing.hosts,
            context_size=listing.context_size,
        )
        for listing in listings
    )


def _health(market: Market, pool: Pool) -> HTTPRouteHandler:
    @get("/health")
    async def health() -> Response[GatewayHealth]:
        fault, block, models, hosts = None, 0, 0, 0
        try:
            block = await market.block()
            hosts = sum(candidate.offer is not None for candidate in await market.hosts())
            models = len(await market.models())
            if not models:
                fault = error("no_host", "no host answers")
        except FabstirError as raised:
            fault = raised
        found = GatewayHealth(
            status=fault.code if fault else "ok",
            reason=str(fault) if fault else "",
            block=block,
            models=models,
            hosts=hosts,
            busy=pool.busy,
            idle=pool.idle,
            token=to_hex(market.token),
            budget=str(pool.purse.budget),
            budget_left=str(pool.purse.left),
        )
        return Response(found, status_code=503 if fault else 200)

    return health


# -- errors, in OpenAI's shape -----------------------------------------------------------------------------------------


def _ours(_request: Request[Any, Any, Any], fault: FabstirError) -> Response[ErrorAnswer]:
    param = fault.param if isinstance(fault, InvalidParameter) else None
    headers = {"x-should-retry": "true" if fault.retryable else "false"}
    return Response(ErrorAnswer.of(fault, param), status_code=fault.http_status, headers=headers)


def _framework(_request: Request[Any, Any, Any], refused: HTTPException) -> Response[ErrorAnswer]:
    fault = error("request_invalid", refused.detail)
    return Response(ErrorAnswer.of(fault, status=refused.status_code), status_code=refused.status_code)


def _unforeseen(_request: Request[Any, Any, Any], raised: Exception) -> Response[ErrorAnswer]:
    log.error("request_failed", exc_info=raised)
    return Response(ErrorAnswer.of(error("node_failed")), status_code=500)


HANDLERS: Final[ExceptionHandlersMap] = {FabstirError: _ours, HTTPException: _framework, Exception: _unforeseen}
