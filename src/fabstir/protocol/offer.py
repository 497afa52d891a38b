"""What a host offers: models and their prices in each currency, and the bounds of the terms that it accepts.

Values only; whether a job fits is `fabstir.protocol.admission`, whether a renter wants it `fabstir.market.choice`. `WireOffer` is the
same as text (`GET /v1/offer`): decimal strings, since wei exceed what JSON's numbers hold. Specification: docs/reference/http.md.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, ModelId, address, from_hex, to_hex
from fabstir.domain.money import MAX_AMOUNT, BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.messages import Decimal, Hex20, Hex32
from fabstir.protocol.rungs import MAX_SURCHARGE, Rung, RungOffer, dearer, surcharge
from fabstir.protocol.signing import Market

NO_CIRCUIT = Hash32(bytes(32))
"""Of an offer that does not say how it proves."""
NO_NODE = Hash32(bytes(32))
"""Of an offer before it is signed."""
_RUNGS = frozenset(Rung)
MAX_LIST = 64
"""Models, currencies or arbiters of one offer; NodeRegistry has the same bound for (model, currency)."""


class TokenPrice(msgspec.Struct, frozen=True):
    """What a model costs in one currency."""

    token: Address
    price: PricePerMTok


class ModelOffer(msgspec.Struct, frozen=True, kw_only=True):
    """One model and its prices."""

    name: str
    model_id: ModelId
    prices: tuple[TokenPrice, ...]
    context_size: int
    scores: bool = False
    """Answers of others can be scored: how likely was each token?"""
    controls: tuple[str, ...] = ()
    """What prompts may ask of an answer (`fabstir.protocol.controls`)."""

    def price_in(self, token: Address) -> PricePerMTok | None:
        """None where it is not sold for `token`."""
        return next((listed.price for listed in self.prices if listed.token == token), None)


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """One currency that is taken, and what the terms must bring in it. Amounts in its base units."""

    token: Address
    min_deposit: BaseUnits
    bond_min: BaseUnits
    """A dispute must cost whoever was wrong so much."""
    relayed_from: BaseUnits = BaseUnits(0)
    """Smallest deposit that this host sends to the contract for a renter without ETH; 0: it sends none."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a renter must know to write terms that this host accepts."""

    host: Address
    market: Market
    models: tuple[ModelOffer, ...]
    payments: tuple[Payment, ...]
    arbiters: tuple[Address, ...] = ()
    """Who may rule in a dispute; nobody (the zero address) is always accepted."""
    exposure_max: Tokens
    challenge_min: int
    challenge_max: int
    min_seconds_left: int
    """A job must still run so long when a session begins: the host needs time to settle."""
    policies: tuple[ProofPolicy, ...]
    rungs: tuple[RungOffer, ...] = ()
    """The ladder of verification, as far as this host serves it by name."""
    circuit: str = ""
    """Back end and circuit of this host's proofs: `ezkl/bind`, `merkle/bind`, `merkle/sample`. The contract takes any that its
    ProofSystem knows, so this is what the host says, not what it is held to."""
    circuit_id: Hash32 = NO_CIRCUIT
    max_message_bytes: int
    max_answer_tokens: int
    channel: tuple[int, ...] = ()
    """Versions of the encrypted channel that sessions can be held in (`fabstir.protocol.channel`); empty: none."""
    channel_required: bool = False
    """Sessions in plain text are refused."""
    node: Hash32 = NO_NODE
    """Ed25519 key of the node, where the offer was read from a host (`fabstir.protocol.signed_offer`): signs its answers over HTTP."""

    def serves(self, model: ModelId) -> bool:
        """In any currency."""
        return any(offer.model_id == model for offer in self.models)

    def scores(self, model: ModelId) -> bool:
        """Whether it checks answers that others made with `model`."""
        return any(offer.scores for offer in self.models if offer.model_id == model)

    def controls(self, model: ModelId) -> frozenset[str]:
        """What prompts may ask of answers of `model`."""
        return frozenset(name for offer in self.models if offer.model_id == model for name in offer.controls)

    def price_of(self, model: ModelId, token: Address) -> PricePerMTok | None:
        """What `model` costs here in `token` on the cheapest rung; None where it is not sold for it."""
        return next((offer.price_in(token) for offer in self.models if offer.model_id == model), None)

    def price_for(
        self, model: ModelId, token: Address, policy: ProofPolicy, rung: Rung | None = None
    ) -> PricePerMTok | None:
        """The least that terms with `policy` must pay on `rung` (None: what the policy alone implies). None where the model is not
        sold for `token`. Renters rank by it and hosts admit by it."""
        price = self.price_of(model, token)
        return None if price is None else dearer(price, surcharge(self.rungs, policy, rung))

    def serves_rung(self, rung: Rung) -> bool:
        """By name."""
        return any(listed.rung is rung for listed in self.rungs)

    def payment_in(self, token: Address) -> Payment | None:
        """None where `token` is not taken."""
        return next((payment for payment in self.payments if payment.token == token), None)

    def accepts_arbiter(self, arbiter: Address) -> bool:
        """Whether terms may name it."""
        return arbiter == ZERO_ADDRESS or arbiter in self.arbiters

    def name_of(self, model: ModelId) -> str:
        """What this host calls `model`; "" where it is not offered."""
        return next((offer.name for offer in self.models if offer.model_id == model), "")


class WireTokenPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs in one currency, as text."""

    token: Hex20
    """ERC-20 contract, or the zero address for the chain's coin."""
    price_per_mtok: Decimal
    """The least that the terms must pay: base units of `token` for 1,000,000 generated tokens, on a rung without a surcharge."""


class WireModelOffer(msgspec.Struct, frozen=True, kw_only=True):
    """One model and its prices, as text."""

    name: str
    """As `session_ready` and `GET /v1/models` call it."""
    model_id: Hex32
    """As ModelRegistry knows it; goes into the terms."""
    prices: Annotated[tuple[WireTokenPrice, ...], Meta(max_length=MAX_LIST)]
    """One for each currency."""
    context_size: int
    """Tokens of prompt and answer together."""
    scores: bool = False
    """`prompt.score` is answered: this host can check answers of others."""
    controls: Annotated[tuple[Annotated[str, Meta(max_length=80)], ...], Meta(max_length=MAX_LIST)] = ()
    """What prompts may ask of an answer beyond temperature, top_p, seed and stop: `top_k`, `min_p`, `penalties`, `logit_bias`,
    `json_schema`, `grammar`, `tools`, `adapter:NAME`. And how answers read: `reasoning` where the model thinks between `<think>` and
    `</think>` first, `reasoning:open` where it is thinking already when its answer begins."""


class WirePayment(msgspec.Struct, frozen=True, kw_only=True):
    """One currency that is taken, as text. Amounts in its base units."""

    token: Hex20
    """ERC-20 contract, or the zero address for the chain's coin."""
    min_deposit: Decimal
    """Smaller deposits are refused."""
    bond_min: Decimal
    """Terms with a smaller bond are refused."""
    relayed_from: Decimal
    """Smallest deposit that `POST /v1/jobs` sends to the contract; 0: this host relays none in this currency."""


class WireRung(msgspec.Struct, frozen=True, kw_only=True):
    """One rung of the ladder of verification that is served."""

    rung: int
    """0 receipt, 1 scores of other hosts, 3 proof on chain (policy `required`), 4 attestation."""
    surcharge_percent: Annotated[int, Meta(ge=0, le=MAX_SURCHARGE)] = 0
    """So much more than `price_per_mtok` the terms must pay, rounded up: of 3 with policy `required`, of 4 where `session_init` names it;
    with both, the sum."""


class WireOffer(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a renter must know to write terms that this host accepts, as text."""

    host: Hex20
    """Account that serves and is paid; goes into the terms."""
    chain_id: int
    market: Hex20
    """JobMarketplace: where the job is opened and what every signature is bound to."""
    models: Annotated[tuple[WireModelOffer, ...], Meta(max_length=MAX_LIST)]
    payments: Annotated[tuple[WirePayment, ...], Meta(max_length=MAX_LIST)]
    """Currencies that are taken."""
    arbiters: Annotated[tuple[Hex20, ...], Meta(max_length=MAX_LIST)]
    """Who may rule in a dispute. The zero address, nobody, is always accepted and not listed."""
    exposure_max: int
    """Largest W: tokens served and not yet acknowledged."""
    challenge_min_s: int
    """Shortest challenge window."""
    challenge_max_s: int
    """Longest challenge window."""
    min_seconds_left: int
    """The job must still run so long when a session begins."""
    policies: tuple[str, ...]
    """Proof policies: `required`, `fallback`."""
    rungs: Annotated[tuple[WireRung, ...], Meta(max_length=MAX_LIST)] = ()
    """Rungs that `session_init` may name."""
    circuit: str = ""
    """Back end and circuit of this host's proofs: `ezkl/bind`, `merkle/bind`, `merkle/sample`; empty where it does not say. The contract
    takes a proof of any circuit that ProofSystem knows."""
    circuit_id: Hex32 = to_hex(NO_CIRCUIT)
    """Under which ProofSystem knows the verifier."""
    max_message_bytes: int
    """Larger frames are closed with 1009."""
    max_answer_tokens: int
    """Longer answers end with `length`."""
    channel: Annotated[tuple[int, ...], Meta(max_length=MAX_LIST)] = ()
    """Versions of the encrypted channel that `/v1/ws` speaks; empty: none."""
    channel_required: bool = False
    """Sessions in plain text are refused with `channel_required`."""

    @classmethod
    def of(cls, offer: Offer) -> WireOffer:
        """`offer` as text."""
        return cls(
            host=to_hex(offer.host),
            chain_id=offer.market.chain_id,
            market=to_hex(offer.market.address),
            models=tuple(map(_model_as_text, offer.models)),
            payments=tuple(map(_payment_as_text, offer.payments)),
            arbiters=tuple(map(to_hex, offer.arbiters)),
            exposure_max=offer.exposure_max,
            challenge_min_s=offer.challenge_min,
            challenge_max_s=offer.challenge_max,
            min_seconds_left=offer.min_seconds_left,
            policies=tuple(policy.name.lower() for policy in offer.policies),
            rungs=tuple(WireRung(rung=row.rung, surcharge_percent=row.surcharge) for row in offer.rungs),
            circuit=offer.circuit,
            circuit_id=to_hex(offer.circuit_id),
            max_message_bytes=offer.max_message_bytes,
            max_answer_tokens=offer.max_answer_tokens,
            channel=offer.channel,
            channel_required=offer.channel_required,
        )

    def offer(self) -> Offer:
        """The offer that this text stands for; policies and rungs that this version does not know are left out. Raises ValueError."""
        return Offer(
            host=address(self.host),
            market=Market(self.chain_id, address(self.market)),
            models=tuple(map(_model_of, self.models)),
            payments=tuple(map(_payment_of, self.payments)),
            arbiters=tuple(map(address, self.arbiters)),
            exposure_max=Tokens(self.exposure_max),
            challenge_min=self.challenge_min_s,
            challenge_max=self.challenge_max_s,
            min_seconds_left=self.min_seconds_left,
            policies=tuple(policy for policy in ProofPolicy if policy.name.lower() in self.policies),
            rungs=tuple(RungOffer(Rung(row.rung), row.surcharge_percent) for row in self.rungs if row.rung in _RUNGS),
            circuit=self.circuit,
            circuit_id=Hash32(from_hex(self.circuit_id, 32)),
            max_message_bytes=self.max_message_bytes,
            max_answer_tokens=self.max_answer_tokens,
            channel=self.channel,
            channel_required=self.channel_required,
        )


def wire_prices(model: ModelOffer) -> tuple[WireTokenPrice, ...]:
    """The prices of `model` as text."""
    return tuple(WireTokenPrice(token=to_hex(row.token), price_per_mtok=str(row.price)) for row in model.prices)


def _model_as_text(model: ModelOffer) -> WireModelOffer:
    return WireModelOffer(
        name=model.name,
        model_id=to_hex(model.model_id),
        prices=wire_prices(model),
        context_size=model.context_size,
        scores=model.scores,
        controls=model.controls,
    )


def _model_of(text: WireModelOffer) -> ModelOffer:
    prices = (TokenPrice(address(row.token), PricePerMTok(_amount(row.price_per_mtok))) for row in text.prices)
    model_id = ModelId(from_hex(text.model_id, 32))
    return ModelOffer(
        name=text.name,
        model_id=model_id,
        prices=tuple(prices),
        context_size=text.context_size,
        scores=text.scores,
        controls=text.controls,
    )


def _payment_as_text(payment: Payment) -> WirePayment:
    return WirePayment(
        token=to_hex(payment.token),
        min_deposit=str(payment.min_deposit),
        bond_min=str(payment.bond_min),
        relayed_from=str(payment.relayed_from),
    )


def _payment_of(text: WirePayment) -> Payment:
    return Payment(
        token=address(text.token),
        min_deposit=BaseUnits(_amount(text.min_deposit)),
        bond_min=BaseUnits(_amount(text.bond_min)),
        relayed_from=BaseUnits(_amount(text.relayed_from)),
    )


def _amount(text: str) -> int:
    if (value := int(text)) > MAX_AMOUNT:
        raise ValueError(f"{text} is above every amount")
    return value
