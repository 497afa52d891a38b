"""A host behind its real server for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.api.served import Served, serving
from tests.host.world import World


class QuickSleep:
    """asyncio as uvicorn sees it here. It looks every tenth of a second whether it shall stop and whether its connections are gone,
    twice for each server that a test starts: a third of the whole run, were it not shorter here."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / 20)


@pytest.fixture(autouse=True)
def _quick_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What uvicorn waits for is the same; it looks more often."""
    monkeypatch.setattr("uvicorn.server.asyncio", QuickSleep())


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """Loopback, a free port, a clock that stands still."""
    async with serving(World()) as running:
        yield running
