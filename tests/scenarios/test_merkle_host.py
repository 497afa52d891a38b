"""Hosts that prove with the Merkle back end, as processes on a devnet, from their configuration to the money."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fabstir.bootstrap.devnet import RunningDevnet, devnet
from fabstir.bootstrap.renter import renter_market
from fabstir.chain.deploy import MINIMUM_STAKE
from fabstir.chain.devnet import CHAIN_ID, DEV_KEYS
from fabstir.chain.keys import load_key
from fabstir.demo.accounts import host_ledgers
from fabstir.demo.host_process import HostProcess
from fabstir.demo.places import Places
from fabstir.domain.ids import to_hex
from fabstir.ops.config import Config
from fabstir.protocol.openings import BIND_CIRCUIT, SAMPLE_CIRCUIT
from fabstir.protocol.signing import SigningKey
from fabstir.renter.market import Market
from fabstir.renter.session import Session
from tests.host.world import eventually

pytestmark = [pytest.mark.real, pytest.mark.scenario]
SETTLE_SECONDS = 90.0


class Place:
    """A devnet with one host."""

    def __init__(self, net: RunningDevnet, places: Places, host: HostProcess, renter: Config) -> None:
        self.net, self.places, self.host, self.renter = net, places, host, renter
        self._plain = host.config.read_text()

    def configure(self, circuit: str) -> None:
        """Of the host's next start."""
        self.host.config.write_text(f'{self._plain}\n[proofs]\nbackend = "merkle"\ncircuit = "{circuit}"\n')

    async def ask(self, path: str) -> dict[str, Any]:
        """One of the host's pages."""

        def read() -> bytes:
            with urllib.request.urlopen(self.host.url + path, timeout=10) as answer:
                return bytes(answer.read())

        return dict(json.loads(await asyncio.to_thread(read)))

    async def proven(self) -> list[tuple[int, int, int]]:
        """(acknowledged, proven, served) of each job."""
        ledgers = await host_ledgers(self.host.config)
        return [(one.acknowledged, await self.net.proven(job), one.served) for job, one in ledgers.items()]


@asynccontextmanager
async def place(root: Path, circuit: str) -> AsyncIterator[Place]:
    """Up with a host that proves `circuit`, and down at the end."""
    async with devnet(Config(), book=root / "addresses.json") as net:
        places = Places(root, net.url, net.info)
        renter = places.renter(os.urandom(32))
        host = HostProcess("a", places.host("a", DEV_KEYS[1]))
        now = Place(net, places, host, renter)
        now.configure(circuit)
        await net.fund(SigningKey(load_key(renter.renter.key_file, chain_id=CHAIN_ID)).address)
        await net.fund(SigningKey(DEV_KEYS[1]).address, MINIMUM_STAKE)
        try:
            await host.start()
            yield now
        finally:
            await host.kill()


async def _registered(market: Market) -> None:
    async def found() -> bool:
        return any(candidate.offer is not None for candidate in await market.hosts(refresh=True))

    await eventually(found)


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
            await _registered(market)
            async with market.session("tiny-chat") as session:
                for temperature in (0.0, 0.8, 1.3):
                    await _talk(session, temperature)
            assert await _paid(session)
        await now.host.stop()
        ((acknowledged, proven, served),) = await now.proven()
        assert 0 < acknowledged <= proven <= served


async def test_a_host_that_lost_its_memory_settles_with_bind(tmp_path: Path) -> None:
    """What was served under `sample` before a crash is proven by `bind` after it and paid, with the same configuration; `/health` says so,
    and what is served from then on is proven by `sample` again. No token is lost to a restart."""
    async with place(tmp_path, "sample") as now, renter_market(now.renter) as market:
        await _registered(market)
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
        jobs = await now.proven()
        assert len(jobs) == 2
        assert all(0 < acknowledged <= proven for acknowledged, proven, _ in jobs)
