"""Which host to take: a pure ranking with a reason for every host that is not in it.

The order is the policy: hosts that failed lately last, then the cheapest, then the quickest to answer, then by address,
so that equal hosts are always ranked the same. Never asks a host or the chain anything; `fabstir.market.hosts` does.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Final

import msgspec

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import ZERO_ADDRESS, Address, ModelId, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok
from fabstir.domain.terms import MIN_CHALLENGE_SECONDS, ProofPolicy
from fabstir.ports.chain import HostEntry
from fabstir.protocol.channel import CHANNEL_VERSION
from fabstir.protocol.offer import Offer, Payment
from fabstir.protocol.rungs import Rung
from fabstir.protocol.signing import Market as Contract

FIRST_REST_SECONDS: Final = 2.0
LONGEST_REST_SECONDS: Final = 300.0


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A registered host, and what it answered when it was asked for its offer."""

    entry: HostEntry
    offer: Offer | None = None
    latency: float = 0.0
    """Seconds that the answer took."""
    fault: FabstirError | None = None
    """Why there is no offer."""

    @property
    def address(self) -> Address:
        """The host's account."""
        return self.entry.address


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a renter wants."""

    contract: Contract
    model_id: ModelId
    token: Address
    policy: ProofPolicy
    budget: BaseUnits
    """The largest deposit that is possible now."""
    max_price: PricePerMTok | None = None
    arbiter: Address = ZERO_ADDRESS
    """Who is to rule in a dispute."""
    bond_max: BaseUnits | None = None
    """More is not put at stake for a dispute, whatever the host asks."""
    challenge: int = MIN_CHALLENGE_SECONDS
    rung: Rung | None = None
    """Only hosts that serve it by name; None: whatever the policy implies."""
    controls: frozenset[str] = frozenset()
    """Only hosts whose answers can be asked for so (`fabstir.protocol.controls`)."""
    scoring: bool = False
    """Only hosts that score answers of others."""
    encrypted: bool = False
    """Only hosts that hold sessions in an encrypted channel."""
    relayed: bool = False
    """Only hosts that send a signed deposit to the contract themselves."""


class Ranked(msgspec.Struct, frozen=True):
    """A host that fits. `why` is for a person."""

    candidate: Candidate
    offer: Offer
    price: PricePerMTok
    """Of the order's policy and rung."""
    payment: Payment
    """What it asks in the currency of the order."""
    order: Order
    why: str


class Discarded(msgspec.Struct, frozen=True):
    """A host that does not. `why` is for a person."""

    candidate: Candidate
    why: str

    def __str__(self) -> str:
        return f"0x{self.candidate.address.hex()[:8]} at {self.candidate.entry.url}: {self.why}"


class Choice(msgspec.Struct, frozen=True):
    """Every candidate, in one of the two lists."""

    ranked: tuple[Ranked, ...]
    discarded: tuple[Discarded, ...]


class Rest(msgspec.Struct, frozen=True):
    """What is remembered of a host that failed; forgotten at its next success."""

    failures: int
    until: float
    """On the clock of whoever asks."""


def rest_after(previous: Rest | None, now: float) -> Rest:
    """After one more failure: twice the last pause, within bounds."""
    failures = previous.failures + 1 if previous else 1
    return Rest(failures, now + min(FIRST_REST_SECONDS * 2 ** (failures - 1), LONGEST_REST_SECONDS))


def choose(
    candidates: Sequence[Candidate],
    order: Order,
    rests: Mapping[Address, Rest],
    now: float,
    excluded: Container[Address] = (),
) -> Choice:
    """Rank `candidates` for `order`. A resting host is not discarded: it comes last, so that a lone host is still
    tried.
    """
    ranked: list[tuple[tuple[bool, int, float, bytes], Ranked]] = []
    discarded = []
    for candidate in candidates:
        offer, why = candidate.offer, _objection(candidate, order, excluded)
        price = _price(offer, order) if offer else None
        payment = offer.payment_in(order.token) if offer else None
        if why or offer is None or price is None or payment is None:
            discarded.append(Discarded(candidate, why))
            continue
        rest = rests.get(candidate.address)
        resting = rest is not None and now < rest.until
        key = (resting, price, candidate.latency, candidate.address)
        praise = _praise(price, candidate.latency, rest if resting else None)
        ranked.append((key, Ranked(candidate, offer, price, payment, order, praise)))
    return Choice(tuple(row for _, row in sorted(ranked, key=lambda pair: pair[0])), tuple(discarded))


def _objection(candidate: Candidate, order: Order, excluded: Container[Address]) -> str:
    """Why `candidate` does not fit; empty where it does."""
    offer = candidate.offer
    if candidate.address in excluded:
        return "failed in this answer, or is not to be asked"
    if offer is None:
        return candidate.fault.detail or candidate.fault.code if candidate.fault else "was not asked"
    if offer.host != candidate.address or offer.market != order.contract:
        return "its offer names another host, chain or contract"
    if not offer.serves(order.model_id):
        return "does not offer the model"
    if order.scoring and not offer.scores(order.model_id):
        return "does not score answers of others"
    if lacking := order.controls - offer.controls(order.model_id):
        return f"does not offer {', '.join(sorted(lacking))}"
    if order.encrypted and CHANNEL_VERSION not in offer.channel:
        return "offers no encrypted channel"
    price, payment = _price(offer, order), offer.payment_in(order.token)
    if price is None or payment is None:
        return "does not take this token for the model"
    return (
        _objection_to_price(candidate, price, order)
        or _objection_to_payment(payment, order)
        or _objection_to_terms(offer, order)
    )


def _price(offer: Offer, order: Order) -> PricePerMTok | None:
    return offer.price_for(order.model_id, order.token, order.policy, order.rung)


def _objection_to_price(candidate: Candidate, price: PricePerMTok, order: Order) -> str:
    registered = candidate.entry.price_of(order.model_id, order.token)
    if registered is None:
        return "is not registered on chain for the model in this currency"
    if not candidate.entry.active:
        return "has not staked enough"
    if price > registered:
        return f"asks {price}, registered on chain is {registered}"
    if price == 0:
        return "asks nothing, which the contract does not know"
    if order.max_price is not None and price > order.max_price:
        return f"asks {price}, at most {order.max_price} base units for 1,000,000 tokens are wanted"
    return ""


def _objection_to_payment(payment: Payment, order: Order) -> str:
    if order.bond_max is not None and payment.bond_min > order.bond_max:
        return f"asks a bond of {payment.bond_min}, at most {order.bond_max} base units are wanted"
    if payment.min_deposit > order.budget:
        return f"asks a deposit of {payment.min_deposit}, {order.budget} base units are left"
    if order.relayed and not payment.relayed_from:
        return "does not relay openings"
    if order.relayed and payment.relayed_from > order.budget:
        return f"relays deposits of {payment.relayed_from} or more, {order.budget} base units are left"
    return ""


def _objection_to_terms(offer: Offer, order: Order) -> str:
    if order.policy not in offer.policies:
        return f"does not accept the proof policy {order.policy.name.lower()}"
    if order.rung is not None and not offer.serves_rung(order.rung):
        return f"does not serve rung {order.rung.value} of the ladder"
    if not offer.accepts_arbiter(order.arbiter):
        return f"does not accept the arbiter {to_hex(order.arbiter)}"
    if order.challenge > offer.challenge_max:
        return f"accepts challenge windows up to {offer.challenge_max} s, {order.challenge} s are wanted"
    return ""


def _praise(price: PricePerMTok, latency: float, rest: Rest | None) -> str:
    text = f"{price} base units for 1,000,000 tokens, answered in {latency * 1000:.0f} ms"
    return f"{text}; last, because it failed {rest.failures} times in a row" if rest else text
