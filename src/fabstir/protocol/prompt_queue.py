"""The host's queue of prompt jobs, as a pure core: what is claimed next, and when.

It is told what the chain shows (`posted`, `assigned`, `claimed`, `released`, `ended`) and how its own claims went (`won`,
`lost`, `failed`, `done`, `paid`), and answers `next(now)`. Among equal hosts that see the same event at the same moment a claim
is a race that all but one pay gas for. Three things keep them apart: each host ranks and delays open jobs by its own hash of
the job, a job that another holds is not touched before that claim lapses, and every lost race doubles this host's pause (full
jitter), for that job and for all. Never reads a clock, never scans the queue: each step costs O(log n).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

import msgspec

from fabstir.domain.ids import Address
from fabstir.domain.money import BaseUnits, cost
from fabstir.domain.prompts import PromptId, PromptTerms
from fabstir.protocol.prompt_heap import LazyHeap
from fabstir.protocol.prompt_rules import (
    QueueRules,
    Reason,
    fraction,
    latest_start,
    offer_for,
    rank,
    refusal,
)

REMEMBERED: Final = 10_000
"""Refusals that `why` still knows."""


class ClaimNow(msgspec.Struct, frozen=True):
    """Claim this one. It occupies a slot until `won`, `lost`, `failed` or `done` says otherwise."""

    prompt: PromptId
    terms: PromptTerms


class WaitUntil(msgspec.Struct, frozen=True):
    """Nothing to claim before `at`, or before something is reported where `at` is None."""

    at: float | None
    reason: str


class _Entry:
    """One job in the queue. Slots, since there are ten thousand."""

    __slots__ = ("latest", "losses", "rank", "reserved", "terms")

    def __init__(self, terms: PromptTerms, rank: float, latest: float, reserved: bool) -> None:
        self.terms = terms
        self.rank = rank
        self.latest = latest
        self.reserved = reserved
        """For this host. It stays preferred when the reservation ran out without another taking it."""
        self.losses = 0


class PromptQueue:
    """Memory: one entry and at most eight heap entries for each queued job, `max_queued` of them; the reasons of the last REMEMBERED
    refusals."""

    def __init__(self, rules: QueueRules) -> None:
        self.rules = rules
        self.counts: Counter[Reason] = Counter()
        self.races_lost = 0
        """In a row; what the global pause grows with."""
        self._entries: dict[PromptId, _Entry] = {}
        self._ready: LazyHeap[PromptId] = LazyHeap()
        """By rank: may be claimed now."""
        self._later: LazyHeap[PromptId] = LazyHeap()
        """By time: may be claimed then."""
        self._latest: LazyHeap[PromptId] = LazyHeap()
        """By the last moment at which a claim is of use."""
        self._worst: LazyHeap[PromptId] | None = None
        """By rank, worst first. Made when the queue is first full, since until then nobody asks."""
        self._claiming: dict[PromptId, _Entry] = {}
        self._working: set[PromptId] = set()
        self._unpaid: dict[PromptId, BaseUnits] = {}
        self._unpaid_sum = 0
        self._why: OrderedDict[PromptId, Reason] = OrderedDict()
        self._pause_until = 0.0
        self._race = 0

    # -- views -----------------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, prompt: PromptId) -> bool:
        return prompt in self._entries

    def __repr__(self) -> str:
        return (
            f"<PromptQueue {len(self)} queued ({len(self._ready)} ready), {len(self._claiming)} claiming, "
            f"{len(self._working)} working, {self._unpaid_sum} unpaid>"
        )

    @property
    def occupied(self) -> int:
        """Slots that are taken, by work or by claims on their way."""
        return len(self._working) + len(self._claiming)

    @property
    def unpaid(self) -> BaseUnits:
        """Work that is claimed and not paid."""
        return BaseUnits(self._unpaid_sum)

    def why(self, prompt: PromptId) -> Reason | None:
        """Why this job was not, or is no longer, queued; None where it is, or was forgotten."""
        return None if prompt in self._entries else self._why.get(prompt)

    # -- what the chain shows --------------------------------------------------------------------------------------------------

    def posted(self, prompt: PromptId, terms: PromptTerms, now: float) -> Reason | None:
        """A job that nobody holds. Returns why it is not queued, None where it is. Reporting it again changes nothing."""
        if self._knows(prompt) or self._why.get(prompt) is Reason.FAILED:
            return self._why.get(prompt)
        reason = self._add(prompt, terms, now)
        if reason is None:
            self._schedule(prompt, self._entries[prompt], now + self._spread(prompt), now)
        return reason

    def assigned(self, prompt: PromptId, terms: PromptTerms, host: Address, until: float, now: float) -> Reason | None:
        """Reserved: for this host it may be claimed at once, ahead of others; for another host not before `until`."""
        ours = host == self.rules.host
        reason = None if self._knows(prompt) else self._add(prompt, terms, now, ours)
        entry = self._entries.get(prompt)
        if entry is not None:
            self._reserve(prompt, entry, ours)
            self._schedule(prompt, entry, now if ours else until + self._spread(prompt), now)
        return reason

    def claimed(self, prompt: PromptId, terms: PromptTerms, host: Address, until: float, now: float) -> Reason | None:
        """Somebody holds it until `until`; then it may be free again."""
        if host == self.rules.host:
            return None
        reason = None if self._knows(prompt) else self._add(prompt, terms, now)
        entry = self._entries.get(prompt)
        if entry is not None:
            self._reserve(prompt, entry, False)
            self._schedule(prompt, entry, until + self._spread(prompt), now)
        return reason

    def released(self, prompt: PromptId, terms: PromptTerms, now: float) -> Reason | None:
        """Given back: as if just posted, but it keeps its age."""
        entry = self._entries.get(prompt)
        if entry is None:
            return self.posted(prompt, terms, now)
        self._schedule(prompt, entry, now + self._spread(prompt), now)
        return None

    def ended(self, prompt: PromptId) -> None:
        """Completed, cancelled or refunded: gone for good."""
        if prompt in self._entries:
            self._drop(prompt, Reason.ENDED)
        if self._claiming.pop(prompt, None) is not None:
            self._settle(prompt)

    # -- what to do ------------------------------------------------------------------------------------------------------------

    def next(self, now: float) -> ClaimNow | WaitUntil:
        """The claim to send now, or until when there is none."""
        self._forget_late(now)
        self._wake(now)
        if self.occupied >= self.rules.slots:
            return WaitUntil(None, "no slot is free")
        if now < self._pause_until:
            return WaitUntil(self._pause_until, "back-off after lost claims")
        while (found := self._ready.peek()) is not None:
            prompt = found[1]
            entry = self._entries[prompt]
            reason = refusal(
                self.rules, entry.terms, now
            )  # rules and measured speed may have changed since it was queued
            if reason is not None:
                self._drop(prompt, reason)
            elif self._worth(entry.terms) + self._unpaid_sum > self.rules.max_unpaid:
                return WaitUntil(
                    None, "too much work is unpaid"
                )  # the best one waits at the head: a large job would starve
            else:
                self._remove(prompt)
                self._claiming[prompt] = entry
                self._owe(prompt, self._worth(entry.terms))
                return ClaimNow(prompt, entry.terms)
        later = self._later.peek()
        return WaitUntil(later[0] if later else None, "nothing may be claimed now")

    # -- how it went -----------------------------------------------------------------------------------------------------------

    def won(self, prompt: PromptId, terms: PromptTerms) -> None:
        """The claim is this host's: also after a restart, where nothing was asked before."""
        if prompt in self._entries:
            self._remove(prompt)
        if self._claiming.pop(prompt, None) is not None:
            self.races_lost = 0
        self._working.add(prompt)
        self._owe(prompt, self._worth(terms))

    def lost(self, prompt: PromptId, until: float, now: float) -> None:
        """Another was first and holds it until `until` (0: not known). This host claims nothing for a while."""
        entry = self._claiming.pop(prompt, None)
        self.races_lost += 1
        self._pause_until = max(self._pause_until, now + self._backoff(self.rules.host, self.races_lost))
        self._settle(prompt)
        if entry is None:
            return
        entry.losses += 1
        entry.reserved = False
        self._insert(prompt, entry)
        self._schedule(prompt, entry, max(now, until) + self._backoff(prompt, entry.losses), now)
        self._trim()

    def failed(self, prompt: PromptId) -> None:
        """This host could not do it and gave it back: another shall."""
        self._working.discard(prompt)
        self._claiming.pop(prompt, None)
        self._settle(prompt)
        if prompt in self._entries:
            self._remove(prompt)
        self._refuse(prompt, Reason.FAILED)

    def lapsed(self, prompt: PromptId, terms: PromptTerms, now: float) -> None:
        """This host's own claim ran out or was given back for want of time; it may try again."""
        self._working.discard(prompt)
        self._settle(prompt)
        self.posted(prompt, terms, now)

    def done(self, prompt: PromptId, price: BaseUnits) -> None:
        """Completed: the slot is free, and `price` is owed."""
        self._working.discard(prompt)
        self._owe(prompt, price)

    def paid(self, prompt: PromptId) -> None:
        """The market job is settled, for better or worse."""
        self._settle(prompt)

    def over(self, prompt: PromptId) -> None:
        """This host has nothing to do with it any more, and another had its answer or nobody."""
        self._working.discard(prompt)
        self._settle(prompt)
        self.ended(prompt)

    # -- the parts -------------------------------------------------------------------------------------------------------------

    def _knows(self, prompt: PromptId) -> bool:
        return prompt in self._entries or prompt in self._claiming or prompt in self._working

    def _add(self, prompt: PromptId, terms: PromptTerms, now: float, reserved: bool = False) -> Reason | None:
        offer = offer_for(self.rules, terms)
        reason = refusal(self.rules, terms, now)
        if offer is None or reason is not None:
            return self._refuse(prompt, reason or Reason.MODEL)
        place = rank(self.rules, offer, prompt, terms, now)
        self._insert(prompt, _Entry(terms, place, latest_start(self.rules, offer, terms), reserved))
        self._trim()
        return self.why(prompt)

    def _insert(self, prompt: PromptId, entry: _Entry) -> None:
        self._entries[prompt] = entry
        self._why.pop(prompt, None)
        self._latest.push(entry.latest, prompt)
        if self._worst is not None:
            self._worst.push(-self._place(entry), prompt)

    def _place(self, entry: _Entry) -> float:
        return entry.rank - (self.rules.reserved_head_start if entry.reserved else 0.0)

    def _reserve(self, prompt: PromptId, entry: _Entry, reserved: bool) -> None:
        if entry.reserved is not reserved:
            entry.reserved = reserved
            if self._worst is not None:
                self._worst.push(-self._place(entry), prompt)

    def _schedule(self, prompt: PromptId, entry: _Entry, at: float, now: float) -> None:
        """Not before `at`; `next` moves it to those that are ready."""
        if at <= now:
            self._later.remove(prompt)
            self._ready.push(self._place(entry), prompt)
        else:
            self._ready.remove(prompt)
            self._later.push(at, prompt)

    def _wake(self, now: float) -> None:
        while (found := self._later.peek()) is not None and found[0] <= now:
            prompt = found[1]
            self._later.pop()
            self._ready.push(self._place(self._entries[prompt]), prompt)

    def _forget_late(self, now: float) -> None:
        while (found := self._latest.peek()) is not None and found[0] < now:
            self._drop(found[1], Reason.DEADLINE)

    def _trim(self) -> None:
        while len(self._entries) > self.rules.max_queued:
            self._drop(self._find_worst(), Reason.FULL)

    def _find_worst(self) -> PromptId:
        if self._worst is None:
            self._worst = LazyHeap()
            for prompt, entry in self._entries.items():
                self._worst.push(-self._place(entry), prompt)
        found = self._worst.peek()
        if found is None:
            raise AssertionError("every queued job is in the heap of the worst")
        return found[1]

    def _remove(self, prompt: PromptId) -> None:
        del self._entries[prompt]
        self._ready.remove(prompt)
        self._later.remove(prompt)
        self._latest.remove(prompt)
        if self._worst is not None:
            self._worst.remove(prompt)

    def _drop(self, prompt: PromptId, reason: Reason) -> None:
        self._remove(prompt)
        self._refuse(prompt, reason)

    def _refuse(self, prompt: PromptId, reason: Reason) -> Reason:
        self.counts[reason] += 1
        self._why[prompt] = reason
        self._why.move_to_end(prompt)
        if len(self._why) > REMEMBERED:
            self._why.popitem(last=False)
        return reason

    def _spread(self, prompt: PromptId) -> float:
        """Where in the contention window this host claims; the window widens while races are lost."""
        return fraction(self.rules.host, prompt, 1) * self.rules.spread * 2.0 ** min(self.races_lost, 5)

    def _backoff(self, seed: bytes, losses: int) -> float:
        """Full jitter: anywhere in a window that doubles with each loss."""
        self._race += 1
        window = min(self.rules.backoff_cap, self.rules.backoff_base * 2.0 ** min(losses - 1, 30))
        return fraction(self.rules.host, seed, self._race) * window

    def _worth(self, terms: PromptTerms) -> BaseUnits:
        offer = offer_for(self.rules, terms)
        return cost(terms.max_tokens, offer.price) if offer else BaseUnits(0)

    def _owe(self, prompt: PromptId, amount: BaseUnits) -> None:
        self._unpaid_sum += amount - self._unpaid.get(prompt, 0)
        self._unpaid[prompt] = amount

    def _settle(self, prompt: PromptId) -> None:
        self._unpaid_sum -= self._unpaid.pop(prompt, BaseUnits(0))
