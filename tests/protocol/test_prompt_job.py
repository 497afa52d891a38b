"""The host's planner, question by question; and the whole life of a job, where it may die at every durable step."""

from __future__ import annotations

from typing import Any

import pytest

from fabstir.domain.ids import Hash32, JobId
from fabstir.domain.money import PricePerMTok, Tokens
from fabstir.domain.prompts import Cid, PromptCompletion, PromptState, PromptStatus
from fabstir.protocol.host_log import HostLedger, JobAdmitted, SessionFinished, TokensServed, TurnStarted
from fabstir.protocol.prompt_job import (
    Action,
    Execute,
    FetchPrompt,
    GiveUp,
    HandOver,
    NoteCompleted,
    NoteExpired,
    NoteHeld,
    NoteLost,
    PromptRules,
    PromptSituation,
    Rest,
    SendClaim,
    SendComplete,
    SendRelease,
    StoreResult,
    handover,
    plan,
)
from fabstir.protocol.prompt_log import (
    TRANSITIONS,
    ClaimHeld,
    ClaimLost,
    ClaimReleased,
    ClaimSent,
    CompleteSent,
    ExecutionFailed,
    ExecutionStarted,
    HandedOver,
    PromptCompleted,
    PromptEvent,
    PromptExpired,
    PromptLedger,
    PromptSeen,
    ResultMade,
    ResultMissing,
    ResultStored,
    Stage,
    decode_event,
    encode_event,
)
from fabstir.protocol.prompt_signing import market_terms
from fabstir.protocol.signing import job_id
from tests.protocol.prompting import BOARD, MARKET, RENTER, START, host_address, same, terms
from tests.protocol.prompting_world import World

HOST, OTHER = host_address(0), host_address(1)
POSTED = PromptStatus(state=PromptState.POSTED)
UNTIL = START + 60
OURS = PromptStatus(state=PromptState.CLAIMED, host=HOST, until=UNTIL, price=PricePerMTok(1_000_000))
THEIRS = PromptStatus(state=PromptState.CLAIMED, host=OTHER, until=UNTIL)
MADE = ResultMade(Cid(b"\x01" * 32), Hash32(b"\x02" * 32), Hash32(b"\x03" * 32), b"r" * 64, START)
HELD = ClaimHeld(PricePerMTok(1_000_000), UNTIL, START)
RULES = PromptRules()


def completion(**changes: Any) -> PromptCompletion:
    fields: dict[str, Any] = {
        "job": JobId(bytes(32)),
        "host": HOST,
        "tokens": Tokens(2),
        "price": PricePerMTok(1_000_000),
        "result_cid": MADE.cid,
        "result_hash": MADE.hash,
        "expires_at": START + 86_400,
    }
    done = PromptCompletion(**fields | changes)
    return PromptCompletion(**fields | {"job": job_id(market_terms(BOARD, terms(), done))} | changes)


EVENTS: dict[str, PromptEvent] = {
    "sent": ClaimSent(1, START),
    "held": HELD,
    "lost": ClaimLost("taken", START),
    "started": ExecutionStarted(START),
    "made": MADE,
    "stored": ResultStored(START),
    "missing": ResultMissing(START),
    "completing": CompleteSent(START),
    "completed": PromptCompleted(completion(), START),
    "handed": HandedOver(START),
    "failed": ExecutionFailed("engine_failed", START),
    "released": ClaimReleased("too_late", START),
    "expired": PromptExpired("deadline", START),
}
STAGES = {
    Stage.SEEN: "",
    Stage.CLAIMING: "sent",
    Stage.CLAIMED: "sent held",
    Stage.RUNNING: "sent held started",
    Stage.MADE: "sent held started made",
    Stage.STORED: "sent held started made stored",
    Stage.COMPLETING: "sent held started made stored completing",
    Stage.COMPLETED: "sent held started made stored completing completed",
    Stage.SETTLING: "sent held started made stored completing completed handed",
    Stage.FAILED: "sent held failed",
    Stage.ENDED: "expired",
}


def ledger(names: str) -> PromptLedger:
    events = [PromptSeen(terms(), BOARD, MARKET, HOST, START), *(EVENTS[name] for name in names.split())]
    return PromptLedger.replay([decode_event(encode_event(event)) for event in events])


def ask(names: str, status: PromptStatus, now: float = START, **known: Any) -> Action:
    """`needed` is 12.5 s unless said otherwise."""
    facts: dict[str, Any] = {"status": status, "now": now, "needed": 12.5}
    return plan(ledger(names), PromptSituation(**facts | known), RULES)


def key(verb: str, number: int) -> str:
    return f"prompt:{verb}:0x{ledger('').prompt.hex()}:{number}"


# -- the log -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("event", EVENTS)
def test_the_table_is_the_log(stage: Stage, event: str) -> None:
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
        assert same(found, ledger(f"{STAGES[stage]} {event}"))
        kept = event == "held" and found.result is not None
        assert found.stage is target or kept


def test_a_log_begins_with_what_was_seen() -> None:
    """Nothing else can be folded."""
    for events in ([], [EVENTS["sent"]]):
        with pytest.raises(ValueError, match="begins with"):
            PromptLedger.replay(events)


def test_an_answer_outlives_its_claim() -> None:
    """The claim ran out, the answer is there: the next claim goes on where it was, and does not generate again."""
    again = ledger("sent held started made stored lost sent held")
    assert (again.stage, again.holds, again.stored) == (Stage.STORED, 2, True)
    unstored = ledger("sent held started made lost sent held")
    assert (unstored.stage, unstored.stored) == (Stage.MADE, False)
    second = ledger("sent held started made missing started made")
    assert (second.stage, second.stored, second.executions) == (Stage.MADE, False, 2)


def test_the_market_job_is_checked() -> None:
    """Where its terms do not hash to what the board named, this program and the contract differ: nothing may be signed."""
    good = ledger(STAGES[Stage.COMPLETED])
    assert good.market_terms is not None and good.head is not None and ledger("").head is None
    bad = ledger(STAGES[Stage.COMPLETING])
    bad.apply(PromptCompleted(completion(job=JobId(b"\x01" * 32)), START))
    with pytest.raises(ValueError, match="do not hash"):
        _ = bad.market_terms


# -- before the claim ----------------------------------------------------------------------------------------------------------


def test_only_what_the_queue_chose_is_claimed() -> None:
    """And only while the board lets this host."""
    assert ask("", POSTED) == Rest("queued")
    assert ask("", POSTED, chosen=True) == SendClaim(key("claim", 1), 1)
    assert ask("", THEIRS, chosen=True) == Rest("queued")
    assert ask("", THEIRS, now=UNTIL, chosen=True) == SendClaim(key("claim", 1), 1)
    reserved = PromptStatus(state=PromptState.RESERVED, host=HOST, until=UNTIL)
    assert ask("", reserved, chosen=True) == SendClaim(key("claim", 1), 1)
    reserved = PromptStatus(state=PromptState.RESERVED, host=OTHER, until=UNTIL)
    assert ask("", reserved, chosen=True) == Rest("queued")
    assert ask("", PromptStatus(), chosen=True) == Rest("queued"), "a reorganisation took the post back"


def test_each_claim_has_a_key_of_its_own() -> None:
    """The outbox sends each once; a second claim, release or completion is another one."""
    assert ask("sent lost", POSTED, chosen=True) == SendClaim(key("claim", 2), 2)
    assert ask("sent held failed", OURS) == SendRelease(key("release", 1), "engine_failed")
    assert ask("sent held lost sent held failed", OURS) == SendRelease(key("release", 2), "engine_failed")
    stored = STAGES[Stage.STORED]
    assert ask(stored, OURS) == SendComplete(key("complete", 1), Tokens(2))
    assert ask(f"{stored} lost sent held", OURS) == SendComplete(key("complete", 2), Tokens(2))


def test_a_claim_is_sent_again_only_under_its_key_and_in_time() -> None:
    """After a crash nobody knows whether it was sent: the same key, or not at all once it would be too late."""
    last = terms().deadline - 12.5 - 12 - 4
    assert ask("sent", POSTED) == SendClaim(key("claim", 1), 1)
    assert ask("sent", POSTED, now=last) == SendClaim(key("claim", 1), 1)
    assert ask("sent", POSTED, now=last + 0.1) == NoteLost("too_late")
    assert ask("sent", THEIRS) == NoteLost("taken")
    assert ask("", POSTED, now=last, chosen=True) == SendClaim(key("claim", 1), 1)
    assert ask("", POSTED, now=last + 0.1, chosen=True) == NoteExpired("deadline")


def test_a_claim_that_ran_out_unnoticed_is_noted() -> None:
    """It was mined while this host was down, and lapsed: noted as held, then as lost, so that the next claim is another one; and
    what is known already is not noted again."""
    assert ask("sent", OURS, now=UNTIL) == NoteHeld(PricePerMTok(1_000_000), UNTIL)
    assert ask("sent lost", OURS, now=UNTIL) == NoteHeld(PricePerMTok(1_000_000), UNTIL)
    assert ask("sent held", OURS, now=UNTIL) == NoteLost("lapsed")
    assert ask("sent held lost", OURS, now=UNTIL, chosen=True) == SendClaim(key("claim", 2), 2)
    assert ask("sent held lost sent", OURS, now=UNTIL) == SendClaim(key("claim", 1), 1)


def test_a_claim_that_could_not_be_kept_is_not_sent() -> None:
    """The window of the terms is too short for the measured speed; an answer that is there needs next to nothing."""
    assert ask("", POSTED, needed=48.0, chosen=True) == SendClaim(key("claim", 1), 1)
    assert ask("", POSTED, needed=48.1, chosen=True) == NoteExpired("deadline")
    assert isinstance(ask("sent held started made stored lost", POSTED, needed=999.0, chosen=True), SendClaim)


def test_nobody_tries_for_ever() -> None:
    """Three claims that ran out are enough."""
    twice = "sent held lost " * 2
    assert isinstance(ask(twice, POSTED, chosen=True), SendClaim)
    assert ask(twice + "sent held lost", POSTED, chosen=True) == NoteExpired("tried too often")


# -- with the claim ------------------------------------------------------------------------------------------------------------


def test_the_work_in_its_order() -> None:
    """Note, fetch, execute, store, complete, hand over; one action for each stage."""
    last = UNTIL - 12.0
    for names in ("", "sent"):
        assert ask(names, OURS) == NoteHeld(PricePerMTok(1_000_000), UNTIL)
    assert ask("sent held", OURS) == FetchPrompt(terms().prompt_cid)
    assert ask("sent held", OURS, prompt_ready=True) == Execute(last)
    assert ask("sent held started", OURS, executing=True) == Rest("the engine works on it", last)
    assert ask("sent held started", OURS, prompt_ready=True) == Execute(last), "a crash took the generation away"
    assert ask("sent held started", OURS) == FetchPrompt(terms().prompt_cid)
    assert ask(STAGES[Stage.MADE], OURS) == StoreResult(MADE.cid)
    assert ask(STAGES[Stage.STORED], OURS) == SendComplete(key("complete", 1), Tokens(2))
    assert ask(STAGES[Stage.COMPLETING], OURS) == SendComplete(key("complete", 1), Tokens(2))
    done = PromptStatus(state=PromptState.COMPLETED, host=HOST)
    assert ask(STAGES[Stage.COMPLETING], done, completion=completion()) == NoteCompleted(completion())
    assert ask(STAGES[Stage.COMPLETING], done) == Rest("the event of the completion is awaited")
    assert ask(STAGES[Stage.COMPLETED], done) == HandOver(completion().job, market_terms(BOARD, terms(), completion()))
    assert ask(STAGES[Stage.SETTLING], done) == Rest("with the settler")


def test_what_cannot_be_finished_is_given_back_at_once() -> None:
    """So that another may try: before the work, in the middle of it, and with an answer that would be too late."""
    release = SendRelease(key("release", 1), "too_late")
    latest = UNTIL - 12.0
    assert ask("sent held", OURS, now=latest - 12.5) == release
    assert ask("sent held", OURS, now=latest - 12.6) == FetchPrompt(terms().prompt_cid)
    assert ask("sent held started", OURS, now=latest - 5, executing=True, executing_for=7.0) == release
    assert isinstance(ask("sent held started", OURS, now=latest - 5, executing=True, executing_for=8.0), Rest)
    assert ask("sent held started", OURS, now=latest, executing=True, executing_for=99.0) == release
    assert ask(STAGES[Stage.STORED], OURS, now=latest) == release
    assert isinstance(ask(STAGES[Stage.STORED], OURS, now=latest - 0.1), SendComplete)
    assert isinstance(ask(STAGES[Stage.COMPLETING], OURS, now=latest), SendComplete), "it may be on its way"


def test_a_failing_engine_is_not_asked_for_ever() -> None:
    """Three generations that came to nothing, and the job is given back."""
    thrice = "sent held started started started"
    assert ask(thrice, OURS, prompt_ready=True) == GiveUp("engine_failed")
    assert isinstance(ask("sent held started started", OURS, prompt_ready=True), Execute)
    assert isinstance(ask(thrice, OURS, executing=True), Rest)


def test_an_answer_that_costs_nothing_is_not_completed() -> None:
    """The contract opens no empty job."""
    cheap = PromptStatus(state=PromptState.CLAIMED, host=HOST, until=UNTIL, price=PricePerMTok(499_999))
    assert ask(STAGES[Stage.STORED], cheap) == GiveUp("worthless")
    dear = PromptStatus(state=PromptState.CLAIMED, host=HOST, until=UNTIL, price=PricePerMTok(500_000))
    assert isinstance(ask(STAGES[Stage.STORED], dear), SendComplete)


@pytest.mark.parametrize(
    "stage", [Stage.CLAIMED, Stage.RUNNING, Stage.MADE, Stage.STORED, Stage.COMPLETING, Stage.FAILED]
)
def test_a_claim_that_is_gone_is_noted(stage: Stage) -> None:
    """Lapsed, or lapsed and taken by another."""
    assert ask(STAGES[stage], OURS, now=UNTIL) == NoteLost("lapsed")
    assert ask(STAGES[stage], THEIRS) == NoteLost("taken")


@pytest.mark.parametrize(
    "stage", [stage for stage in Stage if stage not in (Stage.COMPLETED, Stage.SETTLING, Stage.ENDED)]
)
@pytest.mark.parametrize("state", [PromptState.CANCELLED, PromptState.REFUNDED, PromptState.COMPLETED])
def test_what_is_over_is_noted(stage: Stage, state: PromptState) -> None:
    """In every stage."""
    action = ask(STAGES[stage], PromptStatus(state=state, host=OTHER), completion=completion(host=OTHER))
    reason = "completed elsewhere" if state is PromptState.COMPLETED else state.name.lower()
    assert action == NoteExpired(reason)


def test_a_completion_that_is_mined_late_is_still_paid() -> None:
    """The claim was given up as lapsed, or the whole job, and then the answer turns out to be on chain."""
    done = PromptStatus(state=PromptState.COMPLETED, host=HOST)
    for names in ("lost", "lost sent", "lost sent held", "lost expired"):
        late = f"{STAGES[Stage.COMPLETING]} {names}"
        assert ask(late, done, completion=completion()) == NoteCompleted(completion())
        assert ledger(f"{late} completed").stage is Stage.COMPLETED
    assert ask("expired", done, completion=completion()) == Rest("ended"), "another process with the same key did it"
    assert ask("sent held", done, completion=completion()) == NoteExpired("completed elsewhere")


def test_a_claim_that_is_mined_late_is_given_back() -> None:
    """This host had given up already; each such claim once."""
    assert ask("sent lost expired", OURS) == SendRelease(key("release-late", UNTIL), "deadline")
    assert ask("sent lost expired", POSTED) == Rest("ended")


# -- the settler ---------------------------------------------------------------------------------------------------------------


def test_the_market_job_begins_as_a_session_that_ended() -> None:
    """Its log admits the job with exactly the price of the answer, serves it in one turn, and is finished; the heads agree."""
    found = ledger(STAGES[Stage.COMPLETED])
    events = handover(found, START)
    wanted = market_terms(BOARD, terms(), completion())
    assert events == (
        JobAdmitted(wanted, 2, MARKET, START),  # type: ignore[arg-type]
        TurnStarted(0, MADE.request),
        TokensServed(MADE.records),
        SessionFinished("prompt_completed"),
    )
    host = HostLedger.replay(list(events))
    assert (host.head, host.served, host.exposed, host.affordable >= 2) == (found.head, 2, 2, True)
    with pytest.raises(ValueError, match="only a completed"):
        handover(ledger("sent held"), START)


# -- the whole life ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_step_changes_nothing(after: bool) -> None:
    """Before or after each durable step: one claim, one completion, one job for the settler; generated again only where the
    generation itself was lost."""
    for steps in range(1, 40):
        world = World(1)
        host = world.processes[0]
        world.renter.order(terms())
        host.fuse, host.dies_after = steps, after
        world.pass_time(55)
        assert world.ended() and world.reverted == []
        assert [name for key, name in host.outbox.items()] == ["mined", "mined"]
        assert len(host.settled) == len(world.board.jobs) == 1
        assert len(host.begun) == 1 or steps <= 8
        if host.fuse > 0:
            return
    raise AssertionError("too many steps")


def test_a_claim_that_was_overtaken_unseen_is_over() -> None:
    """It was mined and ran out while the host was not there, and then the renter kept the job for this host: a new claim is sent."""
    world = World(1)
    host, wanted = world.processes[0], terms(deadline=START + 3_600, execute_seconds=60)
    host.late = True
    world.renter.order(wanted)
    while not host.outbox:
        world.pass_time(2)
    host.mine()
    world.board.now += 61
    world.board.assign(RENTER, wanted, HOST)
    host.late = False
    world.pass_time(55)
    assert world.ended() and len(host.settled) == 1
    assert [outcome for key, outcome in host.outbox.items() if ":claim:" in key] == ["mined", "mined"]
