"""What a host offers, and whether a job and its renter fit: the decision before the first token.

Pure: the job as the contract holds it, the offer and the time come in as arguments; what comes out is nothing, or the
named error that the renter gets. The offer that is published (`GET /v1/offer`) is the very value that is checked
against, so it cannot promise what admission refuses. Reading the chain and remembering nonces is
`fabstir.host.admission`. Specification: docs/reference/http.md, "Offer".
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, JobId, ModelId, SessionId, address, from_hex, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens, affordable
from fabstir.domain.terms import JobState, ProofPolicy, Terms
from fabstir.protocol.messages import Decimal, Hex20, Hex32, SessionAuth
from fabstir.protocol.signing import Market, job_id, recover

AUTH_WINDOW_SECONDS: Final = 120
"""How far `SessionAuth.issued_at` may lie from this host's clock, to either side."""


class ModelOffer(msgspec.Struct, frozen=True, kw_only=True):
    """One model and its price."""

    name: str
    model_id: ModelId
    price: PricePerMTok
    context_size: int


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a renter must know to write terms that this host accepts."""

    host: Address
    market: Market
    models: tuple[ModelOffer, ...]
    tokens: tuple[Address, ...]
    """What it takes as payment; the prices are in base units of each."""
    min_deposit: BaseUnits
    exposure_max: Tokens
    challenge_min: int
    min_seconds_left: int
    """A job must still run so long when a session begins: the host needs time to settle."""
    policies: tuple[ProofPolicy, ...]
    max_message_bytes: int
    max_answer_tokens: int

    def price_of(self, model: ModelId) -> PricePerMTok | None:
        """What `model` costs here; None where it is not offered."""
        return next((offer.price for offer in self.models if offer.model_id == model), None)

    def name_of(self, model: ModelId) -> str:
        """What this host calls `model`; "" where it is not offered."""
        return next((offer.name for offer in self.models if offer.model_id == model), "")


class WireModelOffer(msgspec.Struct, frozen=True, kw_only=True):
    """One model and its price, as text."""

    name: str
    """As `session_ready` and `GET /v1/models` call it."""
    model_id: Hex32
    """As ModelRegistry knows it; goes into the terms."""
    price_per_mtok: Decimal
    """The least that the terms must pay: base units for 1,000,000 generated tokens."""
    context_size: int
    """Tokens of prompt and answer together."""


class WireOffer(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a renter must know to write terms that this host accepts, as text."""

    host: Hex20
    """Account that serves and is paid; goes into the terms."""
    chain_id: int
    market: Hex20
    """JobMarketplace: where the job is opened and what every signature is bound to."""
    models: tuple[WireModelOffer, ...]
    tokens: tuple[Hex20, ...]
    """What it takes as payment; the prices are in base units of each."""
    min_deposit: Decimal
    """Smaller deposits are refused."""
    exposure_max: int
    """Largest W: tokens served and not yet acknowledged."""
    challenge_min_s: int
    """Shortest challenge window."""
    min_seconds_left: int
    """The job must still run so long when a session begins."""
    policies: tuple[str, ...]
    """Proof policies: `required`, `fallback`."""
    max_message_bytes: int
    """Larger frames are closed with 1009."""
    max_answer_tokens: int
    """Longer answers end with `length`."""

    @classmethod
    def of(cls, offer: Offer) -> WireOffer:
        """`offer` as text."""
        return cls(
            host=to_hex(offer.host),
            chain_id=offer.market.chain_id,
            market=to_hex(offer.market.address),
            models=tuple(
                WireModelOffer(
                    name=model.name,
                    model_id=to_hex(model.model_id),
                    price_per_mtok=str(model.price),
                    context_size=model.context_size,
                )
                for model in offer.models
            ),
            tokens=tuple(to_hex(token) for token in offer.tokens),
            min_deposit=str(offer.min_deposit),
            exposure_max=offer.exposure_max,
            challenge_min_s=offer.challenge_min,
            min_seconds_left=offer.min_seconds_left,
            policies=tuple(policy.name.lower() for policy in offer.policies),
            max_message_bytes=offer.max_message_bytes,
            max_answer_tokens=offer.max_answer_tokens,
        )

    def offer(self) -> Offer:
        """The offer that this text stands for; policies that this version does not know are left out."""
        return Offer(
            host=address(self.host),
            market=Market(self.chain_id, address(self.market)),
            models=tuple(
                ModelOffer(
                    name=model.name,
                    model_id=ModelId(from_hex(model.model_id, 32)),
                    price=PricePerMTok(int(model.price_per_mtok)),
                    context_size=model.context_size,
                )
                for model in self.models
            ),
            tokens=tuple(address(token) for token in self.tokens),
            min_deposit=BaseUnits(int(self.min_deposit)),
            exposure_max=Tokens(self.exposure_max),
            challenge_min=self.challenge_min_s,
            min_seconds_left=self.min_seconds_left,
            policies=tuple(policy for policy in ProofPolicy if policy.name.lower() in self.policies),
            max_message_bytes=self.max_message_bytes,
            max_answer_tokens=self.max_answer_tokens,
        )


def check(
    terms: Terms, job: JobId, state: JobState, offer: Offer, now: float, acknowledged: Tokens | None = None
) -> None:
    """Whether a session under `job` may begin at Unix time `now`.

    `acknowledged` is given where this host admitted the job before: what its renter signed for. Then price and bounds are agreed, whatever
    the offer says today. Raises Refused (`job_terms_mismatch`, `job_foreign`, `job_terms_unacceptable`, `job_unknown`, `job_closed`,
    `job_expired`, `deposit_exhausted`).
    """
    known = acknowledged is not None
    check_terms(terms, job)
    _check_parties(terms, offer, known)
    if not known:
        _check_bounds(terms, offer)
    _check_state(terms, state, offer, now)
    if not known and state.deposit < offer.min_deposit:
        raise error("job_terms_unacceptable", f"deposit {state.deposit}, at least {offer.min_deposit} base units")
    paid_for = affordable(state.deposit, terms.price)
    used = max(acknowledged or Tokens(0), state.signed)
    if paid_for <= used:
        raise error("deposit_exhausted", f"{paid_for} tokens paid for, {used} acknowledged")


def check_terms(terms: Terms, job: JobId) -> None:
    """Raises Refused (`job_terms_mismatch`) where `terms` are not those of `job`."""
    if job_id(terms) != job:
        raise error("job_terms_mismatch", f"they hash to {to_hex(job_id(terms))}")


def _check_parties(terms: Terms, offer: Offer, known: bool) -> None:
    if terms.host != offer.host:
        raise error("job_foreign", f"host {to_hex(terms.host)}, this is {to_hex(offer.host)}")
    price = offer.price_of(terms.model_id)
    if price is None:
        raise error("job_foreign", f"model {to_hex(terms.model_id)} is not served here")
    if terms.token not in offer.tokens:
        raise error("job_foreign", f"token {to_hex(terms.token)} is not taken here")
    if terms.price < price and not known:
        raise error("job_foreign", f"price {terms.price}, at least {price} base units for 1,000,000 tokens")


def _check_bounds(terms: Terms, offer: Offer) -> None:
    if not 1 <= terms.exposure <= offer.exposure_max:
        raise error("job_terms_unacceptable", f"exposure {terms.exposure}, 1 to {offer.exposure_max} tokens")
    if terms.challenge < offer.challenge_min:
        raise error("job_terms_unacceptable", f"challenge {terms.challenge}, at least {offer.challenge_min} s")
    if terms.policy not in offer.policies:
        accepted = ", ".join(policy.name.lower() for policy in offer.policies)
        raise error("job_terms_unacceptable", f"proof policy {terms.policy.name.lower()}, accepted: {accepted}")


def _check_state(terms: Terms, state: JobState, offer: Offer, now: float) -> None:
    if state.closed or state.closing_at:
        raise error("job_closed", f"closing at {state.closing_at}" if state.closing_at else "closed on chain")
    if not state.is_open:
        raise error("job_unknown")
    left = int(terms.expires_at - now)
    if left < offer.min_seconds_left:
        raise error("job_expired", f"{left} s left, at least {offer.min_seconds_left} s")


def check_auth(market: Market, job: JobId, session: SessionId, auth: SessionAuth, signer: Address, now: float) -> None:
    """Whether the sender holds the session key of the terms. Raises Refused (`session_unauthorized`)."""
    age = int(now - auth.issued_at)
    if abs(age) > AUTH_WINDOW_SECONDS:
        raise error("session_unauthorized", f"issued {age} s ago, at most {AUTH_WINDOW_SECONDS} s")
    digest = market.session_auth_digest(job, session, auth.issued_at, Hash32(from_hex(auth.nonce, 32)))
    if recover(digest, from_hex(auth.signature, 65)) != signer:
        raise error("session_unauthorized", f"not signed by {to_hex(signer)}")
