"""What a host can still collect from one job, what stands in the way, and when the chance is gone. Pure.

`fabstir claims`, the node's warnings, health and metrics show the same rows. Deadlines are the contract's: once a job can be
finalized anybody may end it, and what was not redeemed by then goes back to the renter; a dispute that is not answered in
its stage is lost. Amounts are gross; the fee is taken when they are credited.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec

from fabstir.domain.ids import Address, JobId
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy
from fabstir.protocol.host_log import HostLedger
from fabstir.protocol.settlement import finalizable_at
from fabstir.protocol.settlement_disputes import UNDECIDED
from fabstir.protocol.settlement_plan import tail_value

SOON_SECONDS: Final = 3_600
"""A chance that is gone within the hour is `soon`: the node should have taken it. Where half of the job's challenge window is
shorter, within that: a renter that asks to close is no alarm, a host that has not settled half a window later is."""
ANY_AMOUNT: Final = BaseUnits(1)
TailAbove = Callable[[Address], BaseUnits]
"""From which worth a host claims an unsigned tail in a currency."""
NEVER: Final = 0
"""`expires_at` of what cannot be lost by waiting."""


class Kind(StrEnum):
    """What can be collected, or must be done to keep it."""

    REDEEM = "redeem"
    """Signed, and the contract pays it now."""
    PROVE = "prove"
    """Signed; the policy of the terms wants a proof first."""
    CLAIM = "claim"
    """Served and not signed for: at most W tokens, with a proof."""
    HELD = "held"
    """Claimed; paid where nobody says otherwise in time."""
    SETTLE = "settle"
    """Claimed, and the time to dispute is over."""
    ANSWER = "answer"
    """Claimed and disputed: the records must be opened."""


class Urgency(StrEnum):
    """How near the deadline is: `soon` by SOON_SECONDS."""

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
    """Unix seconds from which it can be lost; 0: it waits."""
    urgency: Urgency

    @property
    def expires_soon(self) -> bool:
        """Its deadline is near, or has passed."""
        return self.urgency is not Urgency.LATER

    @property
    def needs_care(self) -> bool:
        """Somebody should look, where no node is doing it: silence loses a dispute, however far its deadline is."""
        return self.expires_soon or self.kind is Kind.ANSWER


def any_amount(_token: Address) -> BaseUnits:
    """Every tail, whatever it is worth."""
    return ANY_AMOUNT


def claims_of(
    ledger: HostLedger, job: JobState, now: int, *, tail_above: BaseUnits = ANY_AMOUNT, staked: bool = True
) -> tuple[Claim, ...]:
    """Of one job that this host admitted, as the contract holds it at Unix time `now` (the chain's).

    A tail that is worth less than `tail_above`, or that no stake covers, is not shown: the host does not claim it. Nor is a claim
    whose dispute was not answered in time: it is lost, whoever says so. What a voucher takes over out of a claim stands
    with the voucher, once.
    """
    if not job.deposit:
        return ()
    signed = None if job.closed else _signed(ledger, job, now)
    tail = None if job.closed else _tail(ledger, job, now, tail_above if staked else None)
    held = _held(ledger, job, now, taken_over=signed.amount if signed else 0)
    return tuple(row for row in (held, signed, tail) if row is not None)


def _signed(ledger: HostLedger, job: JobState, now: int) -> Claim | None:
    """What the renter signed for beyond what is credited."""
    amount = min(ledger.amount(ledger.acknowledged), job.deposit) - (job.owed - job.held)
    if amount <= 0:
        return None
    unproven = ledger.terms.policy is ProofPolicy.REQUIRED and ledger.acknowledged > job.proven
    return _row(ledger, Kind.PROVE if unproven else Kind.REDEEM, amount, finalizable_at(ledger.terms, job), now)


def _tail(ledger: HostLedger, job: JobState, now: int, above: BaseUnits | None) -> Claim | None:
    """What was served and not signed for, where it may still be claimed and is worth it; `above` None: no stake covers it."""
    amount = tail_value(ledger, job)
    if above is None or ledger.released or job.stage is not ClaimStage.NONE or amount < max(1, above):
        return None
    return _row(ledger, Kind.CLAIM, amount, finalizable_at(ledger.terms, job), now)


def _held(ledger: HostLedger, job: JobState, now: int, taken_over: int) -> Claim | None:
    if job.stage not in UNDECIDED:
        return None
    over, amount = now >= job.held_until, max(0, job.held - taken_over)
    if job.stage is ClaimStage.DISPUTED:
        return None if over else _row(ledger, Kind.ANSWER, amount, job.held_until, now)
    if not amount:
        return None
    kind, available_at = (Kind.SETTLE, 0) if over else (Kind.HELD, job.held_until)
    return msgspec.structs.replace(_row(ledger, kind, amount, NEVER, now), available_at=available_at)


def _row(ledger: HostLedger, kind: Kind, amount: int, expires_at: int, now: int) -> Claim:
    return Claim(
        job=ledger.job,
        kind=kind,
        token=ledger.terms.token,
        amount=BaseUnits(amount),
        renter=ledger.terms.renter,
        available_at=0,
        expires_at=expires_at,
        urgency=_urgency(expires_at, now, ledger.terms.challenge),
    )


def _urgency(expires_at: int, now: int, challenge: int) -> Urgency:
    if expires_at == NEVER:
        return Urgency.LATER
    if now >= expires_at:
        return Urgency.GONE
    return Urgency.SOON if expires_at - now <= min(SOON_SECONDS, challenge // 2) else Urgency.LATER
