"""One session at work: the only task that drives the session's core, and the tasks that feed it.

    socket --reader--> inbox --actor--> core.receive -> effects -> journal, socket
    engine --pump----> inbox

It decides nothing about tokens or money: it carries the core's effects out in their order (what is stored is durable
before anything after it is sent), gives the core the time, and turns what breaks around it into inputs. The reader
always sits in `receive`, so that an acknowledgement or a cancel is seen while an answer streams. Nothing that was said
is logged. Theory: docs/explanation/session.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Final, cast

import structlog

from fabstir.domain.errors import FabstirError, Interrupted, error
from fabstir.domain.ids import Hash32
from fabstir.host.admission import Hello
from fabstir.host.alarm import Alarm
from fabstir.host.deposit_watch import DepositWatch
from fabstir.host.generating import Generating, Say
from fabstir.host.inbox import Item, Signal
from fabstir.host.link import Link
from fabstir.host.queueing import Asker
from fabstir.host.services import Services
from fabstir.host.telemetry import SessionTelemetry
from fabstir.protocol.effects import (
    CancelGeneration,
    CountTokens,
    Disconnect,
    HostEffect,
    RequestSettlement,
    RunFingerprints,
    RunGeneration,
    Send,
    Store,
)
from fabstir.protocol.host_session import (
    ChainClosing,
    DepositSeen,
    EngineBatch,
    EngineFailed,
    EngineFinished,
    FingerprintsMade,
    HostInput,
    HostSession,
    Leaving,
    MemoryShort,
    RenterLost,
    SessionState,
    TimerRest,
)
from fabstir.protocol.limits import Buckets
from fabstir.protocol.messages import (
    DepositChanged,
    Error,
    FromHost,
    Ping,
    Pong,
    Prompt,
    ReceiptAck,
    SessionInit,
    SessionResume,
)

INBOX_CAPACITY: Final = 64
"""Messages of the renter and batches of the engine that wait for the core. Who brings more waits: the socket unread, the engine stalled."""
MAX_FAULTS: Final = 64
"""Unreadable messages that one connection may send; then it is closed with `rate_limited`."""

log = structlog.get_logger()


class SessionActor:
    """Serves one admitted renter over one connection.

    Memory: INBOX_CAPACITY items and what the core holds.
    """

    def __init__(
        self,
        core: HostSession,
        link: Link,
        services: Services,
        *,
        reauthorise: Callable[[Hello], None],
        request_settlement: Callable[[str], None],
        ack_grace: float,
        prompts_per_minute: int,
    ) -> None:
        """`reauthorise` checks a second `session_resume` on this connection; it raises Refused."""
        self.core: Final = core
        self.link: Final = link
        self._book = services.book
        self._clock = services.clock
        job, model = core.ledger.job.hex(), services.shelf.get(core.ledger.terms.model_id)
        self._telemetry = SessionTelemetry(
            services.metrics, services.clock.monotonic, services.spans, model=model.name, job=job
        )
        self._reauthorise = reauthorise
        self._request_settlement = request_settlement
        self._ack_grace = ack_grace
        self._questions = Buckets(prompts_per_minute, limit=1)
        self._inbox: asyncio.Queue[Item] = asyncio.Queue(INBOX_CAPACITY)
        asker = Asker(core.ledger.terms.renter, job)
        self._generating = Generating(model, asker, self._telemetry, self._inbox.put)
        self._tasks: asyncio.TaskGroup
        self._reader: asyncio.Task[None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._turn = 0
        """Which generation the pump carries."""
        self._fingerprinting = services.fingerprinting
        self._fingerprints: set[asyncio.Task[None]] = set()
        self._deposit = DepositWatch(services.chain, services.clock, core.ledger.job)
        self._looking: asyncio.Task[None] | None = None
        """Asks the chain for the deposit."""
        self._alarm = Alarm(services.clock, lambda: self._inbox.put(Signal.ALARM))
        self._draining = False
        self._leave_by: float | None = None
        """While draining and idle: when to leave although tokens are not acknowledged."""
        self._asked_at = self._now()
        self._faults = 0
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"<SessionActor {self.core!r} inbox {self._inbox.qsize()} of {INBOX_CAPACITY}>"

    # -- from the node -----------------------------------------------------------------------------------------------------

    async def run(self, hello: Hello) -> None:
        """Serve until the session or the connection ends. Where the core refuses `hello`, the connection still stands afterwards."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                try:
                    await self._attach(hello)
                    if self.core.connected:
                        self._reader = self._tasks.create_task(self._read())
                        await self._serve()
                except FabstirError as fault:
                    await self._send(Error.of(fault, hello.session_id))
                    await self.link.close(fault.code)
                finally:
                    self._alarm.stop()
                    for task in (self._reader, self._pump, self._looking, *self._fingerprints):
                        if task is not None:
                            task.cancel()
        finally:
            await self._detach()
            self._ended.set()

    async def chain_closing(self, code: str) -> None:
        """Serve nothing more; returns when the log says so."""
        await self._tell(ChainClosing(code))
        await self._ended.wait()

    async def drain(self) -> None:
        """Let the running answer end and be acknowledged, then leave; returns when that is done."""
        await self._tell(Signal.DRAIN)
        await self._ended.wait()

    async def hurry(self) -> None:
        """While draining: hand the running answer over to another host; returns when that is said."""
        await self._tell(Signal.HURRY)

    def rest(self) -> None:
        """Compress the conversation, unless something came meanwhile."""
        self._hint(Signal.REST)

    def forget(self) -> None:
        """Give the conversation up, unless something came meanwhile."""
        self._hint(Signal.FORGET)

    @property
    def idle_for(self) -> float | None:
        """Seconds since the last question was answered; None while there is something to do."""
        return self._now() - self._asked_at if self.core.state is SessionState.READY and self._inbox.empty() else None

    def _hint(self, signal: Signal) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._inbox.put_nowait(signal)

    async def _tell(self, item: Item) -> None:
        """Put `item` into the inbox, unless the session ends before there is room."""
        put = asyncio.ensure_future(self._inbox.put(item))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((put, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            put.cancel()
            ended.cancel()

    # -- the actor ---------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        log.info("session_opened", job_id=self.core.ledger.job)
        self._set_alarm()
        while self.core.connected and not self.link.gone:
            await self._take(await self._inbox.get())

    async def _take(self, item: Item) -> None:
        kind = type(item)
        if kind is EngineBatch or kind is EngineFinished or kind is EngineFailed:
            effects = self.core.receive(cast(HostInput, item), self._now())
        elif isinstance(item, SessionInit | SessionResume):
            effects = self._reattach(item)
        elif isinstance(item, FabstirError):
            effects = self._count_fault(item)
        elif isinstance(item, Say):
            effects = [Send(item.message)]
        elif isinstance(item, Signal):
            effects = self._signalled(item)
        elif isinstance(item, Prompt):
            effects = self._prompt(item)
        elif isinstance(item, DepositChanged):
            effects = self._look_at_deposit()
        elif isinstance(item, ReceiptAck):
            before = self.core.ledger.acknowledged
            effects = self.core.receive(item, self._now())
            self._telemetry.acknowledged(self.core.ledger.acknowledged - before)
        else:
            effects = self.core.receive(cast(HostInput, item), self._now())
        await self._carry_out(effects)
        if not isinstance(item, Signal | Ping | Pong):
            self._asked_at = self._now()
        if self._draining:
            await self._leave_when_idle()
        self._set_alarm()

    async def _attach(self, hello: Hello) -> None:
        await self._carry_out(self.core.attach(hello, Hash32(secrets.token_bytes(32)), self._now()))

    def _reattach(self, hello: Hello) -> list[HostEffect]:
        """Between two answers the renter may replace the conversation, under the same job."""
        try:
            self._reauthorise(hello)
        except FabstirError as fault:
            return [Send(Error.of(fault, hello.session_id))]
        return self.core.attach(hello, Hash32(secrets.token_bytes(32)), self._now())

    def _prompt(self, item: Prompt) -> list[HostEffect]:
        if fault := self._questions.refusal("", "questions", self._now()):
            return [Send(Error.of(fault, item.session_id, item.message_index))]
        if self.core.state is SessionState.READY and not self._draining:
            self._telemetry.prompted(item)
        return self.core.receive(item, self._now())

    def _look_at_deposit(self) -> list[HostEffect]:
        """The stream goes on meanwhile. One look at a time: a renter that asks again is answered by the one under way."""
        if self._looking is None or self._looking.done():
            self._looking = self._tasks.create_task(self._find_deposit())
        return []

    async def _find_deposit(self) -> None:
        try:
            await self._inbox.put(DepositSeen(await self._deposit.find(self.core.ledger.deposit)))
        except FabstirError as fault:
            await self._inbox.put(Say(Error.of(fault)))

    def _count_fault(self, fault: FabstirError) -> list[HostEffect]:
        self._faults += 1
        if self._faults <= MAX_FAULTS:
            return [Send(Error.of(fault))]
        limit = error("rate_limited", f"{MAX_FAULTS} unreadable messages in one connection")
        return [Send(Error.of(limit)), Disconnect(limit.code)]

    def _signalled(self, signal: Signal) -> list[HostEffect]:
        if signal is Signal.ALARM:
            self._alarm.rung()
            return self.core.tick(self._now())
        if signal is Signal.REST:
            return self.core.receive(TimerRest(), self._now())
        if signal is Signal.FORGET:
            return self.core.receive(MemoryShort(), self._now())
        self._draining = True
        return self.core.receive(Leaving(now=signal is Signal.HURRY), self._now())

    async def _leave_when_idle(self) -> None:
        if self.core.state is not SessionState.READY:
            self._leave_by = None
            return
        if self._leave_by is None:
            self._leave_by = self._now() + self._ack_grace
        if (self.core.ledger.exposed == 0 and not self.core.hands_off) or self._now() >= self._leave_by:
            await self.link.close("draining")

    async def _detach(self) -> None:
        """Tell the core that nobody is there, so that the log says where the answer was cut."""
        code = self.link.code or "host_unreachable"
        self._telemetry.left(code)
        if self.core.connected:
            with contextlib.suppress(FabstirError):  # writing failed: the book reads this job again
                await self._carry_out(self.core.receive(RenterLost(code), self._now()))
        ledger = self.core.ledger
        log.info("session_closed", job_id=ledger.job, code=code, tokens=ledger.served, status=self.core.state.value)

    # -- effects -----------------------------------------------------------------------------------------------------------

    async def _carry_out(self, effects: list[HostEffect]) -> None:
        """In order; from the first effect to the last `Store` nobody else writes to the job's log.

        A generation alone starts at once: the disk is waited for while the engine reads the prompt, and nothing of the answer can leave
        before, because it comes through the inbox.
        """
        stored = 0
        for position, effect in enumerate(effects, 1):
            if type(effect) is Store:
                stored = position
            elif type(effect) is RunGeneration:
                self._start_generation(effect)
        if stored:
            async with self._book.exclusive(self.core.ledger):
                for effect in effects[:stored]:
                    await self._do(effect)
        for effect in effects[stored:]:
            await self._do(effect)

    async def _do(self, effect: HostEffect) -> None:
        match effect:
            case Send():
                await self._send(effect.message)
            case Store():
                await self._book.store(self.core.ledger, effect.events)
            case CancelGeneration():
                if self._pump is not None and self._turn == effect.turn:
                    self._pump.cancel()
            case Disconnect():
                await self.link.close(effect.code)
            case CountTokens():
                self._turn = effect.turn
                self._pump = self._tasks.create_task(self._generating.count(effect))
            case RunFingerprints():
                task = self._tasks.create_task(self._make_fingerprints(effect))
                self._fingerprints.add(task)
                task.add_done_callback(self._fingerprints.discard)
            case RequestSettlement():
                self._request_settlement(effect.reason)

    def _start_generation(self, run: RunGeneration) -> None:
        self._turn = run.turn
        self._pump = self._tasks.create_task(self._generating.answer(run))

    async def _send(self, message: FromHost) -> None:
        if await self.link.send(message):
            self._telemetry.sent(message)

    # -- what feeds the inbox ----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            try:
                item: Item = await self.link.receive()
            except Interrupted as gone:
                self.link.gone, self.link.code = True, self.link.code or gone.code
                await self._inbox.put(RenterLost(self.link.code))
                return
            except FabstirError as fault:
                item = fault
            self.core.heard(self._now())
            await self._inbox.put(item)

    async def _make_fingerprints(self, run: RunFingerprints) -> None:
        made = await self._fingerprinting.make(self.core.ledger.job, run) if self._fingerprinting else None
        if made is not None:
            await self._inbox.put(FingerprintsMade(run.of, made))

    def _set_alarm(self) -> None:
        due = self.core.next_deadline()
        if self._leave_by is not None:
            due = self._leave_by if due is None else min(due, self._leave_by)
        self._alarm.set(due)

    def _now(self) -> float:
        return self._clock.monotonic()
