"""Real provers for this folder's tests: one key cache for the run, one prover per module."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fabstir.proofs.process import EzklProver

DEVNET = 31337


def records_of(count: int, salt: str = "") -> tuple[bytes, ...]:
    """`count` different digests."""
    return tuple(hashlib.sha256(f"{salt}{n}".encode()).digest() for n in range(count))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this run keeps its proving key."""
    return tmp_path_factory.mktemp("cache")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prover(cache: Path) -> AsyncIterator[EzklProver]:
    """A prover that runs."""
    prover = EzklProver(chain_id=DEVNET, cache=cache)
    await prover.start()
    yield prover
    await prover.stop()
