"""Kills a host at one journal write after another and looks at the money each time.

For every kill point a fresh host process serves one conversation and kills itself (SIGKILL) immediately before or after
its N-th journal write, wherever that is: admission, serving, a voucher, a commitment, a transaction, the close. A
supervisor starts it again, without the fault. At the end the chain must say what the renter signed. Used by the crash
test and by benchmarks/crash.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from fabstir.bootstrap.devnet import RunningDevnet, devnet
from fabstir.bootstrap.parts import FAULT_VARIABLE
from fabstir.bootstrap.renter import renter_market
from fabstir.chain.deploy import MINIMUM_STAKE
from fabstir.chain.devnet import CHAIN_ID, DEV_KEYS
from fabstir.chain.keys import load_key
from fabstir.demo.host_process import HostProcess
from fabstir.demo.places import Places
from fabstir.domain.errors import FabstirError
from fabstir.domain.money import BaseUnits, Tokens, affordable
from fabstir.ops.config import Config
from fabstir.protocol.signing import SigningKey
from fabstir.renter.jobs import RenterJob
from fabstir.renter.session import Session
from fabstir.renter.settling import Settlement

Phase = Literal["before", "after"]
StartSession = Callable[[str], Awaitable[Session]]
QUESTION: Final = "Write about bees."
ANSWER_TOKENS: Final = 100
TRIES: Final = 5
BLOCK_SECONDS: Final = 0.2
"""Blocks are made faster than on Base, so that challenges come at once."""
SETTLE_SECONDS: Final = 60.0
RUNNING_SECONDS: Final = 30.0


class KillPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    write: int
    phase: str
    killed: bool
    """False where the run ended before that write."""
    jobs: int
    tokens_received: int
    tokens_signed: int
    tokens_paid: int
    recovery_s: float
    """From the kill to the host's next `ready`."""

    def fault(self, exposure: int) -> str:
        """What is wrong with the money, or "". Each job may lose W tokens to a crash, and none may be paid twice."""
        if self.tokens_paid > self.tokens_signed:
            return f"paid {self.tokens_paid} tokens, signed {self.tokens_signed}"
        if self.tokens_signed - self.tokens_paid > exposure * self.jobs:
            return f"signed {self.tokens_signed}, paid only {self.tokens_paid}"
        if self.tokens_received - self.tokens_signed > exposure * self.jobs:
            return f"received {self.tokens_received}, signed only {self.tokens_signed}"
        return ""


class Supervisor:
    """Starts a host again when it dies, as an init system would."""

    def __init__(self, host: HostProcess) -> None:
        self.host: Final = host
        self.deaths = 0
        self.recovery_s = 0.0

    async def start(self, fault: str) -> None:
        """The first start, with `fault` in the environment; it may die before it is ready."""
        os.environ[FAULT_VARIABLE] = fault
        try:
            await self.host.start()
        except FabstirError:
            self.deaths += 1
            os.environ.pop(FAULT_VARIABLE, None)
            await self._restart(time.monotonic())
        finally:
            os.environ.pop(FAULT_VARIABLE, None)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.host.ended()
            self.deaths += 1
            await self._restart(time.monotonic())

    async def _restart(self, died: float) -> None:
        await self.host.start()
        self.recovery_s = time.monotonic() - died


class CrashMarket:
    """A devnet on which one kill point after another is tried."""

    def __init__(self, root: Path, net: RunningDevnet) -> None:
        self._root = root
        self._net = net
        self.exposure: Final = 64

    async def run(self, write: int, phase: Phase) -> KillPoint:
        """One conversation with a host that dies at `write`."""
        root = self._root / f"{write}-{phase}"
        places = Places(root, self._net.url, self._net.info)
        renter = places.renter(os.urandom(32))
        account = SigningKey(load_key(renter.renter.key_file, chain_id=CHAIN_ID)).address
        await self._net.fund(account)
        await self._net.fund(SigningKey(DEV_KEYS[1]).address, MINIMUM_STAKE)
        supervisor = Supervisor(HostProcess("a", places.host("a", DEV_KEYS[1], idle_close=2)))
        await supervisor.start(f"{write}:{phase}")
        watch = asyncio.create_task(supervisor.run())
        try:
            return await self._converse(renter, supervisor, write, phase)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await supervisor.host.kill()

    async def _converse(self, renter: Config, supervisor: Supervisor, write: int, phase: Phase) -> KillPoint:
        jobs: list[RenterJob] = []
        settlements: tuple[Settlement, ...] = ()
        async with renter_market(renter) as market:
            session = await self._ask(market.start_session, supervisor)
            jobs = list(session.jobs)
            await session.close()
            settlements = await session.settled(SETTLE_SECONDS)
        if not all(one.paid_out for one in settlements):
            raise AssertionError(f"write {write} {phase}: not settled: {settlements}")
        paid = sum(self._tokens_of(job, one) for job, one in zip(jobs, settlements, strict=True))
        return KillPoint(
            write=write,
            phase=phase,
            killed=supervisor.deaths > 0,
            jobs=len(jobs),
            tokens_received=sum(job.core.received for job in jobs),
            tokens_signed=sum(job.ledger.signed for job in jobs),
            tokens_paid=paid,
            recovery_s=round(supervisor.recovery_s, 3),
        )

    async def _ask(self, start_session: StartSession, supervisor: Supervisor) -> Session:
        """Ask until an answer came through; a host that is down comes back within `RUNNING_SECONDS`."""
        session: Session | None = None
        deadline = time.monotonic() + RUNNING_SECONDS * TRIES
        while True:
            try:
                session = session or await start_session("tiny-chat")
                async for _ in session.prompt(QUESTION, temperature=0.0, max_tokens=ANSWER_TOKENS):
                    pass
            except FabstirError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                return session

    @staticmethod
    def _tokens_of(job: RenterJob, settlement: Settlement) -> int:
        """Tokens that `owed` pays for: the most that cost no more."""
        if settlement.owed == 0:
            return 0
        most = affordable(BaseUnits(settlement.owed), job.ledger.terms.price)
        return int(
            Tokens(min(most, job.ledger.signed)) if job.ledger.amount(job.ledger.signed) == settlement.owed else most
        )


@contextlib.asynccontextmanager
async def crash_market(root: Path) -> AsyncIterator[CrashMarket]:
    """A devnet with quick blocks."""
    async with devnet(Config(), book=root / "addresses.json") as net:
        ticking = asyncio.create_task(_tick(net))
        try:
            yield CrashMarket(root, net)
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)


async def _tick(net: RunningDevnet) -> None:
    while True:
        await asyncio.sleep(BLOCK_SECONDS)
        await net.mine()
