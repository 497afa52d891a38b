"""Claim: 10,000 queued prompt jobs cost a host next to nothing. Jobs a second through queue, claim and tracking, against a plain
sorted list that keeps the same order.

Each round posts two jobs into the full queue, sees one end that another host took, claims the best, and publishes the five stages
of its life to a tracker that three readers follow. Both ways judge and rank with the same functions and track with the same
tracker; they differ in what holds the queue. The peer is a list kept sorted with `bisect`; it knows no times before which a job
must not be claimed, no expiry and no back-off, all of which ours does besides. `asyncio.PriorityQueue`, which cannot remove, skips
what ended when it comes up. All three claim the same jobs in the same order, or the benchmark fails; one core's CPU time is counted, since
nothing waits. `races_*`: 16 equal hosts on a chain with 2 s blocks, claims that were sent for each job that was won,
with back-off and scatter and without.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
import tracemalloc
from bisect import bisect_left, insort
from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol

from common import main

from fabstir.domain.ids import Address, Hash32, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.prompts import Cid, PromptId, PromptTerms
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.prompt_queue import ClaimNow, PromptQueue
from fabstir.protocol.prompt_rules import ModelOffer, QueueRules, offer_for, rank, refusal
from fabstir.protocol.prompt_signing import prompt_id
from fabstir.protocol.prompt_tracking import Position, PromptTracker

QUEUED = 10_000
START = 1_800_000_000.0
STEP = 0.002
"""Seconds of simulated time for each round."""
HOST = Address(b"\x10" * 20)
TOKEN = Address(b"\x04" * 20)
MODELS = tuple(ModelId(bytes([n]) * 32) for n in range(1, 5))
STAGES = ("claiming", "claimed", "running", "completed", "settling")
Job = tuple[PromptId, PromptTerms]


class Held(Protocol):
    """What holds the queue."""

    def add(self, job: Job, now: float) -> None: ...
    def end(self, prompt: PromptId) -> None: ...
    def claim(self, now: float) -> PromptId: ...


def _rules(host: Address, **changes: Any) -> QueueRules:
    offers = {
        (model, TOKEN): ModelOffer(price=PricePerMTok(200_000 * (n + 1)), tokens_per_second=20.0 * (n + 1))
        for n, model in enumerate(MODELS)
    }
    fields: dict[str, Any] = {"host": host, "offers": offers, "slots": 1_000, "max_unpaid": BaseUnits(10**12)}
    return QueueRules(**fields | {"max_queued": QUEUED + 2} | changes)


def _jobs(count: int, seed: int = 1) -> list[Job]:
    chance, found = random.Random(seed), []
    for number in range(count):
        terms = PromptTerms(
            renter=Address(b"\x03" * 20),
            signer=Address(b"\x02" * 20),
            token=TOKEN,
            assigner=Address(bytes(20)),
            arbiter=Address(bytes(20)),
            ceiling=PricePerMTok(2_000_000),
            bond=BaseUnits(100_000),
            max_tokens=Tokens(chance.randint(16, 2_048)),
            deadline=int(START) + chance.randint(1_800, 86_400),
            execute_seconds=900,
            challenge=900,
            policy=ProofPolicy.FALLBACK,
            model_id=chance.choice(MODELS),
            prompt_cid=Cid(b"\x0c" * 32),
            salt=Hash32(number.to_bytes(32, "big")),
        )
        found.append((prompt_id(terms), terms))
    return found


class Ours:
    """The product's queue."""

    def __init__(self) -> None:
        self.queue = PromptQueue(_rules(HOST, spread=0.0))

    def add(self, job: Job, now: float) -> None:
        self.queue.posted(*job, now)

    def end(self, prompt: PromptId) -> None:
        self.queue.ended(prompt)

    def claim(self, now: float) -> PromptId:
        action = self.queue.next(now)
        if not isinstance(action, ClaimNow):
            raise AssertionError(action)
        self.queue.won(action.prompt, action.terms)
        self.queue.done(action.prompt, BaseUnits(1))
        self.queue.paid(action.prompt)
        return action.prompt


class SortedList:
    """A list that is kept sorted, and a dict to find a job in it."""

    def __init__(self) -> None:
        self.rules = _rules(HOST)
        self.ranks: dict[PromptId, float] = {}
        self.terms: dict[PromptId, PromptTerms] = {}
        self.order: list[tuple[float, PromptId]] = []

    def add(self, job: Job, now: float) -> None:
        prompt, terms = job
        offer = offer_for(self.rules, terms)
        if offer is None or refusal(self.rules, terms, now):
            return
        self.ranks[prompt] = place = rank(self.rules, offer, prompt, terms, now)
        self.terms[prompt] = terms
        insort(self.order, (place, prompt))

    def end(self, prompt: PromptId) -> None:
        place = self.ranks.pop(prompt, None)
        if place is not None:
            del self.terms[prompt]
            del self.order[bisect_left(self.order, (place, prompt))]

    def claim(self, now: float) -> PromptId:
        while True:
            prompt = self.order.pop(0)[1]
            del self.ranks[prompt]
            if refusal(self.rules, self.terms.pop(prompt), now) is None:
                return prompt


class StandardQueue(SortedList):
    """`asyncio.PriorityQueue`: what ended stays in it until it comes up."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: asyncio.PriorityQueue[tuple[float, PromptId]] = asyncio.PriorityQueue()

    def add(self, job: Job, now: float) -> None:
        prompt, terms = job
        offer = offer_for(self.rules, terms)
        if offer is None or refusal(self.rules, terms, now):
            return
        self.terms[prompt] = terms
        self.queue.put_nowait((rank(self.rules, offer, prompt, terms, now), prompt))

    def end(self, prompt: PromptId) -> None:
        self.terms.pop(prompt, None)

    def claim(self, now: float) -> PromptId:
        while True:
            terms = self.terms.pop(prompt := self.queue.get_nowait()[1], None)
            if terms is not None and refusal(self.rules, terms, now) is None:
                return prompt


class Run:
    """One way, filled with QUEUED jobs; `rounds` goes on from there."""

    def __init__(self, held: Held, jobs: list[Job]) -> None:
        self.held = held
        self.jobs = iter(jobs)
        self.now = START
        self.claimed: list[PromptId] = []
        self.tracker = PromptTracker(1)
        self.readers: list[Position | None] = [None, None, None]
        self.waiting: list[PromptId] = []
        self.chance = random.Random(2)
        for job in islice(self.jobs, QUEUED):
            self._post(job)
        self.now += 60.0
        self.read()

    def _post(self, job: Job) -> None:
        self.held.add(job, self.now)
        self.waiting.append(job[0])

    def read(self) -> None:
        """Every reader takes what is new."""
        self.readers = [self.tracker.read(position).position for position in self.readers]

    def rounds(self, count: int) -> float:
        """CPU seconds for `count` claimed jobs."""
        began = time.process_time()
        for _ in range(count):
            self.now += STEP
            self._post(next(self.jobs))
            self._post(next(self.jobs))
            gone = self.chance.randrange(len(self.waiting))
            self.waiting[gone], self.waiting[-1] = self.waiting[-1], self.waiting[gone]
            self.held.end(self.waiting.pop())
            prompt = self.held.claim(self.now)
            self.claimed.append(prompt)
            for stage in STAGES:
                self.tracker.publish(prompt, stage, self.now)
            self.read()
        return time.process_time() - began


def _memory(jobs: list[Job]) -> float:
    """MiB of a full queue and a tracker with as many jobs; the terms themselves are not counted."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    queue, tracker = PromptQueue(_rules(HOST)), PromptTracker(1)
    for prompt, terms in jobs[:QUEUED]:
        queue.posted(prompt, terms, START)
        tracker.publish(prompt, "seen", START)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    if len(queue) != QUEUED or tracker.position.sequence != QUEUED:
        raise AssertionError(queue)
    return used / 2**20


def _races(hosts: int, count: int, **changes: Any) -> float:
    """Claims sent for each job that was won, where every host sees an event one block after it happened."""
    queues = {
        Address(bytes([n + 1]) * 20): PromptQueue(_rules(Address(bytes([n + 1]) * 20), **changes)) for n in range(hosts)
    }
    jobs, taken, sent, now = _jobs(count, 3), dict[PromptId, Address](), 0, START
    for queue in queues.values():
        for prompt, terms in jobs:
            queue.posted(prompt, terms, now)
    known = dict(jobs)
    while len(taken) < count:
        now += 2.0
        news = []
        for host, queue in queues.items():
            action = queue.next(now)
            if not isinstance(action, ClaimNow):
                continue
            sent += 1
            if action.prompt in taken:
                queue.lost(action.prompt, now + 10**6, now)
                continue
            taken[action.prompt] = host
            news.append((action.prompt, host))
            queue.won(action.prompt, action.terms)
        for prompt, host in news:
            for queue in queues.values():
                queue.claimed(prompt, known[prompt], host, now + 10**6, now)
    return sent / count


def measure(quick: bool) -> dict[str, Any]:
    """Medians over rounds in which all three ways take turns."""
    repeats, count = (5, 1_000) if quick else (15, 2_000)
    jobs = _jobs(QUEUED + 2 * repeats * count)
    makers: dict[str, Callable[[], Held]] = {"ours": Ours, "peer": SortedList, "standard": StandardQueue}
    runs = {name: Run(make(), jobs) for name, make in makers.items()}
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            rates[name].append(count / run.rounds(count))
    if len({tuple(run.claimed) for run in runs.values()}) != 1:
        raise AssertionError("the three do not keep the same order")
    ours, peer = statistics.median(rates["ours"]), statistics.median(rates["peer"])
    lost = 200 if quick else 500
    return {
        "claim": f"prompt jobs per second through queue, claim and tracking with {QUEUED} queued, against a sorted list",
        "ours": round(ours),
        "peer": round(peer),
        "ratio": round(ours / peer, 3),
        "unit": "jobs/s of one core",
        "n": repeats * count,
        "priority_queue_jobs_per_s": round(statistics.median(rates["standard"])),
        "cpu_us_per_job": round(1e6 / ours, 1),
        "peer_cpu_us_per_job": round(1e6 / peer, 1),
        "memory_mib": round(_memory(jobs), 1),
        "races_claims_per_job_16_hosts": round(_races(16, lost), 2),
        "races_claims_per_job_16_hosts_naive": round(_races(16, lost, scatter=0.0, spread=0.0, backoff_base=0.0), 2),
    }


if __name__ == "__main__":
    main(measure, __doc__ or "")
