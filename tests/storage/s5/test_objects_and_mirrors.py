"""Object stores that fail or lie, and copies that heal."""

from __future__ import annotations

from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore
from tests.storage.s5 import s3_server

from fabstir.domain.errors import FabstirError
from fabstir.ports.storage import Registry
from fabstir.protocol.storage.blob_id import hash_of
from fabstir.protocol.storage.keys import KeyPair
from fabstir.protocol.storage.registry import RegistryEntry
from fabstir.storage.s5.disk import DiskStorage
from fabstir.storage.s5.mirror import MirroredBlobs, MirroredRegistry
from fabstir.storage.s5.objects import ObjectStorage, S3Place

PAIR = KeyPair(b"\x01" * 32)
NOWHERE = S3Place("b", "http://127.0.0.1:9", "us-east-1", "key", "secret", allow_http=True, timeout=0.5)


async def test_a_store_that_lies_about_content_is_caught() -> None:
    """Other bytes under the name: `blob_corrupt`. An entry of another key under a pointer's name: `registry_invalid`."""
    store = MemoryStore()
    storage = ObjectStorage(store)
    blob = await storage.put(b"true")
    obstore.put(store, f"blobs/{blob.hex()[:2]}/{blob.hex()}", b"lie")
    with pytest.raises(FabstirError) as caught:
        await storage.get(blob)
    assert caught.value.code == "blob_corrupt"
    obstore.put(store, f"registry/{PAIR.public.hex()}", RegistryEntry.sign(KeyPair(b"\x02" * 32), 1, b"").pack())
    with pytest.raises(FabstirError) as caught:
        await storage.read(PAIR.public)
    assert caught.value.code == "registry_invalid"


async def test_a_store_that_does_not_answer_is_said() -> None:
    """No server: `storage_unavailable` for every verb, which may be tried again; the secret is not shown."""
    storage = ObjectStorage(NOWHERE.open())
    for attempt in (
        storage.put(b"x"),
        storage.get(hash_of(b"x")),
        storage.size(hash_of(b"x")),
        storage.read(PAIR.public),
    ):
        with pytest.raises(FabstirError) as caught:
            await attempt
        assert caught.value.code == "storage_unavailable" and caught.value.retryable
    assert "secret" not in repr(NOWHERE) + repr(storage)


@pytest.mark.real
async def test_a_bucket_that_does_not_exist_is_not_an_empty_one(s3_endpoint: str) -> None:
    """Writing and reading are refused by name: nobody is told that a blob is missing where the bucket is."""
    place = S3Place("absent", s3_endpoint, "us-east-1", "key", "secret", allow_http=True, timeout=5)
    storage = ObjectStorage(place.open())
    for attempt in (storage.put(b"x"), storage.get(hash_of(b"x")), storage.read(PAIR.public)):
        with pytest.raises(FabstirError) as caught:
            await attempt
        assert caught.value.code == "storage_unavailable"


@pytest.mark.real
async def test_the_server_keeps_conditions(s3_endpoint: str) -> None:
    """What the safety of pointers rests on is tried, on the server and in memory."""
    await ObjectStorage(s3_server.new_bucket(s3_endpoint).open()).check_conditions()
    await ObjectStorage(MemoryStore()).check_conditions()


async def test_a_lost_blob_comes_back_from_the_copy(tmp_path: Path) -> None:
    """Missing or changed in the first: the right bytes are returned, the first has them again, and it is counted."""
    first, second = DiskStorage(tmp_path), ObjectStorage(MemoryStore())
    mirror = MirroredBlobs(first, second)
    blob = await mirror.put(b"precious")
    path = tmp_path / "blobs" / blob.hex()[:2] / blob.hex()
    path.write_bytes(b"preciouS")
    assert await mirror.get(blob) == b"precious" == await first.get(blob)
    path.unlink()
    assert await mirror.get(blob) == b"precious" == await first.get(blob)
    assert mirror.healed == 2
    path.unlink()
    await second.delete(blob)
    with pytest.raises(FabstirError) as caught:
        await mirror.get(blob)
    assert caught.value.code == "blob_missing"


async def test_with_one_copy_away_it_reads_and_does_not_write(tmp_path: Path) -> None:
    """Reads go on from the other; a write that only one would have is refused."""
    disk, away = DiskStorage(tmp_path), ObjectStorage(NOWHERE.open())
    blob = await disk.put(b"kept")
    await disk.publish(RegistryEntry.sign(PAIR, 4, b"four"))
    assert await MirroredBlobs(away, disk).get(blob) == b"kept"
    found = await MirroredRegistry(away, disk).read(PAIR.public)
    assert found and found.revision == 4
    for write in (
        MirroredBlobs(disk, away).put(b"new"),
        MirroredRegistry(disk, away).publish(RegistryEntry.sign(PAIR, 5, b"")),
    ):
        with pytest.raises(FabstirError) as caught:
            await write
        assert caught.value.code == "storage_unavailable"


async def test_a_pointer_that_is_behind_is_brought_forward(tmp_path: Path) -> None:
    """The higher of both counts, and the other has it afterwards."""
    first, second = DiskStorage(tmp_path), ObjectStorage(MemoryStore())
    await first.publish(RegistryEntry.sign(PAIR, 1, b"old"))
    await second.publish(RegistryEntry.sign(PAIR, 2, b"new"))
    found = await MirroredRegistry(first, second).read(PAIR.public)
    assert found and found.data == b"new" and await first.read(PAIR.public) == found


async def test_a_pointer_that_was_damaged_comes_back_from_the_copy(tmp_path: Path) -> None:
    """Alone it is `registry_invalid`; with a copy it is given back, on the disk and in an object store."""
    disk, store = DiskStorage(tmp_path), MemoryStore()
    objects = ObjectStorage(store)
    mirror = MirroredRegistry(disk, objects)
    await mirror.publish(entry := RegistryEntry.sign(PAIR, 3, b"three"))
    (tmp_path / "registry" / PAIR.public.hex()).write_bytes(b"damaged")
    assert await code_of(disk) == "registry_invalid"
    assert await mirror.read(PAIR.public) == entry == await disk.read(PAIR.public)
    obstore.put(store, f"registry/{PAIR.public.hex()}", b"damaged")
    assert await code_of(objects) == "registry_invalid"
    assert await mirror.read(PAIR.public) == entry == await objects.read(PAIR.public)


async def code_of(registry: Registry) -> str:
    with pytest.raises(FabstirError) as caught:
        await registry.read(PAIR.public)
    return caught.value.code
