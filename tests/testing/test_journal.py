"""MemoryJournal: keeps the contract of the port, and cuts where a test says."""

from __future__ import annotations

import pytest

from fabstir.domain.errors import LocalFault
from fabstir.ports.journal import OutboxEntry
from fabstir.testing.journal import MemoryJournal, SimulatedCrash, crash_at


def _entry(key: str, status: str = "planned") -> OutboxEntry:
    return OutboxEntry(key=key, sender="0x01", to="0x02", data=b"", status=status)


async def test_streams_and_events_keep_their_order() -> None:
    """Events come back per stream, oldest first; streams in the order of their first event."""
    journal = MemoryJournal()
    await journal.append("b", [b"1", b"2"])
    await journal.append("a", [b"3"])
    await journal.append("b", [b"4"])
    await journal.append("c", [])
    assert await journal.streams() == ["b", "a"]
    assert await journal.read("b") == [b"1", b"2", b"4"]
    assert await journal.read("c") == []


async def test_outbox_lists_what_is_unfinished_oldest_first() -> None:
    """A replaced entry keeps its place; finished ones are left out."""
    journal = MemoryJournal()
    for key in ("x", "y", "z"):
        await journal.put(_entry(key))
    await journal.put(_entry("x", "signed"))
    await journal.put(_entry("y", "mined"))
    assert [(e.key, e.status) for e in await journal.unfinished()] == [("x", "signed"), ("z", "planned")]
    assert await journal.get("w") is None


@pytest.mark.parametrize(("phase", "kept"), [("before", [b"1"]), ("after", [b"1", b"2"])])
async def test_a_crash_cuts_before_or_after_the_chosen_write(phase: str, kept: list[bytes]) -> None:
    """Before: the write is lost. After: it is on the disk though nobody was told. The life ends either way."""
    journal = MemoryJournal(crash_at(2, "before" if phase == "before" else "after"))
    await journal.append("s", [b"1"])
    with pytest.raises(SimulatedCrash):
        await journal.append("s", [b"2"])
    with pytest.raises(SimulatedCrash):
        await journal.append("s", [b"3"])
    following = journal.reopen()
    assert await following.read("s") == kept
    with pytest.raises(LocalFault):
        await journal.append("s", [b"late"])
    await following.append("s", [b"next"])
    assert (await following.read("s"))[-1] == b"next"
