"""From a history and a request to the plan: which messages the engine is given. Pure, and linear in the number of messages.

The rules, in this order:
1. Everything is given where it fits: the model's context less room for the answer, and the renter's window.
2. Else `refuse` and `summarise` refuse, with all the figures.
3. `truncate` moves the beginning of the window to a later turn, and not just as far as it must but until three quarters are full: the
   beginning then stands for many prompts, and the engine computes only what is new (docs/explanation/context.md).
4. `retrieve` gives half of the room to the latest turns, then the rest to the turns that the renter named, best first, then what is
   left to more of the latest ones.
Turns are given whole or not at all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Final, NamedTuple

import msgspec

from fabstir.domain.errors import error
from fabstir.protocol.context.history import UNCOUNTED, History
from fabstir.protocol.context.plan import ContextPlan, ContextRequest, ContextSpan, Fate, joined

REFUSE: Final = ContextRequest()
"""Where a prompt does not say anything."""
ANSWER_SHARE: Final = 4
"""At most a quarter of the context is held free for the answer."""
FULL: Final = (3, 4)
"""How full the window is after its beginning moved."""


class Frame(msgspec.Struct, frozen=True):
    """What a model's template adds, in tokens."""

    once: int = 0
    each: int = 0
    """To each message."""


class Question(msgspec.Struct, frozen=True):
    """What is asked, counted."""

    tokens: int
    """With the beginning of the answer, where one was brought; without the template's."""
    wanted: int
    """Tokens of answer that were asked for."""
    continues: bool = False
    """It goes on the last turn, as the result of a call does: that turn is never left out."""


class Plan(NamedTuple):
    """What was decided, and where the window begins now."""

    plan: ContextPlan
    start: int


class _Bounds(NamedTuple):
    """What the engine may be given: the conversation without frame and question."""

    tokens: int
    messages: int

    def part(self, share: tuple[int, int]) -> _Bounds:
        return _Bounds(self.tokens * share[0] // share[1], self.messages)


def make_plan(history: History, request: ContextRequest, question: Question, frame: Frame, context_size: int) -> Plan:
    """Raises Refused (`context_too_long`, `context_invalid`)."""
    if UNCOUNTED in history.tokens:
        raise AssertionError("every message is counted before a plan is made")
    costs = [tokens + frame.each for tokens in history.tokens]
    asked = question.tokens + frame.each
    if request.compact:
        return _compaction(history, request, costs, asked, frame.once, (_room(question, context_size), context_size))
    bounds = _bounds(request, question, frame.once + asked, context_size)
    latest = history.turns[-1] if question.continues and history.turns else len(costs)
    window = _window(history, request, costs, bounds, latest)
    if window is None:
        raise _too_long(history, request, sum(costs) + frame.once + asked, context_size)
    plan = ContextPlan(
        spans=_spans(history, window, costs), question=asked, frame=frame.once, summarised=history.summarised
    )
    return Plan(plan, window.start)


class _Window(NamedTuple):
    """Messages from `start` on are kept, and the `retrieved` turns before it."""

    start: int
    retrieved: tuple[range, ...] = ()
    """Turns, in their order."""


def _spans(history: History, window: _Window, costs: list[int]) -> tuple[ContextSpan, ...]:
    """Slices, not messages: a conversation may have thousands."""
    parts: list[tuple[Fate, int, int]] = [("kept", 0, history.pinned), ("summary", history.pinned, history.always)]
    at = history.always
    for turn in window.retrieved:
        parts += [("dropped", at, turn.start), ("retrieved", turn.start, turn.stop)]
        at = turn.stop
    parts += [("dropped", at, window.start), ("kept", window.start, len(costs))]
    return joined((fate, costs[begin:end]) for fate, begin, end in parts)


def _bounds(request: ContextRequest, question: Question, fixed: int, context_size: int) -> _Bounds:
    room = _room(question, context_size)
    if request.strategy == "refuse":
        room = context_size - 1  # as long as the engine can say anything at all
    tokens = min(room, request.max_tokens or room) - fixed
    return _Bounds(tokens, (request.max_messages or 2**31) - 1)


def _room(question: Question, context_size: int) -> int:
    """What is left of the context where there is to be an answer."""
    return context_size - max(1, min(question.wanted, context_size // ANSWER_SHARE))


def _window(
    history: History, request: ContextRequest, costs: list[int], bounds: _Bounds, latest: int
) -> _Window | None:
    """None where it does not fit. What begins at `latest` is never left out."""
    always = history.always
    sums = [0, *accumulate(costs)]

    def fits(start: int, most: _Bounds) -> bool:
        tokens, messages = sums[always] + sums[-1] - sums[start], always + len(costs) - start
        return tokens <= most.tokens and messages <= most.messages

    if fits(always, bounds):
        return _Window(always)
    if request.strategy in ("refuse", "summarise") or not fits(latest, bounds):
        return None
    if request.strategy == "retrieve":
        return _retrieval(history, request, costs, bounds, latest)
    if history.start > always and fits(history.start, bounds):
        return _Window(history.start)
    less = bounds.part(FULL)
    starts = [turn for turn in history.turns if turn >= max(always, history.start)]
    return _Window(next((turn for turn in starts if fits(turn, less)), latest))


def _retrieval(history: History, request: ContextRequest, costs: list[int], bounds: _Bounds, needed: int) -> _Window:
    turns = [range(*turn) for turn in _turns(history, len(costs))]
    starts = [turn.start for turn in turns]
    left = _Left(bounds.tokens - sum(costs[: history.always]), bounds.messages - history.always)
    sums = [0, *accumulate(costs)]
    price = [sums[turn.stop] - sums[turn.start] for turn in turns]
    latest, half = len(turns), left.tokens // 2
    while latest and turns[latest - 1].start >= needed and left.take(price[latest - 1], len(turns[latest - 1])):
        latest -= 1
    while latest and left.tokens - price[latest - 1] >= half and left.take(price[latest - 1], len(turns[latest - 1])):
        latest -= 1
    chosen: set[int] = set()
    for at in request.wanted:
        number = bisect_right(starts, at) - 1
        if 0 <= number < latest and at < len(costs) and number not in chosen:
            chosen |= {number} if left.take(price[number], len(turns[number])) else set()
    while latest and (latest - 1 in chosen or left.take(price[latest - 1], len(turns[latest - 1]))):
        latest -= 1
        chosen.discard(latest)
    start = turns[latest].start if latest < len(turns) else len(costs)
    return _Window(start, tuple(turns[number] for number in sorted(chosen)))


class _Left:
    """What is left of the bounds."""

    def __init__(self, tokens: int, messages: int) -> None:
        self.tokens = tokens
        self.messages = messages

    def take(self, tokens: int, messages: int) -> bool:
        """False where it does not fit; then nothing is taken."""
        if tokens > self.tokens or messages > self.messages:
            return False
        self.tokens -= tokens
        self.messages -= messages
        return True


def _turns(history: History, end: int) -> Iterator[tuple[int, int]]:
    """Beginning and end of each turn after what no window leaves out; messages before the first question are a turn of their own."""
    starts = [turn for turn in history.turns if turn >= history.always]
    if not starts or starts[0] > history.always:
        starts = [history.always, *starts]
    yield from ((one, other) for one, other in zip(starts, [*starts[1:], end], strict=True) if one < other)


def _compaction(
    history: History, request: ContextRequest, costs: list[int], asked: int, frame: int, bounds: tuple[int, int]
) -> Plan:
    room, context_size = bounds
    cut = history.pinned + request.compact
    if cut not in (*history.turns, len(costs)) or request.compact < history.always - history.pinned:
        raise error("context_invalid", f"`compact` {request.compact} does not end where a turn ends")
    parts: tuple[tuple[Fate, list[int]], ...] = (
        ("kept", costs[: history.pinned]),
        ("summary", costs[history.pinned : history.always]),
        ("kept", costs[history.always : cut]),
        ("aside", costs[cut:]),
    )
    plan = ContextPlan(spans=joined(parts), question=asked, frame=frame, summarised=history.summarised)
    if plan.total > room:
        raise _too_long(history, request, plan.total, context_size)
    return Plan(plan, history.start)


def _too_long(history: History, request: ContextRequest, total: int, context_size: int) -> Exception:
    window = "".join(
        f", the window {bound} {unit}"
        for bound, unit in ((request.max_tokens, "tokens"), (request.max_messages, "messages"))
        if bound is not None
    )
    said = f"{len(history.messages)} messages and the question have {total} tokens, the context {context_size}{window}"
    return error("context_too_long", f"{said}; strategy {request.strategy}")
