"""From a conversation and a request to what the engine is given: every rule, and what holds for any conversation."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import FabstirError
from fabstir.protocol.context.disclosed import check_plan
from fabstir.protocol.context.history import History, Weight
from fabstir.protocol.context.plan import ContextPlan, ContextRequest, ContextSpan, as_text
from fabstir.protocol.context.planner import Frame, Question, make_plan
from fabstir.protocol.messages import ChatMessage

FRAME = Frame(once=2, each=1)


def spoken(*costs: int, system: int = 0, summarised: int = 0) -> History:
    """A message of the system where `system`, then user and assistant in turns; each costs so many tokens of text."""
    roles = ["user", "assistant"] * len(costs)
    messages = [ChatMessage(role, f"m{at}") for at, role in enumerate(roles[: len(costs)])]
    head = [ChatMessage("system", "s")] if system else []
    history = History.of((*head, *messages), summarised)
    weights = [*([system] if system else []), *costs]
    return history.counted([Weight(tokens) for tokens in weights])


def plan(history: History, size: int, question: int = 4, wanted: int = 10, **fields: Any) -> ContextPlan:
    request = ContextRequest(**fields)
    made = make_plan(history, request, Question(question, wanted), FRAME, size).plan
    check_plan(made, request, history)
    return made


def fates(made: ContextPlan) -> str:
    """One letter for each message."""
    return "".join(fate[0] for fate in made.fates())


def refused(history: History, size: int, **fields: Any) -> FabstirError:
    with pytest.raises(FabstirError) as caught:
        plan(history, size, **fields)
    return caught.value


def test_everything_is_kept_where_it_fits() -> None:
    """Each message with its own cost and the template's; the total is what the engine reads."""
    made = plan(spoken(5, 6, 7, 8, system=3), 100)
    assert made.spans == (ContextSpan("kept", (4, 6, 7, 8, 9)),)
    assert (made.question, made.frame, made.total, made.whole) == (5, 2, 41, True)
    assert as_text(made) == "kept=5; tokens=41"


@pytest.mark.parametrize(("strategy", "left"), [("refuse", 1), ("summarise", 10)])
def test_nothing_is_left_out_unasked(strategy: str, left: int) -> None:
    """Without leave to leave something out, a conversation that does not fit is refused, and the refusal has the figures. Who wants a
    summary then gets the refusal while there still is room for an answer."""
    history = spoken(20, 20, 20, 20)
    assert plan(history, 91 + left, strategy=strategy).whole
    fault = refused(history, 90 + left, strategy=strategy)
    assert fault.code == "context_too_long"
    assert fault.detail == f"4 messages and the question have 91 tokens, the context {90 + left}; strategy {strategy}"


def test_truncation_leaves_out_the_oldest_turns() -> None:
    """Whole turns, the system's words never; the window is then three quarters full."""
    made = plan(spoken(*[9] * 20, system=4), 120, strategy="truncate")
    assert fates(made) == "k" + "d" * 14 + "k" * 6
    assert made.count("dropped") == (14, 140)
    assert made.total == 2 + 5 + 5 + 60


def test_the_window_stays_where_it_began() -> None:
    """A beginning stands until the window is full again, so that the engine finds what it computed: not one move for every prompt."""
    history, begins = spoken(*[9] * 10), []
    for _ in range(40):
        made = make_plan(history, ContextRequest(strategy="truncate"), Question(9, 10), FRAME, 200)
        begins.append(made.start)
        history = history.begins(made.start).answered(ChatMessage("user", "q"), 9, "a").counted([Weight(9)])
    assert begins == sorted(begins)
    assert len(set(begins)) <= 16


@pytest.mark.parametrize("strategy", ["truncate", "retrieve"])
def test_the_result_of_a_call_keeps_its_turn(strategy: Any) -> None:
    """What a tool answered means nothing without the call: where that turn does not fit, the prompt is refused."""
    history, request = spoken(9, 9, 9, 60), ContextRequest(strategy=strategy)
    made = make_plan(history, request, Question(9, 10, continues=True), FRAME, 100)
    assert fates(made.plan) == "ddkk"
    assert fates(make_plan(history, request, Question(9, 10), FRAME, 80).plan).endswith("dd")
    with pytest.raises(FabstirError, match="context_too_long"):
        make_plan(history, request, Question(9, 10, continues=True), FRAME, 80)


def test_a_question_that_is_too_long_alone_is_refused() -> None:
    """Leaving everything out does not help."""
    assert refused(spoken(9, 9), 40, question=60, strategy="truncate").code == "context_too_long"


@pytest.mark.parametrize(("fields", "expected"), [({"max_messages": 5}, "ddddkkkk"), ({"max_tokens": 40}, "ddddddkk")])
def test_the_renter_may_ask_for_a_smaller_window(fields: dict[str, int], expected: str) -> None:
    """By messages and by tokens, the question included."""
    assert fates(plan(spoken(*[9] * 8), 1000, strategy="truncate", **fields)) == expected


def test_a_window_is_no_leave() -> None:
    """With `refuse` a conversation beyond the window is refused as one beyond the context is."""
    fault = refused(spoken(9, 9), 1000, max_messages=2)
    assert (fault.code, "the window 2 messages" in fault.detail) == ("context_too_long", True)


def test_named_turns_are_brought_back() -> None:
    """The latest turns have half of the room; the rest goes to the turns that were named, best first, each of them whole."""
    history = spoken(*[9] * 20, system=4)
    ask = ContextRequest(strategy="retrieve", wanted=(4, 9, 200))
    made = make_plan(history, ask, Question(4, 10), FRAME, 130).plan
    check_plan(made, ask, history)
    assert fates(made) == "kdd" + "rr" + "dddd" + "rr" + "d" * 4 + "k" * 6
    seen = made.seen([f"{at}" for at in range(21)])
    assert seen == ("0", "3", "4", "9", "10", *map(str, range(15, 21)))


def test_the_summary_stands_first_and_stays() -> None:
    """It is never left out, and the plan says for how many messages it stands."""
    made = plan(spoken(*[9] * 20, summarised=30), 120, strategy="truncate")
    assert fates(made).startswith("ssd") and made.summarised == 30
    assert as_text(made).endswith("summarised=30; tokens=67")


def test_a_prompt_that_summarises_reads_only_what_it_sums_up() -> None:
    """The rest stands aside; the answer takes the place of what was read."""
    history = spoken(*[9] * 8, system=4)
    made = plan(history, 1000, compact=6)
    assert fates(made) == "kkkkkkkaa"
    after = history.compacted(6, ChatMessage("user", "sum up"), 4, "it was so")
    assert [message.content for message in after.messages] == ["s", "sum up", "it was so", "m6", "m7"]
    assert (after.summarised, after.turns, after.uncounted()) == (6, (1, 3), ("it was so",))
    again = after.counted([Weight(3)]).compacted(4, ChatMessage("user", "sum up"), 4, "and so on")
    assert (again.summarised, len(again.messages)) == (8, 3)


@pytest.mark.parametrize("compact", [1, 3, 9])
def test_a_summary_ends_where_a_turn_ends(compact: int) -> None:
    """A question without its answer is not summed up, nor what is not there."""
    assert refused(spoken(*[9] * 8), 1000, compact=compact).code == "context_invalid"


@given(
    costs=st.lists(st.integers(0, 60), max_size=40),
    system=st.integers(0, 20),
    size=st.integers(60, 600),
    question=st.integers(0, 50),
    strategy=st.sampled_from(["truncate", "retrieve"]),
    wanted=st.lists(st.integers(0, 60), max_size=8),
    start=st.integers(0, 50),
    window=st.one_of(st.none(), st.integers(1, 300)),
)
def test_any_plan_fits_and_is_one_that_was_allowed(  # the property that both sides build on
    costs: list[int],
    system: int,
    size: int,
    question: int,
    strategy: Any,
    wanted: list[int],
    start: int,
    window: int | None,
) -> None:
    """What the engine is given leaves room for an answer, covers every message once, keeps the order, and passes the renter's check."""
    history = spoken(*costs, system=system)
    starts = (0, *history.turns, len(history.messages))
    history = history.begins(starts[start % len(starts)])
    room = min(size - max(1, min(10, size // 4)), window or size)
    request = ContextRequest(strategy=strategy, wanted=tuple(wanted), max_tokens=window)
    if question + 3 + (system + 1 if system else 0) > room:
        with pytest.raises(FabstirError, match="context_too_long"):
            make_plan(history, request, Question(question, 10), FRAME, size)
        return
    made = make_plan(history, request, Question(question, 10), FRAME, size).plan
    check_plan(made, request, history)
    assert made.total < size and (window is None or made.total <= window)
    seen = made.seen(range(len(history.messages)))
    assert list(seen) == sorted(set(seen))
    everything = sum(tokens + 1 for tokens in history.tokens) + question + 3
    assert made.whole == (everything <= room)


WHOLE = ContextPlan(spans=(ContextSpan("kept", (10, 10, 10, 10)),), question=5, frame=2)


@pytest.mark.parametrize(
    ("spans", "fields"),
    [
        ((ContextSpan("kept", (10, 10, 10)),), {"strategy": "truncate"}),  # one is missing
        ((ContextSpan("dropped", (10, 10)), ContextSpan("kept", (10, 10))), {}),  # not asked for
        ((ContextSpan("dropped", (10,)), ContextSpan("kept", (10, 10, 10))), {"strategy": "truncate"}),  # half a turn
        ((ContextSpan("kept", (10, 10)), ContextSpan("dropped", (10, 10))), {"strategy": "truncate"}),  # not the oldest
        ((ContextSpan("retrieved", (10, 10)), ContextSpan("kept", (10, 10))), {"strategy": "truncate"}),
        ((ContextSpan("retrieved", (10, 10)), ContextSpan("kept", (10, 10))), {"strategy": "retrieve", "wanted": (2,)}),
        ((ContextSpan("summary", (10, 10)), ContextSpan("kept", (10, 10))), {}),  # there is none
        ((ContextSpan("aside", (10, 10)), ContextSpan("kept", (10, 10))), {}),
        (WHOLE.spans, {"strategy": "truncate", "max_messages": 4}),
        (WHOLE.spans, {"strategy": "truncate", "max_tokens": 40}),
        (WHOLE.spans, {"compact": 2}),  # reads more than it sums up
    ],
)
def test_a_plan_that_was_not_allowed(spans: tuple[ContextSpan, ...], fields: dict[str, Any]) -> None:
    """What a host must not do with a conversation of two turns under this request is found before a token is believed."""
    made = msgspec.structs.replace(WHOLE, spans=spans)
    with pytest.raises(FabstirError, match="context_plan_invalid"):
        check_plan(made, ContextRequest(**fields), spoken(9, 9, 9, 9))
