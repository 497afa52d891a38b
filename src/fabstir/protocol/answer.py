"""The answer that a host is working on: what is generated and not yet served, and what was served; and whether it begins at all."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from fabstir.domain.errors import error
from fabstir.protocol import controls
from fabstir.protocol.controls import sampler_of
from fabstir.protocol.generation import GenerationEnd, TokenBatch
from fabstir.protocol.host_inputs import HostOffer
from fabstir.protocol.messages import ChatMessage, Prompt


class Answer:
    """One answer. Memory: at most `max_answer_tokens` records held back, and the answer's text until the turn ends."""

    def __init__(self, turn: int, prompt: Prompt, budget: int, deposit_bound: bool) -> None:
        self.turn = turn
        self.prompt = prompt
        self.sampler = sampler_of(prompt)
        self.budget = budget
        """Tokens that may be generated."""
        self.deposit_bound = deposit_bound
        """The budget is what the deposit still pays for, not what was asked for."""
        self.served = 0
        self.end: GenerationEnd | None = None
        self._accepted = 0
        self._held: deque[TokenBatch] = deque()
        self.ids: list[int] = []
        """Of the tokens that were served."""
        self._text: list[str] = []

    @property
    def waiting(self) -> bool:
        """Something is generated and not yet served."""
        return bool(self._held)

    @property
    def text(self) -> str:
        """The answer so far, with what an earlier host delivered of it."""
        return self.prompt.prefix + "".join(self._text)

    def hold(self, batch: TokenBatch) -> None:
        """Generated; wait for room. What an engine makes beyond the budget is dropped: nobody would pay for it."""
        left = self.budget - self._accepted
        self._accepted += len(batch.records)
        if left >= len(batch.records):
            self._held.append(batch)
        elif left > 0:
            self._held.append(TokenBatch(batch.records[:left], ""))

    def take(self, room: int) -> TokenBatch | None:
        """The next tokens to serve, at most `room` of them; a batch is split so that its text goes with its last token."""
        if room <= 0 or not self._held:
            return None
        batch = self._held.popleft()
        if len(batch.records) > room:
            self._held.appendleft(TokenBatch(batch.records[room:], batch.text))
            batch = TokenBatch(batch.records[:room], "")
        self.served += len(batch.records)
        self.ids += [record.token for record in batch.records]
        self._text.append(batch.text)
        return batch

    def finish_reason(self, end: GenerationEnd) -> str:
        """What the renter is told: `deposit` where the budget was the deposit's."""
        return "deposit" if end.finish_reason == "length" and self.deposit_bound else end.finish_reason


def require_controls(item: Prompt, before: Iterable[ChatMessage], offer: HostOffer) -> None:
    """That this host has what the prompt asks for. Raises Refused (`control_unsupported`, `control_invalid`)."""
    roles = frozenset(message.role for message in (*before, item.message))
    if fault := controls.missing(controls.needs(item, roles), offer.controls):
        raise fault
    controls.check(item)
    if item.prefix and controls.prescribed(item):
        raise error("control_unsupported", "an answer of a prescribed form is not gone on with in its middle")
