"""The story that the demo plays: a market comes up, a renter talks, a host dies in the middle of a sentence, and everybody
is paid.

It returns what happened and judges it (`Report.ok`); it prints nothing, but tells `Audience` as it goes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import msgspec

from fabstir.bootstrap.devnet import RunningDevnet, devnet
from fabstir.bootstrap.gateway import run_gateway
from fabstir.bootstrap.renter import renter_market
from fabstir.chain.deploy import MINIMUM_STAKE
from fabstir.chain.devnet import CHAIN_ID, DEV_KEYS
from fabstir.chain.keys import load_key, save_key
from fabstir.demo.accounts import Conservation, SessionRow, gas_of, host_ledgers, session_row, withdraw_all
from fabstir.demo.host_process import HostProcess
from fabstir.demo.places import Places
from fabstir.domain.errors import error
from fabstir.domain.ids import Address, to_hex
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.protocol.signing import SigningKey
from fabstir.renter.answer import AnswerReport
from fabstir.renter.market import Market
from fabstir.renter.session import Session

HOST_KEYS: Final = {"a": DEV_KEYS[1], "b": DEV_KEYS[2]}
TREASURY_KEY: Final = DEV_KEYS[9]
MODEL: Final = "tiny-chat"
QUESTIONS: Final = ("My name is Ada.", "Write about bees.", "What is my name?")
FATAL_QUESTION: Final = 1
"""Index of the question whose answer loses its host."""
FATAL_LENGTH: Final = 60
"""Characters of that answer after which the host is killed: with W unacknowledged tokens at most it cannot be far ahead."""
SETTLE_SECONDS: Final = 90.0


class Audience(Protocol):
    """Who watches."""

    def say(self, line: str) -> None:
        """One line of progress."""
        ...

    def hear(self, piece: str) -> None:
        """A piece of an answer, as it arrives."""
        ...


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo came to."""

    ok: bool
    conserved: bool
    seconds: float
    sessions: tuple[SessionRow, ...]
    conservation: Conservation
    survived: bool
    """An answer went on at the other host, and the conversation was still known there."""


class Stage:
    """A market that is up: chain, two hosts, a renter's configuration."""

    def __init__(self, net: RunningDevnet, places: Places, hosts: dict[str, HostProcess], renter: Config) -> None:
        self.net: Final = net
        self.places: Final = places
        self.hosts: Final = hosts
        self.renter: Final = renter
        self.renter_account: Final = _account(renter.renter.key_file)

    def __repr__(self) -> str:
        return f"<Stage {self.net!r} {list(self.hosts.values())}>"


def _account(key_file: Path) -> Address:
    return SigningKey(load_key(key_file, chain_id=CHAIN_ID)).address


@asynccontextmanager
async def stage(root: Path, audience: Audience) -> AsyncIterator[Stage]:
    """Bring the market up under `root`, and down at the end."""
    async with devnet(Config(), book=root / "addresses.json", progress=audience.say) as net:
        places = Places(root, net.url, net.info)
        renter = places.renter(os.urandom(32))
        hosts = {name: HostProcess(name, places.host(name, key)) for name, key in HOST_KEYS.items()}
        try:
            now = Stage(net, places, hosts, renter)
            await net.fund(now.renter_account)
            for key in HOST_KEYS.values():
                await net.fund(SigningKey(key).address, MINIMUM_STAKE)
            audience.say("starting two hosts")
            await asyncio.gather(*(host.start() for host in hosts.values()))
            yield now
        finally:
            await asyncio.gather(*(host.stop() for host in hosts.values()), return_exceptions=True)


async def play(now: Stage, audience: Audience) -> Report:
    """Talk, kill, talk on, settle, count."""
    began = time.monotonic()
    before = await _balance(now, now.renter_account)
    async with renter_market(now.renter) as market:
        await _both_registered(market, audience)
        async with market.session(MODEL) as session:
            answers, last = await _talk(now, session, audience)
            audience.say("host a comes back and finds everything in its journal")
            await now.hosts["a"].start()
        audience.say("the session is over: the hosts prove and settle")
        await _settled(session)
    await asyncio.gather(*(host.stop() for host in now.hosts.values()))
    rows = await _rows(now, answers)
    conservation = await _conservation(now, before)
    survived = len(answers[FATAL_QUESTION].hosts) == len(now.hosts) and "Ada" in last
    ok = survived and conservation.holds and len(rows) == len(now.hosts) and all(row.holds for row in rows)
    return Report(
        ok=ok,
        conserved=conservation.holds,
        seconds=round(time.monotonic() - began, 2),
        sessions=rows,
        conservation=conservation,
        survived=survived,
    )


async def keep(now: Stage, stop: asyncio.Event, on_ready: Callable[[str], None]) -> None:
    """Leave the market running: both hosts again, and a gateway of the renter, until `stop` is set."""
    await asyncio.gather(*(host.start() for host in now.hosts.values()))
    await run_gateway(now.renter, stop, on_ready)


async def _both_registered(market: Market, audience: Audience) -> None:
    for _ in range(600):
        found = [candidate for candidate in await market.hosts(refresh=True) if candidate.offer is not None]
        if len(found) == len(HOST_KEYS):
            for candidate in found:
                price = candidate.entry.offers[0].price
                audience.say(
                    f"registry: {candidate.entry.url} as {to_hex(candidate.address)[:10]}, {price} per 1M tokens"
                )
            return
        await asyncio.sleep(0.1)
    raise error("no_host", "the hosts did not register within a minute")


async def _talk(now: Stage, session: Session, audience: Audience) -> tuple[list[AnswerReport], str]:
    """The conversation; returns its reports and the last answer."""
    answers: list[AnswerReport] = []
    text = ""
    for number, question in enumerate(QUESTIONS):
        audience.say(f"renter: {question}")
        text, alive = "", number == FATAL_QUESTION
        async for piece in session.prompt(question, temperature=0.0, max_tokens=200):
            text += piece
            audience.hear(piece)
            if alive and len(text) >= FATAL_LENGTH:
                now.hosts["a"].kill_now()
                alive = False
                audience.hear(" [host a is killed here] ")
        audience.hear("\n")
        if session.last is None:
            raise AssertionError("an answer that ended has a report")
        answers.append(session.last)
        audience.say(f"{session.last.completion_tokens} tokens from {len(session.last.hosts)} host(s)")
    await now.hosts["a"].kill()
    return answers, text


async def _settled(session: Session) -> None:
    settlements = await session.settled(SETTLE_SECONDS)
    open_jobs = [to_hex(one.job) for one in settlements if not one.paid_out]
    if open_jobs:
        raise error("transaction_lost", f"not settled within {SETTLE_SECONDS:.0f} s: {', '.join(open_jobs)}")


async def _rows(now: Stage, answers: list[AnswerReport]) -> tuple[SessionRow, ...]:
    rows: list[SessionRow] = []
    for name, host in now.hosts.items():
        account = SigningKey(HOST_KEYS[name]).address
        for job, ledger in (await host_ledgers(host.config)).items():
            gas = await gas_of(now.net.url, now.net.info, job, SystemClock())
            proven = await now.net.proven(job)
            rows.append(session_row(ledger, proven, gas, answers, account))
    return tuple(rows)


async def _balance(now: Stage, account: Address) -> int:
    return await now.net.usdc_of(account)


async def _conservation(now: Stage, before: int) -> Conservation:
    """Everybody takes out what is theirs; then the contract must be empty."""
    withdrawn = 0
    for name in now.hosts:
        home = now.places.root / f"host-{name}"
        withdrawn += await withdraw_all(now.renter, home / "key", home)
    treasury = now.places.root / "treasury"
    await asyncio.to_thread(treasury.mkdir, exist_ok=True)
    save_key(treasury / "key", TREASURY_KEY, chain_id=CHAIN_ID)
    fees = await withdraw_all(now.renter, treasury / "key", treasury)
    return Conservation(
        renter_paid=before - await _balance(now, now.renter_account),
        hosts_withdrew=withdrawn,
        treasury_withdrew=fees,
        left_in_contract=await _balance(now, now.net.info.market),
    )
