"""A market of prompt jobs on real parts: a devnet, two hosts as processes, one renter."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from fabstir.bootstrap.devnet import RunningDevnet, devnet
from fabstir.bootstrap.parts import FAULT_VARIABLE, open_journal
from fabstir.bootstrap.renter import renter_market
from fabstir.chain.deploy import MINIMUM_STAKE
from fabstir.chain.devnet import CHAIN_ID, DEV_KEYS
from fabstir.chain.keys import load_key, save_key
from fabstir.demo.accounts import withdraw_all
from fabstir.demo.host_process import HostProcess
from fabstir.demo.places import Places, _toml
from fabstir.demo.story import TREASURY_KEY
from fabstir.domain.prompts import PromptId
from fabstir.ops.config import Config
from fabstir.protocol.prompt_log import PromptLedger, decode_event
from fabstir.protocol.signing import SigningKey

KEYS = {"a": DEV_KEYS[1], "b": DEV_KEYS[2]}
ACCOUNTS = {name: SigningKey(key).address for name, key in KEYS.items()}
PATIENCE = 90.0


class Players:
    """The market of the scenario."""

    def __init__(self, root: Path, net: RunningDevnet) -> None:
        self.root = root
        self.net = net
        self.places = Places(root, net.url, net.info)
        self.renter = self.places.renter(os.urandom(32))
        self.account = SigningKey(load_key(self.renter.renter.key_file, chain_id=CHAIN_ID)).address
        self.hosts = {name: HostProcess(name, self.places.host(name, key)) for name, key in KEYS.items()}

    async def settle_in(self) -> None:
        """Everybody has money, and both hosts have registered once; none runs."""
        await self.net.fund(self.account)
        for account in ACCOUNTS.values():
            await self.net.fund(account, MINIMUM_STAKE)
        await asyncio.gather(*(host.start() for host in self.hosts.values()))
        async with renter_market(self.renter) as market:

            async def registered() -> bool:
                return len(await market.hosts(refresh=True)) == len(KEYS)

            await until(registered)
        await asyncio.gather(*(host.stop() for host in self.hosts.values()))

    async def start_doomed(self, name: str, fault: str) -> None:
        """A host that kills itself at a journal write."""
        os.environ[FAULT_VARIABLE] = fault
        try:
            await self.hosts[name].start()
        finally:
            del os.environ[FAULT_VARIABLE]

    async def ledger(self, name: str, prompt: PromptId) -> PromptLedger:
        """What a stopped host wrote down about the job."""
        journal = open_journal(self.root / f"host-{name}", CHAIN_ID)
        try:
            return PromptLedger.replay([decode_event(data) for data in await journal.read("prompt:" + prompt.hex())])
        finally:
            await journal.close()

    async def fabstir(self, *arguments: str) -> dict[str, Any]:
        """What `fabstir prompt ... --json` prints, with the renter's configuration."""
        file = self.root / "renter.toml"
        tree = msgspec.to_builtins(self.renter, enc_hook=str)
        sections = {name: part for name, part in tree.items() if isinstance(part, dict)}
        tree = {name: {k: v for k, v in part.items() if v is not None} for name, part in sections.items()}
        await asyncio.to_thread(file.write_text, _toml(tree))
        command = (sys.executable, "-m", "fabstir", "prompt", *arguments, "--json", "--config", str(file))
        running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        told: dict[str, Any] = json.loads((await running.communicate())[0])
        return told

    async def withdraw(self) -> int:
        """Everybody takes out what the market owes; returns how much that was."""
        await asyncio.gather(*(host.stop() for host in self.hosts.values()))
        treasury = self.root / "treasury"
        await asyncio.to_thread(treasury.mkdir)
        save_key(treasury / "key", TREASURY_KEY, chain_id=CHAIN_ID)
        homes = [*(self.root / f"host-{name}" for name in KEYS), treasury]
        return sum([await withdraw_all(self.renter, home / "key", home) for home in homes])


@asynccontextmanager
async def players(root: Path) -> AsyncIterator[Players]:
    async with devnet(Config(), book=root / "addresses.json") as net:
        found = Players(root, net)
        try:
            yield found
        finally:
            await asyncio.gather(*(host.kill() for host in found.hosts.values()))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return once it holds; a test that fails does so after a minute and a half."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)
