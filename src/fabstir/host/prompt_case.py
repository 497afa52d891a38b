"""One prompt job at work: carries out what `fabstir.protocol.prompt_job.plan` says, writes down what it names, asks again.

Decides nothing about money or order; the planner and the queue do. An intent is in the journal before its transaction, and
each transaction has a key that names prompt and claim, so that a crash at any point repeats nothing. Prompt and answer are
in memory only; what is stored is sealed. One task at a time works on a case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any, Final

import msgspec
import structlog

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import JobId
from fabstir.domain.money import BaseUnits, cost
from fabstir.domain.prompts import Cid, PromptState
from fabstir.host.jobs import JobBook
from fabstir.host.prompt_book import PromptBook
from fabstir.host.prompt_execution import MadeAnswer, OpenedPrompt, make_answer, open_prompt
from fabstir.host.prompt_tracking import Tracking
from fabstir.ops.metrics import Metrics
from fabstir.ports.blobs import BlobStore
from fabstir.ports.clock import Clock
from fabstir.ports.engine import Engine
from fabstir.ports.prompts import PromptChain
from fabstir.protocol.prompt_job import (
    Action,
    Execute,
    FetchPrompt,
    GiveUp,
    HandOver,
    NoteCompleted,
    NoteExpired,
    NoteHeld,
    NoteLost,
    PromptRules,
    PromptSituation,
    Rest,
    SendClaim,
    SendComplete,
    SendRelease,
    StoreResult,
    handover,
    plan,
)
from fabstir.protocol.prompt_log import (
    ClaimHeld,
    ClaimLost,
    ClaimReleased,
    ClaimSent,
    CompleteSent,
    ExecutionFailed,
    ExecutionStarted,
    HandedOver,
    PromptCompleted,
    PromptEvent,
    PromptExpired,
    PromptLedger,
    ResultMade,
    ResultMissing,
    ResultStored,
    Stage,
)
from fabstir.protocol.prompt_queue import PromptQueue
from fabstir.protocol.prompt_rules import offer_for, work_seconds
from fabstir.protocol.sealed import SealingKey

STEPS: Final = 32
"""Bounds one pass over one job; the next pass goes on."""

log = structlog.get_logger("fabstir.prompts")


class PromptServices(msgspec.Struct, frozen=True, kw_only=True):
    """What every case of a desk shares."""

    chain: PromptChain
    engine: Engine
    uploads: BlobStore
    results: BlobStore
    book: PromptBook
    jobs: JobBook
    queue: PromptQueue
    tracking: Tracking
    clock: Clock
    metrics: Metrics
    key: SealingKey
    rules: PromptRules
    settle: Callable[[JobId], None]
    """Told when a market job is there to be settled."""
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    """Starts a task that ends with the desk."""
    measured: Callable[[int, float], None]
    """Told how many tokens took how many seconds."""


class PromptCase:
    """Memory: the ledger, the opened prompt, one sealed answer."""

    def __init__(self, services: PromptServices, ledger: PromptLedger, opened: OpenedPrompt | None = None) -> None:
        self.ledger: Final = ledger
        self._services = services
        self._opened = opened
        self._answer: MadeAnswer | None = None
        self._generation: asyncio.Task[None] | None = None
        self._outcome: MadeAnswer | FabstirError | None = None
        self._began = 0.0
        self.look_at = 0.0
        """Unix seconds before which the desk leaves it alone while nothing is at stake."""

    def __repr__(self) -> str:
        return f"<PromptCase {self.ledger!r}{' generating' if self._generation else ''}>"

    async def work(self, *, chosen: bool = False) -> Action:
        """Step after step until there is nothing to do now; returns the first action. Raises FabstirError: try again later."""
        await self._note_outcome()
        first: Action | None = None
        for _ in range(STEPS):
            action = plan(self.ledger, await self._situation(chosen and first is None), self._services.rules)
            first = first or action
            if isinstance(action, Rest):
                break
            await self._note(action)
            await self._do(action)
        return first or Rest("nothing")

    async def give_back(self, code: str) -> None:
        """This host will not answer it: another shall, at once."""
        if self.ledger.stage in (Stage.CLAIMED, Stage.RUNNING):
            await self._fail(code)
        await self.work()

    async def _situation(self, chosen: bool) -> PromptSituation:
        services, ledger = self._services, self.ledger
        status = await services.chain.prompt(ledger.prompt)
        ours = status.state is PromptState.COMPLETED and status.host == ledger.seen.host and ledger.completed is None
        offer = offer_for(services.queue.rules, ledger.terms)
        return PromptSituation(
            status=status,
            now=await self._now(),
            needed=services.queue.rules.safety * work_seconds(offer, ledger.terms) if offer else inf,
            chosen=chosen,
            completion=await services.chain.completion(ledger.prompt, ledger.seen.at) if ours else None,
            prompt_ready=self._opened is not None,
            executing=self._generation is not None,
            executing_for=services.clock.monotonic() - self._began if self._generation else 0.0,
        )

    async def _now(self) -> float:
        return max(self._services.clock.now(), await self._services.chain.timestamp())

    async def _record(self, event: PromptEvent, reason: str = "") -> None:
        await self._services.book.record(self.ledger, event)
        stage = self.ledger.stage
        self._services.tracking.publish(self.ledger.prompt, stage.value, self._services.clock.now(), reason)
        log.info("prompt_stage", prompt_id=self.ledger.prompt, state=stage.value, reason=reason)

    # -- what the chain showed -----------------------------------------------------------------------------------------------

    async def _note(self, action: Action) -> None:
        if not isinstance(action, NoteHeld | NoteLost | NoteExpired | NoteCompleted):
            return
        ledger, queue, now = self.ledger, self._services.queue, await self._now()
        prompt, terms = ledger.prompt, ledger.terms
        match action:
            case NoteHeld():
                await self._record(ClaimHeld(action.price, action.until, now))
                queue.won(prompt, terms)
            case NoteLost():
                await self._lost(action.reason, now)
            case NoteExpired():
                self._stop()
                await self._record(PromptExpired(action.reason, now), action.reason)
                queue.over(prompt)
                self._services.metrics.prompt_outcome("expired")
            case NoteCompleted():
                await self._record(PromptCompleted(action.completion, now))
                queue.done(prompt, cost(action.completion.tokens, action.completion.price))
                self._services.metrics.prompt_outcome("completed")

    async def _lost(self, reason: str, now: float) -> None:
        ledger, queue, stage = self.ledger, self._services.queue, self.ledger.stage
        self._stop()
        await self._record(ClaimLost(reason, now), reason)
        if stage is Stage.FAILED:
            queue.failed(ledger.prompt)
        elif stage is Stage.CLAIMING:
            status = await self._services.chain.prompt(ledger.prompt)
            queue.lost(ledger.prompt, 0 if status.free_for(ledger.seen.host, now) else status.until, now)
        queue.lapsed(ledger.prompt, ledger.terms, now)
        self._services.metrics.prompt_outcome("lost")

    # -- what is to be done ----------------------------------------------------------------------------------------------------

    async def _do(self, action: Action) -> None:
        match action:
            case SendClaim():
                await self._claim(action)
            case FetchPrompt():
                await self._fetch()
            case Execute():
                await self._execute()
            case StoreResult():
                await self._store(action.cid)
            case SendComplete():
                await self._complete(action)
            case SendRelease():
                await self._release(action)
            case GiveUp():
                await self._fail(action.code)
            case HandOver():
                admitted, *served = handover(self.ledger, self._services.clock.now())
                named = msgspec.structs.replace(admitted, model=self._services.engine.info.name)
                await self._services.jobs.adopt((named, *served))
                await self._record(HandedOver(self._services.clock.now()))
                self._services.settle(action.job)

    async def _claim(self, action: SendClaim) -> None:
        services, ledger = self._services, self.ledger
        if ledger.stage is Stage.SEEN:
            await self._record(ClaimSent(action.attempt, services.clock.now()))
        try:
            await services.chain.claim_prompt(action.key, ledger.terms, ledger.seen.host)
        except FabstirError as fault:
            if fault.code != "chain_reverted":
                raise
            await self._lost(fault.detail, await self._now())
            return
        if not (await services.chain.prompt(ledger.prompt)).claimed_by(ledger.seen.host):
            await self._lost("overtaken", await self._now())

    async def _fetch(self) -> None:
        services = self._services
        try:
            self._opened = await open_prompt(services.uploads, services.key, self.ledger.terms, services.engine)
        except FabstirError as fault:
            if fault.retryable and fault.code != "blob_missing":
                raise
            await self._fail(fault.code)

    async def _execute(self) -> None:
        services = self._services
        await self._record(ExecutionStarted(services.clock.now()))
        self._began = services.clock.monotonic()
        self._generation = services.spawn(self._generate())

    async def _generate(self) -> None:
        """Only leaves the outcome: the next pass writes it down."""
        services = self._services
        if self._opened is None:
            raise AssertionError("nothing is executed that was not opened")
        try:
            made = await make_answer(services.engine, self._opened, self.ledger.terms, services.jobs.held)
            services.metrics.prompt_tokens.inc(made.prompt_tokens)
            services.measured(len(made.digests) // 32, services.clock.monotonic() - self._began)
            self._outcome = made
        except FabstirError as fault:
            self._outcome = fault

    async def _note_outcome(self) -> None:
        if self._generation is None or not self._generation.done():
            return
        outcome, self._outcome, self._generation = self._outcome, None, None
        if self.ledger.stage is not Stage.RUNNING:
            return
        if isinstance(outcome, MadeAnswer):
            self._answer = outcome
            made = ResultMade(outcome.cid, outcome.hash, outcome.request, outcome.digests, self._services.clock.now())
            await self._record(made)
        elif outcome is not None and not outcome.retryable:
            await self._fail(outcome.code)

    async def _store(self, cid: Cid) -> None:
        services, answer = self._services, self._answer
        try:
            if answer is not None and answer.cid == cid:
                await services.results.put(answer.sealed)
            else:
                await services.results.get(cid)
        except FabstirError as fault:
            if answer is not None and answer.cid == cid:
                await self._fail(fault.code)
            else:
                await self._record(ResultMissing(services.clock.now()), fault.code)
            return
        await self._record(ResultStored(services.clock.now()))

    async def _complete(self, action: SendComplete) -> None:
        services, ledger = self._services, self.ledger
        if ledger.result is None:
            raise AssertionError("only an answer that is there completes a prompt")
        if ledger.stage is Stage.STORED:
            await self._record(CompleteSent(services.clock.now()))
        result = ledger.result
        try:
            await services.chain.complete_prompt(action.key, ledger.terms, action.tokens, result.cid, result.hash)
        except FabstirError as fault:
            if fault.code != "chain_reverted":
                raise
            status = await services.chain.prompt(ledger.prompt)
            if status.held_by(ledger.seen.host, await self._now()):
                await self._fail(fault.code)

    async def _release(self, action: SendRelease) -> None:
        services, ledger = self._services, self.ledger
        self._stop()
        await services.chain.release_prompt(action.key, ledger.terms)
        ended = ledger.stage in (Stage.FAILED, Stage.ENDED)
        await self._record(ClaimReleased(action.reason, services.clock.now()), action.reason)
        if ended:
            services.queue.failed(ledger.prompt)
        else:
            services.queue.lapsed(ledger.prompt, ledger.terms, await self._now())
        services.metrics.prompt_outcome("released")

    async def _fail(self, code: str) -> None:
        self._stop()
        await self._record(ExecutionFailed(code, self._services.clock.now()), code)
        log.warning("prompt_failed", prompt_id=self.ledger.prompt, code=code)

    def _stop(self) -> None:
        generation, self._generation, self._outcome = self._generation, None, None
        if generation is not None:
            generation.cancel()

    @property
    def generating(self) -> bool:
        """The engine works on it."""
        return self._generation is not None

    @property
    def owed(self) -> BaseUnits:
        """What the completed answer costs; 0 before."""
        done = self.ledger.completed
        return cost(done.completion.tokens, done.completion.price) if done else BaseUnits(0)
