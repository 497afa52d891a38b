"""What a host can still collect from one job, what stands in the way, and when the chance is gone. Pure.

`fabstir claims`, the node's warnings, health and metrics show the same rows. Deadlines are the contract's: once a job can be
finalized anybody may end it, and what was not redeemed by then goes back to the renter; a dispute that is not answered in
its stage is lost. Amounts are gross; the fee is taken when they are credited.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from fabstir.domain.ids import Address, JobId
from fabstir.domain.money import BaseUnits, Tokens, cost
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy
from fabstir.protocol.host_log import HostLedger
from fabstir.protocol.settlement import finalizable_at
from fabstir.protocol.settlement_disputes import UNDECIDED

SOON_SECONDS: Final = 3_600
"""A chance that is gone within the hour is `soon`: the node should have taken it."""


class Kind(StrEnum):
    """What can be collected, or must be done to keep it."""

    REDEEM = "redeem"
    """Signed, and the contract pays it now."""
    PROVE = "prove"
    """Signed; the policy of the terms wants a proof first."""
    CLAIM = "claim"
    """Served and not signed for: at most W tokens, with a proof."""
    HELD = "held"
    """Claimed; paid once nobody has disputed it in time."""
    SETTLE = "settle"
    """Claimed, and the time to dispute is over."""
    ANSWER = "answer"
    """Claimed and disputed: the records must be opened."""


class Urgency(StrEnum):
    """How near the deadline is."""

    LATER = "later"
    SOON = "soon"
    GONE = "gone"
    """The deadline has passed; it can be had until somebody uses that."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One row."""

    job: JobId
    kind: Kind
    token: Address
    amount: BaseUnits
    renter: Address
    available_at: int
    """Unix seconds; 0: now."""
    expires_at: int
    """Unix seconds from which it can be lost."""
    urgency: Urgency

    @property
    def needs_care(self) -> bool:
        """Somebody should look, where no node is doing it."""
        return self.urgency is not Urgency.LATER and self.kind not in (Kind.HELD, Kind.SETTLE)


def claims_of(ledger: HostLedger, job: JobState, now: int) -> tuple[Claim, ...]:
    """Of one job that this host admitted, as the contract holds it at Unix time `now` (the chain's)."""
    if not job.deposit:
        return ()
    rows = [_held(ledger, job, now)] if job.stage in UNDECIDED else []
    if not job.closed:
        rows += [row for row in (_signed(ledger, job, now), _tail(ledger, job, now)) if row.amount > 0]
    return tuple(rows)


def _signed(ledger: HostLedger, job: JobState, now: int) -> Claim:
    """What the renter signed for beyond what is credited."""
    amount = BaseUnits(max(0, ledger.amount(ledger.acknowledged) - (job.owed - job.held)))
    unproven = ledger.terms.policy is ProofPolicy.REQUIRED and ledger.acknowledged > job.proven
    return _row(ledger, Kind.PROVE if unproven else Kind.REDEEM, amount, finalizable_at(ledger.terms, job), now)


def _tail(ledger: HostLedger, job: JobState, now: int) -> Claim:
    """What was served and not signed for, where it may still be claimed."""
    signed = max(ledger.acknowledged, job.signed)
    paid = Tokens(min(ledger.served, signed + ledger.terms.exposure))
    amount = min(job.deposit, cost(paid, ledger.terms.price)) - max(job.owed, ledger.amount(signed))
    if ledger.released or job.stage is not ClaimStage.NONE:
        amount = 0
    return _row(ledger, Kind.CLAIM, BaseUnits(max(0, amount)), finalizable_at(ledger.terms, job), now)


def _held(ledger: HostLedger, job: JobState, now: int) -> Claim:
    if job.stage is ClaimStage.DISPUTED:
        return _row(ledger, Kind.ANSWER, job.held, job.held_until, now)
    if now >= job.held_until:
        return msgspec.structs.replace(_row(ledger, Kind.SETTLE, job.held, 0, now), urgency=Urgency.LATER)
    held = _row(ledger, Kind.HELD, job.held, 0, now)
    return msgspec.structs.replace(held, available_at=job.held_until, urgency=Urgency.LATER)


def _row(ledger: HostLedger, kind: Kind, amount: BaseUnits, expires_at: int, now: int) -> Claim:
    left = expires_at - now
    urgency = Urgency.GONE if left <= 0 else Urgency.SOON if left <= SOON_SECONDS else Urgency.LATER
    return Claim(
        job=ledger.job,
        kind=kind,
        token=ledger.terms.token,
        amount=amount,
        renter=ledger.terms.renter,
        available_at=0,
        expires_at=expires_at,
        urgency=urgency,
    )
