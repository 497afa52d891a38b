"""Databases in a directory of the test, with bounds so small that every rule of the plan is met with few rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fabstir.protocol.vectors.plan import Policy
from fabstir.testing.clock import ManualClock
from fabstir.vectors.database import VectorDatabase

SMALL = Policy(active_rows=1_024, exact_rows=2_048, graph_rows=4_096, recent_rows=8_192, segment_rows=65_536)
DIMENSION = 24


def clustered(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Unit vectors as embeddings are: around a few hundred centres."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((200, DIMENSION))
    rows = centres[random.integers(0, 200, count)] + 0.4 * random.standard_normal((count, DIMENSION))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def nearest(vectors: npt.NDArray[np.float32], query: npt.NDArray[np.float32], limit: int = 10) -> list[int]:
    """The rows that are truly nearest by the cosine."""
    return [int(row) for row in np.argsort(-(vectors @ query), kind="stable")[:limit]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(tmp_path: Path, clock: ManualClock) -> AsyncIterator[VectorDatabase]:
    opened = await VectorDatabase.open(tmp_path / "vectors", clock, SMALL)
    yield opened
    await opened.close()
