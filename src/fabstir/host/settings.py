"""What a host node is told at its start: offer, bounds and patience. Frozen; a change is a restart.

Made from `fabstir.ops.config` by the composition root; tests make it directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

import fabstir
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, ModelId, address
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import DEFAULT_BOND, DEFAULT_BOND_NATIVE, MAX_CHALLENGE_SECONDS, ProofPolicy
from fabstir.host.queueing import LineSettings
from fabstir.ops.config import Config, units
from fabstir.ports.chain import NO_KEY, ChainInfo, RegisteredOffer
from fabstir.ports.engine import ModelInfo
from fabstir.protocol.channel import CHANNEL_VERSION
from fabstir.protocol.context.brought import ContextLimits
from fabstir.protocol.context.planner import Frame
from fabstir.protocol.context.resting import MemoryRules
from fabstir.protocol.host_session import HostOffer
from fabstir.protocol.offer import NO_CIRCUIT, ModelOffer, Offer, Payment, TokenPrice
from fabstir.protocol.rungs import Rung, RungOffer, dearer, highest_surcharge
from fabstir.protocol.settlement_plan import Bounds, SettlementRules
from fabstir.protocol.signing import Market

NO_FRAME: Final = Frame()


class ModelTerms(msgspec.Struct, frozen=True, kw_only=True):
    """One model and what it costs."""

    model_id: ModelId
    price: PricePerMTok
    """In USDC."""
    price_native: PricePerMTok = PricePerMTok(0)
    """In wei; 0: not sold for ETH."""
    scores: bool = False
    """Answers of others are scored."""

    def prices(self, usdc: Address) -> tuple[TokenPrice, ...]:
        """One for each currency that it is sold for."""
        native = (TokenPrice(ZERO_ADDRESS, self.price_native),) if self.price_native else ()
        return (TokenPrice(usdc, self.price), *native)


NO_CONTROLS: Final[Mapping[ModelId, tuple[str, ...]]] = {}


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds where nothing else is said."""

    model_id: ModelId
    """Of the first model."""
    price: PricePerMTok
    """In USDC."""
    price_native: PricePerMTok = PricePerMTok(0)
    """In wei; 0: ETH is not taken."""
    further: tuple[ModelTerms, ...] = ()
    """Models beside the first one."""
    line: LineSettings = LineSettings()
    """Of each model."""
    url: str | None = None
    """What is registered on chain; None: this node does not register itself."""
    stake: BaseUnits = BaseUnits(0)
    """Topped up to so much at the start."""
    encryption_key: Hash32 = NO_KEY
    """X25519: registered on chain, so that prompts can be sealed to this host; zeros where it takes none."""
    min_deposit: BaseUnits = BaseUnits(10_000)
    min_deposit_native: BaseUnits = BaseUnits(4_000_000_000_000)
    bond_min: BaseUnits = DEFAULT_BOND
    bond_min_native: BaseUnits = DEFAULT_BOND_NATIVE
    arbiters: tuple[Address, ...] = ()
    """Accepted beside nobody."""
    relayed_from: BaseUnits = BaseUnits(0)
    """Smallest deposit in USDC that is sent for a renter without ETH; 0: none is."""
    relay_per_hour: int = 60
    exposure_max: Tokens = Tokens(256)
    challenge_min: int = 900
    challenge_max: int = MAX_CHALLENGE_SECONDS
    min_seconds_left: int = 300
    """A session begins only under a job that runs so long: time to redeem before the renter can finalize."""
    policies: tuple[ProofPolicy, ...] = (ProofPolicy.REQUIRED, ProofPolicy.FALLBACK)
    max_message_bytes: int = 1 << 20
    max_answer_tokens: int = 4096
    max_sessions: int = 64
    prompts_per_minute: int = 120
    """Questions in one session."""
    memory: MemoryRules = MemoryRules()
    """Of the conversations of all sessions."""
    context_limits: ContextLimits = ContextLimits()
    """Of the conversation that one session holds."""
    scores: bool = False
    """Answers of others are scored."""
    fingerprints: bool = False
    """Fingerprints of answers are made for sessions on rung 2."""
    fingerprint_surcharge: int = 0
    """Percent that a session on rung 2 costs more."""
    alternatives: bool = True
    """Records list alternatives, so that other hosts can score the answers."""
    proof_surcharge: int = 0
    """Percent that policy `required` costs more."""
    attestation_surcharge: int | None = None
    """Percent that an attested session costs more; None: no attestation is offered."""
    require_encryption: bool = False
    """Sessions in plain text are refused."""
    ack_timeout: float = 30.0
    write_timeout: float = 30.0
    """A client that takes nothing for so long is dropped with `client_too_slow`."""
    hello_timeout: float = 30.0
    """A connection without an admitted session is dropped after so long."""
    ack_grace: float = 5.0
    """While draining: how long an idle session may still acknowledge its last receipt."""
    drain_timeout: float = 120.0
    """While draining: how long a running answer may go on."""
    ping_seconds: float = 20.0
    """A renter that says nothing for so long is asked whether it is there; after as long again it is not."""

    @classmethod
    def of(
        cls,
        config: Config,
        model_id: ModelId,
        url: str,
        encryption_key: Hash32 = NO_KEY,
        further: tuple[ModelTerms, ...] = (),
    ) -> HostSettings:
        """The settings that `config` stands for; `url` is where the API listens, unless another one is advertised."""
        host = config.host
        return cls(
            model_id=model_id,
            further=further,
            line=LineSettings(
                longest=host.queue_max, per_renter=host.renter_max_running, patience=float(host.queue_patience_s)
            ),
            price=PricePerMTok(host.price_per_mtok),
            price_native=PricePerMTok(units(host.price_native_per_mtok)),
            url=(host.advertise_url or url) if host.auto_register else None,
            stake=BaseUnits(host.stake),
            encryption_key=encryption_key,
            min_deposit=BaseUnits(host.min_deposit),
            min_deposit_native=units(host.min_deposit_native),
            bond_min=BaseUnits(host.bond_min),
            bond_min_native=units(host.bond_min_native),
            arbiters=tuple(address(text.lower()) for text in host.arbiters),
            relayed_from=BaseUnits(host.relay_min_deposit if host.relay_openings else 0),
            relay_per_hour=host.relay_per_hour,
            exposure_max=Tokens(host.exposure_max),
            challenge_min=host.challenge_min_s,
            policies=tuple(ProofPolicy[name.upper()] for name in config.proofs.accepted),
            max_message_bytes=config.api.max_message_bytes,
            max_sessions=host.max_sessions,
            prompts_per_minute=config.api.prompts_per_minute,
            memory=MemoryRules(
                most=host.context_memory_mb << 20,
                rest_after=float(host.context_rest_s),
                reserve=host.memory_reserve_mb << 20,
            ),
            context_limits=ContextLimits(
                max_messages=host.context_max_messages, max_characters=host.context_max_characters
            ),
            ack_timeout=float(host.ack_timeout_s),
            scores=config.engine.scoring,
            fingerprints=config.engine.fingerprints,
            fingerprint_surcharge=host.fingerprint_surcharge_percent,
            require_encryption=host.require_encryption,
            alternatives=all(engine.top_logprobs > 0 for engine in (config.engine, *config.engines)),
            proof_surcharge=host.proof_surcharge_percent,
            attestation_surcharge=config.attestation.surcharge_percent if config.attestation.provider else None,
        )

    @property
    def models(self) -> tuple[ModelTerms, ...]:
        """Every model that can be served here, the first one first."""
        first = ModelTerms(model_id=self.model_id, price=self.price, price_native=self.price_native, scores=self.scores)
        return (first, *self.further)

    def offer(
        self,
        host: Address,
        chain: ChainInfo,
        loaded: Mapping[ModelId, tuple[str, int]],
        circuit: tuple[str, Hash32] = ("", NO_CIRCUIT),
        controls: Mapping[ModelId, tuple[str, ...]] = NO_CONTROLS,
    ) -> Offer:
        """What is published and checked against. `loaded`: name and context of each model that is served now; `circuit`: name and id of
        that of the proofs; `controls`: what can be asked of each model's answers."""
        served = [(model, *loaded[model.model_id]) for model in self.models if model.model_id in loaded]
        tokens = dict.fromkeys(listed.token for model in self.models for listed in model.prices(chain.usdc))
        return Offer(
            host=host,
            market=Market(chain.chain_id, chain.market),
            models=tuple(
                ModelOffer(
                    name=name,
                    model_id=model.model_id,
                    prices=model.prices(chain.usdc),
                    context_size=context_size,
                    scores=model.scores,
                    controls=controls.get(model.model_id, ()),
                )
                for model, name, context_size in served
            ),
            payments=tuple(map(self._payment, tokens)),
            arbiters=self.arbiters,
            exposure_max=self.exposure_max,
            challenge_min=self.challenge_min,
            challenge_max=self.challenge_max,
            min_seconds_left=self.min_seconds_left,
            policies=self.policies,
            rungs=self.rungs(),
            circuit=circuit[0],
            circuit_id=circuit[1],
            max_message_bytes=self.max_message_bytes,
            max_answer_tokens=self.max_answer_tokens,
            channel=(CHANNEL_VERSION,),
            channel_required=self.require_encryption,
        )

    def rungs(self) -> tuple[RungOffer, ...]:
        """Those on which a job would be admitted: nothing is offered that terms cannot have."""
        listed = []
        if ProofPolicy.FALLBACK in self.policies:
            listed += [RungOffer(Rung.RECEIPT), *([RungOffer(Rung.SCORES)] if self.alternatives else [])]
            listed += [RungOffer(Rung.FINGERPRINTS, self.fingerprint_surcharge)] if self.fingerprints else []
        if ProofPolicy.REQUIRED in self.policies:
            listed.append(RungOffer(Rung.PROOF, self.proof_surcharge))
        if self.attestation_surcharge is not None:
            listed.append(RungOffer(Rung.ATTESTATION, self.attestation_surcharge))
        return tuple(listed)

    def registered(self, usdc: Address) -> tuple[RegisteredOffer, ...]:
        """What stands in the registry: each model, loaded or not, in each currency that it is sold for, at the price of the dearest rung.
        Renters pay no more than that, and prompt jobs cost just that."""
        percent = highest_surcharge(self.rungs())
        return tuple(
            RegisteredOffer(model.model_id, row.token, dearer(row.price, percent))
            for model in self.models
            for row in model.prices(usdc)
        )

    def _payment(self, token: Address) -> Payment:
        if token == ZERO_ADDRESS:
            return Payment(token=token, min_deposit=self.min_deposit_native, bond_min=self.bond_min_native)
        return Payment(
            token=token, min_deposit=self.min_deposit, bond_min=self.bond_min, relayed_from=self.relayed_from
        )

    def session_offer(self, model: ModelId, info: ModelInfo | None = None) -> HostOffer:
        """What the core of a session about `model` is told; `info` is of the loaded model, None where it is here no more."""
        return HostOffer(
            model=info.name if info else "",
            context_size=info.context_size if info else 0,
            max_message_bytes=self.max_message_bytes,
            max_answer_tokens=self.max_answer_tokens,
            controls=info.controls if info else (),
            ack_timeout=self.ack_timeout,
            ping_seconds=self.ping_seconds,
            leave_grace=self.ack_grace,
            server=f"fabstir/{fabstir.__version__}",
            scores=any(each.scores for each in self.models if each.model_id == model),
            fingerprints=self.fingerprints,
            rungs=tuple(row.rung.value for row in self.rungs()),
            frame=info.frame if info else NO_FRAME,
            limits=self.context_limits,
        )


def settlement_rules(config: Config) -> SettlementRules:
    """When a host settles."""
    host = config.host
    return SettlementRules(
        redeem_above=BaseUnits(host.redeem_above),
        join_above=_in_company(BaseUnits(host.redeem_above)),
        claim_tail_above=BaseUnits(host.claim_tail_above),
        native=Bounds(
            redeem_above=units(host.redeem_above_native),
            join_above=_in_company(units(host.redeem_above_native)),
            claim_tail_above=units(host.claim_tail_above_native),
        ),
        expiry_margin=float(host.expiry_margin_s),
        idle_close=float(host.idle_close_s),
    )


def _in_company(alone: BaseUnits) -> BaseUnits:
    """A voucher that travels with others costs 24/55 of the gas."""
    return BaseUnits(alone * 24 // 55)
