"""Whether a host's plan is one that the request allows, as the renter checks it before it believes a token of the answer.

Token counts are the host's word, since a renter has no tokenizer; they are signed with the transcript, and whoever has the weights can
count again. What is checked is everything else: each message has a fate, nothing is left out that the request does not allow to be,
turns stay whole, and the windows are kept.
"""

from __future__ import annotations

from bisect import bisect_right

from fabstir.domain.errors import error
from fabstir.protocol.context.history import History
from fabstir.protocol.context.plan import ContextPlan, ContextRequest, Fate


def check_plan(plan: ContextPlan, request: ContextRequest, history: History) -> None:
    """Raises PeerFault (`context_plan_invalid`)."""
    fates = tuple(plan.fates())
    if len(fates) != len(history.messages) or plan.summarised != history.summarised:
        raise error("context_plan_invalid", f"it covers {len(fates)} messages of {len(history.messages)}")
    wanted = _wanted(request, history)
    for at, fate in enumerate(fates):
        if fate not in _allowed(at, request, history, wanted):
            raise error("context_plan_invalid", f"message {at} is {fate}; strategy {request.strategy}")
    if request.compact:
        return
    beginnings = frozenset(history.turns)
    for at in range(history.always, len(fates) - 1):
        if fates[at] != fates[at + 1] and at + 1 not in beginnings:
            raise error("context_plan_invalid", f"the turn of message {at} is cut")
    first_kept = next((at for at in range(history.always, len(fates)) if fates[at] == "kept"), len(fates))
    if any(fate != "kept" for fate in fates[first_kept:]):
        raise error("context_plan_invalid", "the window has a gap")
    given = 1 + sum(fate != "dropped" for fate in fates)
    if (request.max_messages and given > request.max_messages) or (
        request.max_tokens and plan.total > request.max_tokens
    ):
        raise error("context_plan_invalid", f"{given} messages of {plan.total} tokens are more than the window")


def _allowed(at: int, request: ContextRequest, history: History, wanted: frozenset[int]) -> tuple[Fate, ...]:
    if request.compact and at >= history.pinned + request.compact:
        return ("aside",)
    if at < history.pinned:
        return ("kept",)
    if at < history.always:
        return ("summary",)
    if request.compact or request.strategy in ("refuse", "summarise"):
        return ("kept",)
    return ("kept", "dropped", "retrieved") if at in wanted else ("kept", "dropped")


def _wanted(request: ContextRequest, history: History) -> frozenset[int]:
    """Messages of the turns that the renter named."""
    if request.strategy != "retrieve":
        return frozenset()
    starts = [history.always, *(turn for turn in history.turns if turn > history.always), len(history.messages)]
    found: set[int] = set()
    for at in request.wanted:
        place = bisect_right(starts, at)
        if 0 < place < len(starts):
            found.update(range(starts[place - 1], starts[place]))
    return frozenset(found)
