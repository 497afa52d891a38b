"""One answer as the person sees it, whoever delivered which part of it: text, counts and times. Pure; the time comes in
as an argument.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from fabstir.domain.ids import Address
from fabstir.protocol.context.plan import ContextPlan
from fabstir.protocol.controls import prescribed
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.renter_items import Ask, Deliver
from fabstir.protocol.transcript import TokenRecord
from fabstir.renter.jobs import RenterJob
from fabstir.renter.setbacks import Setbacks

Allow = Callable[[RenterJob, int], Awaitable[int]]
"""Given a job and how many tokens are wanted, how many may be asked for under it."""


class AnswerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one answer."""

    finish_reason: str
    """stop, length, deposit (the budget is used up), cancelled, or the code of the error that ended it."""
    prompt_tokens: int
    """By the host's count; 0 where it was not told."""
    completion_tokens: int
    """Delivered, and paid for once."""
    ttft_s: float | None
    """From the question to the first text."""
    seconds: float
    hosts: tuple[Address, ...]
    """Who delivered, in this order; more than one where the answer moved."""
    summary_tokens: int = 0
    """Of summaries that were made first, so that the conversation fits; paid for too."""
    plan: ContextPlan | None = None
    """What the model was given, by the last of them; None where no answer began."""

    @property
    def host(self) -> Address | None:
        """Who delivered the end of it."""
        return self.hosts[-1] if self.hosts else None

    @property
    def tokens_per_s(self) -> float:
        """After the first token; 0 where there was no second one."""
        rest = self.seconds - (self.ttft_s or 0.0)
        return (self.completion_tokens - 1) / rest if self.completion_tokens > 1 and rest > 0 else 0.0


class Turn:
    """An answer on its way. Memory: its text and its records."""

    def __init__(
        self, question: Ask, now: float, allow: Allow | None = None, needed: frozenset[str] = frozenset()
    ) -> None:
        """`needed`: the controls that a host must have."""
        self._question = question
        self._allow = allow
        self._began = now
        self._first: float | None = None
        self._text: list[str] = []
        self._since_asked = 0
        self.records: list[TokenRecord] = []
        """Of what was delivered, whoever delivered it."""
        self.tokens = 0
        self.prompt_tokens = 0
        self.summary_tokens = 0
        self.plan: ContextPlan | None = None
        """As the host that answers disclosed it."""
        self.hosts: list[Address] = []
        self.setbacks = Setbacks(needed)
        self.asked = False
        """A host is working on it."""
        self.over = False

    def __repr__(self) -> str:
        return f"<Turn {self.tokens} tokens from {len(self.hosts)} hosts{', over' if self.over else ''}>"

    @property
    def question(self) -> ChatMessage:
        """What was asked, as it stands in the conversation."""
        asked = self._question
        return ChatMessage(asked.role, asked.content, tool_call_id=asked.tool_call_id)

    @property
    def prescribed(self) -> bool:
        """The form of the answer is, token by token: nobody can go on with it in its middle."""
        return prescribed(self._question)

    @property
    def text(self) -> str:
        """What was delivered."""
        return "".join(self._text)

    @property
    def left(self) -> int:
        """Tokens that may still come."""
        return self._question.max_tokens - self.tokens

    @property
    def moved(self) -> bool:
        """Something was delivered since it was asked last."""
        return self._since_asked > 0

    async def allowed(self, job: RenterJob, wanted: int | None = None) -> int:
        """How many tokens may be asked for under `job`; `wanted`: for something beside the answer."""
        wanted = self.left if wanted is None else wanted
        return wanted if self._allow is None else await self._allow(job, wanted)

    def ask(self, host: Address, most: int) -> Ask:
        """The question for `host`: go on after what was delivered before, for at most `most` tokens."""
        self.asked, self._since_asked = True, 0
        if not self.hosts or self.hosts[-1] != host:
            self.hosts.append(host)
        return msgspec.structs.replace(self._question, prefix=self.text, max_tokens=min(most, self.left))

    def deliver(self, event: Deliver, now: float) -> str:
        """Take a piece in; returns its text."""
        self.tokens += event.tokens
        self._since_asked += event.tokens
        self.records += event.records
        if event.text:
            if self._first is None:
                self._first = now
            self._text.append(event.text)
        return event.text

    def counted(self, prompt_tokens: int) -> None:
        """The host's count for the last question, without what it was given of the answer."""
        self.prompt_tokens = max(0, prompt_tokens - (self.tokens - self._since_asked))

    def report(self, reason: str, now: float) -> AnswerReport:
        """The end."""
        self.over, self.asked = True, False
        return AnswerReport(
            finish_reason=reason,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.tokens,
            ttft_s=None if self._first is None else self._first - self._began,
            seconds=now - self._began,
            hosts=tuple(self.hosts),
            summary_tokens=self.summary_tokens,
            plan=self.plan,
        )
