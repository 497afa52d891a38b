"""Reads a journal beside its owner: takes no lock, writes no event, changes no schema.

Works while the node runs and while it is stopped or was killed: the file is opened read-only, and SQLite's WAL shows each
stream as of its last commit. (SQLite itself may leave an empty `-wal` and `-shm` beside it; the owner takes them away.)
What is no journal, belongs to a newer version or may not be read raises `journal_unreadable`; no file, `journal_missing`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from fabstir.domain.errors import FabstirError, error
from fabstir.storage.database import BUSY_MILLISECONDS, MIGRATIONS

BUSY_SECONDS: Final = BUSY_MILLISECONDS / 1_000


class JournalReader:
    """For one thread, as a context manager. Memory: one event at a time."""

    def __init__(self, path: Path) -> None:
        """Raises LocalFault (`journal_missing`, `journal_unreadable`)."""
        self.path: Final = path
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError) as cause:
            raise error("journal_missing", f"{path} does not exist") from cause
        except OSError as cause:
            raise _unreadable(path, cause) from cause
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", BUSY_SECONDS, isolation_level=None, uri=True
            )
        except sqlite3.Error as cause:
            raise _unreadable(path, cause) from cause
        try:
            self._check_version()
        except FabstirError:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def __repr__(self) -> str:
        return f"<JournalReader {self.path}>"

    def streams(self) -> list[str]:
        """Every stream, oldest first."""
        return [str(name) for (name,) in self._select("SELECT name FROM stream ORDER BY id")]

    def events(self, stream: str) -> Generator[bytes]:
        """The events of `stream`, oldest first; all of one moment. Close it where not all are taken."""
        statement = "SELECT data FROM event JOIN stream ON event.stream = stream.id WHERE name = ? ORDER BY number"
        with contextlib.closing(self._select(statement, stream)) as rows:
            for (data,) in rows:
                yield bytes(data)

    def _check_version(self) -> None:
        ((version,),) = self._select("PRAGMA user_version")
        if version == 0:
            raise error("journal_unreadable", f"{self.path} is no journal of this program", "Check `host.data_dir`.")
        if version > len(MIGRATIONS):
            detail = f"{self.path} has version {version}, this program knows {len(MIGRATIONS)}"
            raise error("journal_unreadable", detail, "Use the newer program that wrote it.")

    def _select(self, statement: str, *parameters: str) -> Generator[tuple[Any]]:
        try:
            yield from self._connection.execute(statement, parameters)
        except sqlite3.Error as cause:
            raise _unreadable(self.path, cause) from cause


def _unreadable(path: Path, cause: Exception) -> FabstirError:
    return error("journal_unreadable", f"{path}: {cause}")
