"""The settlement matrix: every way that a job can end, what each side gets, and who may call what, from when, until when.

One table. The settlement planner takes its calls from `claims`, the scenario tests walk every cell on a real EVM, the
reference page and `fabstir explain settlement` print it. Disputes are not part of contract version 1.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from fabstir.domain.terms import ProofPolicy


class Ending(StrEnum):
    """How a job ended."""

    NEVER_STARTED = "never_started"
    BEFORE_FIRST_TOKEN = "before_first_token"  # noqa: S105 - a token of a model
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DEPOSIT_EXHAUSTED = "deposit_exhausted"
    ENGINE_CRASHED = "engine_crashed"
    HOST_RESTARTED = "host_restarted"
    NETWORK_LOST = "network_lost"
    RENTER_VANISHED = "renter_vanished"
    VOUCHER_GAP = "voucher_gap"
    HOST_VANISHED = "host_vanished"
    CLOSE_REQUESTED = "close_requested"
    PROOF_MISSING = "proof_missing"
    PROOF_INVALID = "proof_invalid"
    EXPIRED = "expired"


class Pay(StrEnum):
    """What the host gets; the renter gets the rest of the deposit. The fee (5 %) is taken from the host's part."""

    NOTHING = "nothing"
    """The whole deposit goes back."""
    SIGNED = "signed"
    """floor(signed tokens * price / 1e6): everything that the renter signed for."""
    SIGNED_AND_TAIL = "signed_and_tail"
    """The same, and proven tokens that the renter did not sign for, at most W."""


class Call(StrEnum):
    """Functions of JobMarketplace."""

    COMMIT_PROOF = "commitProof"
    SUBMIT_PROOF = "submitProof"
    REDEEM = "redeem"
    CLAIM_PROVEN = "claimProven"
    CLOSE_BY_HOST = "closeByHost"
    CLOSE_COOPERATIVE = "closeCooperative"
    REQUEST_CLOSE = "requestClose"
    FINALIZE = "finalize"


class Right(msgspec.Struct, frozen=True):
    """Who may call what, from when, until when."""

    call: Call
    who: str
    start: str
    end: str


RIGHTS: Final[tuple[Right, ...]] = (
    Right(Call.COMMIT_PROOF, "host", "at once", "the job is closed"),
    Right(
        Call.SUBMIT_PROOF,
        "anyone",
        "3 blocks after the commitment",
        "258 blocks after the commitment, or the job is closed",
    ),
    Right(Call.REDEEM, "host", "at once (policy required: once proven)", "the job is closed"),
    Right(Call.CLAIM_PROVEN, "host", "once proven", "the job is closed"),
    Right(Call.CLOSE_BY_HOST, "host", "at once", "the job is closed"),
    Right(
        Call.CLOSE_COOPERATIVE,
        "renter, or anyone with the renter's voucher",
        "with the host's Close signature",
        "the job is closed",
    ),
    Right(Call.REQUEST_CLOSE, "renter", "at once", "the job is closed"),
    Right(Call.FINALIZE, "anyone", "challenge seconds after requestClose, or after expiry", "the job is closed"),
)
"""The contract's rules about callers and times; the same for every ending."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One ending under one proof policy."""

    ending: Ending
    policy: ProofPolicy
    when: str
    host_gets: Pay
    host_calls: tuple[Call, ...]
    """What the host calls to get it, in order."""
    closed_by: tuple[Call, ...]
    """Ways in which the job then ends; the first is the usual one."""


def claims(policy: ProofPolicy, pay: Pay) -> tuple[Call, ...]:
    """The calls, in order, with which a host collects `pay`. What needs no proof comes before it; a `redeem` at the end travels with
    `closeByHost`."""
    proof = (Call.COMMIT_PROOF, Call.SUBMIT_PROOF)
    match pay:
        case Pay.NOTHING:
            return ()
        case Pay.SIGNED:
            return (*(proof if policy is ProofPolicy.REQUIRED else ()), Call.REDEEM)
        case Pay.SIGNED_AND_TAIL:
            first = (*proof, Call.REDEEM) if policy is ProofPolicy.REQUIRED else (Call.REDEEM, *proof)
            return (*first, Call.CLAIM_PROVEN)


_HOST: Final = (Call.CLOSE_BY_HOST, Call.CLOSE_COOPERATIVE, Call.FINALIZE)
_WINDOW: Final = (Call.FINALIZE, Call.CLOSE_BY_HOST)
_E = Ending
_P = Pay

_ROWS: Final[tuple[tuple[Ending, str, Pay, Pay, tuple[Call, ...]], ...]] = (
    (_E.NEVER_STARTED, "the job was opened and never used", _P.NOTHING, _P.NOTHING, _HOST),
    (_E.BEFORE_FIRST_TOKEN, "it ended during prefill, nothing was delivered", _P.NOTHING, _P.NOTHING, _HOST),
    (_E.COMPLETED, "the renter ended the session", _P.SIGNED, _P.SIGNED, _HOST),
    (_E.CANCELLED, "the renter cancelled an answer and left", _P.SIGNED, _P.SIGNED, _HOST),
    (_E.DEPOSIT_EXHAUSTED, "the deposit pays for no further token", _P.SIGNED, _P.SIGNED, _HOST),
    (_E.ENGINE_CRASHED, "the engine stopped in the middle of an answer", _P.SIGNED, _P.SIGNED, _HOST),
    (_E.HOST_RESTARTED, "the host crashed, came back and settles from its journal", _P.SIGNED, _P.SIGNED, _HOST),
    (_E.NETWORK_LOST, "the connection broke; nobody came back", _P.SIGNED_AND_TAIL, _P.SIGNED_AND_TAIL, _HOST),
    (_E.RENTER_VANISHED, "the renter is gone; served tokens are not all signed", _P.SIGNED_AND_TAIL, _P.SIGNED_AND_TAIL, _HOST),
    (_E.VOUCHER_GAP, "the renter received tokens and refuses to sign for the last W", _P.SIGNED_AND_TAIL, _P.SIGNED_AND_TAIL, _HOST),
    (_E.HOST_VANISHED, "the host never comes back; vouchers are not redeemed", _P.NOTHING, _P.NOTHING, (Call.FINALIZE,)),
    (_E.CLOSE_REQUESTED, "the renter requested the close; the host redeems inside the window", _P.SIGNED, _P.SIGNED, _WINDOW),
    (_E.PROOF_MISSING, "the host cannot make a proof", _P.NOTHING, _P.SIGNED, _WINDOW),
    (_E.PROOF_INVALID, "the proof does not verify", _P.NOTHING, _P.SIGNED, _WINDOW),
    (_E.EXPIRED, "the job expired; the host redeems before anyone finalizes", _P.SIGNED, _P.SIGNED, _WINDOW),
)  # fmt: skip

MATRIX: Final[dict[tuple[Ending, ProofPolicy], Cell]] = {
    (ending, policy): Cell(
        ending=ending, policy=policy, when=when, host_gets=pay, host_calls=claims(policy, pay), closed_by=ways
    )
    for ending, when, required, fallback, ways in _ROWS
    for policy, pay in ((ProofPolicy.REQUIRED, required), (ProofPolicy.FALLBACK, fallback))
}
"""(ending, policy) -> cell. Complete by construction; a test walks all of it."""
