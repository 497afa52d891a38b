"""A running host for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.host.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Everything in memory, on a clock that stands still."""
    async with World().running() as running:
        yield running
