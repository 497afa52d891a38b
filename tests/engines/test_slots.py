"""Which slot a request gets, and what it may find there: only what was computed for its own session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import FabstirError
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model
from fabstir.engines.slots import ALONE, Slot, SlotTable
from fabstir.engines.spill import PREFIX, SHARED_MEMORY, SpillFolder, clean, open_folder, unsafe
from fabstir.ports.engine import ChatMessage, GenerationEnd, GenerationRequest

LONG = "Tell me a long story about a river, a fox and a red boat. " * 8


def test_a_session_finds_its_slot_again() -> None:
    """While there is room, nobody loses a slot."""
    table = SlotTable(3)
    first = {}
    for session in ("a", "b", "c"):
        taken = table.take(session)
        assert (taken.own, taken.displaced) == (False, ALONE)
        table.leave(taken.slot, 10, whole=True)
        first[session] = taken.slot.number
    for session in ("b", "c", "a", "a"):
        taken = table.take(session)
        assert (taken.own, taken.slot.number) == (True, first[session])
        table.leave(taken.slot, 10, whole=True)


def test_who_waited_longest_loses_its_slot() -> None:
    """And is named, with what lies there, so that it can be set aside."""
    table = SlotTable(2)
    for session in ("a", "b", "a"):
        table.leave(table.take(session).slot, 7, whole=True)
    taken = table.take("c")
    assert (taken.displaced, taken.displaced_tokens, taken.own) == ("b", 7, False)


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "b", "c", "d"]), st.sampled_from(["done", "refused", "stays"])), max_size=60
    )
)
def test_nobody_reads_what_another_left(steps: list[tuple[str, str]]) -> None:
    """Whatever comes in which order, refused requests included: a slot that is said to be a session's own holds that session's words."""
    table = SlotTable(3)
    holds: dict[int, str] = {}
    busy: list[Slot] = []
    for session, outcome in steps:
        if len(busy) == 3 or (busy and outcome == "done" and any(slot.owner == session for slot in busy)):
            table.leave(busy.pop(0), 5, whole=True)
        taken = table.take(session)
        if taken.own:
            assert holds[taken.slot.number] == session != ALONE
        if outcome == "refused":  # the server never looked at it: what lay there lies there still
            table.leave(taken.slot, 0, whole=False)
            continue
        holds[taken.slot.number] = session
        if outcome == "done":
            table.leave(taken.slot, 5, whole=True)
        else:
            busy.append(taken.slot)


# -- what is set aside ----------------------------------------------------------------------------------------------------------

MEMORY = "tmpfs /dev/shm tmpfs rw 0 0\n/dev/sda1 / ext4 rw 0 0\n"
NO_SWAP = "Filename Type Size Used Priority\n"


@pytest.mark.parametrize(
    ("mounts", "swaps", "why"),
    [
        (MEMORY, NO_SWAP, ""),
        (MEMORY, NO_SWAP + "/dev/zram0 partition 1 0 100\n", ""),
        (MEMORY, NO_SWAP + "/dev/sda2 partition 1 0 -2\n", "this machine swaps to /dev/sda2"),
        ("/dev/sda1 / ext4 rw 0 0\n", NO_SWAP, "/dev/shm is no writable memory, but ext4"),
        (None, NO_SWAP, "it is not known whether this machine swaps"),
    ],
)
def test_words_never_reach_a_disk(tmp_path: Path, mounts: str | None, swaps: str, why: str) -> None:
    """Nothing is set aside but in memory, on a machine that does not swap; the reason is told."""
    if mounts is not None:
        (tmp_path / "mounts").write_text(mounts)
    (tmp_path / "swaps").write_text(swaps)
    assert unsafe(SHARED_MEMORY, tmp_path / "mounts", tmp_path / "swaps") == why


def test_a_folder_on_a_disk_is_refused() -> None:
    """Asked for by name it is an error with the setting's name; where nobody asked, there is none."""
    with pytest.raises(FabstirError, match=r"engine\.spill_mb"):
        open_folder(1 << 20, Path("/proc"))
    assert open_folder(None, Path("/proc")) is None
    assert open_folder(0) is None


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Folders of processes that are gone; never those of others."""
    gone, here, other = tmp_path / f"{PREFIX}999999999-x", tmp_path / f"{PREFIX}1-x", tmp_path / "else"
    for folder in (gone, here, other):
        folder.mkdir()
    clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([here.name, other.name])


def test_what_is_set_aside_is_bounded(tmp_path: Path) -> None:
    """The oldest makes room; what alone is too large is not written; what was read is gone."""
    folder = SpillFolder(tmp_path, 100)
    for session in ("a", "b", "c"):
        name = folder.name_for(session, 10)
        assert name is not None
        (tmp_path / name).write_bytes(bytes(40))
        folder.written(session, 10)
    assert [folder.name_of(session) is not None for session in ("a", "b", "c")] == [False, True, True]
    assert folder.name_for("huge", 26) is None
    folder.drop("b")
    assert [path.name for path in tmp_path.iterdir()] == [folder.name_of("c")]
    folder.remove()
    assert not tmp_path.exists()


# -- the real engine --------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def two_slots() -> AsyncIterator[LlamaEngine]:
    engine = LlamaEngine(default_model(), context_size=1024, parallel=2, threads=1, spill=64 << 20)
    await engine.start()
    yield engine
    folder = engine._running.spill.path if engine._running and engine._running.spill else None
    await engine.stop()
    assert folder is not None and not folder.exists()


async def ended(engine: LlamaEngine, cache: str, *contents: str) -> GenerationEnd:
    roles = ("user", "assistant")
    messages = tuple(ChatMessage(roles[at % 2], content) for at, content in enumerate(contents))
    request = GenerationRequest(messages=messages, max_tokens=4, temperature=0.0, cache=cache)
    items = [item async for item in engine.generate(request)]
    assert isinstance(items[-1], GenerationEnd)
    return items[-1]


@pytest.mark.real
async def test_one_renter_never_reuses_what_another_said(two_slots: LlamaEngine) -> None:
    """The same long words in another session are computed from the start, in a slot of their own, in one that changes hands, after a
    request that the server refused there, and without a session; the session itself finds all but the last token."""
    whole = await ended(two_slots, "victim", LONG)
    assert whole.cached_tokens == 0 and whole.prompt_tokens > 100
    assert (await ended(two_slots, "victim", LONG)).cached_tokens >= whole.prompt_tokens - 1
    for spy in ("spy", "another spy", "a third", "", ""):
        assert (await ended(two_slots, spy, LONG)).cached_tokens == 0
    with pytest.raises(FabstirError, match="context_too_long"):
        await ended(two_slots, "refused", LONG * 8)
    assert (await ended(two_slots, "refused", LONG)).cached_tokens == 0


@pytest.mark.real
async def test_sessions_beyond_the_slots_are_set_aside_and_come_back(two_slots: LlamaEngine) -> None:
    """Five sessions on two slots: the second turn of each costs only what is new, though each lost its slot in between."""
    firsts = [await ended(two_slots, f"s{n}", f"{n} {LONG}") for n in range(5)]
    assert {end.cached_tokens for end in firsts} == {0}
    for n, first in enumerate(firsts):
        again = await ended(two_slots, f"s{n}", f"{n} {LONG}", "Yes.", "And then?")
        assert again.cached_tokens >= first.prompt_tokens - 8
    seconds = await asyncio.gather(*(ended(two_slots, f"s{n}", f"{n} {LONG}") for n in range(5)))
    assert all(end.cached_tokens > 100 for end in seconds)
