"""A journal that was torn: what nobody was told of is left out, what cannot be read is refused with the next step."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fabstir.domain.errors import LocalFault
from fabstir.ports.journal import OutboxEntry
from fabstir.storage.journal import SqliteJournal

FRAME_HEADER = 24
"""Bytes before each page in a WAL (sqlite.org/fileformat2.html#walformat)."""


def _torn_copy(directory: Path, cut: int) -> Path:
    """What a power cut leaves of a journal: its files as they are while it runs, the WAL shorter by `cut` bytes."""
    torn = directory / "torn"
    torn.mkdir()
    for name in ("journal.db", "journal.db-wal"):
        shutil.copy(directory / name, torn / name)
    wal = torn / "journal.db-wal"
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size - cut)
    return torn / "journal.db"


@pytest.mark.parametrize("cut", [1, FRAME_HEADER, 4096])
async def test_a_torn_last_commit_is_left_out_whole(tmp_path: Path, cut: int) -> None:
    """The commit that did not reach the disk is gone as a whole, all before it are there, and writing goes on."""
    running = SqliteJournal(tmp_path / "journal.db")
    for event in (b"1", b"2", b"3"):
        await running.append("s", [event])
    torn = _torn_copy(tmp_path, cut)
    await running.close()
    journal = SqliteJournal(torn)
    assert await journal.read("s") == [b"1", b"2"]
    await journal.append("s", [b"again"])
    assert await journal.read("s") == [b"1", b"2", b"again"]
    await journal.close()


def _damage(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    path.write_bytes(
        content[:half] if damage == "cut off" else content[:half] + b"\xff" * 8_192 + content[half + 8_192 :]
    )


@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
async def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    """Pages are missing or are none: `journal_failed` says what to do, nothing is served, and the file stays as it was."""
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    await journal.append("s", [bytes(3_000) for _ in range(100)])
    await journal.close()
    _damage(path, damage)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(LocalFault, match="journal_failed") as refused:
            SqliteJournal(path)
        assert "a copy that is whole" in refused.value.next_step
    assert path.read_bytes() == before


async def test_an_outbox_entry_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Half an entry is no entry: it is named, and not taken for nothing to send."""
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    await journal.put(OutboxEntry(key="pay", sender="0x01", to="0x02", data=b"", status="signed"))
    await journal.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE outbox SET entry = substr(entry, 1, 20)")
        other.commit()
    journal = SqliteJournal(path)
    for question in (journal.unfinished(), journal.get("pay")):
        with pytest.raises(LocalFault, match="outbox") as refused:
            await question
        assert "program that wrote it" in refused.value.next_step
    await journal.close()
