"""The shipped scripted engine keeps the contract of the port, so that tests built on it mean something."""

from __future__ import annotations

import asyncio

import pytest
from tests.engines.asking import ask, collect, failure, first_batches

from fabstir.domain.errors import FabstirError
from fabstir.ports.engine import TokenBatch
from fabstir.testing.engine import END_OF_TURN, ScriptedEngine


async def started(engine: ScriptedEngine) -> ScriptedEngine:
    await engine.start()
    return engine


async def test_echo_ends_with_the_end_of_turn_token() -> None:
    """Every token has a record, the end-of-turn token too, and the count says so."""
    text, records, end, _ = await collect(await started(ScriptedEngine()), ask("hello there"))
    assert text == "You said: hello there"
    assert end.finish_reason == "stop"
    assert end.completion_tokens == len(records) == 5
    assert records[-1].token == END_OF_TURN
    assert all(record.top[0] == (record.token, record.logprob) for record in records)


async def test_length_cuts_the_answer() -> None:
    """max_tokens bounds the records, and the reason is `length`."""
    text, records, end, _ = await collect(await started(ScriptedEngine()), ask("count 300", max_tokens=3))
    assert (text, len(records), end.finish_reason) == ("1 2 3", 3, "length")


async def test_ignore_eos_gives_the_exact_number() -> None:
    """A benchmark gets as many tokens as it asks for."""
    _, records, end, _ = await collect(await started(ScriptedEngine()), ask("hi", max_tokens=50, ignore_eos=True))
    assert (len(records), end.completion_tokens, end.finish_reason) == (50, 50, "length")


async def test_stop_sequence_is_not_shown() -> None:
    """Text ends before the stop sequence; the tokens that made it are counted."""
    text, records, end, _ = await collect(await started(ScriptedEngine()), ask("count 9", stop=("5 6",)))
    assert (text, len(records), end.finish_reason) == ("1 2 3 4 ", 6, "stop")


@pytest.mark.parametrize("cut", range(len("You said: hello there") + 1))
async def test_goes_on_after_a_prefix(cut: int) -> None:
    """Prefix and continuation read as the answer, wherever the first host died."""
    whole = "You said: hello there"
    text, _, _, _ = await collect(await started(ScriptedEngine()), ask("hello there", prefix=whole[:cut]))
    assert whole[:cut] + text == whole


async def test_text_waits_for_the_whole_character() -> None:
    """A token that ends inside a character carries a record and no text."""
    engine = await started(ScriptedEngine({"price": ["It is ", b"\xe2\x82", b"\xac", "5"]}))
    batches = [item async for item in engine.generate(ask("price")) if isinstance(item, TokenBatch)]
    assert [batch.text for batch in batches] == ["It is ", "", "€", "5", ""]


async def test_context_is_bounded_and_named() -> None:
    """A prompt that does not fit is refused with what was measured."""
    engine = await started(ScriptedEngine(context_size=16))
    with pytest.raises(FabstirError, match="prompt has 24 tokens, context 16") as caught:
        await collect(engine, ask("word " * 19))
    assert caught.value.code == "context_too_long"


async def test_gate_failure_and_cancel_are_reached_exactly() -> None:
    """A test can hold an answer at a token, fail one at a token, and see what was cancelled."""
    engine = await started(ScriptedEngine())
    gate = engine.gate(2)
    running = asyncio.create_task(collect(engine, ask("count 5")))
    await gate.reached.wait()
    assert engine.active == 1
    gate.open.set()
    assert (await running)[0] == "1 2 3 4 5"

    engine.fail_next(at=2, code="engine_gone")
    assert (await failure(engine, ask("count 5"))).code == "engine_gone"

    assert [batch.text for batch in await first_batches(engine, ask("count 5"), 1)] == ["1"]
    assert (engine.active, engine.cancelled) == (0, 1)


async def test_waits_for_a_place() -> None:
    """No more than `parallel` requests are at work; the next one runs when a place is free."""
    engine = await started(ScriptedEngine(parallel=1))
    gate = engine.gate(1)
    first = asyncio.create_task(collect(engine, ask("count 3")))
    await gate.reached.wait()
    second = asyncio.create_task(collect(engine, ask("count 2")))
    for _ in range(10):
        await asyncio.sleep(0)
    assert engine.active == 1 and not second.done()
    gate.open.set()
    assert ((await first)[0], (await second)[0]) == ("1 2 3", "1 2")


async def test_crash_ends_running_requests_and_recovery_is_visible() -> None:
    """After a crash requests end with engine_gone, health says so, and recovery counts."""
    engine = await started(ScriptedEngine())
    gate = engine.gate(1)
    running = asyncio.create_task(collect(engine, ask("count 3")))
    await gate.reached.wait()
    engine.crash("killed by the test")
    gate.open.set()
    with pytest.raises(FabstirError, match="engine_gone"):
        await running
    assert (await engine.health()).status == "restarting"
    with pytest.raises(FabstirError, match="engine_gone"):
        await collect(engine, ask("count 3"))
    engine.recover()
    assert (await engine.health()).restarts == 1
    assert (await collect(engine, ask("count 3")))[0] == "1 2 3"
