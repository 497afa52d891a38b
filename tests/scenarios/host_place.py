"""A devnet with one host's process and one renter's configuration, and what can be asked of them. Decides nothing."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from fabstir.bootstrap.devnet import RunningDevnet, devnet
from fabstir.chain.bindings import JobMarketplace
from fabstir.chain.deploy import MINIMUM_STAKE
from fabstir.chain.deployer import read
from fabstir.chain.devnet import CHAIN_ID, DEV_KEYS, DevnetControl
from fabstir.chain.keys import load_key
from fabstir.chain.rpc import JsonRpc
from fabstir.demo.host_process import HostProcess
from fabstir.demo.places import Places
from fabstir.domain.ids import Address, JobId, to_hex
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.protocol.signing import SigningKey, keccak
from fabstir.renter.market import Market
from tests.host.world import eventually

SETTLE_SECONDS: Final = 90.0
HOST_KEY: Final = DEV_KEYS[1]


class HostPlace:
    """A host that was not started, funded, and a funded renter. `host_settings`: TOML after what every host has."""

    def __init__(self, net: RunningDevnet, rpc: JsonRpc, host: HostProcess, renter: Config) -> None:
        self.net, self.rpc, self.host, self.renter = net, rpc, host, renter
        self.control = DevnetControl(rpc)
        self._plain = host.config.read_text()

    def configure(self, more: str, **settings: int) -> None:
        """Of the host's next start: `more` after the usual sections, numbers of the section `host` instead of the usual ones."""
        text = self._plain
        for name, value in settings.items():
            kept = [line for line in text.splitlines() if not line.startswith(f"{name} = ")]
            text = "\n".join(kept).replace("[host]", f"[host]\n{name} = {value}") + "\n"
        self.host.config.write_text(text + more)

    async def ask(self, path: str) -> dict[str, Any]:
        """One of the host's pages."""

        def read_page() -> bytes:
            with urllib.request.urlopen(self.host.url + path, timeout=10) as answer:
                return bytes(answer.read())

        return dict(json.loads(await asyncio.to_thread(read_page)))

    async def events(self, contract: Address, signature: bytes) -> list[dict[str, Any]]:
        """The logs of one event, in order."""
        asked = {"address": to_hex(contract), "topics": [to_hex(keccak(signature))], "fromBlock": "0x0"}
        logs: list[dict[str, Any]] = await self.rpc.request("eth_getLogs", asked)
        return logs

    async def owed(self, job: JobId) -> int:
        """What the market has credited for a job, and does not hold."""
        found = await read(self.rpc, self.net.info.market, JobMarketplace.encode_jobs(job))
        state = JobMarketplace.decode_jobs(found)
        return int(state.owed) - int(state.held)

    async def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of the host's log about an event."""
        lines = await asyncio.to_thread((self.host.config.parent / "log").read_text)
        parsed = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
        return [line for line in parsed if line.get("event") == event]


@asynccontextmanager
async def host_place(root: Path, idle_close: int = 30) -> AsyncIterator[HostPlace]:
    """Up until the end; the host's process is killed then."""
    async with devnet(Config(), book=root / "addresses.json") as net:
        places = Places(root, net.url, net.info)
        renter = places.renter(os.urandom(32))
        host = HostProcess("a", places.host("a", HOST_KEY, idle_close=idle_close))
        await net.fund(SigningKey(load_key(renter.renter.key_file, chain_id=CHAIN_ID)).address)
        await net.fund(SigningKey(HOST_KEY).address, MINIMUM_STAKE)
        rpc = JsonRpc([net.url], SystemClock())
        try:
            yield HostPlace(net, rpc, host, renter)
        finally:
            await rpc.close()
            await host.kill()


async def registered(market: Market) -> None:
    """Return once the renter finds a host with an offer."""

    async def found() -> bool:
        return any(candidate.offer is not None for candidate in await market.hosts(refresh=True))

    await eventually(found)
