"""What was said in one session, with what each message costs: in memory only, gone with the connection.

Each step gives a new history. A message is counted once, when a prompt first needs it, and never again. Bounded by
`ContextLimits`. Decides what a turn is: a message of the user and what follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from fabstir.protocol.tool_text import text_of
from fabstir.protocol.wire_types import ChatMessage

UNCOUNTED: Final = -1


class Weight(msgspec.Struct, frozen=True):
    """What the engine's tokenizer says of one text alone."""

    tokens: int
    forges: bool = False
    """It holds the text of a control token, with which it would pretend to be another message."""


class History(msgspec.Struct, frozen=True):
    """The conversation before the next question."""

    messages: tuple[ChatMessage, ...] = ()
    tokens: tuple[int, ...] = ()
    """Of each message's text; UNCOUNTED where nobody asked yet."""
    turns: tuple[int, ...] = ()
    """Where each turn begins."""
    pinned: int = 0
    """Messages of the system at the beginning."""
    summarised: int = 0
    """Messages that the first turn stands for; 0: it is an ordinary one."""
    size: int = 0
    """Characters."""
    start: int = 0
    """Where the window began last; it stays there while it can, so that the engine finds what it computed before."""

    @classmethod
    def of(cls, context: Sequence[ChatMessage], summarised: int = 0) -> History:
        """What a renter brought along; nothing of it is counted."""
        pinned = next((at for at, message in enumerate(context) if message.role != "system"), len(context))
        turns = tuple(at for at, message in enumerate(context) if at >= pinned and message.role == "user")
        summary = summarised if _has_summary(context, pinned) else 0
        return cls(tuple(context), (UNCOUNTED,) * len(context), turns, pinned, summary, _size(context))

    def __repr__(self) -> str:
        """Counts only: a repr may end in a log."""
        return f"<History {len(self.messages)} messages, {len(self.turns)} turns, {self.size} characters>"

    @property
    def always(self) -> int:
        """Messages at the beginning that no window leaves out: the system's, and a summary."""
        return self.pinned + (2 if self.summarised else 0)

    def uncounted(self) -> tuple[str, ...]:
        """Texts that the engine has to count before a plan can be made."""
        if UNCOUNTED not in self.tokens:
            return ()
        rows = zip(self.messages, self.tokens, strict=True)
        return tuple(text_of(message) for message, tokens in rows if tokens == UNCOUNTED)

    def counted(self, weights: Sequence[Weight]) -> History:
        """`weights`: of `uncounted`, in its order."""
        if not weights:
            return self
        fresh = iter(weights)
        tokens = tuple(next(fresh).tokens if tokens == UNCOUNTED else tokens for tokens in self.tokens)
        return msgspec.structs.replace(self, tokens=tokens)

    def knowing(self, other: History) -> History:
        """With what `other` knows of the messages that both begin with: they are not counted again."""
        pairs = zip(self.messages, other.messages, strict=False)
        shorter = min(len(self.messages), len(other.messages))
        same = next((at for at, (one, two) in enumerate(pairs) if one != two), shorter)
        return msgspec.structs.replace(self, tokens=(*other.tokens[:same], *self.tokens[same:]))

    def asked(self, question: ChatMessage) -> tuple[ChatMessage, ...]:
        """The conversation with this question."""
        return (*self.messages, question)

    def answered(self, asked: ChatMessage, question: int, answer: str) -> History:
        """After `asked`, which has so many tokens, was answered. The result of a call goes on with the turn that called."""
        return msgspec.structs.replace(
            self,
            messages=(*self.messages, asked, ChatMessage("assistant", answer)),
            tokens=(*self.tokens, question, UNCOUNTED),
            turns=(*self.turns, len(self.messages)) if asked.role == "user" else self.turns,
            size=self.size + len(text_of(asked)) + len(answer),
        )

    def compacted(self, count: int, asked: ChatMessage, question: int, answer: str) -> History:
        """The first `count` messages after the system's gave way to `asked` and its answer, which sum them up."""
        at, cut = self.pinned, self.pinned + count
        stands_for = count - 2 + self.summarised if self.summarised else count
        later = tuple(turn - count + 2 for turn in self.turns if turn >= cut)
        summary = asked, ChatMessage("assistant", answer)
        messages = (*self.messages[:at], *summary, *self.messages[cut:])
        return History(
            messages=messages,
            tokens=(*self.tokens[:at], question, UNCOUNTED, *self.tokens[cut:]),
            turns=(at, *later),
            pinned=at,
            summarised=stands_for,
            size=_size(messages),
        )

    def begins(self, start: int) -> History:
        """The window begins there now."""
        return self if start == self.start else msgspec.structs.replace(self, start=start)


def _has_summary(context: Sequence[ChatMessage], at: int) -> bool:
    return [message.role for message in context[at : at + 2]] == ["user", "assistant"]


def _size(messages: Sequence[ChatMessage]) -> int:
    return sum(len(text_of(message)) for message in messages)
