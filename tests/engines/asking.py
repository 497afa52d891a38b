"""How the tests of this directory ask an engine and collect what it says."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, NamedTuple, cast

from fabstir.domain.errors import FabstirError
from fabstir.ports.engine import ChatMessage, Engine, GenerationEnd, GenerationRequest, TokenBatch, TokenRecord


class Collected(NamedTuple):
    """A whole answer."""

    text: str
    records: list[TokenRecord]
    end: GenerationEnd
    batches: list[TokenBatch]

    @property
    def ids(self) -> list[int]:
        """Token ids in order."""
        return [record.token for record in self.records]


def ask(content: str, **fields: Any) -> GenerationRequest:
    """A request of one user message, greedy where nothing else is said."""
    given = {"messages": (ChatMessage("user", content),), "max_tokens": 200, "temperature": 0.0, **fields}
    return GenerationRequest(**given)


async def collect(engine: Engine, request: GenerationRequest) -> Collected:
    """The whole answer; checks what holds for every answer: one end, at last, and as many records as it counts."""
    batches: list[TokenBatch] = []
    end: GenerationEnd | None = None
    async for item in engine.generate(request):
        assert end is None
        if isinstance(item, GenerationEnd):
            end = item
        else:
            assert item.records, "a batch without a record"
            batches.append(item)
    assert end is not None
    records = [record for batch in batches for record in batch.records]
    assert end.completion_tokens == len(records)
    return Collected("".join(batch.text for batch in batches), records, end, batches)


async def first_batches(engine: Engine, request: GenerationRequest, count: int) -> list[TokenBatch]:
    """The first batches of an answer, which is then cancelled."""
    batches: list[TokenBatch] = []
    async with aclosing(cast("Any", engine.generate(request))) as items:
        async for item in items:
            batches.append(item)
            if len(batches) == count:
                break
    return batches


async def failure(engine: Engine, request: GenerationRequest) -> FabstirError:
    """The error with which the answer ends."""
    try:
        await collect(engine, request)
    except FabstirError as fault:
        return fault
    raise AssertionError("the answer did not fail")
