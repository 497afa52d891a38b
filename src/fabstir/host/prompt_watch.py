"""What the board shows, told to the queue: only jobs whose prompt lies here are put into it.

A job whose prompt was not uploaded to this host could be claimed and never answered. Its events wait until the prompt comes,
or the job is over. Never claims; never reads a prompt.
"""

from __future__ import annotations

from typing import Final

from fabstir.domain.money import BaseUnits
from fabstir.domain.prompts import Cid, PromptId, PromptTerms
from fabstir.ports.blobs import BlobStore
from fabstir.ports.prompts import BoardEvent
from fabstir.protocol.prompt_queue import PromptQueue
from fabstir.protocol.prompt_rules import refusal

MAX_WATCHED: Final = 20_000
"""Jobs whose terms are remembered; beyond it the oldest are forgotten. About 1 KiB each."""
ENDED: Final = frozenset({"completed", "cancelled", "refunded"})


class PromptWatch:
    """Memory: the terms of MAX_WATCHED jobs, and the last event of each that waits for its prompt."""

    def __init__(self, queue: PromptQueue, uploads: BlobStore, bond_min: BaseUnits) -> None:
        """Jobs whose disputes cost less than `bond_min` are passed over."""
        self._queue = queue
        self._uploads = uploads
        self._bond_min = bond_min
        self._terms: dict[PromptId, PromptTerms] = {}
        self._waiting: dict[Cid, dict[PromptId, BoardEvent]] = {}

    def __repr__(self) -> str:
        return f"<PromptWatch {len(self._terms)} jobs, {len(self._waiting)} prompts awaited>"

    @property
    def cids(self) -> frozenset[Cid]:
        """Prompts that some job is about."""
        return frozenset(terms.prompt_cid for terms in self._terms.values())

    async def take(self, event: BoardEvent, now: float) -> None:
        """One event of the board."""
        if event.name in ENDED:
            self._end(event.prompt)
            return
        if event.terms is not None:
            self._remember(event.prompt, event.terms, now)
        terms = self._terms.get(event.prompt)
        if terms is None:
            return
        if await self._uploads.has(terms.prompt_cid):
            self._tell(event, terms, now)
        else:
            self._waiting.setdefault(terms.prompt_cid, {})[event.prompt] = event

    def arrived(self, cid: Cid, now: float) -> int:
        """The prompt is here: returns how many jobs that concerns."""
        waiting = self._waiting.pop(cid, {})
        for event in waiting.values():
            self._tell(event, self._terms[event.prompt], now)
        return len(waiting)

    def forget_late(self, now: float) -> None:
        """Jobs whose deadline has passed, whether or not anybody took the refund."""
        for prompt in [prompt for prompt, terms in self._terms.items() if terms.deadline < now]:
            self._forget(prompt)

    def _remember(self, prompt: PromptId, terms: PromptTerms, now: float) -> None:
        if refusal(self._queue.rules, terms, now) is not None:
            self._queue.posted(prompt, terms, now)  # counts why, and keeps nothing
            return
        if terms.bond < self._bond_min:
            return
        self._terms[prompt] = terms
        if len(self._terms) > MAX_WATCHED:
            self._forget(next(iter(self._terms)))

    def _tell(self, event: BoardEvent, terms: PromptTerms, now: float) -> None:
        match event.name:
            case "posted":
                self._queue.posted(event.prompt, terms, now)
            case "assigned":
                self._queue.assigned(event.prompt, terms, event.host, event.until, now)
            case "claimed":
                self._queue.claimed(event.prompt, terms, event.host, event.until, now)
            case "released":
                self._queue.released(event.prompt, terms, now)

    def _end(self, prompt: PromptId) -> None:
        self._queue.ended(prompt)
        self._forget(prompt)

    def _forget(self, prompt: PromptId) -> None:
        terms = self._terms.pop(prompt, None)
        if terms is not None and (waiting := self._waiting.get(terms.prompt_cid)) is not None:
            waiting.pop(prompt, None)
            if not waiting:
                del self._waiting[terms.prompt_cid]
