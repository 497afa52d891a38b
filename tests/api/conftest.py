"""A host behind its real server for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.api.served import Served, serving
from tests.host.world import World


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """Loopback, a free port, a clock that stands still."""
    async with serving(World()) as running:
        yield running
