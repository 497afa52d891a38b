"""What the gateway tells about the market and itself: models, health. Views; nothing here spends anything."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from fabstir.api.gateway_guard import Client, client_of
from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import to_hex
from fabstir.renter.market import Market, ModelListing
from fabstir.renter.pool import Pool


class GatewayModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in the shape of both vendors, and what theirs lacks."""

    id: str
    """What a request calls it: its name, or its model id where hosts give one name to several models."""
    object: str = "model"
    created: int = 0
    """Not known; OpenAI's shape wants a number."""
    owned_by: str = "market"
    type: str = "model"
    display_name: str
    """Its name, as Anthropic's shape has it."""
    created_at: str = "1970-01-01T00:00:00Z"
    """Not known; Anthropic's shape wants a time."""
    name: str
    model_id: str
    price_per_mtok: str
    """The cheapest, in base units for 1,000,000 generated tokens."""
    hosts: int
    """That offer it now for the currency that is paid with."""
    context_size: int
    """The largest on offer."""
    controls: tuple[str, ...]
    """What at least one host can be asked for."""


class GatewayModels(msgspec.Struct, frozen=True, kw_only=True):
    """The models that somebody serves now, and that the key may use."""

    object: str = "list"
    data: tuple[GatewayModel, ...]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None


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


def view_routes(market: Market, pool: Pool) -> list[HTTPRouteHandler]:
    """The views of one gateway."""

    @get("/v1/models")
    async def models(request: Request[Any, Any, Any]) -> GatewayModels:
        cards = _cards(await market.models(), client_of(request))
        return GatewayModels(
            data=cards, first_id=cards[0].id if cards else None, last_id=cards[-1].id if cards else None
        )

    @get("/v1/models/{name:path}")
    async def model(request: Request[Any, Any, Any]) -> GatewayModel:
        wanted = str(request.path_params["name"]).removeprefix("/")
        for card in _cards(await market.models(), client_of(request)):
            if wanted in (card.id, card.model_id):
                return card
        raise error("model_unavailable", f"nobody offers {wanted[:80]!r}")

    @get("/health")
    async def health() -> Response[GatewayHealth]:
        found = await _health(market, pool)
        return Response(found, status_code=200 if found.status == "ok" else 503)

    return [models, model, health]


def _cards(listings: tuple[ModelListing, ...], client: Client) -> tuple[GatewayModel, ...]:
    names = Counter(listing.name for listing in listings)
    return tuple(
        GatewayModel(
            id=listing.name if names[listing.name] == 1 else to_hex(listing.model_id),
            display_name=listing.name,
            name=listing.name,
            model_id=to_hex(listing.model_id),
            price_per_mtok=str(listing.cheapest),
            hosts=listing.hosts,
            context_size=listing.context_size,
            controls=listing.controls,
        )
        for listing in listings
        if client.may_use(listing.name, to_hex(listing.model_id))
    )


async def _health(market: Market, pool: Pool) -> GatewayHealth:
    fault, block, models, hosts = None, 0, 0, 0
    try:
        block = await market.block()
        hosts = sum(candidate.offer is not None for candidate in await market.hosts())
        models = len(await market.models())
        if not models:
            fault = error("no_host", "no host answers")
    except FabstirError as raised:
        fault = raised
    return GatewayHealth(
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
