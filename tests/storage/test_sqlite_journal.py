"""SqliteJournal: what was acknowledged is there, in order, and nothing else is."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from fabstir.domain.errors import LocalFault
from fabstir.domain.ids import Hash32
from fabstir.ports.journal import Journal, OutboxEntry, OutboxStore
from fabstir.storage import database
from fabstir.storage.journal import SqliteJournal, WritePhase


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "journal.db"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[SqliteJournal]:
    opened = SqliteJournal(path)
    yield opened
    await opened.close()


def _entry(key: str, status: str = "planned") -> OutboxEntry:
    return OutboxEntry(
        key=key,
        sender="0x01",
        to="0x02",
        data=b"\x00\xff",
        value=2**200,
        nonce=7,
        raw=(b"\x02one", b"\x02two"),
        hashes=(Hash32(bytes(32)),),
        status=status,
        created_at=1.5,
    )


def _loosen(path: Path) -> None:
    path.chmod(0o644)


def _modes(directory: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()}


def _implements(journal: SqliteJournal) -> tuple[Journal, OutboxStore]:
    """Checked by mypy."""
    return journal, journal


async def test_events_come_back_in_order_after_reopening(path: Path) -> None:
    """Streams by their first event, events as they were appended, also for the next process."""
    journal = SqliteJournal(path)
    await journal.append("b", [b"1", b"2"])
    await journal.append("a", [b"\x00"])
    await journal.append("b", [b"3"])
    await journal.append("c", [])
    await journal.close()
    journal = SqliteJournal(path)
    assert await journal.streams() == ["b", "a"]
    assert await journal.read("b") == [b"1", b"2", b"3"]
    assert await journal.read("a") == [b"\x00"]
    assert await journal.read("c") == []
    await journal.close()


async def test_outbox_entries_survive_whole(path: Path) -> None:
    """Every field comes back, amounts beyond 64 bits too; a replaced entry keeps its place."""
    journal = SqliteJournal(path)
    for key in ("x", "y", "z"):
        await journal.put(_entry(key))
    await journal.put(_entry("x", "signed"))
    await journal.put(_entry("y", "mined"))
    await journal.close()
    journal = SqliteJournal(path)
    assert await journal.get("y") == _entry("y", "mined")
    assert await journal.unfinished() == [_entry("x", "signed"), _entry("z")]
    assert await journal.get("w") is None
    await journal.close()


async def test_waiting_writes_share_one_commit_and_keep_their_order(path: Path) -> None:
    """While a commit runs, everything that is asked joins the next one, in the order of asking."""
    entered, release = threading.Event(), threading.Event()

    def hold_first(number: int, phase: WritePhase) -> None:
        if (number, phase) == (1, "before"):
            entered.set()
            release.wait()

    journal = SqliteJournal(path, hold_first)
    first = asyncio.create_task(journal.append("s", [b"first"]))
    await asyncio.to_thread(entered.wait)
    rest = [asyncio.create_task(journal.append("s", [b"%d" % n])) for n in range(100)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in [first, *rest])
    release.set()
    await asyncio.gather(first, *rest)
    assert journal.commits == 2
    assert await journal.read("s") == [b"first", *(b"%d" % n for n in range(100))]
    await journal.close()


async def test_a_write_is_acknowledged_only_after_its_commit(path: Path) -> None:
    """At the `before` hook another connection sees nothing, at `after` it sees the event."""
    seen: list[tuple[int, WritePhase, int]] = []

    def look(number: int, phase: WritePhase) -> None:
        with closing(sqlite3.connect(path)) as other:
            seen.append((number, phase, other.execute("SELECT count(*) FROM event").fetchone()[0]))

    journal = SqliteJournal(path, look)
    await journal.append("s", [b"1", b"2"])
    await journal.append("s", [b"3"])
    assert seen == [(1, "before", 0), (1, "after", 2), (2, "before", 2), (2, "after", 3)]
    await journal.close()


async def test_a_second_opening_is_refused_while_the_first_lives(path: Path, journal: SqliteJournal) -> None:
    """Two owners of one journal never happen; the refusal names the holder, and ends with it."""
    with pytest.raises(LocalFault, match="journal_locked") as refused:
        SqliteJournal(path)
    assert "held by process" in refused.value.detail
    await journal.close()
    await SqliteJournal(path).close()


async def test_files_are_for_the_owner_only(path: Path, journal: SqliteJournal) -> None:
    """Database, WAL and lock have mode 0600 whatever the umask; the directory 0700."""
    await journal.append("s", [b"1"])
    modes = _modes(path.parent)
    assert modes.keys() >= {"journal.db", "journal.db-wal", "journal.db.lock"}
    assert set(modes.values()) == {0o600}
    assert _modes(path.parent.parent)["data"] == 0o700


async def test_rights_of_others_are_taken_away(path: Path) -> None:
    """A file that was copied with loose permissions is tightened when opened."""
    await SqliteJournal(path).close()
    _loosen(path)
    await SqliteJournal(path).close()
    assert _modes(path.parent)["journal.db"] == 0o600


async def test_close_writes_what_waits(path: Path) -> None:
    """Appends that were asked before `close` are kept; those after it are refused."""
    journal = SqliteJournal(path)
    waiting = [asyncio.create_task(journal.append("s", [b"%d" % n])) for n in range(50)]
    await asyncio.sleep(0)
    await journal.close()
    await asyncio.gather(*waiting)
    with pytest.raises(LocalFault, match="closed"):
        await journal.append("s", [b"late"])
    with pytest.raises(LocalFault, match="closed"):
        await journal.read("s")
    journal = SqliteJournal(path)
    assert len(await journal.read("s")) == 50
    await journal.close()


async def test_a_cancelled_caller_loses_nothing(path: Path) -> None:
    """The write that a cancelled task had asked for is made, and the writer goes on."""
    entered, release = threading.Event(), threading.Event()

    def hold_first(number: int, phase: WritePhase) -> None:
        if (number, phase) == (1, "before"):
            entered.set()
            release.wait()

    journal = SqliteJournal(path, hold_first)
    task = asyncio.create_task(journal.append("s", [b"1"]))
    await asyncio.to_thread(entered.wait)
    task.cancel()
    release.set()
    await asyncio.gather(task, return_exceptions=True)
    await journal.append("s", [b"2"])
    assert await journal.read("s") == [b"1", b"2"]
    await journal.close()


async def test_after_a_failed_commit_nothing_more_is_written(path: Path) -> None:
    """The failed batch leaves no trace and every later write is refused until the file is opened anew."""

    def fail_second(number: int, phase: WritePhase) -> None:
        if (number, phase) == (2, "before"):
            raise OSError(28, "No space left on device")

    journal = SqliteJournal(path, fail_second)
    await journal.append("s", [b"1"])
    with pytest.raises(LocalFault, match="No space left"):
        await journal.append("s", [b"2", b"3"])
    with pytest.raises(LocalFault, match="No space left"):
        await journal.put(_entry("x"))
    assert await journal.read("s") == [b"1"]
    await journal.close()
    journal = SqliteJournal(path)
    await journal.append("s", [b"4"])
    assert await journal.read("s") == [b"1", b"4"]
    assert await journal.unfinished() == []
    await journal.close()


async def test_the_file_itself_refuses_changes_of_the_past(path: Path, journal: SqliteJournal) -> None:
    """Append-only is a rule of the schema, not a habit of the code."""
    await journal.append("s", [b"1"])
    with closing(sqlite3.connect(path)) as other:
        for statement in ("UPDATE event SET data = x'00'", "DELETE FROM event"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                other.execute(statement)


@pytest.mark.parametrize("content", ["directory", "text", "newer"])
def test_a_file_that_is_no_journal_is_refused_by_name(path: Path, content: str) -> None:
    """A directory, a text file, or a journal of a newer program: `journal_failed`, the lock is let go, the file stays as it is."""
    path.parent.mkdir()
    if content == "directory":
        path.mkdir()
    elif content == "text":
        path.write_bytes(b"these are words, not pages of a database" * 100)
    else:
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA user_version = 99")
    before = path.read_bytes() if path.is_file() else b""
    for _ in range(2):
        with pytest.raises(LocalFault, match="journal_failed"):
            SqliteJournal(path)
    assert (path.read_bytes() if path.is_file() else b"")[100:] == before[100:]


def test_migrations_run_in_order_and_only_once(tmp_path: Path) -> None:
    """A file of any older version is brought to the newest one, step by step, and its contents stay."""
    path = tmp_path / "steps.db"
    steps = ("CREATE TABLE a (n INTEGER);", "INSERT INTO a VALUES (2);", "INSERT INTO a VALUES (3);")
    with closing(database.connect(path)) as connection:
        database.migrate(connection, path, steps[:1])
        connection.execute("INSERT INTO a VALUES (1)")
        for _ in range(2):
            database.migrate(connection, path, steps)
        assert connection.execute("SELECT n FROM a").fetchall() == [(1,), (2,), (3,)]
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)


def test_a_migration_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    """Half a migration is no migration."""
    path = tmp_path / "steps.db"
    steps = ("CREATE TABLE a (n INTEGER);", "INSERT INTO a VALUES (1); INSERT INTO nowhere VALUES (1);")
    with closing(database.connect(path)) as connection:
        with pytest.raises(LocalFault, match="nowhere"):
            database.migrate(connection, path, steps)
        assert connection.execute("SELECT count(*) FROM a").fetchone() == (0,)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
