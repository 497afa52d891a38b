"""The contract's money, as a pure function: `apply(state, call, now, block) -> state`, or `Reverted` with the contract's
own error.

The same model is the oracle of the contract tests (hypothesis on a real EVM), the in-memory chain that unit tests run
on, and what the settlement matrix is checked against. It knows amounts and deadlines; signatures and proofs enter as
the facts *who signed* and *the proof verifies*. Specification: contracts/src/JobMarketplace.sol and what it inherits.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS, JobId
from fabstir.domain.money import MAX_AMOUNT, MAX_DEPOSIT, BaseUnits, Tokens, cost
from fabstir.domain.terms import MAX_CHALLENGE_SECONDS, MIN_CHALLENGE_SECONDS, JobState, ProofPolicy, Terms
from fabstir.protocol import settlement_disputes as disputes
from fabstir.protocol.settlement_disputes import claimable_by_proof
from fabstir.protocol.settlement_state import (
    Account,
    AnswerDispute,
    Call,
    ClaimProven,
    CloseByHost,
    CloseCooperative,
    CommitProof,
    Contradict,
    Dispute,
    Finalize,
    MarketState,
    Open,
    PendingCommitment,
    Redeem,
    RedeemByEpoch,
    RequestClose,
    Reverted,
    Rule,
    SettleClaim,
    SubmitProof,
    TopUp,
    Withdraw,
    add,
    change,
    credit,
    open_account,
    repay,
    store,
)
from fabstir.protocol.signing import job_id

__all__ = [
    "BLOCKHASH_WINDOW", "MAX_EXPOSURE", "SEED_DELAY",
    "Account", "AnswerDispute", "Call", "ClaimProven", "CloseByHost", "CloseCooperative", "CommitProof", "Contradict",
    "Dispute", "Finalize", "MarketState", "Open", "PendingCommitment", "Redeem", "RedeemByEpoch", "RequestClose", "Reverted", "Rule",
    "SettleClaim", "SubmitProof", "TopUp", "Withdraw", "apply", "claimable_by_proof", "finalizable_at",
]  # fmt: skip

SEED_DELAY: Final = 2
"""Blocks from a commitment to the block whose hash is the challenge."""
BLOCKHASH_WINDOW: Final = 256
"""The EVM keeps so many block hashes."""
MAX_EXPOSURE: Final = 4096


def apply(state: MarketState, call: Call, now: int, block: int) -> MarketState:
    """The state after `call` in block `block` at Unix time `now`. Raises Reverted."""
    match call:
        case Open():
            return _open(state, call, now)
        case TopUp():
            return _top_up(state, call)
        case Redeem():
            return _redeem(state, call)
        case RedeemByEpoch():
            return _redeem_by_epoch(state, call)
        case CommitProof():
            return _commit(state, call, block)
        case SubmitProof():
            return _submit(state, call, block)
        case Withdraw():
            return _withdraw(state, call)
        case CloseByHost() | CloseCooperative() | RequestClose() | Finalize():
            return _apply_to_end(state, call, now)
        case _:
            return _apply_to_claim(state, call, now)


def _apply_to_end(
    state: MarketState, call: CloseByHost | CloseCooperative | RequestClose | Finalize, now: int
) -> MarketState:
    match call:
        case CloseByHost():
            return _close_by_host(state, call)
        case CloseCooperative():
            return _close_cooperative(state, call)
        case RequestClose():
            return _request_close(state, call, now)
        case Finalize():
            return _finalize(state, call, now)


def _apply_to_claim(
    state: MarketState, call: ClaimProven | Dispute | Contradict | AnswerDispute | Rule | SettleClaim, now: int
) -> MarketState:
    match call:
        case ClaimProven():
            return disputes.claim_proven(state, call, now)
        case Dispute():
            return disputes.dispute(state, call, now)
        case Contradict():
            return disputes.contradict(state, call)
        case AnswerDispute():
            return disputes.answer_dispute(state, call, now)
        case Rule():
            return disputes.rule(state, call, now)
        case SettleClaim():
            return disputes.settle_claim(state, call, now)


def _open(state: MarketState, call: Open, now: int) -> MarketState:
    terms = call.terms
    if call.authorized and terms.opener != terms.renter:
        raise Reverted("NotParty")
    if not call.authorized and call.sender != terms.opener:
        raise Reverted("NotParty")
    bad = (
        not 1 <= call.deposit <= MAX_DEPOSIT
        or terms.price == 0
        or ZERO_ADDRESS in (terms.host, terms.signer)
        or terms.expires_at <= now
        or not MIN_CHALLENGE_SECONDS <= terms.challenge <= MAX_CHALLENGE_SECONDS
        or not 1 <= terms.exposure <= MAX_EXPOSURE
        or terms.policy > ProofPolicy.FALLBACK
        or terms.bond == 0
    )
    if bad:
        raise Reverted("BadTerms")
    job = job_id(terms)
    if job in state.jobs:
        raise Reverted("JobExists")
    state = store(state, job, Account(terms, JobState(deposit=call.deposit)))
    return msgspec.structs.replace(state, held=add(state.held, terms.token, call.deposit))


def _top_up(state: MarketState, call: TopUp) -> MarketState:
    account = open_account(state, call.job)
    deposit = BaseUnits(account.state.deposit + call.amount)
    if call.amount == 0 or deposit > MAX_DEPOSIT:
        raise Reverted("BadTerms")
    state = change(state, call.job, deposit=deposit)
    return msgspec.structs.replace(state, held=add(state.held, account.terms.token, call.amount))


def _redeem(state: MarketState, call: Redeem) -> MarketState:
    account = open_account(state, call.job)
    terms, job = account.terms, account.state
    if call.sender != terms.host:
        raise Reverted("NotParty")
    _check_amount(account, call.amount, call.tokens)
    if call.tokens <= job.signed:
        raise Reverted("StaleVoucher")
    if call.recovered != terms.signer:
        raise Reverted("BadSignature")
    if terms.policy == ProofPolicy.REQUIRED and call.tokens > job.proven:
        raise Reverted("ProofMissing")
    return disputes.credit_voucher(change(state, call.job, signed=call.tokens), call.job, call.amount)


def _redeem_by_epoch(state: MarketState, call: RedeemByEpoch) -> MarketState:
    for claim in call.claims:
        state = _redeem_leaf(state, claim)
    if not call.covered:
        raise Reverted("NotCovered")
    return state


def _redeem_leaf(state: MarketState, call: Redeem) -> MarketState:
    """The caller's account and what the tokens cost are not told but hashed: of another host there is no such job, and a voucher over
    another amount is not signed."""
    account = open_account(state, call.job)
    terms, job = account.terms, account.state
    if call.sender != terms.host:
        raise Reverted("NotOpen")
    amount = cost(call.tokens, terms.price)
    if amount > job.deposit:
        raise Reverted("AboveDeposit")
    if call.tokens <= job.signed:
        raise Reverted("StaleVoucher")
    if call.amount != amount or call.recovered != terms.signer:
        raise Reverted("BadSignature")
    state = change(state, call.job, signed=call.tokens, proven=Tokens(max(job.proven, call.tokens)))
    return disputes.credit_voucher(state, call.job, amount)


def _check_amount(account: Account, amount: BaseUnits, tokens: Tokens) -> None:
    if amount > MAX_AMOUNT or amount != cost(tokens, account.terms.price):
        raise Reverted("AmountMismatch")
    if amount > account.state.deposit:
        raise Reverted("AboveDeposit")


def _commit(state: MarketState, call: CommitProof, block: int) -> MarketState:
    account = open_account(state, call.job)
    if call.sender != account.terms.host:
        raise Reverted("NotParty")
    if account.state.stage in disputes.UNDECIDED:
        raise Reverted("ClaimPending")
    if call.tokens <= account.state.proven:
        raise Reverted("NothingToProve")
    pending = account.pending
    if pending is not None and block <= pending.block + SEED_DELAY + BLOCKHASH_WINDOW:
        raise Reverted("CommitmentPending")
    new = msgspec.structs.replace(account.state, pending_block=block)
    return store(state, call.job, Account(account.terms, new, PendingCommitment(call.tokens, call.root, block)))


def _submit(state: MarketState, call: SubmitProof, block: int) -> MarketState:
    account = open_account(state, call.job)
    pending = account.pending
    if pending is None or (pending.tokens, pending.root) != (call.tokens, call.root):
        raise Reverted("NoCommitment")
    seed_block = pending.block + SEED_DELAY
    if block <= seed_block:
        raise Reverted("SeedNotReady")
    if block > seed_block + BLOCKHASH_WINDOW:
        raise Reverted("SeedExpired")
    if not call.valid:
        raise Reverted("ProofInvalid")
    proven = max(call.tokens, account.state.proven)  # an epoch may have proven more since the commitment
    new = msgspec.structs.replace(account.state, proven=proven, pending_block=0)
    return store(state, call.job, Account(account.terms, new))


def _close_by_host(state: MarketState, call: CloseByHost) -> MarketState:
    account = open_account(state, call.job)
    if call.sender != account.terms.host:
        raise Reverted("NotParty")
    if call.voucher is not None and call.voucher.tokens > account.state.signed:
        state = _redeem(state, call.voucher)
    return _close(state, call.job)


def _close_cooperative(state: MarketState, call: CloseCooperative) -> MarketState:
    account = open_account(state, call.job)
    terms = account.terms
    if call.host_recovered != terms.host:
        raise Reverted("BadSignature")
    if call.sender != terms.renter and call.recovered != terms.signer:
        raise Reverted("BadSignature")
    _check_amount(account, call.amount, call.tokens)
    state = disputes.withdraw_claim(state, call.job)
    job = state.jobs[call.job].state
    if call.amount < job.owed:
        raise Reverted("StaleVoucher")
    if call.amount > job.owed:
        if terms.policy == ProofPolicy.REQUIRED and call.tokens > job.proven:
            raise Reverted("ProofMissing")
        state = credit(change(state, call.job, owed=call.amount), terms, call.amount - job.owed)
    return _close(change(state, call.job, signed=max(job.signed, call.tokens)), call.job)


def _request_close(state: MarketState, call: RequestClose, now: int) -> MarketState:
    account = open_account(state, call.job)
    if call.sender != account.terms.renter:
        raise Reverted("NotParty")
    if account.state.closing_at != 0:
        raise Reverted("AlreadyClosing")
    return change(state, call.job, closing_at=now + account.terms.challenge)


def finalizable_at(terms: Terms, job: JobState) -> int:
    """Unix time from which anyone may finalize: the earlier of both deadlines."""
    at_expiry = terms.expires_at + terms.challenge
    return min(job.closing_at, at_expiry) if job.closing_at else at_expiry


def _finalize(state: MarketState, call: Finalize, now: int) -> MarketState:
    account = open_account(state, call.job)
    if now < finalizable_at(account.terms, account.state):
        raise Reverted("TooEarly")
    return _close(state, call.job)


def _close(state: MarketState, job: JobId) -> MarketState:
    account = state.jobs[job]
    terms = account.terms
    closed = msgspec.structs.replace(account.state, closed=True, pending_block=0)
    state = store(state, job, Account(terms, closed))
    return repay(state, terms.renter, terms.token, account.state.deposit - account.state.owed)


def _withdraw(state: MarketState, call: Withdraw) -> MarketState:
    amount = state.earnings.get((call.sender, call.token), 0)
    if amount == 0:
        raise Reverted("NothingToClaim")
    return msgspec.structs.replace(
        state,
        earnings=add(state.earnings, (call.sender, call.token), -amount),
        held=add(state.held, call.token, -amount),
    )
