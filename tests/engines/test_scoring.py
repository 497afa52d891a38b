"""An engine that scores, on the real model: what it says of an answer is what the engine said that made it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.engines.asking import ask, collect

from fabstir.domain.errors import FabstirError
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model
from fabstir.engines.reexecution.reexecutor import Reexecutor
from fabstir.engines.reexecution.tolerances import tolerance_for
from fabstir.engines.scoring import BATCH, ScoringEngine
from fabstir.protocol.audit import judge
from fabstir.protocol.audit_by_host import scored_evidence

SESSION: Any = pytest.mark.asyncio(loop_scope="session")
pytestmark = [pytest.mark.real, SESSION]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engine() -> AsyncIterator[ScoringEngine]:
    """The tiny model, twice."""
    llama = LlamaEngine(default_model(), parallel=2, threads=1, context_size=1024)
    scoring = ScoringEngine(llama, Reexecutor(default_model(), threads=1), top=4)
    await scoring.start()
    yield scoring
    await scoring.stop()


async def test_an_own_answer_is_scored_as_it_was_made(engine: ScoringEngine) -> None:
    """Over enough tokens for a verdict: consistent, by the tolerance that ships; no text comes, and the counts are exact."""
    evidence = []
    for number in range(14):
        request = ask(f"Tell me a story about number {number}.", temperature=0.8, seed=number)
        made = await collect(engine, request)
        again = await collect(engine, ask(request.messages[0].content, temperature=0.8, score=tuple(made.ids)))
        assert (again.text, again.ids, again.end.completion_tokens) == ("", made.ids, len(made.ids))
        assert again.end.prompt_tokens == made.end.prompt_tokens
        assert max(len(batch.records) for batch in again.batches) <= BATCH
        evidence.append(scored_evidence(made.records, again.records, greedy=False))
    verdict = judge(evidence, tolerance_for(engine.info.sha256))
    assert verdict.outcome == "consistent", verdict.gates


async def test_another_answer_is_not_likely(engine: ScoringEngine) -> None:
    """Tokens that the model would not have said."""
    made = await collect(engine, ask("Tell me a story about a river."))
    false = tuple(reversed(made.ids))
    scored = await collect(engine, ask("Tell me a story about a river.", score=false))
    likely = sum(record.logprob for record in made.records) / len(made.records)
    assert sum(record.logprob for record in scored.records) / len(false) < likely - 2_000_000


async def test_it_still_generates_and_is_well(engine: ScoringEngine) -> None:
    """Scoring takes nothing away."""
    assert "r-i-v-e-r" in (await collect(engine, ask("Spell river."))).text
    assert (await engine.health()).status == "ok"
    assert await engine.count_tokens(ask("hi").messages) > 0


async def test_what_cannot_be_scored(engine: ScoringEngine) -> None:
    """More than the context holds; ids that the model does not have."""
    for tokens, code in (((5,) * 2_000, "context_too_long"), ((2**31,), "token_unknown")):
        with pytest.raises(FabstirError, match=code):
            await collect(engine, ask("hi", score=tokens))
    assert (await engine.health()).status == "ok"
