"""The settlement matrix: every way that a job can end, what each side gets, and who may call what,
from when, until when, at what gas.

One table for both kinds of job. The settlement planner takes its calls from `claims`, the scenario tests walk every cell on
a real EVM, the reference page and `fabstir explain settlement` print it. Rules of the contracts: `RIGHTS`; disputes:
docs/decisions/0005-disputes-stake-and-prompt-jobs.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from fabstir.domain.terms import ProofPolicy


class Kind(StrEnum):
    """Of a job."""

    SESSION = "session"
    """A channel: the renter is there and signs as it receives."""
    PROMPT = "prompt"
    """One question, answered later by whoever takes it; its host is found by PromptBoard."""


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
    NEVER_CLAIMED = "never_claimed"
    HOST_FAILED = "host_failed"
    ACKNOWLEDGED = "acknowledged"
    SIGNED_LATE = "signed_late"
    AGREED_LATE = "agreed_late"
    DISPUTE_ANSWERED = "dispute_answered"
    DISPUTE_UNANSWERED = "dispute_unanswered"
    RULED_FOR_HOST = "ruled_for_host"
    RULED_FOR_RENTER = "ruled_for_renter"
    ARBITER_SILENT = "arbiter_silent"
    CLAIM_CONTRADICTED = "claim_contradicted"


class Pay(StrEnum):
    """What the host gets; the renter gets the rest of the deposit. The fee (5 %) is taken from the host's part."""

    NOTHING = "nothing"
    """The whole deposit goes back."""
    SIGNED = "signed"
    """floor(signed tokens * price / 1e6): everything that the renter signed for."""
    SIGNED_AND_TAIL = "signed_and_tail"
    """The same, and proven tokens that the renter did not sign for, at most W; of a prompt W is the whole answer."""


class Bond(StrEnum):
    """Where the renter's bond goes after a dispute."""

    NONE = "none"
    """Nothing was disputed."""
    TO_RENTER = "to_renter"
    TO_HOST = "to_host"


class Call(StrEnum):
    """Functions of JobMarketplace and EpochProofs, then those of PromptBoard."""

    TOP_UP = "topUp"
    COMMIT_PROOF = "commitProof"
    SUBMIT_PROOF = "submitProof"
    REDEEM = "redeem"
    COMMIT_EPOCH = "commitEpoch"
    PROVE_EPOCH = "proveEpoch"
    REDEEM_BY_EPOCH = "redeemByEpoch"
    CLAIM_PROVEN = "claimProven"
    DISPUTE = "dispute"
    CONTRADICT = "contradict"
    ANSWER_DISPUTE = "answerDispute"
    RULE = "rule"
    SETTLE_CLAIM = "settleClaim"
    CLOSE_BY_HOST = "closeByHost"
    CLOSE_COOPERATIVE = "closeCooperative"
    REQUEST_CLOSE = "requestClose"
    FINALIZE = "finalize"
    CLAIM = "claim"
    ASSIGN = "assignJobToHost"
    RELEASE = "release"
    COMPLETE = "complete"
    CANCEL = "cancel"
    REFUND = "refund"


class Right(msgspec.Struct, frozen=True):
    """Who may call what, from when, until when, at what gas."""

    call: Call
    who: str
    start: str
    end: str
    gas: int
    """Of one call with its transaction in its usual case, in USDC, rounded up; tests/chain/test_gas.py holds it to a real EVM. An answer
    opens 64 records, the ruling is the dearer one (for the renter), the ledgers have been written to before."""


_CLOSED: Final = "the job is closed"
RIGHTS: Final[tuple[Right, ...]] = (
    Right(Call.TOP_UP, "anyone", "at once", _CLOSED, 59_000),
    Right(Call.COMMIT_PROOF, "host", "at once, while no claim is undecided", _CLOSED, 55_000),
    Right(Call.SUBMIT_PROOF, "anyone", "3 blocks after the commitment", "258 blocks after the commitment, or the job is closed", 500_000),
    Right(Call.REDEEM, "host", "at once (policy required: once proven, alone or in an epoch)", _CLOSED, 58_000),
    Right(Call.COMMIT_EPOCH, "a host, for its own sessions", "at once, while no epoch of it waits for its proof", "never", 30_000),
    Right(Call.PROVE_EPOCH, "anyone", "3 blocks after the commitment", "258 blocks after the commitment", 525_000),
    Right(Call.REDEEM_BY_EPOCH, "host", "once the epoch is proven", _CLOSED, 72_000),
    Right(Call.CLAIM_PROVEN, "host with a stake", "once proven, not by an epoch", "the job is closed, or a claim in it was lost", 75_000),
    Right(Call.DISPUTE, "renter, with the bond", "a claim is held", "challenge seconds after the claim", 59_000),
    Right(Call.CONTRADICT, "anyone with the host's Close for fewer tokens", "a claim is held", "the claim is decided", 101_000),
    Right(Call.ANSWER_DISPUTE, "host", "the claim is disputed", "challenge seconds after the dispute", 199_000),
    Right(Call.RULE, "arbiter of the terms", "the dispute is answered", "challenge seconds after the answer", 106_000),
    Right(Call.SETTLE_CLAIM, "anyone", "the stage of the claim is over", "the claim is decided", 46_000),
    Right(Call.CLOSE_BY_HOST, "host", "at once", _CLOSED, 76_000),
    Right(Call.CLOSE_COOPERATIVE, "renter, or anyone with the renter's voucher", "with the host's Close signature", _CLOSED, 75_000),
    Right(Call.REQUEST_CLOSE, "renter", "at once", _CLOSED, 54_000),
    Right(Call.FINALIZE, "anyone", "challenge seconds after requestClose, or after expiry", _CLOSED, 54_000),
    Right(Call.CLAIM, "an active host within the price, or its delegate",
          "the prompt is posted, lapsed, or reserved for it", "the deadline", 76_000),
    Right(Call.ASSIGN, "renter, or the assigner of the terms", "no claim runs", "the deadline", 76_000),
    Right(Call.RELEASE, "the host that claimed, or its delegate", "it has claimed", "its claim is over", 36_000),
    Right(Call.COMPLETE, "the host that claimed", "it has claimed", "its claim is over", 118_000),
    Right(Call.CANCEL, "renter", "no claim runs", "the prompt has ended", 55_000),
    Right(Call.REFUND, "anyone", "the deadline", "the prompt has ended", 55_000),
)  # fmt: skip
"""The contracts' rules about callers and times; the same for every ending."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One ending of one kind of job under one proof policy."""

    kind: Kind
    ending: Ending
    policy: ProofPolicy
    when: str
    host_gets: Pay
    host_calls: tuple[Call, ...]
    """What the host calls to get it, in order; no `redeem` where nothing was signed."""
    other_calls: tuple[Call, ...] = ()
    """What others call meanwhile, in order."""
    closed_by: tuple[Call, ...]
    """Ways in which the job then ends; the first is the usual one."""
    bond: Bond = Bond.NONE
    slashed: bool = False
    """The host loses a fixed slice of its stake, the renter is compensated first."""


def claims(policy: ProofPolicy, pay: Pay) -> tuple[Call, ...]:
    """The calls, in order, with which a host collects `pay`. What needs no proof comes before it; a `redeem` at the end travels with
    `closeByHost`. Of several jobs that are due together, `commitProof` and `submitProof` are one epoch's (`commitEpoch`, `proveEpoch`,
    `redeemByEpoch`) where only signed tokens are to be proven; a tail needs the job's own.

    What is claimed is paid by `settleClaim`, once nobody has disputed it in time."""
    proof = (Call.COMMIT_PROOF, Call.SUBMIT_PROOF)
    match pay:
        case Pay.NOTHING:
            return ()
        case Pay.SIGNED:
            return (*(proof if policy is ProofPolicy.REQUIRED else ()), Call.REDEEM)
        case Pay.SIGNED_AND_TAIL:
            first = (*proof, Call.REDEEM) if policy is ProofPolicy.REQUIRED else (Call.REDEEM, *proof)
            return (*first, Call.CLAIM_PROVEN, Call.SETTLE_CLAIM)


class _Row(msgspec.Struct, frozen=True):
    """One ending: what it is, what the host gets under `required` and `fallback`, how the job closes."""

    ending: Ending
    when: str
    pays: tuple[Pay, Pay]
    closed_by: tuple[Call, ...]
    taken: tuple[Call, ...] = ()
    """By the host, before there is a job in the market."""
    claimed: tuple[Call, ...] | None = None
    """The unsigned part was claimed; then the host called this. None: what the host calls is what it gets."""
    other_calls: tuple[Call, ...] = ()
    bond: Bond = Bond.NONE
    slashed: bool = False


_E, _C = Ending, Call
_NONE: Final = (Pay.NOTHING, Pay.NOTHING)
_SIGNED: Final = (Pay.SIGNED, Pay.SIGNED)
_PROVEN: Final = (Pay.NOTHING, Pay.SIGNED)
_TAIL: Final = (Pay.SIGNED_AND_TAIL, Pay.SIGNED_AND_TAIL)
_ANSWER: Final = (_C.ANSWER_DISPUTE,)
_THERE: Final = (_C.CLAIM, _C.COMPLETE)
_HOST: Final = (_C.CLOSE_BY_HOST, _C.CLOSE_COOPERATIVE, _C.FINALIZE)
_ALONE: Final = (_C.CLOSE_BY_HOST, _C.FINALIZE)
_WINDOW: Final = (_C.FINALIZE, _C.CLOSE_BY_HOST)

_DISPUTES: Final = (
    _Row(_E.SIGNED_LATE, "the renter signs for the claimed tokens after all", _SIGNED, _ALONE, claimed=(_C.REDEEM,)),
    _Row(_E.AGREED_LATE, "both agree on the amount while the claim is held", _SIGNED, (_C.CLOSE_COOPERATIVE,), claimed=()),
    _Row(_E.DISPUTE_ANSWERED, "disputed; the host opens its records, and the terms name no arbiter",
         _TAIL, _ALONE, claimed=_ANSWER, other_calls=(_C.DISPUTE,), bond=Bond.TO_HOST),
    _Row(_E.DISPUTE_UNANSWERED, "disputed; the host does not answer in time",
         _SIGNED, _ALONE, claimed=(), other_calls=(_C.DISPUTE, _C.SETTLE_CLAIM), bond=Bond.TO_RENTER, slashed=True),
    _Row(_E.RULED_FOR_HOST, "disputed and answered; the arbiter finds the host right",
         _TAIL, _ALONE, claimed=_ANSWER, other_calls=(_C.DISPUTE, _C.RULE), bond=Bond.TO_HOST),
    _Row(_E.RULED_FOR_RENTER, "disputed and answered; the arbiter finds the renter right",
         _SIGNED, _ALONE, claimed=_ANSWER, other_calls=(_C.DISPUTE, _C.RULE), bond=Bond.TO_RENTER, slashed=True),
    _Row(_E.ARBITER_SILENT, "disputed and answered; the arbiter does not rule in time",
         _TAIL, _ALONE, claimed=(*_ANSWER, _C.SETTLE_CLAIM), other_calls=(_C.DISPUTE,), bond=Bond.TO_RENTER),
)  # fmt: skip
"""Of a claim of tokens that the renter did not sign for; the same for both kinds of job."""

_SESSIONS: Final = (
    _Row(_E.NEVER_STARTED, "the job was opened and never used", _NONE, _HOST),
    _Row(_E.BEFORE_FIRST_TOKEN, "it ended during prefill, nothing was delivered", _NONE, _HOST),
    _Row(_E.COMPLETED, "the renter ended the session", _SIGNED, _HOST),
    _Row(_E.CANCELLED, "the renter cancelled an answer and left", _SIGNED, _HOST),
    _Row(_E.DEPOSIT_EXHAUSTED, "the deposit pays for no further token and is not topped up", _SIGNED, _HOST),
    _Row(_E.ENGINE_CRASHED, "the engine stopped in the middle of an answer", _SIGNED, _HOST),
    _Row(_E.HOST_RESTARTED, "the host crashed, came back and settles from its journal", _SIGNED, _HOST),
    _Row(_E.NETWORK_LOST, "the connection broke; nobody came back", _TAIL, _HOST),
    _Row(_E.RENTER_VANISHED, "the renter is gone; served tokens are not all signed", _TAIL, _HOST),
    _Row(_E.VOUCHER_GAP, "the renter received tokens and refuses to sign for the last W", _TAIL, _HOST),
    _Row(_E.HOST_VANISHED, "the host never comes back; vouchers are not redeemed", _NONE, (_C.FINALIZE,)),
    _Row(_E.CLOSE_REQUESTED, "the renter requested the close; the host redeems inside the window", _SIGNED, _WINDOW),
    _Row(_E.PROOF_MISSING, "the host cannot make a proof", _PROVEN, _WINDOW),
    _Row(_E.PROOF_INVALID, "the proof does not verify", _PROVEN, _WINDOW),
    _Row(_E.EXPIRED, "the job expired; the host redeems before anyone finalizes", _SIGNED, _WINDOW),
    _Row(_E.CLAIM_CONTRADICTED, "the host signed the end at fewer tokens than it claims",
         _SIGNED, _ALONE, claimed=(), other_calls=(_C.CONTRADICT,), slashed=True),
    *_DISPUTES,
)  # fmt: skip


def _of_a_prompt(row: _Row) -> _Row:
    """A dispute about an answer: nothing of it was signed before, so what is lost is all."""
    lost = row.slashed and row.pays == _SIGNED
    return msgspec.structs.replace(row, taken=_THERE, pays=_NONE if lost else row.pays)


_PROMPTS: Final = (
    _Row(_E.NEVER_CLAIMED, "no host claimed the prompt before its deadline", _NONE, (_C.REFUND,)),
    _Row(_E.CANCELLED, "the renter took it back while no claim ran", _NONE, (_C.CANCEL,)),
    _Row(_E.HOST_FAILED, "a host claimed it and did not answer; nobody else took it",
         _NONE, (_C.REFUND, _C.CANCEL), taken=(_C.CLAIM,)),
    _Row(_E.COMPLETED, "the answer is there, the renter says nothing", _TAIL, _ALONE, taken=_THERE),
    _Row(_E.ACKNOWLEDGED, "the renter fetched the answer and signed for it", _SIGNED, _HOST, taken=_THERE),
    _Row(_E.PROOF_MISSING, "the host answered and cannot make a proof, the renter signs nothing", _NONE, _WINDOW, taken=_THERE),
    _Row(_E.PROOF_INVALID, "the host answered and its proof does not verify, the renter signs nothing", _NONE, _WINDOW, taken=_THERE),
    _Row(_E.HOST_VANISHED, "the host answered and never settles", _NONE, (_C.FINALIZE,), taken=_THERE),
    *(_of_a_prompt(row) for row in _DISPUTES),
)  # fmt: skip


def _host_calls(kind: Kind, policy: ProofPolicy, pay: Pay, row: _Row) -> tuple[Call, ...]:
    calls = claims(policy, pay)
    if row.claimed is not None:
        calls = (*claims(policy, Pay.SIGNED_AND_TAIL)[:-1], *row.claimed)
    if kind is Kind.PROMPT and Call.CLAIM_PROVEN in calls:  # whatever is signed of an answer is signed after that
        at = calls.index(Call.CLAIM_PROVEN)
        calls = (*(call for call in calls[:at] if call is not Call.REDEEM), *calls[at:])
    return (*row.taken, *calls)


def _cells(kind: Kind, row: _Row) -> list[Cell]:
    return [
        Cell(
            kind=kind,
            ending=row.ending,
            policy=policy,
            when=row.when,
            host_gets=pay,
            host_calls=_host_calls(kind, policy, pay, row),
            other_calls=row.other_calls,
            closed_by=row.closed_by,
            bond=row.bond,
            slashed=row.slashed,
        )
        for policy, pay in zip((ProofPolicy.REQUIRED, ProofPolicy.FALLBACK), row.pays, strict=True)
    ]


MATRIX: Final[dict[tuple[Kind, Ending, ProofPolicy], Cell]] = {
    (cell.kind, cell.ending, cell.policy): cell
    for kind, rows in ((Kind.SESSION, _SESSIONS), (Kind.PROMPT, _PROMPTS))
    for row in rows
    for cell in _cells(kind, row)
}
"""(kind, ending, policy) -> cell. A test walks all of it."""
