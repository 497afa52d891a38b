"""A context between two session cores: what the engine is given is what both sides bind, whatever was left out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fabstir.protocol.context.brought import ContextLimits, check
from fabstir.protocol.context.plan import ContextRequest, ContextSpan
from fabstir.protocol.host_inputs import SessionState
from fabstir.protocol.messages import (
    ChatMessage,
    ContextPlanned,
    Error,
    Response,
    decode_from_host,
)
from fabstir.protocol.renter_items import AnswerBroken, AnswerDone, Ask, LeaveHost, StopAnswer
from fabstir.protocol.signing import keccak
from fabstir.protocol.transcript_file import check as check_file
from tests.protocol.hosting import resume, told
from tests.protocol.market import FORGERY, World, opened, terms

TRUNCATE = ContextRequest(strategy="truncate", max_messages=5)


def asked(world: World, content: str, request: ContextRequest | None, tokens: int = 3) -> None:
    """One whole answer to `content`."""
    before = world.renter.context
    world.renter_in(Ask(content=content, max_tokens=300, context=request))
    world.flow()
    assert world.renter.context == before
    world.say(tokens)
    world.finish_generation()
    world.flow()


@pytest.fixture
def world() -> World:
    return opened()


def test_what_was_left_out_is_bound_and_can_be_rebuilt(world: World) -> None:
    """The transcript that the renter keeps has what the engine was given, to the message; its hashes lead to what both signed."""
    for turn in range(6):
        asked(world, f"question {turn}", TRUNCATE)
    last: Any = world.kept[-1]
    assert last.messages == world.asked[-1].messages
    assert [message.content for message in last.messages][-1] == "question 5" and len(last.messages) == 5
    assert last.plan is not None and last.plan.count("dropped")[0] == 6
    assert isinstance(world.done[-1], AnswerDone) and world.done[-1].response.context == last.plan
    assert check_file(world.transcript()).turns == 6
    assert world.renter.context == world.host._core.history.messages and len(world.renter.context) == 12


def test_the_hash_binds_the_plan(world: World) -> None:
    """Another count in the plan is another transcript: nobody can say afterwards that more or less was read."""
    for turn in range(4):
        asked(world, f"question {turn}", TRUNCATE)
    kept = world.kept[-1]
    assert kept.plan is not None
    other = msgspec.structs.replace(kept, plan=msgspec.structs.replace(kept.plan, question=kept.plan.question + 1))
    assert other.request != kept.request


def test_without_a_context_nothing_changes(world: World) -> None:
    """No plan comes before the answer; the response says what each message cost."""
    asked(world, "first words", None)
    asked(world, "second", None)
    done = world.done[-1]
    assert isinstance(done, AnswerDone) and done.response.context is not None
    response = done.response
    assert response.context is not None
    assert response.context.spans == (ContextSpan("kept", (2, 1)),)
    assert world.kept[-1].plan is None


def test_each_text_is_counted_once(world: World) -> None:
    """A prompt has the engine count the question and the last answer, never what was counted before."""
    world.counts = False
    for turn in range(3):
        world.renter_in(Ask(content=f"question {turn}", context=ContextRequest()))
        world.flow()
        assert world.counting is not None
        assert len(world.counting.texts) == (1 if turn == 0 else 2)
        world.count()
        world.flow()
        world.say(2, "an answer")
        world.finish_generation()
        world.flow()


def test_a_summary_takes_the_place_of_what_it_sums_up(world: World) -> None:
    """It is an answer like any other: billed, signed, in the transcript; then both sides go on from it."""
    for turn in range(4):
        asked(world, f"question {turn}", ContextRequest(strategy="summarise"))
    billed = world.renter.ledger.signed
    asked(world, "Sum it up.", ContextRequest(strategy="summarise", compact=6), tokens=5)
    assert [message.content for message in world.asked[-1].messages][-1] == "Sum it up."
    assert len(world.asked[-1].messages) == 7
    assert world.renter.ledger.signed == billed + 5
    for side in (world.renter._core.history, world.host._core.history):
        assert (len(side.messages), side.summarised, side.messages[0].content) == (4, 6, "Sum it up.")
    asked(world, "and then?", ContextRequest(strategy="summarise"))
    plan = world.kept[-1].plan
    assert plan is not None and (plan.summarised, plan.count("summary")[0], plan.count("kept")[0]) == (6, 2, 2)
    assert check_file(world.transcript()).turns == 6


def test_a_summary_that_was_cut_off_changes_nothing(world: World) -> None:
    """Half a summary would lose the rest."""
    asked(world, "one", ContextRequest())
    before = world.renter.context
    world.renter_in(Ask(content="Sum it up.", context=ContextRequest(compact=2)))
    world.flow()
    world.say(3)
    world.renter_in(StopAnswer())
    world.flow()
    assert world.renter.context == before == world.host._core.history.messages


def test_the_summary_goes_along_to_another_host() -> None:
    """Whoever resumes says for how many messages the first exchange stands."""
    world = World(terms(), 1_000_000)
    context = tuple(ChatMessage(role, "x") for role in ("system", "user", "assistant", "user", "assistant"))
    world.host.attach(resume(world, conversation_context=context, summarised=40), keccak(b"salt"), 0.0)
    assert (world.host._core.history.always, world.host._core.history.summarised) == (3, 40)


@pytest.mark.parametrize("changed", [{"plan": None}, {"question": 9}])
def test_a_response_with_another_plan(world: World, changed: dict[str, object]) -> None:
    """A host that answers with another plan than it began with is left."""
    world.renter_in(Ask(content="q", context=ContextRequest()))
    world.flow()
    world.generate(2)
    world.finish_generation()
    while not isinstance(message := decode_from_host(world.to_renter[0]), Response):
        world.deliver_to_renter()
    assert message.context is not None
    plan = None if "plan" in changed else msgspec.structs.replace(message.context, **changed)
    world.renter_in(msgspec.structs.replace(message, context=plan))
    assert isinstance(world.done[-1], LeaveHost) and world.done[-1].fault.code == "context_plan_invalid"


def test_tokens_before_the_plan_are_not_believed(world: World) -> None:
    """What they answer is not known: the host is left and nothing is signed."""
    world.renter_in(Ask(content="q", context=ContextRequest()))
    world.deliver_to_host()
    world.generate(2)
    assert isinstance(decode_from_host(world.to_renter.popleft()), ContextPlanned)
    world.flow()
    assert isinstance(world.done[-1], LeaveHost) and world.done[-1].fault.code == "message_out_of_order"
    assert world.renter.ledger.signed == 0 and world.kept == []


def test_cancelled_while_it_is_counted(world: World) -> None:
    """The answer begins and is over without a token; the next prompt goes on from there."""
    world.counts = False
    world.renter_in(Ask(content="q", context=ContextRequest()))
    world.flow()
    world.renter_in(StopAnswer())
    world.flow()
    assert world.host.state is SessionState.PREPARING
    world.count()
    world.flow()
    assert isinstance(world.done[-1], AnswerDone) and world.done[-1].response.finish_reason == "cancelled"
    world.counts = True
    world.answer(3)
    assert world.host.ledger.message_index == 2


@pytest.mark.parametrize("content", [f"a {FORGERY} b", "nul \x00"])
def test_words_that_pretend_to_be_another_message(world: World, content: str) -> None:
    """A control token's text and control characters are refused by name; the session stands, and the error names the prompt."""
    world.renter_in(Ask(content=content))
    world.flow()
    (broken,) = world.done
    assert isinstance(broken, AnswerBroken) and broken.fault.code == "context_invalid"
    assert world.host.state is SessionState.READY and world.asked == []


def test_a_forgery_in_what_was_brought(world: World) -> None:
    """Counted with the first prompt, and refused with it."""
    world.connect((ChatMessage("user", "hi"), ChatMessage("assistant", FORGERY)))
    world.flow()
    world.renter_in(Ask(content="q"))
    world.flow()
    broken = world.done[-1]
    assert isinstance(broken, AnswerBroken) and broken.fault.code == "context_invalid"


@pytest.mark.parametrize(
    ("context", "fields", "code"),
    [
        ([("user", "x")] * 5, {}, "context_too_large"),
        ([("user", "x" * 101)], {}, "context_too_large"),
        ([("user", "x\x1b[0m\t\n")], {"summarised": 4}, "context_invalid"),
        ([("assistant", "\x07")], {}, "context_invalid"),
    ],
)
def test_the_limits_of_a_session(context: list[tuple[str, str]], fields: dict[str, int], code: str) -> None:
    """Too many messages, too many characters, a summary that is none, a bell: refused at the greeting with a named error."""
    world = opened()
    world.offer = msgspec.structs.replace(world.offer, limits=ContextLimits(max_messages=4, max_characters=100))
    world.crash_host()
    said = tuple(ChatMessage(role, content) for role, content in context)
    message = resume(world, conversation_context=said, **fields)
    assert told(world.host.attach(message, keccak(b"salt"), 0.0)).code == code
    assert world.host.state is SessionState.DETACHED


def test_a_refusal_names_its_prompt(world: World) -> None:
    """A conversation that does not fit ends that prompt and no other; the renter goes on with leave to truncate."""
    long = "word " * 700
    for _ in range(2):
        asked(world, long, None)
    world.renter_in(Ask(content=long, context=ContextRequest()))
    world.deliver_to_host()
    refusal = decode_from_host(world.to_renter[-1])
    assert isinstance(refusal, Error) and (refusal.code, refusal.message_index) == ("context_too_long", 2)
    world.flow()
    world.connect(world.renter.context)
    world.flow()
    asked(world, long, ContextRequest(strategy="truncate"))
    assert len(world.asked[-1].messages) < 5


def test_nothing_that_was_said_is_in_a_repr() -> None:
    """A repr may end in a log."""
    history = check((ChatMessage("user", "a secret"),), 0, ContextLimits())
    world = opened()
    world.counts = False
    world.ask("a secret")
    assert "secret" not in repr((history, world.host._core.preparation))
