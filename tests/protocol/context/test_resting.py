"""Conversations that nobody asks about: compressed, given up where memory is short, and whole again when they are needed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.protocol.context.history import History
from fabstir.protocol.context.resting import Holding, MemoryRules, PackedHistory, bytes_of, relieve
from fabstir.protocol.host_inputs import MemoryShort, TimerRest
from fabstir.protocol.messages import ChatMessage, Notice
from fabstir.protocol.renter_items import Ask
from tests.protocol.market import World, named, opened

RULES = MemoryRules(most=100_000, rest_after=60.0, reserve=1_000)
PLENTY = 1 << 40


def held(*rows: tuple[str, int, float, bool]) -> list[Holding[str]]:
    return [Holding(*row) for row in rows]


def test_what_rests_is_whole_again() -> None:
    """Messages, counts, turns, summary and window; a tenth of the memory for a long talk, whatever it is about in a repr."""
    talk = tuple(
        ChatMessage(role, f"{role} says the secret word, number {n}")
        for n in range(500)
        for role in ("user", "assistant")
    )
    history = History.of(talk, 4).begins(6)
    packed = PackedHistory.of(history)
    assert packed.opened() == history
    assert len(packed.data) * 10 < bytes_of(history)
    assert "secret" not in repr(packed)


def test_idle_conversations_are_compressed() -> None:
    """After a while, and only those that are worth it and do not rest yet."""
    rows = held(
        ("old", 9_000, 61, False), ("new", 9_000, 59, False), ("tiny", 10, 99, False), ("resting", 9_000, 99, True)
    )
    assert relieve(rows, 0, PLENTY, RULES) == (("old",), ())


def test_the_oldest_is_given_up_first() -> None:
    """As many as it takes once the others are compressed, counting on half; those that are answered count and are not touched."""
    rows = held(("a", 40_000, 30, True), ("b", 40_000, 50, True), ("c", 10_000, 40, False))
    assert relieve(rows, 10_000, PLENTY, RULES) == ((), ())
    assert relieve(rows, 14_000, PLENTY, RULES) == (("c",), ())
    assert relieve(rows, 30_000, PLENTY, RULES) == (("c",), ("b",))
    assert relieve(rows, 90_000, PLENTY, RULES) == ((), ("b", "c", "a"))


def test_the_machine_is_short_before_the_bound_is_reached() -> None:
    """What the kernel has left decides, too."""
    rows = held(("a", 500, 30, False), ("b", 500, 50, False))
    assert relieve(rows, 0, 700, RULES) == ((), ("b",))


@given(
    st.lists(st.tuples(st.integers(0, 50_000), st.floats(0, 500), st.booleans()), max_size=12), st.integers(0, 200_000)
)
def test_relief_reaches_the_bound_where_it_can(rows: list[tuple[int, float, bool]], busy: int) -> None:
    """Nobody is told two things, and what stays is within the bound unless only running answers are left."""
    idle = [Holding(str(n), *row) for n, row in enumerate(rows)]
    relief = relieve(idle, busy, PLENTY, RULES)
    assert not set(relief.rest) & set(relief.forget)
    left = [one.size // (2 if one.session in relief.rest else 1) for one in idle if one.session not in relief.forget]
    assert busy + sum(left) <= RULES.most + len(rows) or not any(left)


@pytest.fixture
def world() -> World:
    world = opened()
    world.answer(3, "first words " * 400)
    return world


def test_a_session_at_rest_answers_as_before(world: World) -> None:
    """The next question finds the conversation."""
    before, messages = world.host.history_bytes, world.host._core.history.messages
    world.host_in(TimerRest())
    assert world.host.rests and world.host.history_bytes < before / 4
    world.answer(3, "second")
    assert world.asked[-1].messages[:2] == messages and not world.host.rests


def test_a_conversation_that_was_given_up_is_brought_again(world: World) -> None:
    """The renter is told, its next question is refused by name, and the session goes on with the conversation that it brings."""
    context = world.renter.context
    (notice,) = world.host_in(MemoryShort())
    assert isinstance(notice, Notice) and notice.code == "context_forgotten"
    assert world.host.history_bytes == 0
    world.flow()
    world.renter_in(Ask(content="second"))
    world.flow()
    assert named(world.done)[-1] == "AnswerBroken context_forgotten"
    world.connect(context)
    world.flow()
    world.answer(3, "second")
    assert world.asked[-1].messages[:2] == context
