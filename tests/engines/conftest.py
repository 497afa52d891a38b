"""Real engines on the shipped model, one for the whole session, on one event loop; one thread each, since the cores are shared."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.engines.bigram import Bigram

from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model

PARALLEL = 8


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def llama() -> AsyncIterator[LlamaEngine]:
    """The tiny model, eight requests at a time."""
    engine = LlamaEngine(default_model(), context_size=2048, parallel=PARALLEL, threads=1)
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture(scope="session")
def bigram() -> Bigram:
    """The closed-form model's vocabulary and probabilities."""
    return Bigram()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def spelling(bigram: Bigram, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LlamaEngine]:
    """An engine whose sentences are full of characters that take several tokens."""
    path = tmp_path_factory.mktemp("bigram") / "bigram.gguf"
    bigram.write(path)
    engine = LlamaEngine(path, context_size=512, parallel=2, threads=1)
    await engine.start()
    yield engine
    await engine.stop()
