"""What was acknowledged is there again: after a kill, on a full disk, beside a torn end; and what is damaged is named."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.vectors.conftest import DIMENSION, SMALL, clustered

from fabstir.domain.errors import LocalFault
from fabstir.protocol.vectors.collection import describe
from fabstir.testing.clock import ManualClock
from fabstir.vectors.database import VectorDatabase

ROUNDS = 6
VECTORS = clustered(3_000)
WRITER = """
import asyncio, os, sys
from pathlib import Path
from tests.vectors.conftest import SMALL, DIMENSION, clustered
from fabstir.protocol.vectors.collection import describe
from fabstir.testing.clock import ManualClock
from fabstir.vectors.database import VectorDatabase

async def worker(database, name, start):
    for number in range(start, start + 100_000):
        ids = [f"{name}-{number}-{each}" for each in range(40)]
        await database.upsert("notes", ids, clustered(40, number), [{"n": number}] * 40)
        await database.delete("notes", ids[:1])
        os.write(1, f"{name} {number}\\n".encode())  # the acknowledgement: unbuffered

async def main():
    database = await VectorDatabase.open(Path(sys.argv[1]), ManualClock(), SMALL)
    await database.create(describe("notes", DIMENSION))
    await asyncio.gather(*(worker(database, name, int(sys.argv[2])) for name in "abc"))

asyncio.run(main())
"""


async def opened(root: Path) -> VectorDatabase:
    return await VectorDatabase.open(root, ManualClock(), SMALL)


async def some(root: Path, batches: int = 3) -> VectorDatabase:
    """A collection with a hundred points for each batch, all in the log."""
    database = await opened(root)
    await database.create(describe("notes", DIMENSION))
    for number in range(batches):
        await database.upsert("notes", range(100 * number, 100 * number + 100), VECTORS[:100], [{"b": number}] * 100)
    return database


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file grows beyond this, as where the disk is full: the kernel says so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def written_until_killed(root: Path, start: int, lines: int) -> list[str]:
    """What another process was acknowledged; it is killed after `lines`, and had perhaps a few more."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(root), str(start)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(lines)]
    os.kill(process.pid, signal.SIGKILL)
    return [*told, *process.communicate()[0].splitlines()]


@pytest.mark.real
async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Killed at random moments, in the middle of writes, rotations and rebuilds, again and again on the same files."""
    root, chance, acknowledged = tmp_path / "vectors", random.Random(3), set[tuple[str, int]]()
    for turn in range(ROUNDS):
        for line in written_until_killed(root, 1_000 * turn, chance.randrange(3, 90)):
            writer, _, batch = line.partition(" ")
            acknowledged.add((writer, int(batch)))
        database = await opened(root)
        for name, number in acknowledged:
            points = await database.get("notes", [f"{name}-{number}-{each}" for each in range(40)])
            assert points[0] is None and all(point is not None for point in points[1:])
            assert points[7] is not None and np.allclose(points[7].vector, clustered(40, number)[7], atol=1e-6)
        await database.close()


async def test_one_process_writes(tmp_path: Path) -> None:
    """A second one is refused; the first one's end lets the next in."""
    database = await some(tmp_path / "vectors")
    with pytest.raises(LocalFault, match="vectors_locked"):
        await opened(tmp_path / "vectors")
    await database.close()
    await (await opened(tmp_path / "vectors")).close()


async def test_a_torn_end_is_cut_off_kept_beside_and_told(tmp_path: Path) -> None:
    """It was never acknowledged. Writing goes on after it."""
    await (await some(tmp_path / "vectors")).close()
    log = tmp_path / "vectors" / "notes" / "wal-00000001"
    log.write_bytes(log.read_bytes()[:-5])
    database = await opened(tmp_path / "vectors")
    assert (await database.stats("notes")).points == 200
    assert "wal-00000001" in database.problems()["notes"][0]
    assert (log.parent / "wal-00000001.torn").stat().st_size > 0
    await database.upsert("notes", ["after"], VECTORS[:1])
    await database.close()
    database = await opened(tmp_path / "vectors")
    assert (await database.stats("notes")).points == 201 and not database.problems()
    await database.close()


@pytest.mark.parametrize("harm", ["middle", "missing", "manifest", "vectors", "columns", "gone"])
async def test_damage_is_named(tmp_path: Path, harm: str) -> None:
    """To what was acknowledged: the collection is refused, not served without it as if nothing were wrong. The others are served."""
    database = await some(tmp_path / "vectors")
    await database.create(describe("other", DIMENSION))
    copy = await database.collection("notes").copy()
    await database.collection("notes").release(copy)
    await database.upsert("notes", ["a"], VECTORS[:1])
    await database.upsert("notes", ["b"], VECTORS[:1])
    await database.close()
    directory, [segment] = tmp_path / "vectors" / "notes", copy.manifest.segments
    [log] = directory.glob("wal-*")
    path = {
        "middle": log,
        "missing": log,
        "manifest": directory / "manifest",
        "vectors": directory / segment.vectors,
        "columns": directory / segment.columns,
        "gone": directory / segment.vectors,
    }[harm]
    if harm in ("missing", "gone"):
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[40] ^= 1
        path.write_bytes(content)
    database = await opened(tmp_path / "vectors")
    for act in (database.search("notes", VECTORS[0]), database.create(describe("notes", DIMENSION))):
        with pytest.raises(LocalFault, match="vectors_corrupt"):
            await act
    assert "vectors_corrupt" in database.problems()["notes"][0]
    assert await database.search("other", VECTORS[0]) == []
    await database.drop("notes")
    await database.create(describe("notes", DIMENSION))
    assert not database.problems()
    await database.close()


async def test_a_full_disk_refuses_and_keeps(tmp_path: Path) -> None:
    """By name, with nothing half written; when there is room again, writing goes on."""
    database = await some(tmp_path / "vectors")
    size = (tmp_path / "vectors" / "notes" / "wal-00000001").stat().st_size
    with file_limit(size + 1_000):
        with pytest.raises(LocalFault, match="vectors_full"):
            await database.upsert("notes", range(1_000, 1_100), VECTORS[:100])
        assert (await database.stats("notes")).points == 300 and await database.get("notes", [1_000]) == [None]
        assert await database.delete("notes", [5]) == 1
    await database.upsert("notes", range(1_000, 1_100), VECTORS[:100])
    await database.close()
    database = await opened(tmp_path / "vectors")
    assert (await database.stats("notes")).points == 399 and not database.problems()
    await database.close()


async def test_nothing_of_a_refused_write_is_on_the_disk(tmp_path: Path) -> None:
    """Not even a torn end, where the process stops right after."""
    database = await some(tmp_path / "vectors")
    log = tmp_path / "vectors" / "notes" / "wal-00000001"
    before = log.read_bytes()
    with file_limit(len(before) + 1_000), pytest.raises(LocalFault, match="vectors_full"):
        await database.upsert("notes", range(1_000, 1_100), VECTORS[:100])
    assert log.read_bytes() == before
    await database.close()


async def test_several_files_of_the_log_are_replayed(tmp_path: Path) -> None:
    """And stay until what is in them is in segments, whatever is rebuilt and restarted in between."""
    root = tmp_path / "vectors"
    database = await some(root, 18)
    for _ in range(3):
        await database.delete("notes", range(300))
        await database.close()
        database = await opened(root)
        assert (await database.stats("notes")).points == 1_500
        await database.collection("notes").maintain()
    assert (await database.get("notes", [299])) == [None]
    await database.close()
    database = await opened(root)
    assert (await database.stats("notes")).points == 1_500
    assert all(point is not None for point in await database.get("notes", range(300, 1_800)))
    await database.close()


async def test_a_full_disk_stops_rebuilds_and_nothing_else(tmp_path: Path) -> None:
    """What is searched stays as it was."""
    database = await some(tmp_path / "vectors", 2)
    with file_limit(10_000), pytest.raises(LocalFault, match="vectors_full"):
        await database.collection("notes").copy()
    assert len(await database.search("notes", VECTORS[0])) == 10
    copy = await database.collection("notes").copy()
    await database.collection("notes").release(copy)
    await database.close()
    database = await opened(tmp_path / "vectors")
    assert (await database.stats("notes")).points == 200
    await database.close()


async def test_what_a_crash_left_half_done_is_cleared(tmp_path: Path) -> None:
    """Half a collection, files that nobody names, a write aside."""
    database = await some(tmp_path / "vectors")
    await database.close()
    root = tmp_path / "vectors"
    shutil.copytree(root / "notes", root / ".other.new")
    (root / "notes" / ("ab" * 32)).write_bytes(b"nobody's")
    (root / "notes" / ".manifest.aside").write_bytes(b"half")
    database = await opened(root)
    assert [spec.name for spec in database.collections()] == ["notes"]
    left = {path.name for path in (root / "notes").iterdir()}
    assert left == {"manifest", "wal-00000001"} and not (root / ".other.new").exists()
    await database.close()


async def test_the_log_does_not_grow_for_ever(tmp_path: Path) -> None:
    """What is stored in segments leaves it."""
    database = await some(tmp_path / "vectors", 1)
    for number in range(30):
        await database.upsert("notes", range(100 * number, 100 * number + 100), VECTORS[:100])
    await database.collection("notes").maintain()
    stats = await database.stats("notes")
    assert stats.points == 3_000 and stats.file_bytes > 0
    assert stats.log_bytes < 1_200 * (4 * DIMENSION + 40)
    await database.close()
