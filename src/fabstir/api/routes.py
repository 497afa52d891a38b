"""What a host tells over HTTP: health, metrics, models, offer. Everything here is a view; nothing changes the host.

Specification: docs/reference/http.md.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from fabstir.api.host_guard import OPERATOR
from fabstir.domain.ids import to_hex
from fabstir.host.health import HostHealth, HostStanding
from fabstir.host.node import HostNode
from fabstir.ops.metrics import CONTENT_TYPE
from fabstir.protocol.offer import WireTokenPrice, wire_prices
from fabstir.protocol.signed_offer import WireSignedOffer


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One model in OpenAI's shape, and what OpenAI's shape lacks."""

    id: str
    """Its name."""
    object: str = "model"
    created: int
    """When this host started, Unix seconds."""
    owned_by: str
    """The host's address."""
    model_id: str
    """As ModelRegistry knows it."""
    prices: tuple[WireTokenPrice, ...]
    """One for each currency that is taken."""
    context_size: int
    """Tokens of prompt and answer together."""
    max_answer_tokens: int
    """Longer answers end with `length`."""


class WebKey(msgspec.Struct, frozen=True, kw_only=True):
    """One public key (RFC 8037)."""

    kid: str
    """Its name, as in a token's header."""
    kty: str
    crv: str
    x: str
    alg: str
    use: str


class KeySet(msgspec.Struct, frozen=True, kw_only=True):
    """The public keys of the tokens for reconnects (RFC 7517): the one that signs, and those whose tokens have not all ended."""

    keys: tuple[WebKey, ...]


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The models that this host serves, as an OpenAI client expects them."""

    object: str = "list"
    data: tuple[ModelCard, ...]


def models_of(node: HostNode) -> ModelList:
    """The models that `node` serves."""
    offer = node.offer
    return ModelList(
        data=tuple(
            ModelCard(
                id=model.name,
                created=node.started_on,
                owned_by=to_hex(offer.host),
                model_id=to_hex(model.model_id),
                prices=wire_prices(model),
                context_size=model.context_size,
                max_answer_tokens=offer.max_answer_tokens,
            )
            for model in offer.models
        )
    )


def host_routes(node: HostNode) -> list[HTTPRouteHandler]:
    """The views of one node."""

    @get("/health")
    async def health(request: Request[Any, Any, Any]) -> Response[HostHealth | HostStanding]:
        found = await node.health()
        shown = found if cast("dict[str, Any]", request.scope).get(OPERATOR) else HostStanding(status=found.status)
        return Response(shown, status_code=200 if found.serves else 503)

    @get("/metrics", media_type=CONTENT_TYPE)
    async def metrics() -> bytes:
        await node.measure()
        return await asyncio.to_thread(node.metrics.expose)

    @get("/v1/models")
    async def models() -> ModelList:
        return models_of(node)

    @get("/v1/offer")
    async def offer() -> WireSignedOffer:
        return node.signed_offer()

    @get("/.well-known/jwks.json")
    async def keys() -> KeySet:
        return msgspec.convert(node.tokens.public_keys(), KeySet)

    return [health, metrics, models, offer, keys]
