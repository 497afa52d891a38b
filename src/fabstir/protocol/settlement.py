"""The contract's money, as a pure function: `apply(state, call, now, block) -> state`, or `Reverted` with the contract's
own error.

The same model is the oracle of the contract tests (hypothesis on a real EVM), the in-memory chain that unit tests run
on, and what the settlement matrix is checked against. It knows amounts and deadlines; signatures and proofs enter as
the facts *who signed* and *the proof verifies*. Specification: contracts/src/JobMarketplace.sol.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId
from fabstir.domain.money import FEE_BASIS_POINTS, MAX_AMOUNT, MAX_TOKENS, BaseUnits, Tokens, cost
from fabstir.domain.terms import MIN_CHALLENGE_SECONDS, JobState, ProofPolicy, Terms
from fabstir.protocol.signing import job_id

K = TypeVar("K")
V = TypeVar("V")

SEED_DELAY: Final = 2
"""Blocks from a commitment to the block whose hash is the challenge."""
BLOCKHASH_WINDOW: Final = 256
"""The EVM keeps so many block hashes."""
MAX_EXPOSURE: Final = 4096


class Reverted(Exception):
    """The contract refuses. `name` is its custom error."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name: Final = name


class PendingCommitment(msgspec.Struct, frozen=True):
    """A commitment that waits for its challenge."""

    tokens: Tokens
    root: Hash32
    block: int


class Account(msgspec.Struct, frozen=True):
    """One job as the model keeps it."""

    terms: Terms
    state: JobState
    pending: PendingCommitment | None = None


class MarketState(msgspec.Struct, frozen=True):
    """All money of one market contract."""

    treasury: Address
    jobs: MappingProxyType[JobId, Account] = MappingProxyType({})
    earnings: MappingProxyType[tuple[Address, Address], int] = MappingProxyType({})
    """(account, token) -> base units that `withdraw` pays."""
    held: MappingProxyType[Address, int] = MappingProxyType({})
    """token -> base units that the contract holds."""
    refunded: MappingProxyType[tuple[Address, Address], int] = MappingProxyType({})
    """(renter, token) -> base units pushed back, ever."""


class Open(msgspec.Struct, frozen=True):
    """`open` or `openWithAuthorization` (then `authorized`: the renter signed the transfer for exactly this job id)."""

    sender: Address
    terms: Terms
    deposit: BaseUnits
    authorized: bool = False


class Redeem(msgspec.Struct, frozen=True):
    """One claim of `redeem`. `recovered` is whom ECDSA recovers from the voucher's signature."""

    sender: Address
    job: JobId
    amount: BaseUnits
    tokens: Tokens
    recovered: Address | None


class CommitProof(msgspec.Struct, frozen=True):
    sender: Address
    job: JobId
    tokens: Tokens
    root: Hash32


class SubmitProof(msgspec.Struct, frozen=True):
    """`valid`: path, sums and proof all hold for the challenge."""

    job: JobId
    tokens: Tokens
    root: Hash32
    valid: bool


class ClaimProven(msgspec.Struct, frozen=True):
    sender: Address
    job: JobId


class CloseByHost(msgspec.Struct, frozen=True):
    """`voucher` is None where the signature is left empty."""

    sender: Address
    job: JobId
    voucher: Redeem | None = None


class CloseCooperative(msgspec.Struct, frozen=True):
    """`host_recovered` from the host's Close signature, `recovered` from the renter's voucher signature (needed unless the
    renter sends)."""

    sender: Address
    job: JobId
    amount: BaseUnits
    tokens: Tokens
    host_recovered: Address | None
    recovered: Address | None = None


class RequestClose(msgspec.Struct, frozen=True):
    sender: Address
    job: JobId


class Finalize(msgspec.Struct, frozen=True):
    sender: Address
    job: JobId


class Withdraw(msgspec.Struct, frozen=True):
    sender: Address
    token: Address


Call = (
    Open
    | Redeem
    | CommitProof
    | SubmitProof
    | ClaimProven
    | CloseByHost
    | CloseCooperative
    | RequestClose
    | Finalize
    | Withdraw
)


def apply(state: MarketState, call: Call, now: int, block: int) -> MarketState:
    """The state after `call` in block `block` at Unix time `now`. Raises Reverted."""
    match call:
        case Open():
            return _open(state, call, now)
        case Redeem():
            return _redeem(state, call)
        case CommitProof():
            return _commit(state, call, block)
        case SubmitProof():
            return _submit(state, call, block)
        case ClaimProven():
            return _claim_proven(state, call)
        case CloseByHost():
            return _close_by_host(state, call)
        case CloseCooperative():
            return _close_cooperative(state, call)
        case RequestClose():
            return _request_close(state, call, now)
        case Finalize():
            return _finalize(state, call, now)
        case Withdraw():
            return _withdraw(state, call)


def _open(state: MarketState, call: Open, now: int) -> MarketState:
    terms = call.terms
    if not call.authorized and call.sender != terms.renter:
        raise Reverted("NotParty")
    bad = (
        call.deposit == 0
        or terms.price == 0
        or ZERO_ADDRESS in (terms.host, terms.signer)
        or terms.expires_at <= now
        or terms.challenge < MIN_CHALLENGE_SECONDS
        or not 1 <= terms.exposure <= MAX_EXPOSURE
        or terms.policy not in (ProofPolicy.REQUIRED, ProofPolicy.FALLBACK)
    )
    if bad:
        raise Reverted("BadTerms")
    job = job_id(terms)
    if job in state.jobs:
        raise Reverted("JobExists")
    account = Account(terms, JobState(deposit=call.deposit))
    return msgspec.structs.replace(
        state,
        jobs=_with(state.jobs, job, account),
        held=_add(state.held, terms.token, call.deposit),
    )


def _account(state: MarketState, job: JobId) -> Account:
    account = state.jobs.get(job)
    if account is None or not account.state.is_open:
        raise Reverted("NotOpen")
    return account


def _redeem(state: MarketState, call: Redeem) -> MarketState:
    account = _account(state, call.job)
    terms, job = account.terms, account.state
    if call.sender != terms.host:
        raise Reverted("NotParty")
    _check_amount(account, call.amount, call.tokens)
    if call.tokens > MAX_TOKENS:
        raise Reverted("TokensOutOfRange")
    if call.tokens <= job.signed:
        raise Reverted("StaleVoucher")
    if call.recovered != terms.signer:
        raise Reverted("BadSignature")
    if terms.policy == ProofPolicy.REQUIRED and call.tokens > job.proven:
        raise Reverted("ProofMissing")
    return _credit(state, call.job, msgspec.structs.replace(job, signed=call.tokens), call.amount)


def _check_amount(account: Account, amount: BaseUnits, tokens: Tokens) -> None:
    if amount > MAX_AMOUNT or amount != cost(tokens, account.terms.price):
        raise Reverted("AmountMismatch")
    if amount > account.state.deposit:
        raise Reverted("AboveDeposit")


def _credit(state: MarketState, job: JobId, new: JobState, amount: int) -> MarketState:
    account = state.jobs[job]
    delta = max(0, amount - new.owed)
    new = msgspec.structs.replace(new, owed=BaseUnits(new.owed + delta))
    fee = delta * FEE_BASIS_POINTS // 10_000
    terms = account.terms
    earnings = _add(state.earnings, (terms.host, terms.token), delta - fee)
    earnings = _add(earnings, (state.treasury, terms.token), fee)
    return msgspec.structs.replace(
        state, jobs=_with(state.jobs, job, msgspec.structs.replace(account, state=new)), earnings=earnings
    )


def _commit(state: MarketState, call: CommitProof, block: int) -> MarketState:
    account = _account(state, call.job)
    if call.sender != account.terms.host:
        raise Reverted("NotParty")
    if call.tokens <= account.state.proven:
        raise Reverted("NothingToProve")
    pending = account.pending
    if pending is not None and block <= pending.block + SEED_DELAY + BLOCKHASH_WINDOW:
        raise Reverted("CommitmentPending")
    new = msgspec.structs.replace(account.state, pending_block=block)
    return _replace(state, call.job, Account(account.terms, new, PendingCommitment(call.tokens, call.root, block)))


def _submit(state: MarketState, call: SubmitProof, block: int) -> MarketState:
    account = _account(state, call.job)
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
    new = msgspec.structs.replace(account.state, proven=call.tokens, pending_block=0)
    return _replace(state, call.job, Account(account.terms, new))


def _claim_proven(state: MarketState, call: ClaimProven) -> MarketState:
    account = _account(state, call.job)
    if call.sender != account.terms.host:
        raise Reverted("NotParty")
    amount = claimable_by_proof(account.terms, account.state)
    if amount <= account.state.owed:
        raise Reverted("NothingToClaim")
    return _credit(state, call.job, account.state, amount)


def claimable_by_proof(terms: Terms, job: JobState) -> BaseUnits:
    """Cumulative amount that `claimProven` pays: proven tokens, but at most W beyond the best redeemed voucher."""
    paid = Tokens(min(job.proven, job.signed + terms.exposure))
    return BaseUnits(min(job.deposit, cost(paid, terms.price)))


def _close_by_host(state: MarketState, call: CloseByHost) -> MarketState:
    account = _account(state, call.job)
    if call.sender != account.terms.host:
        raise Reverted("NotParty")
    if call.voucher is not None and call.voucher.tokens > account.state.signed:
        state = _redeem(state, call.voucher)
    return _close(state, call.job)


def _close_cooperative(state: MarketState, call: CloseCooperative) -> MarketState:
    account = _account(state, call.job)
    terms, job = account.terms, account.state
    if call.host_recovered != terms.host:
        raise Reverted("BadSignature")
    if call.sender != terms.renter and call.recovered != terms.signer:
        raise Reverted("BadSignature")
    _check_amount(account, call.amount, call.tokens)
    if call.amount < job.owed:
        raise Reverted("StaleVoucher")
    if call.amount > job.owed:
        if terms.policy == ProofPolicy.REQUIRED and call.tokens > job.proven:
            raise Reverted("ProofMissing")
        state = _credit(state, call.job, job, call.amount)
    return _close(state, call.job)


def _request_close(state: MarketState, call: RequestClose, now: int) -> MarketState:
    account = _account(state, call.job)
    if call.sender != account.terms.renter:
        raise Reverted("NotParty")
    if account.state.closing_at != 0:
        raise Reverted("AlreadyClosing")
    new = msgspec.structs.replace(account.state, closing_at=now + account.terms.challenge)
    return _replace(state, call.job, msgspec.structs.replace(account, state=new))


def finalizable_at(terms: Terms, job: JobState) -> int:
    """Unix time from which anyone may finalize: the earlier of both deadlines."""
    at_expiry = terms.expires_at + terms.challenge
    return min(job.closing_at, at_expiry) if job.closing_at else at_expiry


def _finalize(state: MarketState, call: Finalize, now: int) -> MarketState:
    account = _account(state, call.job)
    if now < finalizable_at(account.terms, account.state):
        raise Reverted("TooEarly")
    return _close(state, call.job)


def _close(state: MarketState, job: JobId) -> MarketState:
    account = state.jobs[job]
    refund = account.state.deposit - account.state.owed
    closed = msgspec.structs.replace(account.state, closed=True, pending_block=0)
    terms = account.terms
    state = _replace(state, job, Account(terms, closed))
    return msgspec.structs.replace(
        state,
        held=_add(state.held, terms.token, -refund),
        refunded=_add(state.refunded, (terms.renter, terms.token), refund),
    )


def _withdraw(state: MarketState, call: Withdraw) -> MarketState:
    amount = state.earnings.get((call.sender, call.token), 0)
    if amount == 0:
        raise Reverted("NothingToClaim")
    return msgspec.structs.replace(
        state,
        earnings=_add(state.earnings, (call.sender, call.token), -amount),
        held=_add(state.held, call.token, -amount),
    )


def _replace(state: MarketState, job: JobId, account: Account) -> MarketState:
    return msgspec.structs.replace(state, jobs=_with(state.jobs, job, account))


def _with(mapping: MappingProxyType[K, V], key: K, value: V) -> MappingProxyType[K, V]:
    return MappingProxyType({**mapping, key: value})


def _add(mapping: MappingProxyType[K, int], key: K, delta: int) -> MappingProxyType[K, int]:
    return _with(mapping, key, mapping.get(key, 0) + delta)
