"""What a host node is told at its start: offer, bounds and patience. Frozen; a change is a restart.

Made from `fabstir.ops.config` by the composition root; tests make it directly.
"""

from __future__ import annotations

import msgspec

from fabstir.domain.ids import Address, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy
from fabstir.ops.config import Config
from fabstir.ports.chain import ChainInfo
from fabstir.protocol.admission import ModelOffer, Offer
from fabstir.protocol.host_session import HostOffer
from fabstir.protocol.signing import Market


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds where nothing else is said."""

    model_id: ModelId
    """Of the one model that this node's engine serves."""
    price: PricePerMTok
    url: str | None = None
    """What is registered on chain; None: this node does not register itself."""
    stake: BaseUnits = BaseUnits(0)
    """Topped up to so much at the start."""
    min_deposit: BaseUnits = BaseUnits(10_000)
    exposure_max: Tokens = Tokens(256)
    challenge_min: int = 900
    min_seconds_left: int = 300
    """A session begins only under a job that runs so long: time to redeem before the renter can finalize."""
    policies: tuple[ProofPolicy, ...] = (ProofPolicy.REQUIRED, ProofPolicy.FALLBACK)
    max_message_bytes: int = 1 << 20
    max_answer_tokens: int = 4096
    max_sessions: int = 64
    ack_timeout: float = 30.0
    write_timeout: float = 30.0
    """A client that takes nothing for so long is dropped with `client_too_slow`."""
    hello_timeout: float = 30.0
    """A connection without an admitted session is dropped after so long."""
    ack_grace: float = 5.0
    """While draining: how long an idle session may still acknowledge its last receipt."""
    drain_timeout: float = 120.0
    """While draining: how long a running answer may go on."""

    @classmethod
    def of(cls, config: Config, model_id: ModelId, url: str) -> HostSettings:
        """The settings that `config` stands for; `url` is where the API listens, unless another one is advertised."""
        host = config.host
        return cls(
            model_id=model_id,
            price=PricePerMTok(host.price_per_mtok),
            url=(host.advertise_url or url) if host.auto_register else None,
            stake=BaseUnits(host.stake),
            min_deposit=BaseUnits(host.min_deposit),
            exposure_max=Tokens(host.exposure_max),
            challenge_min=host.challenge_min_s,
            policies=tuple(ProofPolicy[name.upper()] for name in config.proofs.accepted),
            max_message_bytes=config.api.max_message_bytes,
            max_sessions=host.max_sessions,
            ack_timeout=float(host.ack_timeout_s),
        )

    def offer(self, host: Address, chain: ChainInfo, model: str, context_size: int) -> Offer:
        """What is published and checked against. The price is in USDC, so nothing else is taken: 200,000 wei would be a gift."""
        return Offer(
            host=host,
            market=Market(chain.chain_id, chain.market),
            models=(ModelOffer(name=model, model_id=self.model_id, price=self.price, context_size=context_size),),
            tokens=(chain.usdc,),
            min_deposit=self.min_deposit,
            exposure_max=self.exposure_max,
            challenge_min=self.challenge_min,
            min_seconds_left=self.min_seconds_left,
            policies=self.policies,
            max_message_bytes=self.max_message_bytes,
            max_answer_tokens=self.max_answer_tokens,
        )

    def session_offer(self, model: str, context_size: int) -> HostOffer:
        """What a session's core is told."""
        return HostOffer(
            model=model,
            context_size=context_size,
            max_message_bytes=self.max_message_bytes,
            max_answer_tokens=self.max_answer_tokens,
            ack_timeout=self.ack_timeout,
        )
