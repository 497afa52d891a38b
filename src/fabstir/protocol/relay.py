"""A payment that the renter signed and the host sends: what goes over HTTP, and whether the host should spend gas on it.

The signature (EIP-3009, `fabstir.protocol.authorization`) is good for one deposit in one job, or one top-up at one deposit, so a host
that sends it can do nothing else with it. Pure; reading the chain, limits and sending are `fabstir.host.relay`. Specification:
docs/reference/http.md.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, JobId, from_hex, to_hex
from fabstir.domain.money import MAX_DEPOSIT, BaseUnits
from fabstir.domain.terms import JobState, Terms
from fabstir.protocol.admission import check, check_terms
from fabstir.protocol.authorization import authorization_digest, top_up_nonce
from fabstir.protocol.messages import Decimal, Hex32, Signature, WireTerms
from fabstir.protocol.offer import Offer
from fabstir.protocol.signing import Market, recover

TIME_TO_SEND: Final = 60
"""Seconds that a signed transfer must still be good for: two bumps of a slow transaction's fee."""
LONGEST_SECONDS: Final = 7_200
"""And no longer than this: what is given to a stranger should not stay good for ever."""

UnixSeconds = Annotated[int, Meta(ge=0, lt=2**40)]


class RelayOpening(msgspec.Struct, frozen=True, kw_only=True):
    """Open this job with the renter's signed transfer."""

    terms: WireTerms
    deposit: Decimal
    """Base units of the terms' token."""
    valid_before: UnixSeconds
    """The transfer is good until then; at least a minute, at most two hours from now."""
    signature: Signature
    """EIP-3009 `receiveWithAuthorization` by `terms.renter`, from time 0; the nonce is the job id."""

    @classmethod
    def of(cls, terms: Terms, deposit: BaseUnits, valid_before: int, signature: bytes) -> RelayOpening:
        """As text."""
        return cls(
            terms=WireTerms.of(terms), deposit=str(deposit), valid_before=valid_before, signature=to_hex(signature)
        )


class RelayTopUp(msgspec.Struct, frozen=True, kw_only=True):
    """Add to this job's deposit with the renter's signed transfer."""

    terms: WireTerms
    amount: Decimal
    """Base units of the terms' token."""
    valid_before: UnixSeconds
    """As for an opening."""
    signature: Signature
    """The same, with the nonce `topUpNonce(job id, deposit)`."""

    @classmethod
    def of(cls, terms: Terms, amount: BaseUnits, valid_before: int, signature: bytes) -> RelayTopUp:
        """As text."""
        return cls(
            terms=WireTerms.of(terms), amount=str(amount), valid_before=valid_before, signature=to_hex(signature)
        )


class Relayed(msgspec.Struct, frozen=True, kw_only=True):
    """The mined transaction. The renter looks at the chain all the same."""

    job_id: Hex32
    tx_hash: Hex32
    block: int
    gas_used: int


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """A signed transfer, read."""

    terms: Terms
    amount: BaseUnits
    valid_before: int
    signature: bytes


def transfer_of(message: RelayOpening | RelayTopUp) -> Transfer:
    """Raises PeerFault (`message_malformed`)."""
    text = message.deposit if isinstance(message, RelayOpening) else message.amount
    try:
        terms = message.terms.terms()
    except ValueError as wrong:
        raise error("message_malformed", f"terms: {wrong}"[:200]) from wrong
    return Transfer(
        terms=terms,
        amount=BaseUnits(int(text)),
        valid_before=message.valid_before,
        signature=from_hex(message.signature, 65),
    )


def check_opening(transfer: Transfer, job: JobId, offer: Offer, now: float) -> None:
    """Whether to open `job` so, at Unix time `now`.

    Raises Refused (`relay_off`, `relay_refused`, and as admission would), PeerFault (`authorization_invalid`).
    """
    check(transfer.terms, job, JobState(deposit=transfer.amount), offer, now)
    _check_worth(transfer, offer)
    _check_signature(transfer, offer.market, Hash32(job), now)


def check_top_up(transfer: Transfer, job: JobId, state: JobState, offer: Offer, now: float) -> None:
    """Whether to add to the open `job` so, which this host serves. Raises as `check_opening`."""
    check_terms(transfer.terms, job)
    if transfer.terms.host != offer.host:
        raise error("job_foreign", f"host {to_hex(transfer.terms.host)}, this is {to_hex(offer.host)}")
    if state.closed or state.closing_at:
        raise error("job_closed")
    if not state.is_open:
        raise error("job_unknown")
    if transfer.terms.expires_at - now < offer.min_seconds_left:
        raise error("job_expired")
    _check_worth(transfer, offer)
    _check_signature(transfer, offer.market, top_up_nonce(job, state.deposit), now)


def _check_worth(transfer: Transfer, offer: Offer) -> None:
    payment = offer.payment_in(transfer.terms.token)
    if payment is None or not payment.relayed_from:
        raise error("relay_off", f"token {to_hex(transfer.terms.token)}")
    if not payment.relayed_from <= transfer.amount <= MAX_DEPOSIT:
        raise error("relay_refused", f"{transfer.amount} base units, at least {payment.relayed_from} are worth the gas")


def _check_signature(transfer: Transfer, market: Market, nonce: Hash32, now: float) -> None:
    terms = transfer.terms
    if terms.opener != terms.renter:
        raise error(
            "authorization_invalid", "the salt names another account than the renter, which alone may open the job"
        )
    left = int(transfer.valid_before - now)
    if not TIME_TO_SEND <= left <= LONGEST_SECONDS:
        raise error("authorization_invalid", f"good for {left} s, {TIME_TO_SEND} to {LONGEST_SECONDS} s")
    digest = authorization_digest(
        market.chain_id, terms.token, terms.renter, market.address, transfer.amount, transfer.valid_before, nonce
    )
    if recover(digest, transfer.signature) != terms.renter:
        raise error("authorization_invalid", "another account signed it, or another deposit, token or market")
