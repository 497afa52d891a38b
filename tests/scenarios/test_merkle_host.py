"""Hosts that prove with the Merkle back end, as processes on a devnet, from their configuration to the money."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fabstir.bootstrap.renter import renter_market
from fabstir.demo.accounts import host_ledgers
from fabstir.domain.ids import to_hex
from fabstir.protocol.openings import BIND_CIRCUIT, SAMPLE_CIRCUIT
from fabstir.renter.session import Session
from tests.scenarios.host_place import SETTLE_SECONDS, HostPlace, host_place, registered

pytestmark = [pytest.mark.real, pytest.mark.scenario]


async def _proven(now: HostPlace) -> list[tuple[int, int, int]]:
    """(acknowledged, proven, served) of each job."""
    ledgers = await host_ledgers(now.host.config)
    return [(one.acknowledged, await now.net.proven(job), one.served) for job, one in ledgers.items()]


@asynccontextmanager
async def place(root: Path, circuit: str) -> AsyncIterator[HostPlace]:
    """Up with a host that proves `circuit`."""
    async with host_place(root) as now:
        now.configure(f'\n[proofs]\nbackend = "merkle"\ncircuit = "{circuit}"\n')
        await now.host.start()
        yield now


async def _talk(session: Session, temperature: float) -> None:
    async for _ in session.prompt("Write about bees.", temperature=temperature, max_tokens=60):
        pass


async def _paid(session: Session) -> bool:
    return all(one.paid_out for one in await session.settled(SETTLE_SECONDS))


@pytest.mark.parametrize(("circuit", "circuit_id"), [("bind", BIND_CIRCUIT), ("sample", SAMPLE_CIRCUIT)])
async def test_a_session_is_settled_on_an_opening(tmp_path: Path, circuit: str, circuit_id: bytes) -> None:
    """Real answers, greedy and drawn, pass the rule of `sample` on chain; offer and health tell the circuit; the host is paid."""
    async with place(tmp_path, circuit) as now:
        told = {"circuit": f"merkle/{circuit}", "circuit_id": to_hex(circuit_id)}
        for page in (await now.ask("/v1/offer"), (await now.ask("/health"))["prover"]):
            assert told.items() <= page.items()
        async with renter_market(now.renter) as market:
            await registered(market)
            async with market.session("tiny-chat") as session:
                for temperature in (0.0, 0.8, 1.3):
                    await _talk(session, temperature)
            assert await _paid(session)
        await now.host.stop()
        ((acknowledged, proven, served),) = await _proven(now)
        assert 0 < acknowledged <= proven <= served


async def test_a_host_that_lost_its_memory_settles_with_bind(tmp_path: Path) -> None:
    """What was served under `sample` before a crash is proven by `bind` after it and paid, with the same configuration; `/health` says so,
    and what is served from then on is proven by `sample` again. No token is lost to a restart."""
    async with place(tmp_path, "sample") as now, renter_market(now.renter) as market:
        await registered(market)
        async with market.session("tiny-chat") as session:
            await _talk(session, 0.8)
            await now.host.kill()
            await now.host.start()
            assert (await now.ask("/health"))["prover"]["weaker"] == 0
        assert await _paid(session)
        told = (await now.ask("/health"))["prover"]
        assert (told["circuit"], told["weaker"], told["status"]) == ("merkle/sample", 1, "ok")
        async with market.session("tiny-chat") as session:
            await _talk(session, 0.8)
        assert await _paid(session)
        assert (await now.ask("/health"))["prover"]["weaker"] == 1
        await now.host.stop()
        jobs = await _proven(now)
        assert len(jobs) == 2
        assert all(0 < acknowledged <= proven for acknowledged, proven, _ in jobs)
