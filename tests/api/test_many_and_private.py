"""Many sessions at once, whose sums are right; and nothing of what was said on the disk or in the log."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import structlog
from tests.api.served import Served, serving
from tests.host.world import PRICE, Renter, World, eventually, some_terms
from websockets.exceptions import ConnectionClosed

from fabstir.domain.money import Tokens, cost
from fabstir.ops.config import LogSection
from fabstir.ops.logging import configure
from fabstir.ports.engine import GenerationEnd, GenerationRequest, TokenBatch
from fabstir.protocol.messages import Error, Response
from fabstir.storage.journal import SqliteJournal
from fabstir.testing.engine import ScriptedEngine

SESSIONS = 64


async def _three_turns(served: Served, number: int) -> Renter:
    """Turns of different lengths, one of them cancelled by leaving and coming back."""
    renter = await served.renter(served.world.chain.open(some_terms(exposure=Tokens(8 + number % 5))))
    assert await renter.chat(f"count {number + 1}") == " ".join(str(n) for n in range(1, number + 2))
    await renter.ask("count 200")
    await renter.hear(until=renter.transcript.tokens + 7)
    await served.close(renter)
    again = (await served.stranger(renter.terms)).continues(renter)
    await again.open(again.resume())
    assert await again.chat(f"I am {number}") == f"You said: I am {number}"
    return again


async def test_sixty_four_sessions_at_once_and_every_sum_is_right() -> None:
    """Each renter gets its own answer; host, renter and disk agree on every token, and the money is tokens times price."""
    async with serving(World(engine=ScriptedEngine(parallel=8), exposure_max=Tokens(64))) as served:
        renters = await asyncio.gather(*(_three_turns(served, number) for number in range(SESSIONS)))
        world = served.world
        await eventually(lambda: all(world.ledger(renter).exposed == 0 for renter in renters))
        assert {world.ledger(renter).served for renter in renters} == {r.transcript.tokens for r in renters}
        total = sum(world.ledger(renter).served for renter in renters)
        paid = sum(world.ledger(renter).amount(world.ledger(renter).acknowledged) for renter in renters)
        assert paid == sum(cost(renter.transcript.tokens, PRICE) for renter in renters)
        node = await world.restarted()
        assert sum(ledger.served for ledger in node.book.ledgers()) == total
        for renter in renters:
            kept = node.book.get(renter.job)
            assert kept is not None and (kept.served, kept.head) == (renter.transcript.tokens, renter.transcript.head)


def _contents(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(directory.iterdir()))


SECRETS = ("Xylophone", "Quetzalcoatl", "Zanzibar", "Mnemosyne", "Brobdingnag")


async def test_what_was_said_is_neither_on_the_disk_nor_in_the_log(tmp_path: Path) -> None:
    """Prompt, answer, context, prefix and stop sequence: the data directory and everything logged, at the lowest level, know none."""
    seen = io.StringIO()
    handler = logging.StreamHandler(seen)
    handler.addFilter(lambda record: record.name != "websockets.client")  # the renter's own
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in (None, "uvicorn.error", "websockets", "fabstir")}
    root.addHandler(handler)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(seen))
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.DEBUG)
        journal = SqliteJournal(tmp_path / "journal.db")
        async with serving(
            World(journal=journal, engine=ScriptedEngine({"Xylophone?": ["Quetzal", "coatl"]}))
        ) as served:
            logging.getLogger("uvicorn.error").setLevel(logging.DEBUG)
            renter = await served.renter()
            assert await renter.chat("Xylophone?") == "Quetzalcoatl"
            served.world.engine.fail_next(1)
            await renter.ask("Zanzibar", stop=("Mnemosyne",), prefix="Brobdingnag")
            _, end = await renter.hear()
            assert isinstance(end, Error)
            await renter.refused('{"type": "prompt", "content": "Zanzibar"}')
            await renter.refused("Zanzibar")
            await renter.open(renter.resume())
            await renter.ask("Zanzibar")
            assert isinstance((await renter.hear())[1], Response)
            await served.close(renter)
        await journal.close()
    finally:
        root.removeHandler(handler)
        structlog.reset_defaults()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    written = _contents(tmp_path) + seen.getvalue().encode()
    assert b"session_opened" in written and b"job:" in written and b"Shutting down" in written
    assert [secret for secret in SECRETS if secret.encode() in written or secret[:7].encode() in written] == []


class QuotingEngine(ScriptedEngine):
    """Fails in the middle of an answer as code does that nobody foresaw: quoting what it had in hand."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenBatch | GenerationEnd, None]:
        async for item in super().generate(request):
            yield item
            said = request.messages[-1].content
            if "Xylophone" in said:
                raise RuntimeError(said) from json.JSONDecodeError(said, said, 0)


async def test_an_exception_in_the_middle_of_an_answer_tells_its_place_and_nothing_of_what_was_said() -> None:
    """It is logged, with type and place; the connection ends, and others are served."""
    seen = io.StringIO()
    root = logging.getLogger()
    before = list(root.handlers), root.level
    configure(LogSection(level="debug", format="json"), seen)
    try:
        async with serving(World(engine=QuotingEngine())) as served:
            renter = await served.renter()
            await renter.ask("Xylophone Quetzalcoatl")
            with pytest.raises(ConnectionClosed):
                await renter.hear()
            await eventually(lambda: "RuntimeError" in seen.getvalue())
            await served.sound(renter)
    finally:
        root.handlers[:], root.level = before
        structlog.reset_defaults()
    assert "test_many_and_private.py" in seen.getvalue()
    assert [secret for secret in SECRETS if secret in seen.getvalue()] == []
