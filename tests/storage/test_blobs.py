"""Blobs on the disk: whole or not there, checked when read, bounded in bytes and age."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabstir.domain.errors import FabstirError
from fabstir.domain.prompts import Cid
from fabstir.protocol.sealed import cid as cid_of
from fabstir.storage.blobs import DirectoryBlobs
from fabstir.testing.clock import ManualClock


def blobs_in(root: Path, clock: ManualClock | None = None, quota: int = 1_000, max_age: float = 60) -> DirectoryBlobs:
    return DirectoryBlobs(root, clock or ManualClock(), quota=quota, max_age=max_age)


def files(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file()]


async def test_what_was_put_is_there_again_after_a_restart(tmp_path: Path) -> None:
    """Content is named by its BLAKE3, and the next process finds it, at its size."""
    cid = await blobs_in(tmp_path / "blobs").put(b"sealed")
    again = blobs_in(tmp_path / "blobs")
    assert cid == cid_of(b"sealed")
    assert await again.get(cid) == b"sealed"
    assert again.size == 6


async def test_a_changed_file_is_never_handed_out(tmp_path: Path) -> None:
    """One flipped byte: `blob_corrupt`. Putting it again repairs it."""
    blobs = blobs_in(tmp_path)
    cid = await blobs.put(b"sealed")
    (tmp_path / cid.hex()[:2] / cid.hex()).write_bytes(b"sealEd")
    with pytest.raises(FabstirError) as caught:
        await blobs.get(cid)
    assert caught.value.code == "blob_corrupt"
    await blobs.put(b"sealed")
    assert await blobs.get(cid) == b"sealed"


async def test_a_half_written_file_is_not_there(tmp_path: Path) -> None:
    """What a dying process wrote aside is removed at the next start and is under no name."""
    (tmp_path / "aside-0123").write_bytes(b"hal")
    blobs = blobs_in(tmp_path)
    assert files(tmp_path) == []
    with pytest.raises(FabstirError) as caught:
        await blobs.get(cid_of(b"half"))
    assert caught.value.code == "blob_missing"


async def test_the_quota_holds_and_old_content_makes_room(tmp_path: Path) -> None:
    """Beyond the quota: `blob_quota`, and nothing is lost. Once content is too old it makes room; the same content twice counts once."""
    clock = ManualClock()
    blobs = blobs_in(tmp_path, clock, quota=10)
    first = await blobs.put(b"12345678")
    assert await blobs.put(b"12345678") == first
    with pytest.raises(FabstirError) as caught:
        await blobs.put(b"abcde")
    assert caught.value.code == "blob_quota"
    assert await blobs.get(first) == b"12345678"
    await clock.advance(61)
    second = await blobs.put(b"abcde")
    assert (await blobs.has(first), await blobs.has(second), blobs.size) == (False, True, 5)


async def test_sweep_and_delete(tmp_path: Path) -> None:
    """What is too old is removed, what is deleted is gone from the disk; both may be said twice."""
    clock = ManualClock()
    blobs = blobs_in(tmp_path, clock)
    old = await blobs.put(b"old")
    await clock.advance(61)
    new = await blobs.put(b"new")
    assert (await blobs.sweep(), await blobs.sweep()) == (1, 0)
    await blobs.delete(new)
    await blobs.delete(Cid(bytes(32)))
    assert not await blobs.has(old)
    assert files(tmp_path) == []
