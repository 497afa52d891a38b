"""A session at work: effects in order, nobody runs ahead, and whatever breaks around it ends up in the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.host.world import FailingDisk, HeldJournal, Renter, World, eventually, some_terms

from fabstir.domain.errors import Interrupted
from fabstir.domain.ids import TokenId, to_hex
from fabstir.host.session_actor import INBOX_CAPACITY
from fabstir.ports.engine import GenerationEnd, GenerationRequest, TokenBatch
from fabstir.protocol.host_log import TokensServed, TurnEnded, decode_event
from fabstir.protocol.messages import Cancel, ChatMessage, Error, Receipt, Response, StreamChunk
from fabstir.testing.clock import ManualClock
from fabstir.testing.engine import ScriptedEngine, token_record
from fabstir.testing.journal import MemoryJournal
from fabstir.testing.transport import CAPACITY


class CountingEngine(ScriptedEngine):
    """Counts what it has handed out, and ends as a test wants."""

    def __init__(self, raises: Exception | None = None) -> None:
        super().__init__()
        self.made = 0
        self.raises = raises

    async def generate(self, request: GenerationRequest) -> AsyncIterator[TokenBatch | GenerationEnd]:
        for number in range(1, request.max_tokens + 1):
            self.made = number
            yield TokenBatch((token_record(TokenId(number), 1),), f" {number}")
            if self.raises:
                raise self.raises
            if "stop short" in request.messages[-1].content:
                return


async def _log(world: World, renter: Renter) -> list[object]:
    return [decode_event(data) for data in await world.journal.read("job:" + renter.job.hex())]


async def test_nothing_is_promised_that_is_not_durable() -> None:
    """While the disk is slow the receipt waits for it; the tokens before it are out already."""
    journal = HeldJournal()
    async with World(journal=journal).running() as world:
        renter = await world.renter()
        await renter.ask("one two")
        renter.take(await renter.until(StreamChunk))
        journal.free.clear()
        await renter.hear(ack=False, until=4)
        await eventually(lambda: journal.waiting == 1)
        answer = asyncio.create_task(renter.next())
        await asyncio.sleep(0.01)
        assert not answer.done()
        journal.free.set()
        assert isinstance(await answer, Receipt)
        served = [event for event in await _log(world, renter) if isinstance(event, TokensServed)]
        assert [len(event.records) // 32 for event in served] == [4]


async def test_the_engine_reads_the_prompt_while_the_turn_is_stored() -> None:
    """The first token does not wait for disk and engine one after the other; and it does not leave before the turn is on the disk."""
    journal = HeldJournal()
    async with World(journal=journal).running() as world:
        renter = await world.renter()
        journal.free.clear()
        await renter.ask("one two")
        await eventually(lambda: len(world.engine.requests) == 1)
        answer = asyncio.create_task(renter.next())
        await asyncio.sleep(0.01)
        assert not answer.done() and journal.waiting == 1
        journal.free.set()
        assert isinstance(await answer, StreamChunk)


async def test_a_batch_of_the_engine_is_one_message() -> None:
    """Four tokens of one step travel in one frame."""
    async with World(engine=ScriptedEngine(batch_tokens=4)).running() as world:
        renter = await world.renter()
        await renter.ask("count 7")
        first = await renter.until(StreamChunk)
        assert (len(first.tokens), first.content) == (4, "1 2 3 4")


async def test_an_engine_cannot_run_ahead_of_a_client_that_does_not_read() -> None:
    """The inbox fills, then the engine stalls: memory is bounded, whatever W is."""
    engine = CountingEngine()
    async with World(engine=engine, exposure_max=4096).running() as world:
        renter = await world.renter(world.chain.open(some_terms(exposure=4096)))
        await renter.send(renter.prompt("go", max_tokens=4000))
        before = -1
        while before != engine.made:
            before = engine.made
            await asyncio.sleep(0.02)
        assert engine.made <= CAPACITY + INBOX_CAPACITY + 4


async def test_the_session_waits_for_whoever_writes_to_its_log(world: World) -> None:
    """While the settler holds the job, a voucher is neither on the disk nor acted upon; then it is."""
    renter = await world.renter()
    await renter.ask("one two")
    await renter.hear(ack=False)
    ledger = world.ledger(renter)
    async with world.node.book.exclusive(ledger):
        before = len(await _log(world, renter))
        head = renter.transcript
        await renter.send(renter.voucher(head.tokens, str(ledger.amount(head.tokens)), to_hex(head.head)))
        await asyncio.sleep(0.01)
        assert len(await _log(world, renter)) == before
    await eventually(lambda: len(world.journal._disk.events["job:" + renter.job.hex()]) == before + 1)  # type: ignore[attr-defined]


class EarlyClock(ManualClock):
    """Wakes sleepers a little too early, as event loops may by the resolution of their clock."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds * 0.99)


async def test_a_timer_that_rings_early_rings_again() -> None:
    """A deadline is not forgotten because the clock was not quite there yet."""
    async with World(clock=EarlyClock()).running() as world:
        renter = await world.renter()
        await renter.ask("count 100")
        await renter.hear(ack=False, until=8)
        await world.clock.advance(29.9)
        assert world.ledger(renter).in_turn
        await world.clock.advance(0.2)
        assert (await renter.until(Error)).code == "ack_timeout"


async def test_a_cancelled_answer_is_answered_and_counted(world: World) -> None:
    """`response` says cancelled; what was delivered is acknowledged as usual, the engine is free, the next prompt works."""
    gate = world.engine.gate(5)
    renter = await world.renter()
    await renter.ask("count 9")
    text, _ = await renter.hear(until=5)
    await gate.reached.wait()
    await renter.send(Cancel(session_id="chat", message_index=0))
    _, end = await renter.hear()
    assert isinstance(end, Response) and (end.finish_reason, end.tokens_used) == ("cancelled", 5)
    await eventually(lambda: world.engine.active == 0)
    assert world.engine.cancelled == 1
    renter.context = [ChatMessage("user", "count 9"), ChatMessage("assistant", text)]
    assert await renter.chat("count 2") == "1 2"
    await eventually(lambda: world.ledger(renter).exposed == 0)


async def test_the_conversation_can_be_replaced_between_two_answers(world: World) -> None:
    """A second `session_resume` on the same connection, signed anew and for the same job."""
    renter = await world.renter()
    await renter.chat("one")
    renter.context = [ChatMessage("user", "shorter")]
    await renter.open(renter.resume())
    await renter.chat("two")
    assert world.engine.requests[-1].messages == (ChatMessage("user", "shorter"), ChatMessage("user", "two"))


async def test_a_second_resume_is_checked_like_the_first(world: World) -> None:
    """A used nonce, another job, or an answer in the works: refused by name, and the session goes on."""
    renter, stranger = await world.renter(), Renter(world.connect(), world.chain.open(some_terms()))
    hello = renter.resume()
    await renter.open(hello)
    assert (await renter.refused(hello)).code == "session_unauthorized"
    assert (await renter.refused(stranger.init())).code == "message_out_of_order"
    gate = world.engine.gate(1)
    await renter.ask("count 3")
    await gate.reached.wait()
    await renter.hear(until=1)
    assert (await renter.refused(renter.resume())).code == "session_busy"
    gate.open.set()
    assert isinstance((await renter.hear())[1], Response)


async def test_a_generation_without_an_end_is_a_broken_engine() -> None:
    """The answer ends with `engine_gone`, never with silence."""
    async with World(engine=CountingEngine()).running() as world:
        renter = await world.renter()
        await renter.ask("stop short")
        text, end = await renter.hear()
        assert text == " 1" and isinstance(end, Error) and end.code == "engine_gone"


async def test_a_fault_in_our_own_code_ends_one_session_and_no_other() -> None:
    """The log says where the answer was cut; the other session does not notice; the job can be resumed."""
    engine = CountingEngine(ZeroDivisionError("ours"))
    async with World(engine=engine).running() as world:
        other, renter = await world.renter(), await world.renter()
        await renter.send(renter.prompt("go"))
        with pytest.raises(Interrupted):
            while True:
                await renter.next()
        await eventually(lambda: renter.job not in world.jobs_at_work())
        assert not world.ledger(renter).in_turn
        assert isinstance((await _log(world, renter))[-1], TurnEnded)
        engine.raises = None
        await other.ask("stop short")
        assert (await other.hear())[0] == " 1"
        again = Renter(world.connect(), renter.terms)
        again.continues(renter)
        await again.open(again.resume())


async def test_tokens_that_the_disk_lost_are_not_billed() -> None:
    """The renter has them, the log has not: both go on from the log, and those tokens are free."""
    disk = FailingDisk()
    async with World(journal=MemoryJournal(disk.hook)).running() as world:
        renter = await world.renter()
        gate = world.engine.gate(2)
        await renter.ask("count 9")
        await renter.hear(until=2)
        disk.fails = True
        gate.open.set()
        _, end = await renter.hear()
        assert isinstance(end, Error) and (end.code, end.detail) == ("journal_failed", "disk full")
        disk.fails = False
        again = Renter(world.connect(), renter.terms).continues(renter)
        ready = await again.open(again.resume(tokens_received=renter.transcript.tokens))
        assert (renter.transcript.tokens, ready.tokens_served) == (4, 0)
        assert await again.chat("count 9") == "1 2 3 4 5 6 7 8 9"
        await eventually(lambda: world.ledger(again).acknowledged == 10)
