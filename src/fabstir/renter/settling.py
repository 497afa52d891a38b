"""How the renter gets its deposit back: a pure decision over the job's ledger and the contract's state, and what comes
of it.

The rule is to leave settlement to the host, which closes by itself and pays the gas. Only where the renter asks for it
(`reclaim`) does it act: close at once where the host has signed the end, else `requestClose` and, once the challenge
window is over, `finalize`. A claim of tokens that never arrived is contradicted, where the host signed the end, or disputed,
where it is worth the trouble. Never sends anything; `jobs` does. The rights behind it: `fabstir.protocol.matrix`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fabstir.domain.ids import JobId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy
from fabstir.protocol.renter_log import RenterLedger
from fabstir.protocol.settlement import finalizable_at
from fabstir.protocol.settlement_disputes import UNDECIDED

LATE_SECONDS = 300
"""So long after a signed transfer expired, no endpoint is believed to be still behind the block that could have taken it."""


class Stage(StrEnum):
    """Where the deposit of a job is."""

    PLANNED = "planned"
    """Not in the contract: the transaction was not sent, is under way or was refused."""
    OPEN = "open"
    """In the contract; it is the host's turn."""
    CLOSING = "closing"
    """The challenge window runs."""
    CLAIMED = "claimed"
    """The job is closed and the rest paid back; the host claims tokens that were not signed for, and that claim is not decided."""
    SETTLED = "settled"
    """Paid out."""
    ABANDONED = "abandoned"
    """Never opened, and the terms or the signed transfer have expired: nothing can come of it any more."""


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is told about the money of one job."""

    job: JobId
    stage: Stage
    deposit: BaseUnits
    owed: BaseUnits = BaseUnits(0)
    """Credited to the host and the market so far."""
    refund: BaseUnits = BaseUnits(0)
    """Paid back, once settled."""
    finalizable_at: int = 0
    """While closing: Unix time from which anyone may finalize."""
    held: BaseUnits = BaseUnits(0)
    """Part of `owed` that a claim holds back until it is decided."""
    held_until: int = 0
    """Unix time at which the claim's stage ends."""

    @property
    def over(self) -> bool:
        """Nothing moves any more."""
        return self.stage in (Stage.SETTLED, Stage.ABANDONED)

    @property
    def paid_out(self) -> bool:
        """The job is closed; what can still come is a claim that the host loses."""
        return self.over or self.stage is Stage.CLAIMED


class Step(StrEnum):
    """What the renter can do next."""

    WAIT = "wait"
    CLOSE_COOPERATIVE = "close_cooperative"
    REQUEST_CLOSE = "request_close"
    FINALIZE = "finalize"
    CONTRADICT = "contradict"
    DISPUTE = "dispute"
    SETTLE_CLAIM = "settle_claim"


def settlement_of(ledger: RenterLedger, state: JobState, now: float) -> Settlement:
    """Where the money is. `now` is the chain's time."""
    job, deposit = ledger.job, state.deposit or ledger.deposit
    if state.closed:
        refund = BaseUnits(state.deposit - state.owed)
        stage = Stage.CLAIMED if state.stage in UNDECIDED else Stage.SETTLED
        return Settlement(
            job=job,
            stage=stage,
            deposit=deposit,
            owed=state.owed,
            refund=refund,
            held=state.held,
            held_until=state.held_until,
        )
    if not state.is_open:
        until = ledger.planned.payable_until
        last = min(until + LATE_SECONDS, ledger.terms.expires_at) if until else ledger.terms.expires_at
        stage = Stage.ABANDONED if now > last else Stage.PLANNED
        return Settlement(job=job, stage=stage, deposit=deposit)
    if state.closing_at:
        due = finalizable_at(ledger.terms, state)
        return Settlement(job=job, stage=Stage.CLOSING, deposit=deposit, owed=state.owed, finalizable_at=due)
    return Settlement(job=job, stage=Stage.OPEN, deposit=deposit, owed=state.owed)


def claim_step(
    ledger: RenterLedger, state: JobState, now: float, received: Tokens | None, dispute_above: BaseUnits
) -> Step:
    """What to do about a claim of the host. `received`: tokens that arrived, None where that is not known for certain (then
    nothing is disputed); a claim of less than `dispute_above` is not worth the bond. `now` is the chain's time.
    """
    if state.stage not in UNDECIDED:
        return Step.WAIT
    if ledger.released is not None and ledger.released.tokens < state.held_tokens:
        return Step.CONTRADICT
    if now >= state.held_until:
        return Step.SETTLE_CLAIM
    if state.stage is ClaimStage.CLAIMED and received is not None and received < state.held_tokens:
        false = ledger.amount(state.held_tokens) - ledger.amount(received)
        return Step.DISPUTE if min(false, state.held) >= dispute_above else Step.WAIT
    return Step.WAIT


def reclaim_step(ledger: RenterLedger, state: JobState, now: float) -> Step:
    """What brings the deposit back soonest. `now` is the chain's time."""
    if not state.is_open:
        return Step.WAIT
    if now >= finalizable_at(ledger.terms, state):
        return Step.FINALIZE
    if _may_close_at_once(ledger, state):
        return Step.CLOSE_COOPERATIVE
    return Step.WAIT if state.closing_at else Step.REQUEST_CLOSE


def _may_close_at_once(ledger: RenterLedger, state: JobState) -> bool:
    """The host signed the end, and the contract pays what it signed for without a proof that it does not have yet. That ends a claim."""
    released, terms, credited = ledger.released, ledger.terms, state.owed - state.held
    if released is None or released.amount < credited:
        return False
    return released.amount == credited or terms.policy is ProofPolicy.FALLBACK or released.tokens <= state.proven
