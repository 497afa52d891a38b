"""Claims of proven tokens that the renter did not sign, and their disputes: the model's part for `Disputes.sol`.

Every stage has a deadline and a silence with an outcome (docs/decisions/0005-disputes-stake-and-prompt-jobs.md). The
checks stand in the contract's order, so that both refuse with the same error.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS, JobId
from fabstir.domain.money import BaseUnits, Tokens, cost
from fabstir.domain.terms import ClaimStage, JobState, Terms
from fabstir.protocol.settlement_state import (
    Account,
    AnswerDispute,
    ClaimProven,
    Contradict,
    Dispute,
    MarketState,
    Reverted,
    Rule,
    SettleClaim,
    add,
    change,
    credit,
    open_account,
    repay,
    with_item,
)

UNDECIDED: Final = (ClaimStage.CLAIMED, ClaimStage.DISPUTED, ClaimStage.ANSWERED)
LOCK_WINDOWS: Final = 4
"""The stake is locked for so many challenge windows: three stages, and one in which silence can still be settled."""
_NOTHING_HELD: Final = {"held": BaseUnits(0), "held_tokens": Tokens(0), "held_until": 0}


def claimable_by_proof(terms: Terms, job: JobState) -> BaseUnits:
    """Cumulative amount up to which `claimProven` claims: proven tokens, but at most W beyond the best redeemed voucher."""
    paid = Tokens(min(job.proven, job.signed + terms.exposure))
    return BaseUnits(min(job.deposit, cost(paid, terms.price)))


def claim_proven(state: MarketState, call: ClaimProven, now: int) -> MarketState:
    account = open_account(state, call.job)
    terms, job = account.terms, account.state
    if call.sender != terms.host:
        raise Reverted("NotParty")
    if job.stage is not ClaimStage.NONE:
        raise Reverted("ClaimPending")
    if account.pending is not None:
        raise Reverted("ProofPending")
    amount = claimable_by_proof(terms, job)
    if amount <= job.owed:
        raise Reverted("NothingToClaim")
    if state.stakes.get(terms.host, 0) < state.slash:
        raise Reverted("StakeTooLow")
    until = max(state.locked.get(terms.host, 0), now + LOCK_WINDOWS * terms.challenge)
    state = msgspec.structs.replace(state, locked=with_item(state.locked, terms.host, until))
    return change(
        state,
        call.job,
        owed=amount,
        held=BaseUnits(amount - job.owed),
        held_tokens=Tokens(min(job.proven, job.signed + terms.exposure)),
        held_until=now + terms.challenge,
        stage=ClaimStage.CLAIMED,
    )


def dispute(state: MarketState, call: Dispute, now: int) -> MarketState:
    account = _claimed_account(state, call.job)
    if call.sender != account.terms.renter:
        raise Reverted("NotParty")
    state = _advance(state, call.job, ClaimStage.CLAIMED, ClaimStage.DISPUTED, now)
    return msgspec.structs.replace(state, held=add(state.held, account.terms.token, account.terms.bond))


def contradict(state: MarketState, call: Contradict) -> MarketState:
    account = _undecided(state, call.job)
    if call.tokens >= account.state.held_tokens:
        raise Reverted("NoContradiction")
    if call.recovered != account.terms.host:
        raise Reverted("BadSignature")
    return _lose(state, call.job)


def answer_dispute(state: MarketState, call: AnswerDispute, now: int) -> MarketState:
    account = _claimed_account(state, call.job)
    if call.sender != account.terms.host:
        raise Reverted("NotParty")
    state = _advance(state, call.job, ClaimStage.DISPUTED, ClaimStage.ANSWERED, now)
    if call.refusal:
        raise Reverted(call.refusal)
    return _win(state, call.job, bond_to_host=True) if account.terms.arbiter == ZERO_ADDRESS else state


def rule(state: MarketState, call: Rule, now: int) -> MarketState:
    account = _claimed_account(state, call.job)
    if call.sender != account.terms.arbiter:
        raise Reverted("NotParty")
    if account.state.stage is not ClaimStage.ANSWERED:
        raise Reverted("WrongStage")
    if now >= account.state.held_until:
        raise Reverted("TooLate")
    return _win(state, call.job, bond_to_host=True) if call.for_host else _lose(state, call.job)


def settle_claim(state: MarketState, call: SettleClaim, now: int) -> MarketState:
    job = _undecided(state, call.job).state
    if now < job.held_until:
        raise Reverted("StageRuns")
    if job.stage is ClaimStage.DISPUTED:
        return _lose(state, call.job)
    return _win(state, call.job, bond_to_host=False)


def credit_voucher(state: MarketState, job_id: JobId, amount: BaseUnits) -> MarketState:
    """A voucher takes over what it signs for, also out of a claim (`Money.takeOver`)."""
    account = state.jobs[job_id]
    job = account.state
    credited = job.owed - job.held
    if amount <= credited:
        return state
    owed = max(job.owed, amount)
    left = BaseUnits(owed - amount) if job.stage in UNDECIDED else BaseUnits(0)
    state = credit(change(state, job_id, owed=BaseUnits(owed)), account.terms, amount - credited)
    if job.stage not in UNDECIDED or left == job.held:
        return state
    if left:
        return change(state, job_id, held=left)
    state = change(state, job_id, stage=ClaimStage.NONE, **_NOTHING_HELD)
    if job.stage is ClaimStage.CLAIMED:
        return state
    return repay(state, account.terms.host, account.terms.token, account.terms.bond)


def withdraw_claim(state: MarketState, job_id: JobId) -> MarketState:
    """Both sides agreed on a final amount: the claim is void, the bond goes back."""
    account = state.jobs[job_id]
    job = account.state
    if job.stage not in UNDECIDED:
        return state
    state = change(state, job_id, owed=BaseUnits(job.owed - job.held), stage=ClaimStage.NONE, **_NOTHING_HELD)
    return _bond_back(state, account)


def _claimed_account(state: MarketState, job: JobId) -> Account:
    """Of a job, open or closed; there is no claim in one that was never opened."""
    account = state.jobs.get(job)
    if account is None:
        raise Reverted("WrongStage")
    return account


def _undecided(state: MarketState, job: JobId) -> Account:
    account = _claimed_account(state, job)
    if account.state.stage not in UNDECIDED:
        raise Reverted("WrongStage")
    return account


def _advance(state: MarketState, job: JobId, before: ClaimStage, after: ClaimStage, now: int) -> MarketState:
    account = state.jobs[job]
    if account.state.stage is not before:
        raise Reverted("WrongStage")
    if now >= account.state.held_until:
        raise Reverted("TooLate")
    return change(state, job, stage=after, held_until=now + account.terms.challenge)


def _win(state: MarketState, job: JobId, *, bond_to_host: bool) -> MarketState:
    account = state.jobs[job]
    state = credit(state, account.terms, account.state.held)
    state = change(state, job, stage=ClaimStage.NONE, **_NOTHING_HELD)
    if account.state.stage is ClaimStage.CLAIMED or not bond_to_host:
        return _bond_back(state, account)
    return repay(state, account.terms.host, account.terms.token, account.terms.bond)


def _lose(state: MarketState, job_id: JobId) -> MarketState:
    account = state.jobs[job_id]
    terms, job = account.terms, account.state
    state = change(state, job_id, owed=BaseUnits(job.owed - job.held), stage=ClaimStage.LOST, **_NOTHING_HELD)
    stake = state.stakes.get(terms.host, 0)
    slashed = min(state.slash, stake)
    state = msgspec.structs.replace(
        state,
        stakes=add(state.stakes, terms.host, -slashed),
        compensated=add(state.compensated, terms.renter, min(state.compensation, slashed)),
    )
    if job.closed:
        state = repay(state, terms.renter, terms.token, job.held)
    return _bond_back(state, account)


def _bond_back(state: MarketState, account: Account) -> MarketState:
    """To the renter, where `account` was disputed."""
    if account.state.stage is ClaimStage.CLAIMED:
        return state
    return repay(state, account.terms.renter, account.terms.token, account.terms.bond)
