"""A host whose memory runs short: idle conversations are compressed and given up before the kernel ends somebody."""

from __future__ import annotations

from pathlib import Path

from tests.host.world import World, eventually

from fabstir.host.memory import MemoryWatch
from fabstir.ops.machine import _group_left
from fabstir.protocol.context.resting import MemoryRules
from fabstir.protocol.messages import Error, Notice


def watch_of(world: World) -> MemoryWatch:
    running = world.node._running
    assert running is not None
    return world.node._memory(running.reception)


async def test_who_asked_longest_ago_is_given_up_and_comes_back() -> None:
    """The other session goes on undisturbed; the first is told, refused by name, and served again with the conversation it brings."""
    world = World(memory=MemoryRules(reserve=100))
    async with world.running():
        first, second = await world.renter(), await world.renter()
        await first.chat("hello")
        await world.clock.advance(1)
        await second.chat("hello")
        await world.clock.advance(1)
        watch_of(world).look(60)
        assert (await first.until(Notice)).code == "context_forgotten"
        await first.ask("again")
        _, refused = await first.hear()
        assert isinstance(refused, Error) and refused.code == "context_forgotten" and refused.retryable
        await first.open(first.resume())
        assert await first.chat("again") == "You said: again"
        assert len(world.engine.requests[-1].messages) == 3
        assert await second.chat("and I?") == "You said: and I?"
        assert len(world.engine.requests[-1].messages) == 3


async def test_idle_conversations_rest() -> None:
    """After a minute a conversation takes a fraction of its memory, and the next question finds it."""
    world = World()
    async with world.running():
        renter = await world.renter()
        await renter.chat("long " * 800)
        [actor] = world.actors()
        before = actor.core.history_bytes
        await world.clock.advance(70)
        await eventually(lambda: actor.core.rests)
        assert actor.core.history_bytes < before / 4
        assert await renter.chat("again") == "You said: again"


def test_the_bound_of_a_control_group_counts(tmp_path: Path) -> None:
    """What the group may still take, its page cache given back; without a bound, or without groups, nothing is in the way."""
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 250\n")
    assert _group_left(tmp_path) == 350
    (tmp_path / "memory.max").write_text("max\n")
    assert _group_left(tmp_path) > 1 << 40
    assert _group_left(tmp_path / "nothing") > 1 << 40
