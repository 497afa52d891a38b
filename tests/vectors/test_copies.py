"""Copies on the renter's drive: what is new is sent, another machine restores from the drive alone, nobody's copy is overwritten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.vectors.conftest import DIMENSION, SMALL, clustered

from fabstir.domain.errors import FabstirError, LocalFault, Refused, error
from fabstir.ports.vectors import Search
from fabstir.protocol.storage.keys import Identity
from fabstir.protocol.vectors.collection import describe
from fabstir.storage.s5.drive import Drive
from fabstir.testing.clock import ManualClock
from fabstir.testing.storage import MemoryStorage
from fabstir.vectors import copies
from fabstir.vectors.database import VectorDatabase

COUNT = 14_000
VECTORS = clustered(COUNT)


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
async def drive(storage: MemoryStorage, clock: ManualClock) -> AsyncIterator[Drive]:
    made = Drive(Identity.of(b"k" * 16).root(), storage, storage, clock)
    yield made
    await made.close()


@pytest.fixture
async def elsewhere(tmp_path: Path, clock: ManualClock) -> AsyncIterator[VectorDatabase]:
    """Another machine."""
    opened = await VectorDatabase.open(tmp_path / "elsewhere", clock, SMALL)
    yield opened
    await opened.close()


async def fill(database: VectorDatabase, count: int = COUNT) -> None:
    await database.create(describe("notes", DIMENSION))
    for at in range(0, count, 1_000):
        await database.upsert("notes", range(at, at + 1_000), VECTORS[at : at + 1_000], [{"secret": "violet"}] * 1_000)
    await database.collection("notes").maintain()


async def test_another_machine_has_everything_from_the_drive_alone(
    database: VectorDatabase, elsewhere: VectorDatabase, drive: Drive, storage: MemoryStorage
) -> None:
    """All tiers, deletions, metadata, indexes; and the storage learns none of it."""
    await fill(database)
    await database.delete("notes", [3, 4])
    await copies.publish(database.collection("notes"), drive)
    assert await copies.restore(elsewhere, drive, "notes") == 1
    mine, theirs = await database.stats("notes"), await elsewhere.stats("notes")
    assert theirs.points == COUNT - 2 and [each.kind for each in theirs.segments] == [
        each.kind for each in mine.segments
    ]
    for query in VECTORS[:20]:
        for how in (Search(), Search(exact=True, limit=50)):
            ours = [(hit.id, hit.score) for hit in await database.search("notes", query, how)]
            assert [(hit.id, hit.score) for hit in await elsewhere.search("notes", query, how)] == ours
    assert not storage.holds(b"violet") and not storage.holds(VECTORS[0].tobytes())


async def test_only_what_is_new_is_sent(database: VectorDatabase, drive: Drive) -> None:
    """One more point costs one small segment; nothing new costs nothing; what is superseded goes."""
    await fill(database)
    first = await copies.publish(database.collection("notes"), drive)
    await database.upsert("notes", ["one"], VECTORS[:1])
    second = await copies.publish(database.collection("notes"), drive)
    assert (second.revision, second.sent_files, second.kept_files) == (2, 2, first.sent_files)
    assert second.sent_bytes < 1_000 < first.sent_bytes
    third = await copies.publish(database.collection("notes"), drive)
    assert third.sent_files == 0
    for number in range(9):
        await database.upsert("notes", [f"more-{number}"], VECTORS[:1])
        await copies.publish(database.collection("notes"), drive)
    await database.collection("notes").maintain()
    await copies.publish(database.collection("notes"), drive)
    listed = {entry.path.rpartition("/")[2] for entry in (await drive.list("vectors/notes")).entries}
    copy = await database.collection("notes").copy()
    await database.collection("notes").release(copy)
    assert listed == {"manifest", *copy.manifest.files()}


async def test_a_copy_of_somebody_else_is_not_overwritten(
    database: VectorDatabase, elsewhere: VectorDatabase, drive: Drive
) -> None:
    """Two machines that publish one collection: the second one is told, and can go on from the first one's."""
    await fill(database, 2_000)
    await copies.publish(database.collection("notes"), drive)
    await fill(elsewhere, 1_000)
    with pytest.raises(Refused, match="vectors_published_elsewhere"):
        await copies.publish(elsewhere.collection("notes"), drive)
    with pytest.raises(Refused, match="vector_collection_exists"):
        await copies.restore(elsewhere, drive, "notes")
    await elsewhere.drop("notes")
    await copies.restore(elsewhere, drive, "notes")
    await elsewhere.upsert("notes", ["theirs"], VECTORS[:1])
    assert (await copies.publish(elsewhere.collection("notes"), drive)).revision == 2
    with pytest.raises(Refused, match="vectors_published_elsewhere"):
        await copies.publish(database.collection("notes"), drive)


async def test_what_was_published_is_remembered(tmp_path: Path, drive: Drive, clock: ManualClock) -> None:
    """After a restart the next copy is still an increment of the last."""
    database = await VectorDatabase.open(tmp_path / "vectors", clock, SMALL)
    await fill(database, 2_000)
    first = await copies.publish(database.collection("notes"), drive)
    await database.close()
    database = await VectorDatabase.open(tmp_path / "vectors", clock, SMALL)
    again = await copies.publish(database.collection("notes"), drive)
    assert (again.revision, again.sent_files, again.kept_files) == (2, 0, first.sent_files)
    await database.close()


async def test_a_publication_that_fails_leaves_the_copy_as_it_was(
    database: VectorDatabase, elsewhere: VectorDatabase, drive: Drive, storage: MemoryStorage
) -> None:
    """And the next one sends what is missing. The files that it was sending have not gone meanwhile."""
    await fill(database, 2_000)
    await copies.publish(database.collection("notes"), drive)
    await database.upsert("notes", range(5_000, 6_000), VECTORS[:1_000])
    storage.fail_publish = "storage_unavailable"
    with pytest.raises(FabstirError, match="storage_unavailable"):
        await copies.publish(database.collection("notes"), drive)
    storage.fail_publish = None
    assert (await copies.publish(database.collection("notes"), drive)).revision == 2
    await copies.restore(elsewhere, drive, "notes")
    assert (await elsewhere.stats("notes")).points == 3_000


class Cut:
    """A drive whose answer to the manifest is lost: nobody knows whether it is there."""

    def __init__(self, drive: Drive, *, arrives: bool) -> None:
        self._drive = drive
        self._arrives = arrives
        self.get, self.delete = drive.get, drive.delete

    async def put(self, path: str, content: bytes) -> None:
        if self._arrives or not path.endswith("manifest"):
            await self._drive.put(path, content)
        if path.endswith("manifest"):
            raise error("storage_unavailable", "as the test asks")


class Slow:
    """A drive beside which the collection is rebuilt while a copy is sent."""

    def __init__(self, drive: Drive, database: VectorDatabase) -> None:
        self._drive = drive
        self._database = database
        self.get, self.delete = drive.get, drive.delete

    async def put(self, path: str, content: bytes) -> None:
        await self._database.collection("notes").migrate()
        await self._drive.put(path, content)


async def test_a_rebuild_does_not_take_the_files_of_a_copy_that_is_being_sent(
    database: VectorDatabase, elsewhere: VectorDatabase, drive: Drive, tmp_path: Path
) -> None:
    """They go when it is there, and what is on the drive is what was there when it was begun."""
    await fill(database)
    await copies.publish(database.collection("notes"), Slow(drive, database))
    await copies.restore(elsewhere, drive, "notes")
    assert (await elsewhere.stats("notes")).points == COUNT
    stats = await database.stats("notes")
    there = sum(path.stat().st_size for path in (tmp_path / "vectors" / "notes").iterdir() if len(path.name) == 64)
    assert there == stats.file_bytes


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_lost_answer_does_not_make_the_copy_somebody_elses(
    tmp_path: Path, drive: Drive, clock: ManualClock, arrives: bool
) -> None:
    """Whether the manifest arrived or not, and after a restart, too."""
    database = await VectorDatabase.open(tmp_path / "vectors", clock, SMALL)
    await fill(database, 2_000)
    await copies.publish(database.collection("notes"), drive)
    await database.upsert("notes", ["more"], VECTORS[:1])
    with pytest.raises(FabstirError, match="storage_unavailable"):
        await copies.publish(database.collection("notes"), Cut(drive, arrives=arrives))
    await database.close()
    database = await VectorDatabase.open(tmp_path / "vectors", clock, SMALL)
    await database.upsert("notes", ["even more"], VECTORS[:1])
    assert (await copies.publish(database.collection("notes"), drive)).revision == 2 + arrives
    await database.close()


async def test_a_copy_that_was_changed_is_refused(
    database: VectorDatabase, elsewhere: VectorDatabase, drive: Drive
) -> None:
    """By whoever has the keys; without them the drive's own checks come first. Nothing of it is left here."""
    await fill(database, 1_000)
    await copies.publish(database.collection("notes"), drive)
    copy = await database.collection("notes").copy()
    await database.collection("notes").release(copy)
    await drive.put(f"vectors/notes/{copy.manifest.segments[0].vectors}", b"other")
    with pytest.raises(LocalFault, match="vectors_corrupt"):
        await copies.restore(elsewhere, drive, "notes")
    assert elsewhere.collections() == []
    await drive.put("vectors/notes/manifest", b"x" * 100)
    with pytest.raises(LocalFault, match="vectors_corrupt"):
        await copies.restore(elsewhere, drive, "notes")
    with pytest.raises(Refused, match="vector_collection_unknown"):
        await copies.restore(elsewhere, drive, "never")
