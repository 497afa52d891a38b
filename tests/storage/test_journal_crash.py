"""The journal against the things that really happen: kill -9, a full disk, a read-only place."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fabstir.storage.journal import SqliteJournal

pytestmark = pytest.mark.real

ROUNDS = 12
"""Kills in a row on one file."""

APPENDER = """
import asyncio, os, signal, sys
from pathlib import Path
from fabstir.storage.journal import SqliteJournal

path, start, kill_at, phase, workers = Path(sys.argv[1]), *map(int, sys.argv[2:4]), sys.argv[4], 8

def die(number, when):
    if (number, when) == (kill_at, phase):
        os.kill(os.getpid(), signal.SIGKILL)

async def worker(journal, name, number):
    while True:
        await journal.append(name, [b"%d" % number, b"%d" % (number + 1)])
        os.write(1, b"%s %d\\n" % (name.encode(), number + 1))   # the acknowledgement: unbuffered, before the next append
        number += 2

async def main():
    journal = SqliteJournal(path, die)
    async with asyncio.TaskGroup() as group:
        for index in range(workers):
            name = f"job{index}"
            group.create_task(worker(journal, name, len(await journal.read(name))))

asyncio.run(main())
"""

FILLER = """
import asyncio, resource, sys
from pathlib import Path
from fabstir.domain.errors import LocalFault
from fabstir.storage.journal import SqliteJournal

async def main():
    journal = SqliteJournal(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    kept = 0
    try:
        for kept in range(10_000):
            await journal.append("s", [b"a" * 5_000, b"b" * 5_000])
    except LocalFault as fault:
        print(fault.code, kept)
    try:
        await journal.append("s", [b"small"])
    except LocalFault as fault:
        print(fault.code)

asyncio.run(main())
"""

READ_ONLY = """
import os, sys
from pathlib import Path
from fabstir.domain.errors import LocalFault
from fabstir.storage.journal import SqliteJournal

if os.geteuid() == 0:
    os.setuid(65534)   # root may write anywhere, so be nobody
try:
    SqliteJournal(Path(sys.argv[1]))
except LocalFault as fault:
    print(fault.code)
"""


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)


async def test_every_acknowledged_append_survives_kill_9(tmp_path: Path) -> None:
    """Killed at any commit, before or after it: what was acknowledged is there, each append whole, nothing twice, nothing out of order."""
    path = tmp_path / "journal.db"
    chance = random.Random(7)
    for round_number in range(ROUNDS):
        phase = ("before", "after")[round_number % 2]
        done = _run(APPENDER, str(path), "0", str(chance.randint(1, 40)), phase)
        assert done.returncode == -signal.SIGKILL, done.stderr
        acknowledged = {name: int(number) for name, number in (line.split() for line in done.stdout.splitlines())}
        journal = SqliteJournal(path)
        for name in await journal.streams():
            events = await journal.read(name)
            assert events == [b"%d" % number for number in range(len(events))]
            assert len(events) % 2 == 0
            assert len(events) > acknowledged.get(name, -1)
        await journal.close()


async def test_a_full_disk_ends_writing_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """The append that no longer fits is refused whole; so is everything after it; what was acknowledged can be read."""
    path = tmp_path / "journal.db"
    done = _run(FILLER, str(path))
    code, kept = done.stdout.splitlines()[0].split()
    assert code == "journal_failed", done.stderr
    assert done.stdout.splitlines()[1] == "journal_failed"
    assert int(kept) > 5
    journal = SqliteJournal(path)
    events = await journal.read("s")
    assert events == [b"a" * 5_000, b"b" * 5_000] * int(kept)
    await journal.close()


def test_a_place_without_write_permission_is_refused_by_name(tmp_path: Path) -> None:
    """`journal_failed`, and nothing is created."""
    place = tmp_path / "closed"
    place.mkdir(mode=0o555)
    for parent in (place, *place.parents):
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o055)
    done = _run(READ_ONLY, str(place / "journal.db"))
    assert done.stdout == "journal_failed\n", done.stderr
    assert list(place.iterdir()) == []
