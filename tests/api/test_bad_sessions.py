"""What goes wrong in a session, over a real WebSocket: a named error, and afterwards the host is up and the money right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.api.served import Served, SocketWire, named, serving
from tests.host.table_chain import HOST
from tests.host.world import STRANGER, FailingDisk, Renter, World, eventually, some_terms

from fabstir.domain.ids import to_hex
from fabstir.domain.money import PricePerMTok, Tokens
from fabstir.protocol.host_log import TurnEnded, decode_event
from fabstir.protocol.messages import Error, Receipt, Response, StreamChunk
from fabstir.testing.engine import ScriptedEngine
from fabstir.testing.journal import MemoryJournal


@pytest.mark.parametrize("change", [{"message_index": 1}, {"session_id": "other"}], ids=["message_index", "session_id"])
async def test_a_prompt_must_have_the_next_index_and_the_session(served: Served, change: dict[str, Any]) -> None:
    """Messages are numbered without a gap, so that none can be lost, repeated or put into another conversation."""
    renter = await served.renter()
    named(await renter.refused(renter.prompt("hello", **change)), "message_out_of_order")
    assert await renter.chat("hello") == "You said: hello"
    named(await renter.refused(renter.prompt("again", message_index=0)), "message_out_of_order")
    ledger = await served.sound(renter)
    assert ledger is not None and ledger.served == 4


async def test_a_second_prompt_waits_its_turn(served: Served) -> None:
    """While an answer is generated another prompt is `session_busy`, and the answer goes on undisturbed."""
    gate = served.world.engine.gate(2)
    renter = await served.renter()
    await renter.ask("count 6")
    await gate.reached.wait()
    assert await renter.hear(until=2) == ("1 2", None)
    named(await renter.refused(renter.prompt("and me?")), "session_busy")
    gate.open.set()
    text, end = await renter.hear()
    assert text == " 3 4 5 6" and isinstance(end, Response)
    await served.sound(renter)


Voucher = Callable[[Renter, Receipt], Any]


def _changed(**changes: Any) -> Voucher:
    """A voucher whose field was changed before it was signed: by a renter that wants to sign something else."""

    def make(renter: Renter, receipt: Receipt) -> Any:
        fields: dict[str, Any] = {
            "tokens": receipt.tokens,
            "amount": receipt.amount,
            "transcript": receipt.transcript,
        } | changes
        return renter.voucher(**fields)

    return make


BAD_VOUCHERS: dict[str, tuple[Voucher, str]] = {
    "wrong transcript": (_changed(transcript=to_hex(bytes(32))), "voucher_invalid"),
    "wrong amount": (_changed(amount="0"), "voucher_invalid"),
    "more tokens than served": (_changed(tokens=9, amount="1"), "voucher_invalid"),
    "above the deposit": (_changed(amount="1000001"), "voucher_above_deposit"),
    "above 2**96": (_changed(amount="9" * 29), "message_malformed"),
    "no tokens": (_changed(tokens=0, amount="0"), "voucher_stale"),
    "signed by a stranger": (lambda r, x: r.ack(x, key=STRANGER), "voucher_invalid"),
    "signed by the host": (lambda r, x: r.ack(x, key=HOST), "voucher_invalid"),
    "signature cut": (lambda r, x: msgspec.structs.replace(r.ack(x), signature="0x" + "00" * 65), "voucher_invalid"),
    "another session": (lambda r, x: msgspec.structs.replace(r.ack(x), session_id="other"), "message_out_of_order"),
}


@pytest.mark.parametrize(("voucher", "code"), BAD_VOUCHERS.values(), ids=BAD_VOUCHERS)
async def test_a_bad_voucher_pays_nothing_and_ends_nothing(served: Served, voucher: Voucher, code: str) -> None:
    """The log does not move, the session stands, and the good voucher for the same receipt is still taken."""
    renter = await served.renter()
    await renter.ask("one two")
    renter.take(await renter.until(StreamChunk))
    receipt = None
    while receipt is None or receipt.tokens < 5:
        message = await renter.next()
        if isinstance(message, StreamChunk):
            renter.take(message)
        elif isinstance(message, Receipt):
            receipt = message
    await renter.until(Response)
    bad = voucher(renter, receipt)
    if code == "message_malformed":  # signs nothing that a contract could hold
        bad = msgspec.structs.replace(renter.ack(receipt), amount="9" * 29)
    named(await renter.refused(bad), code)
    assert served.world.ledger(renter).acknowledged == 0
    await renter.send(renter.ack(receipt))
    await eventually(lambda: served.world.ledger(renter).acknowledged == 5)
    await served.sound(renter)


async def test_a_replayed_voucher_is_stale(served: Served) -> None:
    """The same signature twice pays once."""
    renter = await served.renter()
    await renter.ask("one two")
    _, end = await renter.hear(ack=False)
    assert isinstance(end, Response)
    head = renter.transcript
    voucher = renter.voucher(head.tokens, "1", to_hex(head.head))
    await renter.send(voucher)
    named(await renter.refused(voucher), "voucher_stale")
    assert served.world.ledger(renter).acknowledged == 5
    await served.sound(renter)


async def test_an_exhausted_deposit_ends_the_answer_and_admits_no_other() -> None:
    """Exactly what the deposit pays for is served: 12 tokens at a base unit each; the next prompt is `deposit_exhausted`."""
    async with serving(World(min_deposit=1, price=PricePerMTok(1_000_000))) as served:
        terms = some_terms(price=PricePerMTok(1_000_000), exposure=Tokens(64))
        renter = await served.renter(served.world.chain.open(terms, 12))
        await renter.ask("count 100")
        text, end = await renter.hear()
        assert text == " ".join(str(n) for n in range(1, 13))
        assert isinstance(end, Response) and (end.tokens_used, end.finish_reason) == (12, "deposit")
        named(await renter.refused(renter.prompt("more")), "deposit_exhausted")
        await eventually(lambda: served.world.ledger(renter).acknowledged == 12)
        await served.close(renter)
        again = await served.stranger(terms)
        again.continues(renter)
        named(await again.refused(again.resume()), "deposit_exhausted")
        ledger = served.world.ledger(renter)
        assert ledger.amount(ledger.acknowledged) == ledger.deposit == 12


async def test_a_client_that_never_acknowledges_gets_w_tokens_and_no_more(served: Served) -> None:
    """The stream stops at the bound; after `ack_timeout` the answer ends by name; the session stands and W tokens are at stake."""
    renter = await served.renter()
    await renter.ask("count 100")
    assert (await renter.hear(ack=False, until=8))[0] == "1 2 3 4 5 6 7 8"
    await served.world.clock.advance(29)
    assert served.world.ledger(renter).in_turn
    await served.world.clock.advance(2)
    fault = await renter.until(Error)
    named(fault, "ack_timeout")
    ledger = served.world.ledger(renter)
    assert (ledger.served, ledger.acknowledged, ledger.in_turn) == (8, 0, False)
    await served.sound(renter)


async def test_a_client_that_never_reads_is_dropped() -> None:
    """What it does not take fills buffers of a bounded size; after `write_timeout` it is gone and the engine is free."""
    flood = ScriptedEngine({"flood": ["x" * 65_536] * 250})
    async with serving(World(engine=flood, exposure_max=Tokens(4096))) as served:
        world = served.world
        renter = await served.stranger(world.chain.open(some_terms(exposure=Tokens(4096))), compression=None)
        await renter.open()
        assert isinstance(renter.wire, SocketWire)
        renter.wire.socket.transport.pause_reading()
        await renter.send(renter.prompt("flood"))
        while served.connected(renter):
            await world.clock.advance(10)
        events = [decode_event(data) for data in await world.journal.read("job:" + renter.job.hex())]
        assert events[-1] == TurnEnded(0, "client_too_slow")
        await eventually(lambda: world.engine.active == 0)
        assert world.ledger(renter).served < 250
        renter.wire.socket.transport.abort()
        await served.sound(renter)


async def test_an_engine_that_breaks_ends_the_answer_by_name_and_the_next_works(served: Served) -> None:
    """What was delivered stays delivered and is acknowledged; the prompt may be sent again."""
    for code in ("engine_failed", "engine_gone", "context_too_long"):
        served.world.engine.fail_next(3, code)
        renter = await served.renter()
        await renter.ask("count 6")
        text, end = await renter.hear()
        assert text == "1 2 3" and isinstance(end, Error)
        named(end, code)
        assert end.message_index == 0
        await eventually(lambda renter=renter: served.world.ledger(renter).acknowledged == 3)  # type: ignore[misc]
        await renter.open(renter.resume(conversation_context=()))
        assert await renter.chat("count 6") == "1 2 3 4 5 6"
        await served.sound(renter)


async def test_an_engine_that_is_down_shows_in_health_and_comes_back(served: Served) -> None:
    """During a crash prompts get `engine_gone`; after the restart the same session goes on."""
    renter = await served.renter()
    served.world.engine.crash("killed by signal 9")
    await renter.ask("hello")
    _, end = await renter.hear()
    assert isinstance(end, Error)
    named(end, "engine_gone")
    status, health = await served.get("/health")
    assert (status, health["engine"]["status"], health["engine"]["reason"]) == (503, "restarting", "killed by signal 9")
    served.world.engine.recover()
    await served.world.clock.advance(3)
    await renter.open(renter.resume())
    assert await renter.chat("hello") == "You said: hello"
    await served.sound(renter)


async def test_a_client_that_leaves_in_the_middle_frees_the_engine(served: Served) -> None:
    """The generation is cancelled, the log says where the answer was cut, and the renter can come back to where it was."""
    gate = served.world.engine.gate(6)
    renter = await served.renter()
    await renter.ask("count 100")
    await renter.hear(until=6)
    await gate.reached.wait()
    await served.close(renter)
    await eventually(lambda: served.world.engine.active == 0)
    assert served.world.engine.cancelled == 1 and not served.world.ledger(renter).in_turn
    again = await served.stranger(renter.terms)
    again.continues(renter)
    ready = await again.open(again.resume())
    assert ready.tokens_served == 6
    await again.hear(until=6)
    await served.sound(again)


async def test_a_failing_journal_serves_nothing_more_until_it_works() -> None:
    """`journal_failed` to the renter, `/health` says why, nobody is admitted; then all goes on from what is on the disk."""
    disk = FailingDisk()
    async with serving(World(journal=MemoryJournal(disk.hook))) as served:
        renter = await served.renter()
        await renter.chat("before")
        await eventually(lambda: served.world.ledger(renter).exposed == 0)
        disk.fails = True
        named(await renter.refused(renter.prompt("after")), "journal_failed")
        await eventually(lambda: not served.connected(renter))
        status, health = await served.get("/health")
        assert (status, health["status"], health["journal"]["status"]) == (503, "failing", "down")
        assert "disk full" in health["journal"]["reason"]
        other = await served.stranger()
        named(await other.refused(other.init()), "journal_failed")
        disk.fails = False
        await other.open()
        again = await served.stranger(renter.terms)
        again.continues(renter)
        ready = await again.open(again.resume())
        assert (ready.tokens_served, ready.tokens_acknowledged, ready.message_index) == (4, 4, 1)
        assert await again.chat("once more") == "You said: once more"
        await served.sound(again)
