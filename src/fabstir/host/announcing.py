"""A host announces itself: what it offers, where, and how many places are free, signed anew every few minutes.

The account's word for the node key is asked for once a day. Never gives up while the node runs: what is wrong is in `part`, which
health shows; being announced is no condition for serving.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from nacl.signing import SigningKey as NodeSecret

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32
from fabstir.host.health import NetworkPart
from fabstir.ports.clock import Clock
from fabstir.ports.network import Network
from fabstir.protocol.channel import CHANNEL_VERSION
from fabstir.protocol.node_key import BINDING_SECONDS
from fabstir.protocol.offer import ModelOffer, Offer
from fabstir.protocol.p2p.announcement import AnnouncedModel, AnnouncedPrice, Announcement, bind, seal
from fabstir.protocol.p2p.provider_keys import capability_key, model_key, shard_of
from fabstir.protocol.signing import SigningKey

RENEW_SECONDS: Final = 300.0
LIFE_SECONDS: Final = 900
"""Two renewals may fail before the others forget this host."""
RETRY_SECONDS: Final = 10.0
MAX_MODELS: Final = 12
"""What fits in 4 KiB with two currencies each."""

log = structlog.get_logger()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What the offer does not say."""

    url: str
    region: str = ""
    addresses: tuple[str, ...] = ()
    slots: int


class Announcer:
    """Of one host."""

    def __init__(
        self,
        network: Network,
        keys: tuple[SigningKey, NodeSecret],
        clock: Clock,
        place: Place,
        offer: Callable[[], Offer],
        free: Callable[[], int],
    ) -> None:
        """`keys`: the account's and the node's. `free`: places for further sessions."""
        self._network = network
        self._account, self._node = keys
        self._clock = clock
        self._place = place
        self._offer = offer
        self._free = free
        self._binding: tuple[int, bytes] = (0, b"")
        self._issued_ms = 0
        self._trouble = "not announced yet"

    def __repr__(self) -> str:
        return f"<Announcer {self._place.url}: {self._trouble or 'ok'}>"

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.announce()
            except FabstirError as fault:
                self._trouble = str(fault)
                log.warning("announcing_failed", code=fault.code, detail=fault.detail)
            await self._clock.sleep(RETRY_SECONDS if self._trouble else RENEW_SECONDS)

    async def announce(self) -> None:
        """Once. Raises LocalFault (`p2p_unavailable`)."""
        said = self._compose()
        await self._network.publish(seal(said, self._node), self._keys(said))
        self._trouble = ""
        log.info("announced", expires_at=said.expires_at, count=len(said.models))

    def part(self) -> NetworkPart:
        """For `/health`."""
        stands = self._network.condition()
        reason = stands.reason or self._trouble or ("no peer is connected" if stands.status == "alone" else "")
        return NetworkPart(
            status="down" if self._trouble and stands.status == "ok" else stands.status,
            reason=reason,
            node=self._network.node.hex(),
            addresses=stands.addresses,
            peers=stands.peers,
            known=stands.known,
            providing=stands.providing,
            restarts=stands.restarts,
            announced_s=max(0, int(self._clock.now() - stands.announced_at)) if stands.announced_at else None,
        )

    def _compose(self) -> Announcement:
        offer, now = self._offer(), self._clock.now()
        self._issued_ms = max(self._issued_ms + 1, int(now * 1000))
        until, signature = self._bound(offer, int(now))
        return Announcement(
            chain_id=offer.market.chain_id,
            market=offer.market.address,
            node=self._network.node,
            account=self._account.address,
            bound_until=until,
            binding=signature,
            issued_ms=self._issued_ms,
            expires_at=int(now) + LIFE_SECONDS,
            url=self._place.url,
            addresses=(self._place.addresses or self._network.condition().addresses)[:8],
            region=self._place.region,
            features=_features(offer),
            slots=self._place.slots,
            free=min(max(0, self._free()), self._place.slots),
            models=tuple(map(_model, offer.models[:MAX_MODELS])),
        )

    def _bound(self, offer: Offer, now: int) -> tuple[int, bytes]:
        if self._binding[0] < now + BINDING_SECONDS // 2:
            until = now + BINDING_SECONDS
            self._binding = (until, bind(self._account, offer.market, Hash32(self._network.node), until))
        return self._binding

    def _keys(self, said: Announcement) -> tuple[bytes, ...]:
        shard, market = shard_of(said.node), said.contract
        region = (f"region:{said.region.partition('-')[0]}",) if said.region else ()
        models = [model_key(market, model.model_id, shard) for model in self._offer().models[:MAX_MODELS]]
        return (*models, *(capability_key(market, feature, shard) for feature in (*said.features, *region)))


def _features(offer: Offer) -> tuple[str, ...]:
    named = {f"rung:{row.rung.value}" for row in offer.rungs}
    if CHANNEL_VERSION in offer.channel:
        named.add("encrypted")
    if any(model.scores for model in offer.models):
        named.add("scores")
    return tuple(sorted(named))


def _model(model: ModelOffer) -> AnnouncedModel:
    prices = tuple(AnnouncedPrice.of(row.token, row.price) for row in model.prices)
    return AnnouncedModel(model.model_id, model.name[:64], "", model.context_size, prices)
