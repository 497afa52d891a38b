"""The renter's planner, question by question; the money comes back or buys an answer that was checked."""

from __future__ import annotations

from typing import Any

import pytest

from fabstir.domain.ids import Hash32, JobId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.prompts import Cid, PromptCompletion, PromptState, PromptStatus
from fabstir.domain.terms import ClaimStage, JobState
from fabstir.protocol.prompt_order import (
    Action,
    AssignHost,
    CancelOrder,
    DeliverVoucher,
    DisputeClaim,
    FetchResult,
    NoteAnswer,
    NoteEnded,
    NoteLapsed,
    NotePosted,
    OrderRules,
    OrderSituation,
    PostOrder,
    RefundOrder,
    RefuseResult,
    Rest,
    SignAnswer,
    plan,
)
from fabstir.protocol.prompt_order_log import (
    TRANSITIONS,
    AnswerSeen,
    AnswerSigned,
    DisputeSent,
    HostAssigned,
    HostLapsed,
    OrderEnded,
    OrderEvent,
    OrderLedger,
    OrderPlanned,
    OrderPosted,
    OrderStage,
    ResultAccepted,
    ResultRefused,
    VoucherDelivered,
    decode_event,
    encode_event,
)
from fabstir.protocol.prompt_signing import market_terms
from fabstir.protocol.signing import job_id
from tests.protocol.prompting import BOARD, MARKET, START, host_address, same, terms
from tests.protocol.prompting_world import World

ONE, TWO, THREE = (host_address(n) for n in range(3))
POSTED = PromptStatus(state=PromptState.POSTED)
UNTIL = START + 60
DEADLINE = terms().deadline
HEAD = Hash32(b"\x0f" * 32)
RULES = OrderRules(dispute_above=BaseUnits(50))


def completion(job: JobId | None = None) -> PromptCompletion:
    done = PromptCompletion(
        job=JobId(bytes(32)),
        host=ONE,
        tokens=Tokens(50),
        price=PricePerMTok(1_000_000),
        result_cid=Cid(b"\x01" * 32),
        result_hash=Hash32(b"\x02" * 32),
        expires_at=START + 86_400,
    )
    named = job or job_id(market_terms(BOARD, terms(), done))
    return PromptCompletion(
        job=named,
        host=done.host,
        tokens=done.tokens,
        price=done.price,
        result_cid=done.result_cid,
        result_hash=done.result_hash,
        expires_at=done.expires_at,
    )


EVENTS: dict[str, OrderEvent] = {
    "posted": OrderPosted(START),
    "assigned": HostAssigned(TWO, START),
    "lapsed": HostLapsed(ONE, UNTIL, START),
    "answer": AnswerSeen(completion(), START),
    "accepted": ResultAccepted(HEAD, START),
    "refused": ResultRefused("prompt_result_invalid", START),
    "signed": AnswerSigned(Tokens(50), BaseUnits(50), HEAD, b"s" * 65, START),
    "delivered": VoucherDelivered(START),
    "disputed": DisputeSent("prompt_result_invalid", START),
    "ended": OrderEnded("refunded", START),
}
STAGES = {
    OrderStage.PLANNED: "",
    OrderStage.POSTED: "posted",
    OrderStage.ANSWERED: "posted answer",
    OrderStage.ACCEPTED: "posted answer accepted",
    OrderStage.REFUSED: "posted answer refused",
    OrderStage.SIGNED: "posted answer accepted signed",
    OrderStage.DELIVERED: "posted answer accepted signed delivered",
    OrderStage.DISPUTED: "posted answer refused disputed",
    OrderStage.ENDED: "ended",
}


def ledger(names: str) -> OrderLedger:
    events = [OrderPlanned(terms(), BOARD, MARKET, START), *(EVENTS[name] for name in names.split())]
    return OrderLedger.replay([decode_event(encode_event(event)) for event in events])


def ask(
    names: str, status: PromptStatus = POSTED, now: float = START, rules: OrderRules = RULES, **known: Any
) -> Action:
    return plan(ledger(names), OrderSituation(status=status, now=now, **known), rules)


def key(verb: str, number: int = 0) -> str:
    return f"prompt:{verb}:0x{ledger('').prompt.hex()}:{number}"


def held(state: PromptState = PromptState.CLAIMED) -> PromptStatus:
    return PromptStatus(state=state, host=ONE, until=UNTIL)


# -- the log -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", OrderStage)
@pytest.mark.parametrize("event", EVENTS)
def test_the_table_is_the_log(stage: OrderStage, event: str) -> None:
    """Every stage with every event: what is in the table is taken and read back; what is not is refused and changes nothing."""
    found = ledger(STAGES[stage])
    assert found.stage is stage
    target = TRANSITIONS.get((stage, type(EVENTS[event])))
    if target is None:
        with pytest.raises(ValueError, match="cannot follow"):
            found.apply(EVENTS[event])
        assert same(found, ledger(STAGES[stage]))
    else:
        found.apply(EVENTS[event])
        assert found.stage is target
        assert same(found, ledger(f"{STAGES[stage]} {event}"))


def test_a_log_begins_with_the_plan() -> None:
    """Nothing else can be folded."""
    for events in ([], [EVENTS["posted"]]):
        with pytest.raises(ValueError, match="begins with"):
            OrderLedger.replay(events)


def test_the_market_job_is_checked() -> None:
    """A job whose terms do not hash to what the board named is not signed for."""
    good = ledger("posted answer")
    assert good.market_terms is not None and ledger("posted").market_terms is None
    assert (good.price, ledger("").price) == (50, 0)
    bad = ledger("posted")
    bad.apply(AnswerSeen(completion(JobId(b"\x01" * 32)), START))
    with pytest.raises(ValueError, match="do not hash"):
        _ = bad.market_terms


# -- before the answer ---------------------------------------------------------------------------------------------------------


def test_it_is_posted_once() -> None:
    """Under one key; what is on the board is noted; what is not wanted any more may be on its way until the deadline."""
    nothing = PromptStatus()
    assert ask("", nothing) == PostOrder(key("post"), BaseUnits(200))
    assert ask("", POSTED) == NotePosted()
    assert ask("", held()) == NotePosted()
    assert ask("", nothing, now=DEADLINE) == NoteEnded("never posted")
    assert ask("", nothing, now=DEADLINE - 1, wanted=False) == Rest("not posted, as far as the chain shows", DEADLINE)
    assert ask("", POSTED, wanted=False) == NotePosted()


def test_a_host_that_works_is_left_alone() -> None:
    """Until its time is over; even where the renter wants out."""
    assert ask("posted", held(), wanted=False) == Rest("a host works on it", UNTIL)
    assert ask("posted", held(), now=UNTIL) == NoteLapsed(ONE, UNTIL)
    assert ask("posted", held(PromptState.RESERVED), now=UNTIL) == NoteLapsed(ONE, UNTIL)
    assert ask("posted lapsed", held(), now=UNTIL) == Rest("any host may claim it", DEADLINE)


def test_the_renter_gets_out_while_nobody_works() -> None:
    """Also out of a reservation; each time under a key of its own."""
    assert ask("posted", wanted=False) == CancelOrder(key("cancel"))
    assert ask("posted", held(PromptState.RESERVED), wanted=False) == CancelOrder(key("cancel"))
    assert ask("posted lapsed", wanted=False) == CancelOrder(key("cancel", 1))


def test_after_the_deadline_the_money_comes_back() -> None:
    """Whatever else is the case."""
    for status in (POSTED, held(), held(PromptState.RESERVED)):
        for wanted in (True, False):
            assert ask("posted", status, now=DEADLINE, wanted=wanted) == RefundOrder(key("refund"))
    assert not isinstance(ask("posted", now=DEADLINE - 1), RefundOrder)


@pytest.mark.parametrize("state", [PromptState.CANCELLED, PromptState.REFUNDED])
def test_the_end_is_noted(state: PromptState) -> None:
    """Somebody else may have called it."""
    assert ask("posted", PromptStatus(state=state)) == NoteEnded(state.name.lower())
    assert ask("ended", PromptStatus(state=state)) == Rest("ended")


def test_it_is_assigned_anew_when_a_host_fails() -> None:
    """To the best that was not asked and did not fail; without a failure only where the renter wants it so."""
    hosts = (ONE, TWO, THREE)
    assert ask("posted", candidates=hosts) == Rest("any host may claim it", DEADLINE)
    eager = OrderRules(assign_at_once=True)
    assert ask("posted", rules=eager, candidates=hosts) == AssignHost(key("assign"), ONE)
    assert ask("posted lapsed", candidates=hosts) == AssignHost(key("assign"), TWO)
    assert ask("posted lapsed assigned", candidates=hosts) == AssignHost(key("assign", 1), THREE)
    assert ask("posted lapsed assigned", candidates=hosts[:2]) == Rest("any host may claim it", DEADLINE)
    one_try = OrderRules(max_assignments=1)
    assert isinstance(ask("posted lapsed assigned", rules=one_try, candidates=hosts), Rest)
    assert ask("posted assigned", held(PromptState.RESERVED), candidates=hosts) == Rest("reserved", UNTIL)


# -- after the answer ----------------------------------------------------------------------------------------------------------

DONE = PromptStatus(state=PromptState.COMPLETED, host=ONE)
CLAIM = JobState(deposit=BaseUnits(50), held_until=START + 900, stage=ClaimStage.CLAIMED)


def test_a_checked_answer_is_signed_for() -> None:
    """Noted, fetched, checked, signed, delivered: the host needs no proof under the policy fallback."""
    assert ask("posted", DONE, completion=completion()) == NoteAnswer(completion())
    assert ask("posted", DONE) == Rest("the event of the completion is awaited")
    fetch = FetchResult(completion().result_cid, completion().result_hash, Tokens(50), None)
    assert ask("posted answer", DONE) == fetch
    assert ask("posted answer accepted", DONE) == SignAnswer(completion().job, Tokens(50), BaseUnits(50), HEAD)
    assert ask("posted answer accepted signed", DONE) == DeliverVoucher(ONE)
    assert ask("posted answer accepted signed delivered", DONE) == Rest("the market settles it")


def test_a_false_answer_is_disputed() -> None:
    """Once the host claims, and not after the claim is paid; an amount that is worth less than the gas is let go."""
    refused = "posted answer refused"
    assert ask(refused, DONE) == Rest("the host has not claimed")
    dispute = DisputeClaim(key("dispute"), completion().job, "prompt_result_invalid")
    assert ask(refused, DONE, job=CLAIM) == dispute
    assert ask(refused, DONE, now=START + 899, job=CLAIM) == dispute
    assert ask(refused, DONE, now=START + 900, job=CLAIM) == Rest("too late for a dispute")
    assert ask(refused, DONE, job=CLAIM, rules=OrderRules(dispute_above=BaseUnits(51))) == Rest(
        "worth less than a dispute"
    )
    assert ask(refused + " disputed", DONE, job=CLAIM) == Rest("the market settles it")
    answered = JobState(deposit=BaseUnits(50), held_until=START + 900, stage=ClaimStage.ANSWERED)
    assert ask(refused, DONE, job=answered) == Rest("the host has not claimed")


def test_an_answer_that_cannot_be_fetched_is_disputed_in_time() -> None:
    """Tried until the margin before the claim is paid."""
    action = ask("posted answer", DONE, now=START + 599, job=CLAIM)
    assert isinstance(action, FetchResult) and action.until == START + 600
    assert ask("posted answer", DONE, now=START + 600, job=CLAIM) == RefuseResult("host_unreachable")


@pytest.mark.parametrize(
    "stage", [s for s in OrderStage if s not in (OrderStage.PLANNED, OrderStage.POSTED, OrderStage.ENDED)]
)
def test_a_settled_job_is_the_end(stage: OrderStage) -> None:
    """In every stage after the answer."""
    assert ask(STAGES[stage], DONE, job=JobState(deposit=BaseUnits(50), closed=True)) == NoteEnded("settled")


def test_a_closed_job_whose_claim_is_held_can_still_be_disputed() -> None:
    """A host that claims and closes at once does not escape: the order goes on until the claim is decided."""
    closed = JobState(deposit=BaseUnits(50), closed=True, held_until=START + 900, stage=ClaimStage.CLAIMED)
    assert isinstance(ask("posted answer refused", DONE, job=closed), DisputeClaim)
    assert isinstance(ask("posted answer", DONE, job=closed), FetchResult)
    assert ask("posted answer refused disputed", DONE, job=closed) == Rest("the market settles it")


# -- the whole life ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_step_changes_nothing(after: bool) -> None:
    """Posted once, signed once."""
    for steps in range(1, 20):
        world = World(1)
        world.renter.order(terms())
        world.renter.fuse, world.renter.dies_after = steps, after
        world.pass_time(60)
        assert world.ended() and world.reverted == []
        assert list(world.renter.outbox.values()) == ["mined"]
        assert len(world.board.jobs) == 1
        if world.renter.fuse > 0:
            return
    raise AssertionError("too many steps")


def test_a_host_that_dies_is_replaced() -> None:
    """It claims and dies; its time runs out, the job is assigned to another, which answers."""
    world = World(2)
    world.renter.order(terms())
    first, second = world.processes
    second.down = 20
    first.fuse = 4
    world.pass_time(10)
    assert world.board.status(next(iter(world.terms))).host == first.account
    first.down = 1_000
    world.pass_time(120)
    (done,) = world.board.jobs.values()
    assert done[0].host == second.account and world.ended()
    assert [event.name for event in world.board.events].count("PromptAssigned") == 1
