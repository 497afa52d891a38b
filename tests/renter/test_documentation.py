"""The page for programmers runs as it is written."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.renter.world import World, world_of

from fabstir.bootstrap import renter
from fabstir.ops.config import Config
from fabstir.renter import Market
from fabstir.testing.engine import ScriptedEngine


def test_the_example_in_the_how_to_works(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Copied as it stands; only key, chain and hosts are in memory."""

    @contextlib.asynccontextmanager
    async def in_memory(_: Config) -> AsyncIterator[Market]:
        async with world_of() as world:
            await world.host(200_000, ScriptedEngine(name="tiny-chat"))
            monkeypatch.setattr(world.clock, "sleep", _settle(world))
            async with world.market() as market:
                yield market

    monkeypatch.setattr(renter, "renter_market", in_memory)
    [code] = re.findall(r"```python\n(.*?)```", Path("docs/how-to/rent.md").read_text("utf-8"), re.DOTALL)
    exec(compile(code, "docs/how-to/rent.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert "You said: What is the capital of Peru?AnswerReport(finish_reason='stop'" in printed
    assert "Settlement(" in printed and "SETTLED" in printed


def _settle(world: World) -> object:
    """Whoever waits for the settlement sees the host do its part."""

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)
        if all(ledger.finished for ledger in world.hosts[0].ledgers):
            world.close_by_host(world.hosts[0])

    return sleep
