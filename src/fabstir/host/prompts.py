"""The desk of prompt jobs: follows the board, claims what the queue says, and sees each claim through to the settler.

It owns the tasks: one for each job that is worked on, one for each generation, all of which end with `run`. What comes next
for a job is decided by `fabstir.protocol.prompt_job`, which one is claimed by `prompt_queue`; `prompt_case` carries it out.
A failing chain delays a job, never loses it. Off where `slots` is 0: then there is no desk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any, Final

import structlog

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import JobId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.prompts import Cid, PromptId
from fabstir.host.health import PromptsPart
from fabstir.host.node import HostNode
from fabstir.host.prompt_book import PromptBook
from fabstir.host.prompt_case import PromptCase, PromptServices
from fabstir.host.prompt_execution import open_prompt
from fabstir.host.prompt_settings import DeskSettings, DeskStores
from fabstir.host.prompt_tracking import Tracking
from fabstir.host.prompt_voucher import accept_voucher
from fabstir.host.prompt_watch import PromptWatch
from fabstir.ports.clock import Clock
from fabstir.ports.engine import Engine, GenerationEnd
from fabstir.ports.journal import Journal
from fabstir.ports.prompts import BoardFeed, PromptChain
from fabstir.protocol.generation import GenerationRequest
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.prompt_job import Action, Rest
from fabstir.protocol.prompt_log import PromptLedger, PromptSeen, Stage
from fabstir.protocol.prompt_queue import ClaimNow, PromptQueue
from fabstir.protocol.sealed import MAGIC, SealingKey
from fabstir.protocol.sealed import cid as cid_of
from fabstir.protocol.signing import Market

MEASURED_TOKENS: Final = 32
"""Of the answer with which the engine's speed is measured at the start."""
LEARNING: Final = 0.2
"""How much each answer moves the measured speed."""
SWEEP_SECONDS: Final = 60.0
ORPHAN_SECONDS: Final = 3_600.0
"""An uploaded prompt that no job names is kept so long: the renter uploads first and posts then."""
GIVE_BACK_SECONDS: Final = 15.0
"""A host that goes down waits so long for the transactions that give claims back."""
QUIET_SECONDS: Final = 30.0
"""So often a job is looked at that this host neither holds nor has sent anything about."""
HELD: Final = (Stage.CLAIMING, Stage.CLAIMED, Stage.RUNNING, Stage.MADE, Stage.STORED, Stage.COMPLETING)

log = structlog.get_logger("fabstir.prompts")


class PromptDesk:
    """One for each host. Memory: the queue, the watch, one case for each claimed job, the tracker."""

    def __init__(
        self,
        node: HostNode,
        chain: PromptChain,
        engine: Engine,
        journal: Journal,
        stores: DeskStores,
        clock: Clock,
        key: SealingKey,
        settings: DeskSettings,
    ) -> None:
        """The node must have started before `start`: the desk uses its engine and its book."""
        self.settings: Final = settings
        self.tracking: Final = Tracking(int(clock.now()))
        self.stores: Final = stores
        self.queue: Final = PromptQueue(settings.queue_rules(chain.account, chain.info.usdc, 1.0))
        self._node = node
        self._chain = chain
        self._engine = engine
        self._clock = clock
        self._key = key
        self._book = PromptBook(journal)
        self._watch = PromptWatch(self.queue, stores.uploads, settings.bond_min)
        self._cases: dict[PromptId, PromptCase] = {}
        self._working: dict[PromptId, asyncio.Task[None]] = {}
        self._due = asyncio.Event()
        self._closing = False
        self._feed: BoardFeed | None = None
        self._swept = 0.0
        self._tasks: asyncio.TaskGroup
        self._speed = 1.0
        self._services = self._make_services()
        node.prompts = self.part
        self.state = "not started yet"
        """`ok`, or what is wrong."""

    def __repr__(self) -> str:
        return f"<PromptDesk {self.state}: {self.queue!r}, {len(self._cases)} cases>"

    # -- life --------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the journal and measure the engine. Raises LocalFault."""
        await self._book.restore()
        for ledger in self._book.ledgers():
            self._take_up(ledger)
        await self._measure()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                self._due.clear()
                await self.look()
                await self._pause()

    async def drain(self) -> None:
        """Claim nothing more; let what is claimed end, for at most `drain_timeout`; what has no answer then is given back."""
        self._closing = True
        deadline = self._clock.monotonic() + self.settings.drain_timeout
        while self.working and self._clock.monotonic() < deadline and self.state == "ok":
            await self._clock.sleep(0.1)
        for prompt, case in tuple(self._cases.items()):
            if case.ledger.stage in (Stage.CLAIMED, Stage.RUNNING):
                self._start(prompt, self._give_back(case))
        if self._working:
            await asyncio.wait(set(self._working.values()), timeout=GIVE_BACK_SECONDS)

    def wake(self) -> None:
        """There may be something to do: look now."""
        self._due.set()

    async def look(self) -> None:
        """One pass: what the board shows, a task for each job at work, and the claims that are due."""
        try:
            now = max(self._clock.now(), await self._chain.timestamp())
            await self._follow(now)
            await self._sweep(now)
            for prompt, case in tuple(self._cases.items()):
                if prompt not in self._working and self._is_due(case, now):
                    self._start(prompt, self._work(case))
            while not self._closing and isinstance(found := self.queue.next(now), ClaimNow):
                self._start(found.prompt, self._take(found, now))
        except FabstirError as fault:
            if self.state != str(fault):
                log.warning("prompts_delayed", code=fault.code, detail=fault.detail)
            self.state = str(fault)
        else:
            self.state = str(self._book.fault) if self._book.fault else "ok"

    # -- what others ask ---------------------------------------------------------------------------------------------------

    @property
    def working(self) -> int:
        """Jobs that this host claimed, or is about to."""
        return sum(case.ledger.stage in HELD for case in self._cases.values())

    def part(self) -> PromptsPart:
        """For `/health`."""
        status = "ok" if self.state == "ok" else "down"
        return PromptsPart(
            status=status,
            reason="" if status == "ok" else self.state,
            queued=len(self.queue),
            working=self.working,
            slots=self.settings.slots,
            unpaid=str(self.queue.unpaid),
            tokens_per_s=round(self._speed, 1),
        )

    async def upload(self, cid: Cid, content: bytes) -> None:
        """Keep somebody's sealed prompt. Raises `seal_invalid`, `blob_mismatch`, `blob_quota`, `draining`."""
        if self._closing:
            raise error("draining")
        if content[: len(MAGIC)] != MAGIC:
            raise error("seal_invalid", f"{len(content)} bytes that are not sealed content")
        if await asyncio.to_thread(cid_of, content) != cid:
            raise error("blob_mismatch", cid.hex())
        await self.stores.uploads.put(content)
        if self._watch.arrived(cid, self._clock.now()):
            self.wake()

    async def download(self, cid: Cid) -> bytes:
        """Sealed content: a result, or a prompt. Raises `blob_missing`, `blob_corrupt`."""
        for store in (self.stores.results, self.stores.uploads):
            if await store.has(cid):
                return await store.get(cid)
        raise error("blob_missing", cid.hex())

    async def voucher(self, prompt: PromptId, tokens: Tokens, amount: BaseUnits, head: bytes, signature: bytes) -> None:
        """The renter pays with its signature. Raises `prompt_unknown`, `prompt_pending`, `job_closed`, `voucher_invalid`."""
        ledger = self._book.get(prompt)
        if ledger is None:
            raise error("prompt_unknown", prompt.hex())
        if ledger.completed is None or ledger.stage is Stage.COMPLETED:
            raise error("prompt_pending", "the answer is not handed over yet")
        job = ledger.completed.completion.job
        newly = await accept_voucher(self._node.book, job, tokens, amount, head, signature)
        self._node.metrics.acknowledged_tokens.inc(newly)
        self._node.on_settlement_request(job)

    # -- one pass ------------------------------------------------------------------------------------------------------------

    async def _follow(self, now: float) -> None:
        if self._feed is None:
            self._feed = await self._chain.follow_board(now - self.settings.history)
        for event in await self._feed.read():
            await self._watch.take(event, now)

    async def _sweep(self, now: float) -> None:
        if now - self._swept < SWEEP_SECONDS:
            return
        self._swept = now
        self._watch.forget_late(now)
        named = self._watch.cids | {ledger.terms.prompt_cid for ledger in self._book.ledgers()}
        for cid in self.stores.uploads.aged(self._clock.now() - ORPHAN_SECONDS):
            if cid not in named:
                await self.stores.uploads.delete(cid)
        for store in (self.stores.uploads, self.stores.results):
            await store.sweep()
        for prompt, case in tuple(self._cases.items()):
            if self._over(case.ledger, now):
                self.queue.paid(prompt)
                del self._cases[prompt]
                self._book.forget(prompt)

    def _over(self, ledger: PromptLedger, now: float) -> bool:
        """Nothing more comes of it: paid, or ended and too late for anything that was sent to be mined."""
        if ledger.stage is Stage.SETTLING and ledger.completed is not None:
            return self._node.book.get(ledger.completed.completion.job) is None
        return ledger.stage is Stage.ENDED and now > ledger.terms.deadline

    @staticmethod
    def _is_due(case: PromptCase, now: float) -> bool:
        """Held jobs in each pass; of the others only what was sent may still be mined, or they get too late."""
        ledger = case.ledger
        if ledger.stage is Stage.SETTLING or (ledger.stage is Stage.ENDED and now > ledger.terms.deadline):
            return False
        if ledger.stage in (Stage.SEEN, Stage.ENDED):
            due, case.look_at = now >= case.look_at, max(case.look_at, now + QUIET_SECONDS)
            return due
        return True

    async def _work(self, case: PromptCase) -> None:
        with self._told(case.ledger.prompt):
            await case.work()

    async def _give_back(self, case: PromptCase) -> None:
        with self._told(case.ledger.prompt):
            await case.give_back("draining")

    async def _take(self, found: ClaimNow, now: float) -> None:
        """Open the prompt before it is claimed: what cannot be executed is not worth the gas."""
        with self._told(found.prompt):
            try:
                opened = await open_prompt(self.stores.uploads, self._key, found.terms, self._engine)
                market = Market(self._chain.info.chain_id, self._chain.info.market)
                seen = PromptSeen(found.terms, self._chain.info.board, market, self._chain.account, self._clock.now())
                ledger = await self._book.open(seen)
            except FabstirError as fault:
                if fault.retryable:
                    self.queue.lost(found.prompt, 0, now)
                else:
                    self.queue.failed(found.prompt)
                raise
            if ledger.stage is Stage.ENDED:
                self.queue.failed(found.prompt)
                return
            case = self._cases[found.prompt] = PromptCase(self._services, ledger, opened)
            first: Action | None = None
            try:
                first = await case.work(chosen=True)
            finally:
                if ledger.stage is Stage.SEEN and (first is None or isinstance(first, Rest)):
                    self.queue.lost(found.prompt, 0, now)  # nothing was sent

    def _take_up(self, ledger: PromptLedger) -> None:
        """After a restart."""
        prompt, terms, queue = ledger.prompt, ledger.terms, self.queue
        case = self._cases[prompt] = PromptCase(self._services, ledger)
        self.tracking.publish(prompt, ledger.stage.value, self._clock.now(), ledger.fault)
        if ledger.stage is Stage.ENDED:
            (queue.failed if ledger.executions else queue.over)(prompt)
        elif ledger.stage in (Stage.COMPLETED, Stage.SETTLING):
            queue.done(prompt, case.owed)
        elif ledger.stage is not Stage.SEEN:
            queue.won(prompt, terms)

    # -- tasks ---------------------------------------------------------------------------------------------------------------

    def _start(self, prompt: PromptId, work: Coroutine[Any, Any, None]) -> None:
        """One task at a time for each job."""
        before = self._working.get(prompt)
        task = self._working[prompt] = self._tasks.create_task(_after(before, work))
        task.add_done_callback(lambda done: self._ended(prompt, done))

    def _ended(self, prompt: PromptId, task: asyncio.Task[None]) -> None:
        if self._working.get(prompt) is task:
            del self._working[prompt]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(work)
        task.add_done_callback(lambda _: self.wake())
        return task

    @contextlib.contextmanager
    def _told(self, prompt: PromptId) -> Iterator[None]:
        """What fails is tried again in the next pass, and logged."""
        try:
            yield
        except FabstirError as fault:
            log.warning("prompt_delayed", prompt_id=prompt, code=fault.code, detail=fault.detail)

    async def _pause(self) -> None:
        waits = (asyncio.create_task(self._due.wait()), asyncio.create_task(self._clock.sleep(self.settings.poll)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    # -- the engine's speed ----------------------------------------------------------------------------------------------------

    async def _measure(self) -> None:
        began, tokens = self._clock.monotonic(), 0
        request = GenerationRequest(
            messages=(ChatMessage("user", "count 32"),), max_tokens=MEASURED_TOKENS, temperature=0.0, ignore_eos=True
        )
        try:
            async for item in self._engine.generate(request):
                tokens += 0 if isinstance(item, GenerationEnd) else len(item.records)
        except FabstirError as fault:  # the engine comes back by itself; until then it is believed to be slow
            log.warning("speed_not_measured", code=fault.code, detail=fault.detail)
        self._set_speed(tokens, self._clock.monotonic() - began, 1.0)

    def _measured(self, tokens: int, seconds: float) -> None:
        self._node.metrics.generation_tokens.inc(tokens)
        self._set_speed(tokens, seconds, LEARNING)

    def _set_speed(self, tokens: int, seconds: float, weight: float) -> None:
        if tokens and seconds > 0:
            self._speed += weight * (tokens / seconds - self._speed)
        self.queue.rules = self.settings.queue_rules(self._chain.account, self._chain.info.usdc, max(self._speed, 0.01))

    def _make_services(self) -> PromptServices:
        def settle(job: JobId) -> None:
            self._node.on_settlement_request(job)

        return PromptServices(
            chain=self._chain,
            engine=self._engine,
            uploads=self.stores.uploads,
            results=self.stores.results,
            book=self._book,
            jobs=self._node.book,
            queue=self.queue,
            tracking=self.tracking,
            clock=self._clock,
            metrics=self._node.metrics,
            key=self._key,
            rules=self.settings.rules,
            settle=settle,
            spawn=self._spawn,
            measured=self._measured,
        )


async def _after(before: asyncio.Task[None] | None, work: Coroutine[Any, Any, None]) -> None:
    if before is not None:
        await asyncio.wait({before})
    await work
