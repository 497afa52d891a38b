"""What the settlement model keeps, and the calls that change it; `fabstir.protocol.settlement` has the rules.

Decides nothing. Amounts and deadlines only: signatures and proofs enter as the facts *who signed* and *it verifies*.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from fabstir.domain.ids import Address, Hash32, JobId
from fabstir.domain.money import BaseUnits, Tokens, fee_of
from fabstir.domain.terms import JobState, Terms

K = TypeVar("K")
V = TypeVar("V")


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
    repaid: MappingProxyType[tuple[Address, Address], int] = MappingProxyType({})
    """(account, token) -> base units pushed to it, ever: refunds, lost claims, bonds."""
    stakes: MappingProxyType[Address, int] = MappingProxyType({})
    """Host -> its stake in `HostStake`, in units of the stake's own token."""
    locked: MappingProxyType[Address, int] = MappingProxyType({})
    """Host -> Unix seconds until which its stake cannot leave."""
    slash: int = 0
    """What a lost claim takes of it (`HostStake.slashAmount`)."""
    compensation: int = 0
    """What the renter gets of that, first (`HostStake.compensation`)."""
    compensated: MappingProxyType[Address, int] = MappingProxyType({})
    """Renter -> what it got of slashed stakes, ever."""


class Open(msgspec.Struct, frozen=True):
    """`open`, or `openWithAuthorization` (then `authorized`: the renter signed the transfer for exactly this job id)."""

    sender: Address
    terms: Terms
    deposit: BaseUnits
    authorized: bool = False


class TopUp(msgspec.Struct, frozen=True):
    """`topUp` or `topUpWithAuthorization`."""

    job: JobId
    amount: BaseUnits


class Redeem(msgspec.Struct, frozen=True):
    """One claim of `redeem`. `recovered` is whom ECDSA recovers from the voucher's signature."""

    sender: Address
    job: JobId
    amount: BaseUnits
    tokens: Tokens
    recovered: Address | None


class RedeemByEpoch(msgspec.Struct, frozen=True):
    """`covered`: every claim is a leaf of a proven epoch of the host that sends."""

    claims: tuple[Redeem, ...]
    covered: bool


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


class Dispute(msgspec.Struct, frozen=True):
    """With the bond of the terms."""

    sender: Address
    job: JobId


class Contradict(msgspec.Struct, frozen=True):
    """`recovered`: whom ECDSA recovers from the `Close` over `tokens`."""

    job: JobId
    tokens: Tokens
    recovered: Address | None


class AnswerDispute(msgspec.Struct, frozen=True):
    """`refusal`: the contract's error where the opening does not lead from the last voucher to the commitment."""

    sender: Address
    job: JobId
    refusal: str = ""


class Rule(msgspec.Struct, frozen=True):
    sender: Address
    job: JobId
    for_host: bool


class SettleClaim(msgspec.Struct, frozen=True):
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
    | TopUp
    | Redeem
    | RedeemByEpoch
    | CommitProof
    | SubmitProof
    | ClaimProven
    | Dispute
    | Contradict
    | AnswerDispute
    | Rule
    | SettleClaim
    | CloseByHost
    | CloseCooperative
    | RequestClose
    | Finalize
    | Withdraw
)


# -- how the rules change it --------------------------------------------------------------------------------------------------


def open_account(state: MarketState, job: JobId) -> Account:
    """The job, which must be open."""
    account = state.jobs.get(job)
    if account is None or not account.state.is_open:
        raise Reverted("NotOpen")
    return account


def store(state: MarketState, job: JobId, account: Account) -> MarketState:
    """Replace one job."""
    return msgspec.structs.replace(state, jobs=with_item(state.jobs, job, account))


def change(state: MarketState, job: JobId, **fields: object) -> MarketState:
    """Replace fields of one job's `JobState`."""
    account = state.jobs[job]
    new = msgspec.structs.replace(account.state, **fields)
    return store(state, job, msgspec.structs.replace(account, state=new))


def credit(state: MarketState, terms: Terms, amount: int) -> MarketState:
    """To the host's ledger, the fee to the treasury's."""
    fee = fee_of(BaseUnits(amount))
    earnings = add(state.earnings, (terms.host, terms.token), amount - fee)
    return msgspec.structs.replace(state, earnings=add(earnings, (state.treasury, terms.token), fee))


def repay(state: MarketState, to: Address, token: Address, amount: int) -> MarketState:
    """Push money out of the contract."""
    return msgspec.structs.replace(
        state, held=add(state.held, token, -amount), repaid=add(state.repaid, (to, token), amount)
    )


def with_item(mapping: MappingProxyType[K, V], key: K, value: V) -> MappingProxyType[K, V]:
    """A copy with one entry set."""
    return MappingProxyType({**mapping, key: value})


def add(mapping: MappingProxyType[K, int], key: K, delta: int) -> MappingProxyType[K, int]:
    """A copy with one entry changed by `delta`."""
    return with_item(mapping, key, mapping.get(key, 0) + delta)
