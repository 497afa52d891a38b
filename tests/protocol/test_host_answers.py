"""What a host serves for a prompt, how it is cut to the budget, and when the stream stops."""

from __future__ import annotations

from typing import Any

import pytest

from fabstir.domain.errors import error
from fabstir.domain.ids import to_hex
from fabstir.domain.money import Tokens
from fabstir.protocol.context.history import Weight
from fabstir.protocol.context.plan import ContextPlan, ContextSpan
from fabstir.protocol.effects import CountTokens, RunGeneration, Store
from fabstir.protocol.generation import TokenBatch
from fabstir.protocol.host_inputs import (
    EngineBatch,
    EngineFailed,
    EngineFinished,
    SessionState,
    TokensCounted,
)
from fabstir.protocol.host_log import (
    TokensServed,
    TurnEnded,
    TurnStarted,
    session_tag,
)
from fabstir.protocol.messages import (
    Cancel,
    ChatMessage,
    Prompt,
    Receipt,
    ReceiptAck,
    Response,
    SessionEnd,
    StreamChunk,
    Usage,
    canonical,
)
from fabstir.protocol.signing import keccak
from fabstir.protocol.transcript import request_hash
from tests.protocol.hosting import END, ack, blocked, blocked_until, resume, sent, stored, told
from tests.protocol.market import HOST_KEY, MARKET, SESSION, World, named, opened, records, terms


def test_a_prompt_starts_one_generation() -> None:
    """History, prefix and sampling parameters go to the engine; the salted hash of all of it goes to the log first."""
    context = (ChatMessage("user", "a"), ChatMessage("assistant", "b"))
    world = World(terms(), 1_000_000)
    salt = keccak(b"salt")
    world.host.attach(resume(world, conversation_context=context), salt, 0.0)
    prompt = Prompt(
        session_id=SESSION, message_index=0, content="c", max_tokens=9, temperature=0.1, top_p=0.2, seed=3, stop=("x",), prefix="d"
    )  # fmt: skip
    (count,) = world.host.receive(prompt, 0.0)
    assert count == CountTokens(("a", "b", "c", "d"), 1)
    store, run = world.host.receive(TokensCounted(1, (Weight(1),) * 4), 0.0)
    messages = (*context, ChatMessage("user", "c"))
    tag = session_tag(world.host.ledger.job, SESSION)
    assert store == Store((TurnStarted(0, request_hash(salt, canonical((messages, prompt))), tag),))
    assert isinstance(run, RunGeneration) and run.turn == 1
    request = run.request
    assert (request.messages, request.prefix, request.max_tokens) == (messages, "d", 9)
    assert (request.temperature, request.top_p, request.seed, request.stop) == (0.1, 0.2, 3, ("x",))
    assert not request.ignore_eos


@pytest.mark.parametrize("index", [0, 2])
def test_prompts_count_up(index: int) -> None:
    """Only the next message_index is answered; the refusal names the prompt that it refuses."""
    world = opened()
    world.answer(3)
    effects = world.host.receive(Prompt(session_id=SESSION, message_index=index, content="q"), 0.0)
    assert (told(effects).code, told(effects).message_index) == ("message_out_of_order", index)
    assert world.host.state is SessionState.READY


@pytest.mark.parametrize(
    "message",
    [
        Prompt(session_id="other", message_index=0, content="q"),
        SessionEnd(session_id="other"),
        ReceiptAck(session_id="other", tokens=1, amount="0", transcript="0x" + "00" * 32, signature="0x" + "00" * 65),
    ],
    ids=lambda message: type(message).__name__,
)
def test_another_session_is_refused(message: Any) -> None:
    """A message that names another session than session_init did."""
    world = opened()
    assert told(world.host.receive(message, 0.0)).code == "message_out_of_order"
    assert world.host.state is SessionState.READY


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(("session", "index"), [("other", 0), (SESSION, 3)])
def test_cancel_of_something_else_is_refused(session: str, index: int, running: bool) -> None:
    """Another session's answer, or one that was never asked for."""
    world = opened()
    world.answer(3)
    if running:
        world.ask()
    before = world.host.state
    assert told(world.host.receive(Cancel(session_id=session, message_index=index), 0.0)).code == "message_out_of_order"
    assert world.host.state is before


@pytest.mark.parametrize("running", [True, False])
def test_a_cancel_that_crosses_the_end_of_its_answer_is_no_fault(running: bool) -> None:
    """It comes when the answer is complete or was refused, or even when the next one streams: nothing happens, nobody hears of an error."""
    world = opened()
    world.answer(3)
    if running:
        world.ask()
    before = repr(world.host)
    for index in (0, 2) if running else (0, 1):
        assert world.host.receive(Cancel(session_id=SESSION, message_index=index), 0.0) == []
    assert repr(world.host) == before


def test_chunks_say_where_they_stand() -> None:
    """Index of the first token, counted over all answers of the job, and the text with its tokens."""
    world = opened()
    world.answer(3)
    world.ask()
    (chunk,) = world.host_in(EngineBatch(2, TokenBatch(records(3, 2), "ab")))
    assert chunk == StreamChunk(session_id=SESSION, message_index=1, index=3, content="ab", tokens=records(3, 2))
    (chunk,) = world.host_in(EngineBatch(2, TokenBatch(records(5, 1), "c")))
    assert isinstance(chunk, StreamChunk) and chunk.index == 5


def test_the_response_counts_this_answer() -> None:
    """Tokens of this answer, the engine's count of the prompt, the reason; the log says why it ended."""
    world = opened()
    world.answer(3)
    world.ask()
    world.generate(2)
    effects = world.host.receive(EngineFinished(2, END), 0.0)
    ledger = world.host.ledger
    digest = MARKET.response_digest(ledger.job, 1, Tokens(2), 5, "stop", ledger.head)
    assert sent(effects)[-1] == Response(
        session_id=SESSION,
        message_index=1,
        tokens_used=2,
        finish_reason="stop",
        usage=Usage(prompt_tokens=5, completion_tokens=2),
        context=ContextPlan(spans=(ContextSpan("kept", (1, 1)),), question=1, frame=0),
        signature=to_hex(HOST_KEY.sign(digest)),
    )
    assert stored(effects)[-1] == TurnEnded(1, "stop", Tokens(5))
    assert isinstance(stored(effects)[0], TokensServed)


@pytest.mark.parametrize(
    "item",
    [EngineBatch(1, TokenBatch(records(0, 2), "x")), EngineFinished(1, END), EngineFailed(1, error("engine_gone"))],
    ids=lambda item: type(item).__name__,
)
def test_items_of_an_earlier_generation_are_ignored(item: Any) -> None:
    """What an engine still says about an answer that was cancelled does not touch the next one."""
    world = opened()
    world.ask()
    world.host_in(Cancel(session_id=SESSION, message_index=0))
    world.flow()
    world.ask()
    assert world.host.receive(item, 0.0) == []
    assert (world.host.state, world.host.served) == (SessionState.GENERATING, 0)


def test_a_failed_generation_ends_the_answer_by_name() -> None:
    """What was served is receipted, the error names the answer, the engine is not cancelled: it is gone."""
    world = opened()
    world.ask()
    world.generate(3)
    effects = world.host.receive(EngineFailed(1, error("engine_gone", "signal 9")), 0.0)
    assert named(effects) == ["Store", "Receipt", "engine_gone"]
    message = sent(effects)[-1]
    assert (message.detail, message.message_index, message.session_id) == ("signal 9", 0, SESSION)
    assert stored(effects)[-1] == TurnEnded(0, "engine_gone")
    assert world.host.state is SessionState.READY


def test_a_broken_answer_was_not_said() -> None:
    """A renter that asks on without reconnecting gets the conversation that it knows itself."""
    world = opened()
    world.answer(5, "first")
    world.ask("second")
    world.say(3)
    world.host_in(EngineFailed(2, error("engine_gone")))
    world.host.receive(Prompt(session_id=SESSION, message_index=2, content="third"), 0.0)
    request = world.host.receive(TokensCounted(3, (Weight(1),)), 0.0)[-1]
    assert isinstance(request, RunGeneration)
    assert [message.content for message in request.request.messages if message.role == "user"] == ["first", "third"]


@pytest.mark.parametrize(
    ("deposit", "asked", "limit", "budget", "reason"),
    [
        (1_000_000, 50, 4096, 50, "length"),
        (1_000_000, 50, 20, 20, "length"),
        (1_000_000, 20, 20, 20, "length"),
        (9, 50, 4096, 49, "deposit"),  # 49 tokens cost floor(9.8) = 9
        (9, 49, 4096, 49, "length"),
        (9, 48, 4096, 48, "length"),
    ],
)
def test_budget(deposit: int, asked: int, limit: int, budget: int, reason: str) -> None:
    """Never more than was asked for, than the host allows, or than the deposit pays; `deposit` is said only where that was the bound."""
    world = opened(deposit=deposit, max_answer_tokens=limit)
    world.ask(max_tokens=asked)
    assert world.asked[-1].max_tokens == budget
    world.say(budget + 5)  # an engine that does not stop
    world.finish_generation("length")
    world.flow()
    assert (world.host.served, world.host.ledger.acknowledged) == (budget, budget)
    response = [message for message in world.done if hasattr(message, "response")][-1].response
    assert (response.finish_reason, response.tokens_used) == (reason, budget)


def test_stop_is_told_as_stop_at_the_deposit_too() -> None:
    """An answer that ended by itself ended by itself, whatever the deposit was."""
    world = opened(deposit=9)
    world.ask()
    world.say(20)
    (*_, response) = world.host_in(EngineFinished(1, END))
    assert isinstance(response, Response) and response.finish_reason == "stop"


def test_a_deposit_for_one_more_token_answers_with_it() -> None:
    """The last token is served."""
    world = opened(deposit=9)
    world.answer(48)
    world.ask()
    assert (world.asked[-1].max_tokens, world.errors) == (1, [])


def test_an_exhausted_deposit_answers_no_prompt() -> None:
    """Not one token beyond the deposit; the refusal names the prompt."""
    world = opened(deposit=9)
    world.ask()
    world.say(49)
    world.finish_generation("length")
    world.flow()
    effects = world.host.receive(Prompt(session_id=SESSION, message_index=1, content="q"), 0.0)
    assert (told(effects).code, told(effects).message_index) == ("deposit_exhausted", 1)
    assert told(effects).detail == "49 tokens served, 49 paid for"


# -- the exposure bound ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exposure", [1, 2, 3, 64])
def test_the_stream_stops_at_the_bound(exposure: int) -> None:
    """W tokens go out, the rest waits; each voucher lets as much through as it covers."""
    world = blocked(opened(exposure=exposure), 200)
    assert world.host.served == exposure
    world.flow()
    assert world.host.served == 200
    assert world.host.state is SessionState.GENERATING
    assert blocked_until(world) is None


def test_receipts_come_at_half_of_the_bound() -> None:
    """So that vouchers travel while the other half streams: W = 64 gives one every 32 tokens, W = 1 one for each token."""
    for exposure, every in ((64, 32), (3, 1), (1, 1)):
        world = opened(exposure=exposure)
        world.ask()
        receipts = []
        for _ in range(64):
            world.generate(1)
            receipts += [m.tokens for m in world.on_the_way() if isinstance(m, Receipt)]
            world.flow()
        assert receipts == list(range(every, 65, every))


def test_blocking_sends_the_receipt_that_unblocks() -> None:
    """Tokens after the last receipt are stored and receipted before the stream waits; nothing is said twice."""
    world = opened(exposure=5)
    world.ask()
    world.generate(2)  # receipt at half of the bound
    sent_now = world.host_in(EngineBatch(1, TokenBatch(records(2, 1), "c")))
    assert [type(m).__name__ for m in sent_now] == ["StreamChunk"]
    effects = world.host.receive(EngineBatch(1, TokenBatch(records(3, 9), "d")), 0.0)
    assert named(effects) == ["StreamChunk", "Store", "Receipt"]
    assert world.host.receive(EngineBatch(1, TokenBatch(records(12, 1), "e")), 0.0) == []


def test_blocking_asks_for_a_voucher_over_everything() -> None:
    """Also where less than half of the bound is out since the last receipt: one voucher frees all of W."""
    world = opened(exposure=5)
    world.ask()
    for _ in range(6):
        world.generate(1)
    assert [m.tokens for m in world.on_the_way() if isinstance(m, Receipt)] == [2, 4, 5]


def test_text_goes_with_its_last_token() -> None:
    """A batch that is split at the bound shows its text only when all of its tokens are out."""
    world = blocked(opened(exposure=4), 6)
    world.flow()
    assert world.text == ["", "<0:6>"]


def test_a_renter_that_does_not_sign_is_given_up() -> None:
    """After ack_timeout, not before: the answer ends by name, the generation is cancelled, what was held back is not billed."""
    world = blocked(opened(exposure=4), 6)
    assert blocked_until(world) == world.now + 30.0
    assert world.tick(29.9) == []
    assert world.host.state is SessionState.BLOCKED
    effects = world.host.tick(world.now + 0.1)
    assert named(effects) == ["CancelGeneration", "Store", "ack_timeout"]
    message = sent(effects)[-1]
    assert (message.detail, message.message_index) == ("4 tokens of 4 unacknowledged", 0)
    assert (world.host.served, world.host.state.value, blocked_until(world)) == (4, "ready", None)
    assert named(world.host.tick(world.now + 99.0)) == ["Ping"]


def test_the_clock_starts_when_the_stream_stops() -> None:
    """A second batch or the end of the generation while it waits does not give more time."""
    world = blocked(opened(exposure=4), 6)
    deadline = blocked_until(world)
    world.now += 20
    world.generate(3)
    world.finish_generation()
    assert blocked_until(world) == deadline


def test_each_block_has_its_own_clock() -> None:
    """A voucher that lets some tokens through and not all starts no new wait; one that lets all through ends it."""
    world = blocked(opened(exposure=4), 9)
    first = blocked_until(world)
    world.now += 10
    world.host_in(ack(world, 4))
    assert (world.host.state, world.host.served) == (SessionState.BLOCKED, 8)
    assert blocked_until(world) == first
    world.host_in(ack(world, 8))
    assert (world.host.state, blocked_until(world)) == (SessionState.GENERATING, None)
    world.generate(9)
    assert blocked_until(world) == world.now + 30.0


def test_an_answer_that_is_complete_waits_for_its_last_tokens() -> None:
    """EngineFinished while blocked ends the answer only after the vouchers came."""
    world = blocked(opened(exposure=4), 6)
    world.finish_generation()
    assert world.host.state is SessionState.BLOCKED
    world.flow()
    assert (world.host.state, world.host.served) == (SessionState.READY, 6)
    assert world.host.ledger.acknowledged == 6


def test_a_batch_that_fills_the_budget_keeps_its_text() -> None:
    """Only what is cut loses it; and after the budget nothing is sent, not even an empty chunk."""
    world = opened()
    world.ask(max_tokens=7)
    world.generate(4, "abcd")
    world.generate(3, "efg")
    world.flow()
    assert "".join(world.text) == "abcdefg"
    world.generate(2)
    assert world.on_the_way() == []


def test_memory_is_bounded_while_blocked() -> None:
    """An engine that ignores its bound is not believed: only the budget is held and served."""
    world = blocked(opened(exposure=4, max_answer_tokens=10), 7)
    world.generate(7, "cut at the budget, so it loses its text")
    world.generate(7)
    world.flow()
    assert world.host.served == 10
    assert "".join(world.text) == "<0:7>"
