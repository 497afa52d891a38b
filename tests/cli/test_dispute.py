"""`fabstir dispute` on a real chain: a claim seen, disputed, ruled on and settled by hand, each by whoever may."""

from __future__ import annotations

import asyncio
import hashlib
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
from fabstir.chain import addresses, bindings
from fabstir.chain.anvil import find_anvil
from fabstir.chain.devnet import DEV_KEYS, Devnet, DevnetControl
from fabstir.chain.market import MarketClient
from fabstir.chain.panel_calls import VOTE_GAS
from fabstir.domain.ids import Address, address, to_hex
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
        await control.automine()  # ends the block every second: the newest block is that of the last move
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

    def __init__(self, fabstir: Fabstir, *options: str) -> None:
        self._fabstir = fabstir
        self._options = options

    async def text(self, *arguments: str) -> str:
        return (await asyncio.to_thread(self._fabstir, "dispute", *arguments, *self._options)).out

    async def told(self, *arguments: str) -> dict[str, Any]:
        ran = await asyncio.to_thread(self._fabstir, "dispute", *arguments, *self._options, "--json")
        assert ran.code == 0, ran.out + ran.err
        return ran.json()

    async def claims(self, role: str) -> list[tuple[str, str, list[str], str]]:
        found = (await self.told("list", "--role", role))["claims"]
        return [(claim["job"], claim["stage"], claim["you_are"], claim["awaits"]) for claim in found]

    async def refused(self, *arguments: str) -> str:
        ran = await asyncio.to_thread(self._fabstir, "dispute", *arguments, *self._options, "--json")
        assert ran.code == 1, ran.out
        code: str = ran.json()["error"]["code"]
        return code


async def _claimed(play: Claims, name: str, arbiter: Address | None = None) -> Terms:
    await play.note("approve", play.world.renter.approve(play.key(), play.world.renter.info.usdc, MANY))
    terms = play.agree(name.encode(), arbiter=arbiter or SigningKey(KEYS["arbiter"]).address)
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
    text = await shell.text("list", "--since-block", str(claimed_at))
    assert "No undecided claim names" in text
    assert "--since-block" in text
    text = await shell.text("list")
    assert all(words in text for words in (job[:12], "claimed", "renter", "0.000300 USDC"))
    text = await shell.text("show", job)
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


def _member(fabstir: Fabstir, folder: Path, number: int, panel: str) -> Shell:
    """One account of the devnet as an arbiter of its own machine, which acts for the panel."""
    home = folder / f"member{number}"
    home.mkdir()
    key, config = home / "arbiter.key", home / "config.toml"
    key.touch(mode=0o600)
    key.write_text(DEV_KEYS[number].hex())
    config.write_text(f'[arbiter]\nkey_file = "{key}"\ndata_dir = "{home}"\npanel = "{panel}"\n')
    return Shell(fabstir, "--config", str(config))


async def _panel(shell: Shell, numbers: tuple[int, ...], threshold: int) -> dict[str, Any]:
    members = [to_hex(SigningKey(DEV_KEYS[number]).address) for number in numbers]
    return await shell.told("panel", "--member", *members, "--threshold", str(threshold))


async def _answered(play: Claims, shell: Shell, name: str, panel: str) -> Terms:
    terms = await _claimed(play, name, address(panel))
    await shell.told("raise", to_hex(job_id(terms)))
    await play.world.host.answer_dispute(f"answer {name}", terms, play.opening(terms))
    return terms


@pytest.mark.real
async def test_a_panel_is_made_once(fabstir: Fabstir, play: Claims) -> None:
    """Its address follows from what it is, in whatever order the members are named; another threshold is another panel."""
    shell = Shell(fabstir)
    made = await _panel(shell, (3, 4, 5), 2)
    again = await _panel(shell, (5, 3, 4), 2)
    assert made["transaction"] and again["transaction"] is None
    assert {**made, "transaction": None, "gas_used": 0} == again
    assert (await _panel(shell, (3, 4, 5), 3))["panel"] != made["panel"]
    member = made["members"][0]
    for wrong in (["--member", member, member, "--threshold", "2"], ["--member", *made["members"], "--threshold", "1"]):
        assert await shell.refused("panel", *wrong) == "request_invalid"


@pytest.mark.real
async def test_two_of_three_members_decide(fabstir: Fabstir, play: Claims, chain: Chain, tmp_path: Path) -> None:
    """Each sees the claim with the votes so far; the second vote moves the money; whoever has voted, is no member or comes too late is
    refused by name."""
    shell, host, usdc = Shell(fabstir), play.world.host, play.world.host.info.usdc
    panel = (await _panel(shell, (3, 4, 5), 2))["panel"]
    first, second, third, stranger = (_member(fabstir, tmp_path, number, panel) for number in (3, 4, 5, 6))
    terms = await _claimed(play, "panel", address(panel))
    job, had = to_hex(job_id(terms)), await host.balance(usdc, terms.renter)
    assert await first.claims("arbiter") == [(job, "claimed", ["verifier"], "renter")]
    assert await first.refused("rule", job, "host") == "dispute_stage"
    await shell.told("raise", job)
    await host.answer_dispute("answer", terms, play.opening(terms))
    assert await stranger.refused("rule", job, "host") == "dispute_foreign"
    assert (await stranger.told("list", "--role", "arbiter"))["panel"]["member"] is False
    assert await shell.refused("rule", job, "host") == "dispute_foreign"  # a member, without the setting

    found = tmp_path / "found.txt"
    found.write_text("token 117 is not what these weights say")
    voted = await first.told("rule", job, "renter", "--evidence", str(found))
    evidence = to_hex(hashlib.sha256(found.read_bytes()).digest())
    assert (voted["votes"], voted["missing"], voted["decided"], voted["evidence"]) == (1, 1, False, evidence)
    await _vote_is_recorded(chain, voted["transaction"], evidence)
    assert await first.refused("rule", job, "host") == "dispute_voted"
    seen = [(await one.told("show", job, "--role", "arbiter"))["claims"][0]["votes"] for one in (first, second)]
    assert seen == [{"host": 0, "renter": 1, "voted": True}, {"host": 0, "renter": 1, "voted": False}]
    assert "host 0, renter 1 of 2, you voted" in await first.text("list", "--role", "arbiter")
    assert "host 0, renter 1 of 2" in await second.text("show", job, "--role", "arbiter")

    staked = (await host.stake(terms.host)).staked
    decided = await second.told("rule", job, "renter")
    assert (decided["votes"], decided["missing"], decided["decided"]) == (2, 0, True)
    assert decided["gas_used"] < VOTE_GAS
    assert (await host.job(job_id(terms))).stage is ClaimStage.LOST
    assert staked - (await host.stake(terms.host)).staked == (await host.stake_rules()).slash
    assert await host.balance(usdc, terms.renter) > had  # the bond is back, and a part of the slice
    assert await third.refused("rule", job, "host") == "dispute_stage"
    assert await third.claims("arbiter") == []


async def _vote_is_recorded(chain: Chain, transaction: str, evidence: str) -> None:
    """With its evidence; and had another vote been mined first, this one would have needed the gas of a ruling."""
    rpc = rpc_to(chain.url)
    try:
        assert int((await rpc.request("eth_getTransactionByHash", transaction))["gas"], 16) >= VOTE_GAS
        (log,) = (await rpc.request("eth_getTransactionReceipt", transaction))["logs"]
        assert to_hex(bindings.Voted.TOPIC) == log["topics"][0] and evidence[2:] in log["data"]
    finally:
        await rpc.close()


@pytest.mark.real
async def test_members_who_differ_rule_for_the_host(fabstir: Fabstir, play: Claims, tmp_path: Path) -> None:
    """One for each side decides nothing; the third does, and the host gets claim and bond."""
    shell, host, usdc = Shell(fabstir), play.world.host, play.world.host.info.usdc
    panel = (await _panel(shell, (3, 4, 5), 2))["panel"]
    first, second, third = (_member(fabstir, tmp_path, number, panel) for number in (3, 4, 5))
    terms = await _answered(play, shell, "differ", panel)
    job, earned = to_hex(job_id(terms)), await host.earnings(usdc, terms.host)
    had = await host.balance(usdc, terms.host)
    assert "1 more vote is missing for the renter" in await first.text("rule", job, "renter")
    assert (await second.told("rule", job, "host"))["decided"] is False
    assert "the panel has ruled for the host" in await third.text("rule", job, "host")
    assert await host.balance(usdc, terms.host) - had == BOND
    assert await host.earnings(usdc, terms.host) > earned
    assert (await host.job(job_id(terms))).stage is ClaimStage.NONE


@pytest.mark.real
async def test_a_panel_that_is_silent_too_long(fabstir: Fabstir, play: Claims, tmp_path: Path) -> None:
    """A vote after the stage is over is refused before it is sent; anyone settles."""
    shell = Shell(fabstir)
    panel = (await _panel(shell, (3, 4, 5), 2))["panel"]
    first, second = (_member(fabstir, tmp_path, number, panel) for number in (3, 4))
    terms = await _answered(play, shell, "silence", panel)
    job = to_hex(job_id(terms))
    await first.told("rule", job, "renter")
    await play.world.advance(terms.challenge)
    assert await second.refused("rule", job, "renter") == "dispute_over"
    await second.told("settle", job, "--role", "arbiter")
    assert (await play.world.host.job(job_id(terms))).stage is ClaimStage.NONE


@pytest.mark.real
async def test_what_is_no_panel_of_this_market_is_refused(
    fabstir: Fabstir, play: Claims, chain: Chain, tmp_path: Path
) -> None:
    """Another contract or an account in `arbiter.panel`; evidence that is not there, or with a ruling that is no vote."""
    market, nobody = to_hex(chain.info.market), to_hex(bytes([7] * 20))
    for number, (place, code) in enumerate([(market, "contract_mismatch"), (nobody, "chain_mismatch")], 3):
        assert await _member(fabstir, tmp_path, number, place).refused("list", "--role", "arbiter") == code
    shell = Shell(fabstir)
    terms = await _answered(play, shell, "alone", to_hex(SigningKey(KEYS["arbiter"]).address))
    job, missing, there = to_hex(job_id(terms)), tmp_path / "missing", tmp_path / "there"
    there.touch()
    for file in (missing, there):
        assert await shell.refused("rule", job, "host", "--evidence", str(file)) == "request_invalid"
    await shell.told("rule", job, "host")
