"""How the renter gets its deposit back: a pure decision over the job's ledger and the contract's state, and what comes
of it.

The rule is to leave settlement to the host, which closes by itself and pays the gas. Only where the renter asks for it
(`reclaim`) does it act: close at once where the host has signed the end, else `requestClose` and, once the challenge
window is over, `finalize`. Never sends anything; `jobs` does. The rights behind it: `fabstir.protocol.matrix`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fabstir.domain.ids import JobId
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import JobState, ProofPolicy
from fabstir.protocol.renter_log import RenterLedger
from fabstir.protocol.settlement import finalizable_at


class Stage(StrEnum):
    """Where the deposit of a job is."""

    PLANNED = "planned"
    """Not in the contract: the transaction was not sent, is under way or was refused."""
    OPEN = "open"
    """In the contract; it is the host's turn."""
    CLOSING = "closing"
    """The challenge window runs."""
    SETTLED = "settled"
    """Paid out."""
    ABANDONED = "abandoned"
    """Never opened, and the terms have expired: nothing can come of it any more."""


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

    @property
    def over(self) -> bool:
        """Nothing moves any more."""
        return self.stage in (Stage.SETTLED, Stage.ABANDONED)


class Step(StrEnum):
    """What the renter can do next."""

    WAIT = "wait"
    CLOSE_COOPERATIVE = "close_cooperative"
    REQUEST_CLOSE = "request_close"
    FINALIZE = "finalize"


def settlement_of(ledger: RenterLedger, state: JobState, now: float) -> Settlement:
    """Where the money is. `now` is the chain's time."""
    job, deposit = ledger.job, state.deposit or ledger.deposit
    if state.closed:
        refund = BaseUnits(state.deposit - state.owed)
        return Settlement(job=job, stage=Stage.SETTLED, deposit=deposit, owed=state.owed, refund=refund)
    if not state.is_open:
        stage = Stage.ABANDONED if now > ledger.terms.expires_at else Stage.PLANNED
        return Settlement(job=job, stage=stage, deposit=deposit)
    if state.closing_at:
        due = finalizable_at(ledger.terms, state)
        return Settlement(job=job, stage=Stage.CLOSING, deposit=deposit, owed=state.owed, finalizable_at=due)
    return Settlement(job=job, stage=Stage.OPEN, deposit=deposit, owed=state.owed)


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
    """The host signed the end, and the contract pays what it signed for without a proof that it does not have yet."""
    released, terms = ledger.released, ledger.terms
    if released is None or released.amount < state.owed:
        return False
    return released.amount == state.owed or terms.policy is ProofPolicy.FALLBACK or released.tokens <= state.proven
