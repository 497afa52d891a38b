"""Rung 2 with the real model, from the host's engine to `fabstir verify session`: whose weights made the fingerprints is found out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.engines.model_variants import Kind, write_variant
from tests.renter.test_failover import gather
from tests.renter.world import Host, World

from fabstir.bootstrap.parts import TINY_REPOSITORY
from fabstir.bootstrap.verification import SessionReport, Weights, verify_session
from fabstir.domain.errors import FabstirError
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model
from fabstir.engines.reexecution.reexecutor import Reexecutor
from fabstir.engines.reexecution.tracer import AnswerTracer
from fabstir.engines.scoring import ScoringEngine
from fabstir.models.identity import identify
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.transcript_file import SessionTranscript, encode_file
from fabstir.renter.keeping import Keeper

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="session")]
ANSWERS = 14
"""Enough tokens for a verdict."""


@contextlib.asynccontextmanager
async def market_of(lesser: Path | None) -> AsyncIterator[World]:
    """One host with the tiny model, whose fingerprints come from `lesser` weights where such are given."""
    llama = LlamaEngine(default_model(), parallel=2, threads=1, context_size=1024)
    engine = ScoringEngine(llama, Reexecutor(default_model(), threads=1), top=4)
    world, other = World(), ScoringEngine(llama, Reexecutor(lesser or default_model(), threads=1), top=4)
    model = identify(default_model(), TINY_REPOSITORY).model_id
    host = Host(world, 1, 200_000, engine, model_id=model, fingerprints=True)  # type: ignore[arg-type]
    host.fingerprinter = other if lesser else engine  # type: ignore[assignment]
    host.node = host._new_node()
    async with contextlib.AsyncExitStack() as running:
        running.push_async_callback(host.stop)
        if lesser:
            await running.enter_async_context(other.reexecutor)
        await host.start()
        world.hosts.append(host)
        yield world


async def session_of(folder: Path, lesser: Path | None = None) -> SessionTranscript:
    """What a renter has of some answers."""
    keeper = Keeper(folder, words=True)
    async with market_of(lesser) as world, world.market() as market:
        market.keeping(keeper)
        async with market.session(world.hosts[0].settings.model_id, rung=2) as session:
            for number in range(ANSWERS):
                await session.rebase(())
                await gather(session.prompt(f"Tell me a story about number {number}.", seed=number))
            [job] = session.jobs
    return keeper.transcript(job.ledger)


async def verified(session: SessionTranscript) -> SessionReport:
    return await verify_session(encode_file(session), Weights(path=default_model()), None, threads=1)


def gate(report: SessionReport, name: str) -> Any:
    return next(gate for gate in report.verdict.gates if gate.name == name)


async def test_an_honest_host_is_consistent(tmp_path: Path) -> None:
    """By all five questions, with a fingerprint for each 32 tokens of each answer; one that is changed in the file is no evidence."""
    session = await session_of(tmp_path)
    report = await verified(session)
    assert report.verdict.outcome == "consistent", report.verdict.gates
    asked = gate(report, "fingerprint")
    assert asked.passed and asked.count == sum(-(-len(turn.records) // 32) for turn in session.turns) >= ANSWERS
    first, *rest = session.turns
    forged = (first.fingerprints[0][:-1] + bytes([first.fingerprints[0][-1] ^ 1]), *first.fingerprints[1:])
    tampered = msgspec.structs.replace(session, turns=(msgspec.structs.replace(first, fingerprints=forged), *rest))
    with pytest.raises(FabstirError, match=r"receipt_file_invalid.*fingerprints"):
        await verified(tampered)


async def test_fingerprints_of_other_weights_are_found(tmp_path: Path) -> None:
    """The right weights generate, Q8_0 of them make the fingerprints: this question alone says so."""
    lesser = tmp_path / "tiny-chat-q8_0.gguf"
    write_variant(lesser, Kind.Q8_0)
    report = await verified(await session_of(tmp_path / "kept", lesser))
    assert report.verdict.outcome == "inconsistent"
    assert [gate.name for gate in report.verdict.gates if not gate.passed] == ["fingerprint"]


async def test_one_re_execution_serves_all() -> None:
    """Scores, fingerprints and the traces of `spot` come from one process, which ends with the last of its users."""
    llama = LlamaEngine(default_model(), parallel=1, threads=1, context_size=512)
    shared = Reexecutor(default_model(), threads=1)
    engine = ScoringEngine(llama, shared, top=4)
    tracer = AnswerTracer(default_model(), engine, shared=engine.reexecutor)
    await asyncio.gather(engine.start(), tracer.start())
    process = shared.child
    await tracer.stop()
    assert shared.child is process
    assert len(await engine.fingerprints((ChatMessage("user", "hi"),), "", tuple(range(300, 333)))) == 2
    await engine.stop()
    await engine.stop()
    with pytest.raises(RuntimeError):
        _ = shared.child
