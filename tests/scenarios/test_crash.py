"""A host dies (SIGKILL) at every journal write in turn; the money is right each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabstir.demo.crash import Phase, crash_market

MOST_WRITES = 80


@pytest.mark.real
@pytest.mark.scenario
@pytest.mark.timeout(900)
async def test_host_killed_at_every_journal_write(tmp_path: Path) -> None:
    """Whatever write it dies at, the restarted host is paid what the renter signed: at most W tokens are lost, none is paid twice."""
    tried = []
    async with crash_market(tmp_path) as market:
        for write in range(1, MOST_WRITES):
            phase: Phase = "after" if write % 2 else "before"
            point = await market.run(write, phase)
            assert point.fault(market.exposure) == "", point
            assert point.tokens_received > 0
            if not point.killed:
                break
            tried.append(point)
    assert len(tried) > 15, f"a whole session must take more writes than {len(tried)}"
    assert len(tried) < MOST_WRITES - 1, "the last run must be one that nothing disturbed"
