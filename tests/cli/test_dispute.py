"""`fabstir dispute` on a real chain: a claim seen, disputed, ruled on and settled by hand, each by whoever may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.chain.playing import World
from tests.chain.support import Chain, mine_until, rpc_to, set_up
from tests.chain.test_memory_claims import BOND, MANY, SIGNED, Claims
from tests.cli.conftest import Fabstir

from fabstir.bootstrap.parts import address_book, open_journal
from fabstir.chain import addresses
from fabstir.chain.anvil import find_anvil
from fabstir.chain.devnet import DEV_KEYS, Devnet, DevnetControl
from fabstir.chain.market import MarketClient
from fabstir.domain.ids import to_hex
from fabstir.domain.terms import ClaimStage, Terms
from fabstir.ops import paths, settings
from fabstir.ops.clock import SystemClock
from fabstir.protocol.signing import SigningKey, job_id
from fabstir.testing.journal import MemoryJournal

KEYS = {"renter": DEV_KEYS[1], "host": DEV_KEYS[2], "arbiter": DEV_KEYS[3]}


@pytest.fixture
async def anvil() -> Path:
    """Before the directories are moved, so that it is fetched once per machine."""
    return await find_anvil(paths.cache_dir())


@pytest.fixture
async def chain(anvil: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Chain]:
    """With the believing verifier; the settings of this process and the keys of all three roles are for it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    async with Devnet(anvil) as net:
        made = await set_up(net.url)
        monkeypatch.setenv("FABSTIR_CHAIN_RPC_URLS", net.url)
        paths.config_dir().mkdir(parents=True)
        for role, key in KEYS.items():
            file = paths.config_dir() / f"{role}.key"
            file.touch(mode=0o600)
            file.write_text(key.hex())
        addresses.save(address_book(), made.info)
        yield made


@pytest.fixture
async def play(chain: Chain) -> AsyncIterator[Claims]:
    """The parties as a running node has them; the market may take the renter's USDC."""
    async with AsyncExitStack() as stack:
        rpc = rpc_to(chain.url)
        stack.push_async_callback(rpc.close)
        control, clients = DevnetControl(rpc), []
        for index in (1, 2, 0, 3):
            client = await MarketClient.connect(
                [chain.url], DEV_KEYS[index], chain.info, MemoryJournal(), SystemClock()
            )
            stack.push_async_callback(client.close)
            clients.append(client)

        async def mine_to(block: int) -> None:
            await mine_until(control, rpc, block)

        renter, host, treasury, other = clients
        world = World(renter, host, treasury, other, chain.model, mine_to, control.advance)
        yield Claims(world, await renter.timestamp())


class Shell:
    """`fabstir dispute ...` as its users type it, beside the loop that the chain's clients live in."""

    def __init__(self, fabstir: Fabstir) -> None:
        self._fabstir = fabstir

    async def told(self, *arguments: str) -> dict[str, Any]:
        ran = await asyncio.to_thread(self._fabstir, "dispute", *arguments, "--json")
        assert ran.code == 0, ran.out + ran.err
        return ran.json()

    async def claims(self, role: str) -> list[tuple[str, str, list[str], str]]:
        found = (await self.told("list", "--role", role))["claims"]
        return [(claim["job"], claim["stage"], claim["you_are"], claim["awaits"]) for claim in found]

    async def refused(self, *arguments: str) -> str:
        ran = await asyncio.to_thread(self._fabstir, "dispute", *arguments, "--json")
        assert ran.code == 1, ran.out
        code: str = ran.json()["error"]["code"]
        return code


async def _claimed(play: Claims, name: str) -> Terms:
    await play.note("approve", play.world.renter.approve(play.key(), play.world.renter.info.usdc, MANY))
    terms = play.agree(name.encode(), arbiter=SigningKey(KEYS["arbiter"]).address)
    await play.claimed(name, terms)
    assert play.events[-1].startswith(f"{name}: claim: ok")
    return terms


@pytest.mark.real
async def test_a_dispute_from_the_claim_to_the_ruling(fabstir: Fabstir, play: Claims) -> None:
    """Each party sees it with what it is to do; who may not act is refused by name before anything is sent; the ruling decides."""
    shell, host, usdc = Shell(fabstir), play.world.host, play.world.host.info.usdc
    assert await shell.claims("arbiter") == []
    terms = await _claimed(play, "ruled")
    job, short = to_hex(job_id(terms)), to_hex(job_id(terms))[:12]
    assert await shell.claims("renter") == [(job, "claimed", ["renter"], "renter")]
    shown = (await shell.told("show", short, "--role", "arbiter"))["claims"][0]
    assert (shown["bond"], shown["terms"]["challenge"], shown["over"]) == (str(BOND), terms.challenge, False)
    assert await shell.refused("rule", short, "host") == "dispute_stage"
    assert await shell.refused("settle", short) == "dispute_runs"

    had = await host.balance(usdc, terms.renter)
    await shell.told("raise", short)
    assert had - await host.balance(usdc, terms.renter) == BOND
    assert await shell.refused("raise", short) == "dispute_stage"
    assert await shell.claims("host") == [(job, "disputed", ["host"], "host")]
    await host.answer_dispute("answer", terms, play.opening(terms))
    assert await shell.claims("arbiter") == [(job, "answered", ["arbiter"], "arbiter")]
    for role in ("renter", "host"):
        assert await shell.refused("rule", short, "renter", "--role", role) == "dispute_foreign"
    staked = (await host.stake(terms.host)).staked
    await shell.told("rule", short, "renter")
    assert staked - (await host.stake(terms.host)).staked == (await host.stake_rules()).slash
    assert (await host.job(job_id(terms))).stage is ClaimStage.LOST
    assert await host.balance(usdc, terms.renter) > had  # the bond, and a part of the slice
    assert await shell.claims("arbiter") == []
    assert (await shell.told("show", short))["claims"] == []
    assert await shell.refused("rule", short, "host") == "dispute_stage"


@pytest.mark.real
async def test_a_stage_that_is_over_is_settled_by_anyone(fabstir: Fabstir, play: Claims) -> None:
    """Nobody disputed: too late to raise, and the host is paid by whoever calls."""
    shell, terms = Shell(fabstir), await _claimed(play, "silent")
    short = to_hex(job_id(terms))[:12]
    await play.world.advance(terms.challenge)
    assert await shell.refused("raise", short) == "dispute_over"
    await shell.told("settle", short, "--role", "arbiter")
    state = await play.world.host.job(job_id(terms))
    assert (state.held, state.owed > 0, state.signed) == (0, True, SIGNED)
    assert await shell.refused("settle", short) == "dispute_stage"


@pytest.mark.real
async def test_what_is_not_found_is_told(fabstir: Fabstir, play: Claims) -> None:
    """An id that no event names; a claim whose job was opened before the range, which is counted and not passed over in silence."""
    shell, terms = Shell(fabstir), await _claimed(play, "early")
    job = to_hex(job_id(terms))
    assert await shell.refused("show", "0x" + "0" * 64) == "dispute_unknown"
    client = play.world.host
    claimed_at = await client.block_number()
    found = await shell.told("list", "--since-block", str(claimed_at))
    assert (found["claims"], found["opened_before"]) == ([], 1)
    assert await shell.refused("raise", job, "--since-block", str(claimed_at)) == "dispute_unknown"
    text = (await asyncio.to_thread(fabstir, "dispute", "list", "--since-block", str(claimed_at))).out
    assert "No undecided claim names" in text
    assert "--since-block" in text
    text = (await asyncio.to_thread(fabstir, "dispute", "list")).out
    assert all(words in text for words in (job[:12], "claimed", "renter", "0.000300 USDC"))
    text = (await asyncio.to_thread(fabstir, "dispute", "show", job)).out
    assert all(words in text for words in (job, "claimed", to_hex(terms.arbiter), "required"))


@pytest.mark.real
async def test_while_the_renters_gateway_runs_only_looking_is_allowed(fabstir: Fabstir, play: Claims) -> None:
    """One account has one outbox."""
    shell, terms = Shell(fabstir), await _claimed(play, "locked")
    config = settings.load()
    journal = open_journal(config.renter.data_dir, config.chain.chain_id)
    try:
        assert await shell.refused("raise", to_hex(job_id(terms))) == "journal_locked"
        assert len(await shell.claims("renter")) == 1
    finally:
        await journal.close()
