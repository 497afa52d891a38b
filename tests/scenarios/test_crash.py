"""A host dies (SIGKILL) at every journal write in turn; the money is right each time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fabstir.demo.crash import KillPoint, crash_market

MOST_WRITES = 80


@pytest.mark.real
@pytest.mark.scenario
@pytest.mark.timeout(900)
async def test_host_killed_at_every_journal_write(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever write it dies at, the restarted host is paid what the renter signed: at most W tokens are lost, none is paid twice.
    In two markets side by side: in one it dies after every odd write, in the other before every even one."""
    after_folder, before_folder = tmp_path_factory.mktemp("after"), tmp_path_factory.mktemp("before")
    after, before = await asyncio.gather(_sweep(after_folder, 1), _sweep(before_folder, 2))
    assert len(after) + len(before) > 15, "a whole session takes more writes than that"
    assert max(len(after), len(before)) < MOST_WRITES // 2 - 1, (
        "the last run of each must be one that nothing disturbed"
    )


async def _sweep(folder: Path, first: int) -> list[KillPoint]:
    tried = []
    async with crash_market(folder) as market:
        for write in range(first, MOST_WRITES, 2):
            point = await market.run(write, "after" if write % 2 else "before")
            assert point.fault(market.exposure) == "", point
            assert point.tokens_received > 0
            if not point.killed:
                break
            tried.append(point)
    return tried
