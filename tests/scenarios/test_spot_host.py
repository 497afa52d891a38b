"""Hosts that prove with `spot`, on a devnet, from their configuration to the money: an honest one, one that was started again, one whose
renter is gone, and one that serves other weights than its model's id stands for."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fabstir.bootstrap.host import run_host
from fabstir.bootstrap.parts import deployed_circuit, deployed_spot
from fabstir.bootstrap.renter import renter_market
from fabstir.demo.accounts import host_ledgers
from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32, to_hex
from fabstir.domain.terms import MAX_CHALLENGE_SECONDS
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.reexecution.tracer import AnswerTracer
from fabstir.ops.config import Config
from fabstir.ops.settings import load
from fabstir.ports.chain import contract_addresses
from tests.engines.model_variants import Kind, write_variant
from tests.host.world import eventually
from tests.scenarios.host_place import SETTLE_SECONDS, HostPlace, host_place, registered

pytestmark = [pytest.mark.real, pytest.mark.scenario]
SPOT = '\n[proofs]\ncircuit = "spot"\n'

RENTER = """
import asyncio, json, os, signal, sys
from fabstir.bootstrap.renter import renter_market
from fabstir.ops.settings import from_tree

async def main(tree):
    async with renter_market(from_tree(tree)) as market:
        while not any(found.offer is not None for found in await market.hosts(refresh=True)):
            await asyncio.sleep(0.2)
        async with market.session("tiny-chat") as session:
            async for _ in session.prompt("Write about bees.", temperature=0.8, max_tokens=60):
                pass
            async for _ in session.prompt("Write about bees again.", temperature=0.8, max_tokens=60):
                os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(json.loads(sys.argv[1])))
"""
"""Asks twice, and is gone for ever with the first word of the second answer."""


class Place(HostPlace):
    """With a host of `spot`."""

    async def circuits(self) -> list[Hash32]:
        """Of the proofs that the market took, in order."""
        logs = await self.events(self.net.info.market, b"ProofAccepted(bytes32,uint32,bytes32,bytes32)")
        return [Hash32(bytes.fromhex(log["data"][2:])[32:64]) for log in logs]

    async def renter_dies(self) -> None:
        """A renter of its own asks twice and is killed in the middle of the second answer."""
        section = self.renter.renter
        renter = {"data_dir": str(section.data_dir), "key_file": str(section.key_file), "budget": section.budget}
        chain = {"rpc_urls": [self.net.url], **contract_addresses(self.net.info)}
        tree = json.dumps({"chain": chain, "renter": renter})
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", RENTER, tree)
        assert await process.wait() == -9


@asynccontextmanager
async def place(root: Path) -> AsyncIterator[Place]:
    """A devnet, a funded renter, and a host of `spot` that was not started."""
    async with host_place(root, idle_close=1) as plain:
        now = Place(plain.net, plain.rpc, plain.host, plain.renter)
        now.configure(SPOT)
        yield now


async def test_a_session_is_settled_by_a_proof_of_the_model(tmp_path: Path) -> None:
    """Policy `required`, answers greedy and drawn: offer and health tell the circuit, the market takes one proof, and it is `spot`; the
    host is paid, and nothing was weaker."""
    async with place(tmp_path) as now:
        await now.host.start()
        told = {"circuit": "ezkl/spot", "circuit_id": to_hex(deployed_spot())}
        for page in (await now.ask("/v1/offer"), (await now.ask("/health"))["prover"]):
            assert told.items() <= page.items()
        async with renter_market(now.renter) as market:
            await registered(market)
            async with market.session("tiny-chat") as session:
                for temperature in (0.0, 0.8):
                    async for _ in session.prompt("Write about bees.", temperature=temperature, max_tokens=60):
                        pass
            assert all(one.paid_out for one in await session.settled(SETTLE_SECONDS))
        assert await now.circuits() == [deployed_spot()]
        assert (await now.ask("/health"))["prover"]["weaker"] == 0
        await now.host.stop()
        assert await now.logged("proof_weaker") == []
        ((job, ledger),) = (await host_ledgers(now.host.config)).items()
        assert 0 < ledger.acknowledged <= await now.net.proven(job)


async def test_the_tail_of_a_renter_that_is_gone_is_proven_and_paid(tmp_path: Path) -> None:
    """What was served after the last signature is proven with `spot` and claimed; when nobody disputes it the host has its money."""
    async with place(tmp_path) as now:
        await now.host.start()
        await now.renter_dies()

        async def claimed() -> bool:
            return bool(await now.logged("tail_claimed"))

        async def closed() -> bool:
            return bool(await now.logged("job_closed"))

        await eventually(claimed, within=SETTLE_SECONDS)
        assert await now.circuits() == [deployed_spot()]
        await now.net.advance(MAX_CHALLENGE_SECONDS + 1)
        await eventually(closed, within=SETTLE_SECONDS)
        await now.host.stop()
        ((job, ledger),) = (await host_ledgers(now.host.config)).items()
        assert ledger.acknowledged < ledger.served == await now.net.proven(job)
        assert await now.owed(job) == ledger.amount(ledger.served)


async def test_a_host_that_was_started_again_proves_with_bind_and_says_so(tmp_path: Path) -> None:
    """The words were in the memory of the process that was killed: what it served is committed for `bind`, and paid."""
    async with place(tmp_path) as now, renter_market(now.renter) as market:
        await now.host.start()
        await registered(market)
        async with market.session("tiny-chat") as session:
            async for _ in session.prompt("Write about bees.", temperature=0.8, max_tokens=60):
                pass
            await now.host.kill()
            await now.host.start()
        assert all(one.paid_out for one in await session.settled(SETTLE_SECONDS))
        assert await now.circuits() == [deployed_circuit(now.renter)]
        assert (await now.ask("/health"))["prover"]["weaker"] == 1
        (said,) = await now.logged("proof_weaker")
        assert said["circuit"] == "ezkl/bind" and "preimages_missing" in said["reason"]


async def test_other_weights_under_the_id_are_not_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that answers, and traces, with other weights than those of the model in the terms has no proof of its tail: the rows of the
    registered head do not make of its states what its records list. It gets nothing."""
    other = tmp_path / "other.gguf"
    write_variant(other, Kind.F16, noise=0.2)

    def engine(_config: Config, _section: object, _place: str) -> LlamaEngine:
        return LlamaEngine(other, threads=1, top_logprobs=5)

    def tracer(_model: Path, answering: LlamaEngine, **_options: object) -> AnswerTracer:
        return AnswerTracer(other, answering, threads=1)

    monkeypatch.setattr("fabstir.bootstrap.models.engine_of", engine)
    monkeypatch.setattr("fabstir.bootstrap.spot.AnswerTracer", tracer)
    async with place(tmp_path) as now:
        with capture_logs() as logs:
            async with _running(now):
                await now.renter_dies()

                async def refused() -> bool:
                    said = [row for row in logs if row["event"] == "settlement_delayed"]
                    return any(row["code"] == "proof_failed" and "logit" in row["detail"] for row in said)

                await eventually(refused, within=SETTLE_SECONDS)
        ((job, ledger),) = (await host_ledgers(now.host.config)).items()
        assert ledger.served > ledger.acknowledged
        assert (await now.net.proven(job), await now.owed(job), await now.circuits()) == (0, 0, [])


@asynccontextmanager
async def _running(now: Place) -> AsyncIterator[None]:
    """The host in this process, so that it can be made to cheat."""
    stop, ready = asyncio.Event(), asyncio.Event()
    on_ready: Callable[..., None] = lambda *_: ready.set()  # noqa: E731 - two events, one line
    task = asyncio.create_task(run_host(load(now.host.config), stop, on_ready))
    try:
        await asyncio.wait((task, waiting := asyncio.create_task(ready.wait())), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        assert ready.is_set(), task
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, FabstirError):
            await task


@pytest.mark.parametrize(
    ("without_head", "says"), [(True, "are not committed on this machine"), (False, "not registered")]
)
async def test_a_host_without_a_registered_head_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_head: bool, says: str
) -> None:
    """`model_invalid`, with the next step: no rows committed here; committed here, and registered by nobody."""
    if without_head:
        monkeypatch.setattr("fabstir.models.head.PACKAGED", tmp_path)
        monkeypatch.setattr("fabstir.bootstrap.model_heads.PACKAGED", tmp_path)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    else:
        monkeypatch.setattr("fabstir.bootstrap.devnet.known_head", _no_head)
    async with place(tmp_path) as now:
        with pytest.raises(FabstirError, match=f"model_invalid.*{says}") as refused:
            await run_host(load(now.host.config), asyncio.Event(), lambda *_: None)
        assert "fabstir model commit" in refused.value.next_step and "fabstir model register" in refused.value.next_step


async def _no_head(_file: Path, _model: object) -> None:
    return None
