"""A host of prompt jobs in memory: queue, planner, and a shell that does what they say."""

from __future__ import annotations

from contextlib import suppress

from fabstir.domain.ids import Hash32
from fabstir.domain.money import cost
from fabstir.domain.prompts import Cid, PromptId
from fabstir.protocol import host_log, prompt_job, prompt_log
from fabstir.protocol.prompt_job import PromptRules, PromptSituation
from fabstir.protocol.prompt_log import PromptEvent, PromptLedger, PromptSeen, Stage
from fabstir.protocol.prompt_queue import ClaimNow, PromptQueue
from fabstir.protocol.sealed import cid
from fabstir.protocol.settlement import Reverted
from tests.protocol.prompting import (
    BOARD,
    MARKET,
    TOKENS_PER_SECOND,
    Common,
    Crash,
    Pending,
    Process,
    host_address,
    queue_rules,
)


class HostProcess(Process):
    """A host: queue, planner, and a shell that does what they say."""

    def __init__(self, world: Common, number: int) -> None:
        super().__init__(world, host_address(number))
        self.engine_works = True
        self.skew = 0
        """Seconds by which its clock is ahead of the chain."""
        self.settled: dict[bytes, list[bytes]] = {}
        """The logs of market jobs: durable, too."""
        self.begun: list[PromptId] = []
        """Every generation, for the tests."""
        self.restart()

    def restart(self) -> None:
        """Everything but the durable is forgotten and derived again."""
        self.fuse = -1
        self.queue = PromptQueue(queue_rules(self.account))
        self.read = 0
        self.prompts: set[PromptId] = set()
        self.running: dict[PromptId, int] = {}
        self.memory: dict[Cid, bytes] = {}
        self.ledgers: dict[PromptId, PromptLedger] = {}
        for prompt, events in self.journal.items():
            self.ledgers[prompt] = PromptLedger.replay([prompt_log.decode_event(data) for data in events])
        self.watch()
        for prompt, ledger in self.ledgers.items():
            if ledger.stage is Stage.ENDED:
                self.queue.failed(prompt) if ledger.executions else self.queue.over(prompt)
            elif ledger.stage not in (Stage.SEEN, Stage.COMPLETED, Stage.SETTLING):
                self.queue.won(prompt, ledger.terms)

    @property
    def now(self) -> float:
        """The clock of this machine."""
        return float(self.world.now + self.skew)

    def watch(self) -> None:
        """Tell the queue what the chain shows."""
        board, now = self.world.board, self.now
        for event in board.events[self.read :]:
            terms = self.world.terms[event.prompt]
            match event.name:
                case "PromptPosted":
                    self.queue.posted(event.prompt, terms, now)
                case "PromptAssigned":
                    self.queue.assigned(event.prompt, terms, event.host, event.until, now)
                case "PromptClaimed":
                    self.queue.claimed(event.prompt, terms, event.host, event.until, now)
                case "PromptReleased":
                    self.queue.released(event.prompt, terms, now)
                case _:
                    self.queue.ended(event.prompt)
        self.read = len(board.events)

    def step(self, watch: bool = True) -> None:
        """Look at the chain (or be slow), do one action for each job, claim what the queue says. A crash restarts."""
        try:
            if watch:
                self.watch()
            for prompt in list(self.ledgers):
                self.act(prompt)
            while isinstance(found := self.queue.next(self.now), ClaimNow):
                self.take(found)
        except Crash:
            self.restart()

    def take(self, found: ClaimNow) -> None:
        ledger = self.ledgers.get(found.prompt)
        if ledger is None:
            seen = PromptSeen(found.terms, BOARD, MARKET, self.account, self.now)
            self.durable(lambda: self.journal.setdefault(found.prompt, []).append(prompt_log.encode_event(seen)))
            ledger = self.ledgers[found.prompt] = PromptLedger(seen)
        if ledger.stage is Stage.ENDED:
            self.queue.failed(found.prompt)
            return
        if isinstance(self.act(found.prompt, chosen=True), prompt_job.Rest):
            self.queue.lost(found.prompt, self.world.board.status(found.prompt).until, self.now)

    def plan(self, prompt: PromptId, chosen: bool = False) -> prompt_job.Action:
        ledger, now = self.ledgers[prompt], self.now
        situation = PromptSituation(
            status=self.world.board.status(prompt),
            completion=self.world.board.completion(prompt),
            now=now,
            needed=1.25 * ledger.terms.max_tokens / TOKENS_PER_SECOND,
            chosen=chosen,
            prompt_ready=prompt in self.prompts,
            executing=prompt in self.running,
            executing_for=now - self.running.get(prompt, now),
        )
        return prompt_job.plan(ledger, situation, PromptRules())

    def store(self, prompt: PromptId, event: PromptEvent) -> None:
        """Append, then apply."""
        self.durable(lambda: self.journal[prompt].append(prompt_log.encode_event(event)))
        self.ledgers[prompt].apply(event)

    def act(self, prompt: PromptId, chosen: bool = False) -> prompt_job.Action:
        """One action after the other until there is none; the first one is returned."""
        first = action = self.plan(prompt, chosen)
        with suppress(Pending):
            for _ in range(20):
                self.note(prompt, action)
                self.work(prompt, action)
                action = self.plan(prompt)
                if isinstance(action, prompt_job.Rest):
                    return first
            raise AssertionError(f"{action} again and again")
        return first

    def note(self, prompt: PromptId, action: prompt_job.Action) -> None:
        """What the chain showed."""
        queue, terms, now = self.queue, self.ledgers[prompt].terms, self.now
        match action:
            case prompt_job.NoteHeld():
                self.store(prompt, prompt_log.ClaimHeld(action.price, action.until, now))
                queue.won(prompt, terms)
            case prompt_job.NoteLost():
                self.lose(prompt, action.reason)
            case prompt_job.NoteExpired():
                self.store(prompt, prompt_log.PromptExpired(action.reason, now))
                self.running.pop(prompt, None)
                queue.over(prompt)
            case prompt_job.NoteCompleted():
                self.store(prompt, prompt_log.PromptCompleted(action.completion, now))
                queue.done(prompt, cost(action.completion.tokens, action.completion.price))

    def lose(self, prompt: PromptId, reason: str) -> None:
        """The claim is gone, or was not had."""
        ledger, queue, now = self.ledgers[prompt], self.queue, self.now
        stage = ledger.stage
        self.running.pop(prompt, None)
        self.store(prompt, prompt_log.ClaimLost(reason, now))
        if stage is Stage.FAILED:
            queue.failed(prompt)
        elif stage is Stage.CLAIMING:
            status = self.world.board.status(prompt)
            queue.lost(prompt, 0 if status.free_for(self.account, now) else status.until, now)
        queue.lapsed(prompt, ledger.terms, now)

    def work(self, prompt: PromptId, action: prompt_job.Action) -> None:
        """What is to be done."""
        ledger, now = self.ledgers[prompt], self.now
        match action:
            case prompt_job.Rest():
                self.finish_generation(prompt)
            case prompt_job.SendClaim():
                self.send_claim(prompt, action)
            case prompt_job.FetchPrompt():
                self.prompts.add(prompt)
            case prompt_job.Execute():
                self.execute(prompt)
            case prompt_job.StoreResult():
                self.store_result(prompt, action.cid)
            case prompt_job.SendComplete():
                self.send_complete(prompt, action)
            case prompt_job.SendRelease():
                self.send_release(prompt, action)
            case prompt_job.GiveUp():
                self.store(prompt, prompt_log.ExecutionFailed(action.code, now))
            case prompt_job.HandOver():
                events = [host_log.encode_event(event) for event in prompt_job.handover(ledger, now)]
                if action.job not in self.settled:
                    self.durable(lambda: self.settled.update({action.job: events}))
                self.store(prompt, prompt_log.HandedOver(now))

    def send_claim(self, prompt: PromptId, action: prompt_job.SendClaim) -> None:
        ledger, board, now = self.ledgers[prompt], self.world.board, self.now
        if ledger.stage is Stage.SEEN:
            self.store(prompt, prompt_log.ClaimSent(action.attempt, now))
        if ledger.result is None:
            self.world.claims.append((prompt, self.account, now))
        try:
            self.transact(action.key, lambda: board.claim(self.account, ledger.terms, self.account))
        except Reverted as fault:
            self.lose(prompt, fault.name)
            return
        if not board.status(prompt).claimed_by(self.account):
            self.lose(prompt, "overtaken")

    def execute(self, prompt: PromptId) -> None:
        ledger, now = self.ledgers[prompt], self.world.now
        assert self.world.board.status(prompt).held_by(self.account, now), "executes only what it holds"
        assert ledger.result is None, "an answer that is there is not generated again"
        self.store(prompt, prompt_log.ExecutionStarted(float(now)))
        self.begun.append(prompt)
        self.running[prompt] = now

    def finish_generation(self, prompt: PromptId) -> None:
        """The engine is done once the time has passed."""
        ledger, now = self.ledgers[prompt], self.world.now
        began = self.running.get(prompt)
        if began is None or now - began < ledger.terms.max_tokens / TOKENS_PER_SECOND:
            return
        del self.running[prompt]
        if not self.engine_works:
            self.store(prompt, prompt_log.ExecutionFailed("engine_failed", float(now)))
            return
        sealed = b"answer of " + self.account + prompt
        records = b"".join(bytes([n]) * 32 for n in range(ledger.terms.max_tokens // 2))
        self.memory[cid(sealed)] = sealed
        made = prompt_log.ResultMade(cid(sealed), Hash32(b"\x0e" * 32), Hash32(b"\x0d" * 32), records, float(now))
        self.store(prompt, made)

    def store_result(self, prompt: PromptId, where: Cid) -> None:
        sealed = self.memory.get(where)
        if sealed is not None:
            self.durable(lambda: self.world.contents.update({where: sealed}))
        now = self.now
        there = where in self.world.contents
        self.store(prompt, prompt_log.ResultStored(now) if there else prompt_log.ResultMissing(now))

    def send_complete(self, prompt: PromptId, action: prompt_job.SendComplete) -> None:
        ledger, board, now = self.ledgers[prompt], self.world.board, self.now
        result = ledger.result
        assert result is not None
        if ledger.stage is Stage.STORED:
            self.store(prompt, prompt_log.CompleteSent(now))
        arguments = (self.account, ledger.terms, action.tokens, result.cid, result.hash)
        try:
            self.transact(action.key, lambda: board.complete(*arguments))
        except Reverted as fault:
            if board.status(prompt).held_by(self.account, now):
                self.store(prompt, prompt_log.ExecutionFailed(fault.name, now))

    def send_release(self, prompt: PromptId, action: prompt_job.SendRelease) -> None:
        ledger, board, now = self.ledgers[prompt], self.world.board, self.now
        self.running.pop(prompt, None)
        try:
            self.transact(action.key, lambda: board.release(self.account, ledger.terms))
        except Reverted:
            return
        failed = ledger.stage is Stage.FAILED
        self.store(prompt, prompt_log.ClaimReleased(action.reason, now))
        if failed or ledger.stage is Stage.ENDED:
            self.queue.failed(prompt)
        else:
            self.queue.lapsed(prompt, ledger.terms, now)
