"""What a renter does next about one prompt job: a pure planner over its ledger, the chain's state and the clock.

`plan` returns one action; a shell carries it out, writes down the event that it names, and asks again. The renter need not be
there while a host works: nothing here has a deadline before the answer but the refund, which never gets lost, and after it
only the window in which a false claim can be disputed. Restart-safe, because nothing is remembered here.
"""

from __future__ import annotations

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, to_hex
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.prompts import Cid, PromptCompletion, PromptState, PromptStatus
from fabstir.domain.terms import ClaimStage, JobState
from fabstir.protocol.prompt_order_log import OrderLedger, OrderStage
from fabstir.protocol.prompt_signing import escrow_of
from fabstir.protocol.settlement_disputes import UNDECIDED


class OrderRules(msgspec.Struct, frozen=True, kw_only=True):
    """The renter's choices."""

    assign_at_once: bool = False
    """Reserve for a host from the start; otherwise only once somebody let the job run out."""
    max_assignments: int = 3
    dispute_above: BaseUnits = BaseUnits(2_000)
    """A claim that is worth less than the gas of a dispute is not disputed."""
    dispute_margin: float = 300.0
    """Seconds before a claim is paid at which an answer that could not be fetched is disputed."""


class OrderSituation(msgspec.Struct, frozen=True, kw_only=True):
    """What is known now."""

    status: PromptStatus
    now: float
    """Unix seconds of the newest block: what is over by it is over for every transaction that is still on its way."""
    completion: PromptCompletion | None = None
    """The board's event, once there is one."""
    candidates: tuple[Address, ...] = ()
    """Hosts that serve the model within the ceiling, best first."""
    wanted: bool = True
    """False: the renter wants its money back as soon as nobody works."""
    job: JobState | None = None
    """The market job, once there is one."""

    @property
    def claim_until(self) -> int:
        """Unix seconds at which the host's claim in the market is paid unless it is disputed; 0 while there is no such claim."""
        return self.job.held_until if self.job is not None and self.job.stage is ClaimStage.CLAIMED else 0


# -- actions -------------------------------------------------------------------------------------------------------------------


class Rest(msgspec.Struct, frozen=True):
    """Nothing to do before `until`, or before something happens where it is None."""

    reason: str
    until: float | None = None


class PostOrder(msgspec.Struct, frozen=True):
    """Post under `key`; then `NotePosted` follows from the chain."""

    key: str
    escrow: BaseUnits


class NotePosted(msgspec.Struct, frozen=True):
    """Log `OrderPosted`."""


class NoteLapsed(msgspec.Struct, frozen=True):
    """Log `HostLapsed`."""

    host: Address
    until: int


class AssignHost(msgspec.Struct, frozen=True):
    """Log `HostAssigned`, then reserve under `key`; refused or not, ask again."""

    key: str
    host: Address


class CancelOrder(msgspec.Struct, frozen=True):
    """Take the money back under `key`: nobody works."""

    key: str


class RefundOrder(msgspec.Struct, frozen=True):
    """Take the money back under `key`: the deadline has passed."""

    key: str


class NoteAnswer(msgspec.Struct, frozen=True):
    """Log `AnswerSeen`."""

    completion: PromptCompletion


class FetchResult(msgspec.Struct, frozen=True):
    """Fetch by CID, check, open, `prompt_content.check_result`; log `ResultAccepted` or `ResultRefused`. Not reachable: ask again
    later, not after `until`."""

    cid: Cid
    hash: Hash32
    tokens: Tokens
    until: float | None


class RefuseResult(msgspec.Struct, frozen=True):
    """Log `ResultRefused`: it could not be fetched in time."""

    code: str


class SignAnswer(msgspec.Struct, frozen=True):
    """Sign a voucher for the whole answer; log `AnswerSigned`."""

    job: JobId
    tokens: Tokens
    amount: BaseUnits
    transcript: Hash32


class DeliverVoucher(msgspec.Struct, frozen=True):
    """Send the voucher to the host; log `VoucherDelivered` once it has it. Not reachable: its proof pays it as well."""

    host: Address


class DisputeClaim(msgspec.Struct, frozen=True):
    """Log `DisputeSent`, then dispute under `key`."""

    key: str
    job: JobId
    reason: str


class NoteEnded(msgspec.Struct, frozen=True):
    """Log `OrderEnded`."""

    how: str


Action = (
    Rest
    | PostOrder
    | NotePosted
    | NoteLapsed
    | AssignHost
    | CancelOrder
    | RefundOrder
    | NoteAnswer
    | FetchResult
    | RefuseResult
    | SignAnswer
    | DeliverVoucher
    | DisputeClaim
    | NoteEnded
)


def plan(ledger: OrderLedger, situation: OrderSituation, rules: OrderRules) -> Action:
    """The next action for one order."""
    match ledger.stage:
        case OrderStage.ENDED:
            return Rest("ended")
        case OrderStage.PLANNED:
            return _post(ledger, situation)
        case OrderStage.POSTED:
            return _await_answer(ledger, situation, rules)
    if situation.job is not None and situation.job.closed and situation.job.stage not in UNDECIDED:
        return NoteEnded("settled")  # a job can be closed while its claim is held, and the claim disputed after that
    return _after_answer(ledger, situation, rules)


def _post(ledger: OrderLedger, situation: OrderSituation) -> Action:
    if situation.status.state is not PromptState.NONE:
        return NotePosted()
    if situation.now >= ledger.terms.deadline:
        return NoteEnded("never posted")
    if not situation.wanted:  # a transaction may be on its way; after the deadline the contract takes none
        return Rest("not posted, as far as the chain shows", ledger.terms.deadline)
    return PostOrder(_key("post", ledger), escrow_of(ledger.terms))


def _await_answer(ledger: OrderLedger, situation: OrderSituation, rules: OrderRules) -> Action:
    status, now = situation.status, situation.now
    if status.ended:
        if status.state is not PromptState.COMPLETED:
            return NoteEnded(status.state.name.lower())
        done = situation.completion
        return NoteAnswer(done) if done is not None else Rest("the event of the completion is awaited")
    if now >= ledger.terms.deadline:
        return RefundOrder(_key("refund", ledger))
    running = status.state in (PromptState.CLAIMED, PromptState.RESERVED)
    if running and now >= status.until and (status.host, status.until) not in ledger.lapses:
        return NoteLapsed(status.host, status.until)
    if status.state is PromptState.CLAIMED and now < status.until:
        return Rest("a host works on it", status.until)
    if not situation.wanted:
        return CancelOrder(_key("cancel", ledger, len(ledger.lapses)))
    if running and now < status.until:
        return Rest("reserved", status.until)
    return _assign(ledger, situation, rules)


def _assign(ledger: OrderLedger, situation: OrderSituation, rules: OrderRules) -> Action:
    """Nobody has it: ask somebody who was not asked before and has not let it run out, where there are reasons to."""
    host = _candidate(ledger, situation, rules)
    if host == ZERO_ADDRESS:
        return Rest("any host may claim it", ledger.terms.deadline)
    return AssignHost(_key("assign", ledger, len(ledger.assigned)), host)


def _candidate(ledger: OrderLedger, situation: OrderSituation, rules: OrderRules) -> Address:
    due = rules.assign_at_once or ledger.lapses
    if not due or len(ledger.assigned) >= rules.max_assignments:
        return ZERO_ADDRESS
    tried = ledger.lapsed | frozenset(ledger.assigned)
    return next((host for host in situation.candidates if host not in tried), ZERO_ADDRESS)


def _after_answer(ledger: OrderLedger, situation: OrderSituation, rules: OrderRules) -> Action:
    answer = ledger.answer
    if answer is None:
        raise AssertionError(f"no answer while {ledger.stage.value}")
    match ledger.stage:
        case OrderStage.ANSWERED:
            last = situation.claim_until - rules.dispute_margin if situation.claim_until else None
            if last is not None and situation.now >= last:
                return RefuseResult("host_unreachable")
            return FetchResult(answer.result_cid, answer.result_hash, answer.tokens, last)
        case OrderStage.ACCEPTED:
            if ledger.transcript is None:
                raise AssertionError("an accepted result has a transcript")
            return SignAnswer(answer.job, answer.tokens, ledger.price, ledger.transcript)
        case OrderStage.SIGNED:
            return DeliverVoucher(answer.host)
        case OrderStage.REFUSED:
            return _dispute(ledger, answer, situation, rules)
    return Rest("the market settles it")


def _dispute(ledger: OrderLedger, answer: PromptCompletion, situation: OrderSituation, rules: OrderRules) -> Action:
    """There is nothing to dispute before the host claims."""
    if ledger.price < rules.dispute_above:
        return Rest("worth less than a dispute")
    if not situation.claim_until:
        return Rest("the host has not claimed")
    if situation.now >= situation.claim_until:
        return Rest("too late for a dispute")
    return DisputeClaim(_key("dispute", ledger), answer.job, ledger.fault)


def _key(verb: str, ledger: OrderLedger, number: int = 0) -> str:
    return f"prompt:{verb}:{to_hex(ledger.prompt)}:{number}"
