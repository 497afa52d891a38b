"""One SQLite file that belongs to one process: lock, permissions, migrations, connections.

Decides nothing about what is stored beyond the schema. A file that cannot be opened, is read-only, is no database, is
damaged or was written by a newer version raises `journal_failed`; one that another process holds raises
`journal_locked`. WAL with synchronous=FULL: a commit is on the disk when it returns, and one that was torn by a power
cut, of which nobody was told, is left out at the next start. Specification: sqlite.org/wal.html, research/server.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

from fabstir.domain.errors import FabstirError, error

MIGRATIONS: Final = (
    """
    CREATE TABLE stream (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE event (
        stream INTEGER NOT NULL REFERENCES stream (id),
        number INTEGER NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (stream, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER event_keeps BEFORE UPDATE ON event BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
    CREATE TRIGGER event_stays BEFORE DELETE ON event BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
    CREATE TABLE outbox (
        position INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        status TEXT NOT NULL,
        entry BLOB NOT NULL
    ) STRICT;
    CREATE INDEX outbox_unfinished ON outbox (position) WHERE status IN ('planned', 'signed');
    """,
)
"""Number n (from 1) takes a file from version n - 1 to n; PRAGMA user_version holds the version. Never edited once released."""

BUSY_MILLISECONDS: Final = 5_000
"""Only this process opens the file, so a lock is at most a checkpoint of the other connection."""


class Lock:
    """An exclusive lock file beside the database. The kernel drops it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Raises `journal_locked` where somebody holds it, `journal_failed` where it cannot be made."""
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as cause:
            raise failure(path, cause) from cause
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as cause:
            holder = os.read(self._file, 32).decode(errors="replace").strip()
            os.close(self._file)
            raise error("journal_locked", detail=f"{path}, held by process {holder or 'unknown'}") from cause
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another process in. The file stays: removing it would let two processes lock two files of one name."""
        os.close(self._file)


def create_private(path: Path) -> None:
    """Make directory (0700) and file (0600) where missing, and take group's and others' rights from an existing file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = not path.exists()
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.fchmod(file, 0o600)
        finally:
            os.close(file)
        if new:
            _sync_directory(path.parent)
    except OSError as cause:
        raise failure(path, cause) from cause


def _sync_directory(path: Path) -> None:
    # Without this a power cut can lose the new name although SQLite synced the contents.
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, for use by one thread at a time. Raises `journal_failed`."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise error("journal_failed", detail=f"{path}: this file system gives journal mode {mode}, not WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA trusted_schema = OFF")
    except sqlite3.Error as cause:
        connection.close()
        raise failure(path, cause) from cause
    except FabstirError:
        connection.close()
        raise
    return connection


def check_whole(connection: sqlite3.Connection, path: Path) -> None:
    """Read every page. Raises `journal_failed` where the file is cut off or damaged: serving on would lose what it cannot show."""
    try:
        found = [str(line) for (line,) in connection.execute("PRAGMA quick_check (1)")]
    except sqlite3.Error as cause:
        raise failure(path, cause) from cause
    if found != ["ok"]:
        raise _damaged(path, found[0])


def _damaged(path: Path, words: str) -> FabstirError:
    return error(
        "journal_failed",
        detail=f"{path}: {words}",
        next_step="Keep the file, check the disk, and start with a copy that is whole; vouchers in it are money.",
    )


def migrate(connection: sqlite3.Connection, path: Path, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Bring the file to the newest version, one transaction for each step. Raises `journal_failed`."""
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(migrations):
            detail = f"{path} has version {version}, this program knows {len(migrations)}"
            raise error("journal_failed", detail=detail, next_step="Use the newer program that wrote it.")
        for number in range(version + 1, len(migrations) + 1):
            script = migrations[number - 1]
            connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
    except sqlite3.Error as cause:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise failure(path, cause) from cause


def failure(path: Path, cause: Exception) -> FabstirError:
    """`journal_failed`, with the words of the system."""
    if isinstance(cause, sqlite3.DatabaseError) and "malformed" in str(cause):
        return _damaged(path, str(cause))
    return error("journal_failed", detail=f"{path}: {cause}")
