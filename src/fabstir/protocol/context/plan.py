"""The nouns of a context plan: what a renter asks for, and what the host says it did with each message of the conversation.

A plan covers the messages before the question, in order, in spans of one fate each; with it and the conversation anybody builds
exactly what the engine was given (`ContextPlan.seen`). Where a prompt has a `context`, the plan is part of what the request hash
binds. Decides nothing: `fabstir.protocol.context.planner` does. Theory: docs/explanation/context.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

Strategy = Literal["refuse", "truncate", "summarise", "retrieve"]
Fate = Literal["kept", "summary", "retrieved", "dropped", "aside"]
FATES: Final[dict[Fate, str]] = {
    "kept": "given to the engine as it was said",
    "summary": "given to the engine; stands for messages that were summarised before",
    "retrieved": "given to the engine because the renter named it, though it is older than the window",
    "dropped": "not given to the engine: it did not fit",
    "aside": "not given to the engine: the prompt summarises what comes before it",
}
MAX_WANTED: Final = 1024
Tokens = Annotated[int, Meta(ge=0, lt=2**31)]

T = TypeVar("T")


class ContextRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the host may do where the conversation does not fit. It is answered by a `context_plan`, before the answer begins."""

    strategy: Strategy = "refuse"
    """`refuse`: nothing is left out, the prompt is refused with `context_too_long`. `summarise`: the same, and where no room is left for an
    answer; the renter has the oldest turns summarised by a prompt with `compact`. `truncate`: the oldest turns are left out. `retrieve`:
    these too, but for the turns of `wanted`. Messages of the system at the beginning, and a summary after them, are never left out."""
    max_tokens: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    """Window: the engine is given at most so many tokens, the question included."""
    max_messages: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    """Window: at most so many messages, the question included."""
    wanted: Annotated[tuple[Annotated[int, Meta(ge=0, lt=2**31)], ...], Meta(max_length=MAX_WANTED)] = ()
    """For `retrieve`: messages by their place in the conversation, best first; each brings its turn along."""
    compact: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    """Above 0, the prompt summarises: the engine is given the first so many messages after those of the system, and the question. Once it
    is answered, both stand in the conversation in place of these messages."""


class ContextSpan(msgspec.Struct, frozen=True, array_like=True):
    """Messages in a row with the same fate: the fate, then how many tokens each of them costs."""

    fate: Fate
    tokens: tuple[Tokens, ...]


class ContextPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine was given. Tokens are of the engine's own tokenizer, each message counted alone, with what the model's template puts
    around it."""

    spans: tuple[ContextSpan, ...]
    """One after the other: all messages of the conversation before the question."""
    question: Tokens
    """Tokens of the question, of the beginning of the answer where one was brought, and of what the model was told of tools."""
    frame: Tokens
    """Tokens that the template adds once."""
    summarised: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    """Messages that the `summary` stands for."""

    @property
    def messages(self) -> int:
        """Of the conversation before the question."""
        return sum(len(span.tokens) for span in self.spans)

    @property
    def total(self) -> int:
        """Tokens that the engine was given."""
        read = sum(sum(span.tokens) for span in self.spans if span.fate not in UNSEEN)
        return self.frame + self.question + read

    @property
    def whole(self) -> bool:
        """Nothing was left out."""
        return all(span.fate not in UNSEEN for span in self.spans)

    def count(self, fate: Fate) -> tuple[int, int]:
        """How many messages have this fate, and how many tokens they have."""
        rows = [span.tokens for span in self.spans if span.fate == fate]
        return sum(map(len, rows)), sum(map(sum, rows))

    def fates(self) -> Iterator[Fate]:
        """One for each message."""
        for span in self.spans:
            yield from [span.fate] * len(span.tokens)

    def seen(self, messages: Sequence[T]) -> tuple[T, ...]:
        """Those of `messages` that the engine is given, in their order."""
        found: list[T] = []
        at = 0
        for span in self.spans:
            if span.fate not in UNSEEN:
                found += messages[at : at + len(span.tokens)]
            at += len(span.tokens)
        return tuple(found)


UNSEEN: Final = frozenset(("dropped", "aside"))
"""Fates of messages that the engine is not given."""


def joined(parts: Iterable[tuple[Fate, Sequence[int]]]) -> tuple[ContextSpan, ...]:
    """Fate and tokens of messages in a row, as spans: empty ones left out, neighbours of one fate together."""
    spans: list[ContextSpan] = []
    for fate, tokens in parts:
        if tokens and spans and spans[-1].fate == fate:
            spans[-1] = ContextSpan(fate, (*spans[-1].tokens, *tokens))
        elif tokens:
            spans.append(ContextSpan(fate, tuple(tokens)))
    return tuple(spans)


def as_text(plan: ContextPlan) -> str:
    """One line for a header or a person: counts only."""
    parts = [f"{fate}={count}" for fate in FATES if (count := plan.count(fate)[0])]
    parts += [f"summarised={plan.summarised}"] if plan.summarised else []
    return "; ".join([*parts, f"tokens={plan.total}"])
