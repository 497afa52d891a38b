"""Whether a job and its renter fit a host's offer: the decision before the first token.

Pure: the job as the contract holds it, the offer and the time come in as arguments; what comes out is nothing, or the
named error that the renter gets. The offer that is published (`GET /v1/offer`, `fabstir.protocol.offer`) is the very value
that is checked against, so it cannot promise what admission refuses. Reading the chain and remembering nonces is
`fabstir.host.admission`.
"""

from __future__ import annotations

from typing import Final

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, JobId, SessionId, from_hex, to_hex
from fabstir.domain.money import BaseUnits, Tokens, affordable
from fabstir.domain.terms import JobState, Terms
from fabstir.protocol.messages import SessionAuth
from fabstir.protocol.offer import Offer
from fabstir.protocol.rungs import Rung, policy_at
from fabstir.protocol.signing import Market, job_id, recover

AUTH_WINDOW_SECONDS: Final = 120
"""How far `SessionAuth.issued_at` may lie from this host's clock, to either side."""


def check(
    terms: Terms,
    job: JobId,
    state: JobState,
    offer: Offer,
    now: float,
    acknowledged: Tokens | None = None,
    rung: int | None = None,
) -> None:
    """Whether a session under `job` may begin at Unix time `now`, on `rung` where the renter named one.

    `acknowledged` is given where this host admitted the job before: what its renter signed for. Then price and bounds are agreed, whatever
    the offer says today, and so is the rung. Raises Refused (`job_terms_mismatch`, `job_foreign`, `job_terms_unacceptable`, `job_unknown`,
    `job_closed`, `job_expired`, `deposit_exhausted`).
    """
    known = acknowledged is not None
    check_terms(terms, job)
    wanted = None if known else _rung(rung, terms, offer)
    _check_parties(terms, offer, known, wanted)
    if not known:
        _check_bounds(terms, offer)
    _check_state(terms, state, offer, now)
    if not known:
        _check_deposit(terms, state.deposit, offer)
    paid_for = affordable(state.deposit, terms.price)
    used = max(acknowledged or Tokens(0), state.signed)
    if paid_for <= used:
        raise error("deposit_exhausted", f"{paid_for} tokens paid for, {used} acknowledged")


def check_terms(terms: Terms, job: JobId) -> None:
    """Raises Refused (`job_terms_mismatch`) where `terms` are not those of `job`."""
    if job_id(terms) != job:
        raise error("job_terms_mismatch", f"they hash to {to_hex(job_id(terms))}")


def _rung(number: int | None, terms: Terms, offer: Offer) -> Rung | None:
    """The rung that the renter named, if this host serves it and the terms are for it."""
    if number is None:
        return None
    served = {listed.rung.value: listed.rung for listed in offer.rungs}
    if number not in served:
        listing = ", ".join(map(str, sorted(served))) or "none"
        raise error("job_terms_unacceptable", f"rung {number} of the ladder, served: {listing}")
    if policy_at(served[number], terms.policy) is not terms.policy:
        raise error("job_terms_unacceptable", f"proof policy {terms.policy.name.lower()} is not that of rung {number}")
    return served[number]


def _check_parties(terms: Terms, offer: Offer, known: bool, rung: Rung | None) -> None:
    if terms.host != offer.host:
        raise error("job_foreign", f"host {to_hex(terms.host)}, this is {to_hex(offer.host)}")
    if not offer.serves(terms.model_id):
        raise error("job_foreign", f"model {to_hex(terms.model_id)} is not served here")
    if known:
        return
    price = offer.price_for(terms.model_id, terms.token, terms.policy, rung)
    if price is None or offer.payment_in(terms.token) is None:
        raise error("job_foreign", f"token {to_hex(terms.token)} is not taken here for this model")
    if terms.price < price:
        raise error("job_foreign", f"price {terms.price}, at least {price} base units for 1,000,000 tokens")


def _check_bounds(terms: Terms, offer: Offer) -> None:
    if not 1 <= terms.exposure <= offer.exposure_max:
        raise error("job_terms_unacceptable", f"exposure {terms.exposure}, 1 to {offer.exposure_max} tokens")
    if not offer.challenge_min <= terms.challenge <= offer.challenge_max:
        bounds = f"{offer.challenge_min} to {offer.challenge_max} s"
        raise error("job_terms_unacceptable", f"challenge {terms.challenge}, {bounds}")
    if terms.policy not in offer.policies:
        accepted = ", ".join(policy.name.lower() for policy in offer.policies)
        raise error("job_terms_unacceptable", f"proof policy {terms.policy.name.lower()}, accepted: {accepted}")
    payment = offer.payment_in(terms.token)
    if payment is not None and terms.bond < payment.bond_min:
        raise error("job_terms_unacceptable", f"bond {terms.bond}, at least {payment.bond_min} base units")
    if not offer.accepts_arbiter(terms.arbiter):
        accepted = ", ".join(map(to_hex, offer.arbiters)) or "none"
        raise error("job_terms_unacceptable", f"arbiter {to_hex(terms.arbiter)}, accepted: {accepted}"[:400])


def _check_deposit(terms: Terms, deposit: BaseUnits, offer: Offer) -> None:
    payment = offer.payment_in(terms.token)
    if payment is not None and deposit < payment.min_deposit:
        raise error("job_terms_unacceptable", f"deposit {deposit}, at least {payment.min_deposit} base units")


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
