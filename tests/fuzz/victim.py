"""The host that the fuzzer attacks: the real server in a process of its own, with a scripted engine and a chain that knows every job.

Prints one line of JSON (URL, process id), then serves until its standard input ends. What it logs goes to standard error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, cast

from fabstir.api.server import settle_garbage_collector
from fabstir.domain.ids import JobId
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import JobState
from fabstir.host.jobs import stream_of
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import LogSection
from fabstir.ops.logging import configure
from fabstir.testing.journal import MemoryJournal
from tests.api.served import serving
from tests.host.table_chain import TableChain
from tests.host.world import World

DEPOSIT = BaseUnits(10**12)


class GenerousChain(TableChain):
    """Every job is open and has a deposit."""

    async def job(self, job: JobId) -> JobState:
        return self.states.get(job) or JobState(deposit=DEPOSIT)

    async def timestamp(self) -> int:
        return int(time.time())


async def settled(world: World) -> None:
    """What a session leaves behind until it is paid out (its ledger, its journal) is no leak, nor is what these fakes remember: it is
    taken away where a job has been without its renter for a second, so that anything else that stays is seen."""
    left: set[JobId] = set()
    assert isinstance(world.journal, MemoryJournal) and world.node._running is not None
    while True:
        await asyncio.sleep(1.0)
        book, at_work = world.node.book, set(world.node._running.reception._sessions)
        for job in left - at_work:
            book._ledgers.pop(job, None)
            book._locks.pop(job, None)
            world.journal._disk.events.pop(stream_of(job), None)
        left = set(book._ledgers) - at_work
        world.engine.requests.clear()
        world.settlements.clear()


async def attacked() -> None:
    """Serve; times are short, so that what hangs is let go while the fuzzer runs."""
    world = World(
        clock=cast(Any, SystemClock()),
        max_sessions=256,
        hello_timeout=5.0,
        write_timeout=5.0,
        ack_timeout=5.0,
        ping_seconds=2.0,
        prompts_per_minute=100_000,
    )
    world.chain = GenerousChain()
    world.node = world.new_node(world.journal)
    async with serving(world, max_connections=512) as served:
        settle_garbage_collector()
        forgetting = asyncio.create_task(settled(world))
        sys.stdout.write(json.dumps({"url": served.url}) + "\n")
        sys.stdout.flush()
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()
        forgetting.cancel()


if __name__ == "__main__":
    configure(LogSection(level="warning"))
    asyncio.run(attacked())
