"""JournalReader: reads a journal that belongs to somebody else, in whatever state he left it, and changes nothing."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fabstir.domain.errors import LocalFault
from fabstir.storage.journal import SqliteJournal
from fabstir.storage.reader import JournalReader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data #1?" / "journal.db"


async def _write(path: Path) -> SqliteJournal:
    journal = SqliteJournal(path)
    await journal.append("b", [b"1", b"2"])
    await journal.append("a", [b"\x00"])
    await journal.append("b", [b"3"])
    return journal


def _read(path: Path) -> dict[str, list[bytes]]:
    with JournalReader(path) as reader:
        return {stream: list(reader.events(stream)) for stream in reader.streams()}


def _bytes(path: Path) -> bytes:
    return path.read_bytes()


WRITTEN = {"b": [b"1", b"2", b"3"], "a": [b"\x00"]}


async def test_it_reads_while_the_owner_writes(path: Path) -> None:
    """The owner's lock does not keep it out, it does not keep the owner from writing, and it sees what was committed since."""
    journal = await _write(path)
    with JournalReader(path) as reader:
        assert {stream: list(reader.events(stream)) for stream in reader.streams()} == WRITTEN
        half_read = reader.events("b")
        assert next(half_read) == b"1"
        await journal.append("b", [b"4"])
        assert list(half_read) == [b"2", b"3"]
        assert list(reader.events("b")) == [b"1", b"2", b"3", b"4"]
    await journal.close()


async def test_it_reads_what_a_stopped_owner_left_and_changes_no_byte(path: Path) -> None:
    """The owner starts again afterwards as if nothing had been."""
    await (await _write(path)).close()
    before = _bytes(path)
    assert _read(path) == WRITTEN
    assert _bytes(path) == before
    journal = SqliteJournal(path)
    await journal.append("b", [b"4"])
    await journal.close()
    assert _read(path)["b"] == [b"1", b"2", b"3", b"4"]


async def test_it_reads_what_a_killed_owner_left(path: Path, tmp_path: Path) -> None:
    """What stands only in the write-ahead log counts: it was acknowledged."""
    journal = await _write(path)
    left = tmp_path / "left"
    left.mkdir()
    for name in ("journal.db", "journal.db-wal"):
        shutil.copy(path.with_name(name), left / name)
    await journal.close()
    assert _read(left / "journal.db") == WRITTEN


async def test_it_cannot_write(path: Path) -> None:
    """Not even by mistake."""
    await (await _write(path)).close()
    with JournalReader(path) as reader, pytest.raises(LocalFault, match="journal_unreadable.*readonly"):
        list(reader._select("INSERT INTO stream (name) VALUES ('x') RETURNING name"))


@pytest.mark.parametrize("place", ["absent/journal.db", "file/journal.db"])
def test_no_journal_is_said_so(tmp_path: Path, place: str) -> None:
    """And none is made."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalFault, match=r"journal_missing.*does not exist.*fabstir host start"):
        JournalReader(tmp_path / place)
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("content", [b"no database " * 1_000, b""], ids=["something else", "empty"])
def test_a_file_that_is_no_journal_is_refused(path: Path, content: bytes) -> None:
    """By what it is, not by its name."""
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(LocalFault, match="journal_unreadable"):
        JournalReader(path)
    assert path.read_bytes() == content


def test_a_directory_is_no_journal(path: Path) -> None:
    """The system's words are in the detail."""
    path.mkdir(parents=True)
    with pytest.raises(LocalFault, match=r"journal_unreadable.*journal\.db: "):
        JournalReader(path)


async def test_a_journal_of_a_newer_program_is_refused(path: Path) -> None:
    """With both versions and what to do."""
    await (await _write(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(LocalFault, match=r"journal_unreadable.*version 9, this program knows 1.*newer program"):
        JournalReader(path)
