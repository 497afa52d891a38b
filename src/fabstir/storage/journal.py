"""The journal and the outbox store on one SQLite file.

Implements `fabstir.ports.journal.Journal` and `OutboxStore`. All writes that wait at one moment are committed in one
transaction by one writer thread, and each caller is answered after that commit. The first write that fails ends writing
for this process: after a failed sync nobody knows what is on the disk, so everything later is refused with
`journal_failed` until a restart reads what is really there. Never interprets an event, never writes half of an append.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.ports.journal import OutboxEntry
from fabstir.storage import database

WritePhase = Literal["before", "after"]
WriteHook = Callable[[int, WritePhase], None]
"""Called in the writer thread with the number of the commit (1, 2, ...), before it and after it but before anybody is answered."""

JOURNAL_FILE: Final = "journal.db"
"""Its name in a data directory."""
OTHER_VERSION: Final = "Use the program that wrote it, or a copy of the journal that is whole."
MAX_BATCH: Final = 512
"""Writes in one transaction: more would only make the first of them wait longer."""

_ENTRY = msgspec.json.Decoder(OutboxEntry)


class _Write:
    """One append or put on its way to the writer thread."""

    __slots__ = ("apply", "future", "loop")

    def __init__(self, apply: Callable[[sqlite3.Connection], None]) -> None:
        self.apply = apply
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()

    def answer(self, failure: FabstirError | None) -> None:
        """From any thread. A caller that was cancelled or whose loop is gone is not answered; the write counts all the same."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._settle, failure)

    def _settle(self, failure: FabstirError | None) -> None:
        if self.future.done():
            return
        if failure:
            self.future.set_exception(failure)
        else:
            self.future.set_result(None)


class SqliteJournal:
    """Open it once per data directory and close it at the end.

    Threads: one writer, one reader. Memory: one queued write for each caller that awaits one, plus what a read returns.
    """

    def __init__(self, path: Path, on_write: WriteHook | None = None) -> None:
        """Locks and opens `path`, creating it where missing. Raises `journal_locked`, `journal_failed`."""
        self.path: Final = path
        self._on_write = on_write
        database.create_private(path)
        self._lock = database.Lock(path.with_name(path.name + ".lock"))
        try:
            self._connection = database.connect(path)
            database.check_whole(self._connection, path)
            database.migrate(self._connection, path)
            self._reads = database.connect(path)
        except FabstirError:
            self._lock.release()
            raise
        self._refusal: FabstirError | None = None
        self._closed = False
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._commits = 0
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="journal-reader")
        self._writer = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._writer.start()

    def __repr__(self) -> str:
        return f"<SqliteJournal {self.path} commits={self._commits} writable={self._refusal is None}>"

    @property
    def commits(self) -> int:
        """Transactions made by this process."""
        return self._commits

    async def close(self) -> None:
        """Write what waits, then let go of the file. Whatever is asked later raises `journal_failed`."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        self._reader.shutdown()
        self._reads.close()
        self._lock.release()

    # -- Journal
    async def append(self, stream: str, events: Sequence[bytes]) -> None:
        """Append all of `events` to `stream`, in one transaction; no events are no write."""
        rows = [bytes(event) for event in events]
        if rows:
            await self._write(lambda connection: _append(connection, stream, rows))

    async def read(self, stream: str) -> list[bytes]:
        """Every event of `stream`, oldest first."""
        rows = await self._read(
            "SELECT data FROM event WHERE stream = (SELECT id FROM stream WHERE name = ?) ORDER BY number", stream
        )
        return [data for (data,) in rows]

    async def streams(self) -> list[str]:
        """Every stream, oldest first."""
        return [name for (name,) in await self._read("SELECT name FROM stream ORDER BY id")]

    # -- OutboxStore
    async def put(self, entry: OutboxEntry) -> None:
        """Insert or replace by `key`; a replaced entry keeps its place in the order."""
        row = (entry.key, entry.status, msgspec.json.encode(entry))
        await self._write(lambda connection: _put(connection, row))

    async def get(self, key: str) -> OutboxEntry | None:
        """The entry, if any."""
        rows = await self._read("SELECT entry FROM outbox WHERE key = ?", key)
        return self._entry(rows[0][0]) if rows else None

    async def unfinished(self) -> list[OutboxEntry]:
        """Entries that are planned or signed, oldest first."""
        rows = await self._read("SELECT entry FROM outbox WHERE status IN ('planned', 'signed') ORDER BY position")
        return [self._entry(entry) for (entry,) in rows]

    def _entry(self, stored: bytes) -> OutboxEntry:
        try:
            return _ENTRY.decode(stored)
        except msgspec.MsgspecError as cause:
            raise error("journal_failed", detail=f"{self.path}, outbox: {cause}", next_step=OTHER_VERSION) from cause

    # -- the caller's side
    async def _write(self, apply: Callable[[sqlite3.Connection], None]) -> None:
        if self._closed or self._refusal:
            raise self._refusal or error("journal_failed", detail=f"{self.path} is closed")
        write = _Write(apply)
        self._queue.put(write)
        await write.future

    async def _read(self, statement: str, *parameters: str) -> list[tuple[Any]]:
        if self._closed:
            raise error("journal_failed", detail=f"{self.path} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._select, statement, parameters)

    def _select(self, statement: str, parameters: tuple[str, ...]) -> list[tuple[Any]]:
        try:
            return self._reads.execute(statement, parameters).fetchall()
        except sqlite3.Error as cause:
            raise database.failure(self.path, cause) from cause

    # -- the writer thread
    def _run(self) -> None:
        going = True
        while going:
            batch, going = self._next_batch()
            if batch:
                self._commit(batch)
        self._connection.close()

    def _next_batch(self) -> tuple[list[_Write], bool]:
        """Wait for one write, take those that came meanwhile; False once `close` was seen."""
        batch: list[_Write] = []
        while len(batch) < MAX_BATCH:
            try:
                write = self._queue.get(block=not batch)
            except queue.Empty:
                break
            if write is None:
                return batch, False
            batch.append(write)
        return batch, True

    def _commit(self, batch: list[_Write]) -> None:
        if self._refusal is None:
            self._refusal = self._transact(batch)
        for write in batch:
            write.answer(self._refusal)

    def _transact(self, batch: list[_Write]) -> FabstirError | None:
        self._commits += 1
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for write in batch:
                write.apply(self._connection)
            self._hook("before")
            self._connection.execute("COMMIT")
            self._hook("after")
        except Exception as cause:  # every caller of the batch waits for an answer, whatever went wrong
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            return database.failure(self.path, cause)
        return None

    def _hook(self, phase: WritePhase) -> None:
        if self._on_write:
            self._on_write(self._commits, phase)


def _append(connection: sqlite3.Connection, stream: str, rows: list[bytes]) -> None:
    connection.execute("INSERT INTO stream (name) VALUES (?) ON CONFLICT DO NOTHING", (stream,))
    (number,) = connection.execute("SELECT id FROM stream WHERE name = ?", (stream,)).fetchone()
    (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM event WHERE stream = ?", (number,)).fetchone()
    connection.executemany(
        "INSERT INTO event (stream, number, data) VALUES (?, ?, ?)",
        [(number, last + offset, data) for offset, data in enumerate(rows, 1)],
    )


def _put(connection: sqlite3.Connection, row: tuple[str, str, bytes]) -> None:
    connection.execute(
        "INSERT INTO outbox (key, status, entry) VALUES (?, ?, ?)"
        " ON CONFLICT (key) DO UPDATE SET status = excluded.status, entry = excluded.entry",
        row,
    )
