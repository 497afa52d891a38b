"""Prompt jobs on real parts: a chain, two hosts as processes with the tiny model, one renter; one host dies with its claim."""

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
import pytest

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
from fabstir.domain.ids import to_hex
from fabstir.domain.prompts import PromptId
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy
from fabstir.ops.config import Config
from fabstir.protocol.prompt_log import PromptLedger, Stage, decode_event
from fabstir.protocol.signing import SigningKey
from fabstir.renter.market import Market
from fabstir.renter.prompts import Order, PromptOptions

QUESTION = "Write about bees."
EXECUTE_SECONDS = 600
OPTIONS = PromptOptions(execute_seconds=EXECUTE_SECONDS, temperature=0.0)
KEYS = {"a": DEV_KEYS[1], "b": DEV_KEYS[2]}
ACCOUNTS = {name: SigningKey(key).address for name, key in KEYS.items()}
IN_THE_MIDDLE = "7:after"
"""The journal write at which host a dies: prompt seen, claim sent, three of its transaction, claim held, execution started."""
AT_THE_NEXT_JOB = "2:before"
"""The first write of its next life says that another answered the job that it died with; the second would be of a new job."""
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
        tree = {name: {k: v for k, v in part.items() if v is not None} for name, part in tree.items()}
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


async def job_of(market: Market, order: Order) -> JobState:
    answer = order._case.ledger.answer
    assert answer is not None
    return await market._chain.job(answer.job)


def said_in(root: Path, *texts: str) -> list[str]:
    """Files in which one of the texts, or the middle of one, can be read: journals, logs, blobs of everybody."""
    wanted = [text.encode() for text in texts] + [text[len(text) // 3 :][:24].encode() for text in texts]
    files = [path for path in root.rglob("*") if path.is_file()]
    assert len(files) > 10
    return [str(path) for path in files if any(text in path.read_bytes() for text in wanted)]


@pytest.mark.real
@pytest.mark.scenario
async def test_a_host_dies_with_its_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Host a claims and is killed in the middle; its claim lapses; the renter reserves the job for host b, which answers; the result is
    what b committed to; b proves it, its claim is held for the window and then paid. A second job, which nobody answers, is refunded
    after its deadline. Board and market are empty then, and all money is where it belongs, to the last unit."""
    monkeypatch.setenv("FABSTIR_HOST_PROMPT_SLOTS", "1")
    async with players(tmp_path) as stage:
        await stage.settle_in()
        had = await stage.net.usdc_of(stage.account)
        await stage.start_doomed("a", IN_THE_MIDDLE)
        async with renter_market(stage.renter, prompts=True) as market:
            model = (await market.models())[0].model_id
            order = await market.post_prompt(model=model, content=QUESTION, max_tokens=100, options=OPTIONS)
            async with asyncio.timeout(PATIENCE):
                await stage.hosts["a"].ended()
            status = await order.status()
            assert (status.board, status.host) == ("claimed", to_hex(ACCOUNTS["a"]))
            assert (await stage.ledger("a", order.id)).stage is Stage.RUNNING
        await stage.hosts["b"].start()
        async with renter_market(stage.renter, prompts=True) as market:  # another process of the renter
            order = market.order(order.id)
            await stage.net.advance(EXECUTE_SECONDS + 10)
            async with asyncio.timeout(PATIENCE):
                result = await order.result()
            assert (result.host, result.tokens > 10, "bee" in result.text.lower()) == (ACCOUNTS["b"], True, True)
            assert (await order.status()).lapsed == (to_hex(ACCOUNTS["a"]),)

            async def claimed() -> bool:
                return (await job_of(market, order)).stage is ClaimStage.CLAIMED

            await until(claimed)
            assert (await job_of(market, order)).held == result.price
            await stage.net.advance(order.terms.challenge + 1)
            async with asyncio.timeout(PATIENCE):
                assert await order.settled() == "settled"
            await _refunded(stage, market)
        await _told_on_the_command_line(stage, order, result.text)
        await stage.hosts["b"].stop()
        assert said_in(tmp_path, QUESTION, result.text) == []
        ledger = await stage.ledger("b", order.id)
        assert (ledger.stage, ledger.executions, ledger.holds) == (Stage.SETTLING, 1, 1)
        assert await stage.withdraw() == result.price == had - await stage.net.usdc_of(stage.account)
        for place in (stage.net.info.board, stage.net.info.market):
            assert await stage.net.usdc_of(place) == 0


async def _told_on_the_command_line(stage: Players, order: Order, text: str) -> None:
    """`fabstir prompt` finds both jobs again, and reads the answer from where it lies, although no host runs that has it."""
    await asyncio.gather(*(host.stop() for host in stage.hosts.values()))
    listed = (await stage.fabstir("list"))["prompts"]
    assert [(one["ended"], one["prompt"] == to_hex(order.id)) for one in listed] == [
        ("settled", True),
        ("refunded", False),
    ]
    assert (await stage.fabstir("result", to_hex(order.id)[:12]))["answer"] == text
    assert (await stage.fabstir("status", "0x00"))["error"]["code"] == "prompt_unknown"


async def _refunded(stage: Players, market: Market) -> None:
    """A job whose only host dies before it claims."""
    await stage.hosts["b"].stop()
    await stage.start_doomed("a", AT_THE_NEXT_JOB)
    model = (await market.models())[0].model_id
    order = await market.post_prompt(
        model=model, content=QUESTION, max_tokens=100, deadline=1_800, hosts=[ACCOUNTS["a"]], options=OPTIONS
    )
    async with asyncio.timeout(PATIENCE):
        await stage.hosts["a"].ended()
    await stage.net.advance(1_801)
    assert (await order.refund()).ended == "refunded"


@pytest.mark.real
@pytest.mark.scenario
async def test_two_hosts_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six jobs, two hosts at the same time, vouchers instead of proofs: each is answered once and paid at once, nobody waits for a
    window, and the money adds up to the last unit."""
    monkeypatch.setenv("FABSTIR_HOST_PROMPT_SLOTS", "2")
    async with players(tmp_path) as stage:
        await stage.settle_in()
        had = await stage.net.usdc_of(stage.account)
        await asyncio.gather(*(host.start() for host in stage.hosts.values()))
        signing = msgspec.structs.replace(OPTIONS, policy=ProofPolicy.FALLBACK)
        async with renter_market(stage.renter, prompts=True) as market:
            model = (await market.models())[0].model_id
            orders = [
                await market.post_prompt(model=model, content=f"Count to {n}.", max_tokens=80, options=signing)
                for n in range(3, 9)
            ]
            async with asyncio.timeout(PATIENCE):
                results = await asyncio.gather(*(order.result() for order in orders))
                assert {await order.settled() for order in orders} == {"settled"}
        await asyncio.gather(*(host.stop() for host in stage.hosts.values()))
        for order, result in zip(orders, results, strict=True):
            (name,) = [name for name, account in ACCOUNTS.items() if account == result.host]
            assert (await stage.ledger(name, order.id)).executions == 1
        paid = sum(result.price for result in results)
        assert await stage.withdraw() == paid == had - await stage.net.usdc_of(stage.account)
