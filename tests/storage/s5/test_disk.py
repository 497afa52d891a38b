"""The local disk: synced before it is said, whole or not there, bounded."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32
from fabstir.protocol.storage.blob_id import hash_of
from fabstir.protocol.storage.keys import KeyPair
from fabstir.protocol.storage.registry import RegistryEntry
from fabstir.storage.s5.disk import DiskStorage

PAIR = KeyPair(b"\x01" * 32)


def path_of(root: Path, blob: Hash32) -> Path:
    return root / "blobs" / blob.hex()[:2] / blob.hex()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the system was asked for, in order."""
    seen: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        seen.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().parent.name}/")
        real_sync(handle)

    def replace(source: str, target: str) -> None:
        seen.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    return seen


async def test_synced_before_it_has_its_name_and_before_it_is_said(tmp_path: Path, synced: list[str]) -> None:
    """The content, then the name, then the directory that has the name: for a blob in a new directory, and for a pointer."""
    storage = DiskStorage(tmp_path / "store")
    await storage.put(b"durable")
    assert synced == ["sync aside/", "sync store/", "rename", "sync blobs/"]
    synced.clear()
    await storage.publish(RegistryEntry.sign(PAIR, 1, b""))
    assert synced == ["sync aside/", "rename", "sync store/"]


async def test_a_changed_file_is_never_handed_out(tmp_path: Path) -> None:
    """A flipped byte and a cut: `blob_corrupt`; a changed pointer: `registry_invalid`. Putting the blob again repairs it."""
    storage = DiskStorage(tmp_path)
    blob = await storage.put(b"precious")
    for damage in (b"preciouS", b"prec", b""):
        path_of(tmp_path, blob).write_bytes(damage)
        with pytest.raises(FabstirError) as caught:
            await storage.get(blob)
        assert caught.value.code == "blob_corrupt"
    await storage.put(b"precious")
    assert await storage.get(blob) == b"precious"
    await storage.publish(RegistryEntry.sign(PAIR, 1, b"here"))
    pointer = tmp_path / "registry" / PAIR.public.hex()
    pointer.write_bytes(pointer.read_bytes().replace(b"here", b"away"))
    with pytest.raises(FabstirError) as caught:
        await storage.read(PAIR.public)
    assert caught.value.code == "registry_invalid"


async def test_the_quota_holds(tmp_path: Path) -> None:
    """Beyond it `blob_quota`, nothing half-written; deleting makes room; pointers go in; a restart counts the same."""
    storage = DiskStorage(tmp_path, quota=10)
    first = await storage.put(b"12345678")
    assert await storage.put(b"12345678") == first
    for _ in range(2):
        with pytest.raises(FabstirError) as caught:
            await storage.put(b"abc")
        assert caught.value.code == "blob_quota"
        storage = DiskStorage(tmp_path, quota=10)
    await storage.publish(RegistryEntry.sign(PAIR, 1, bytes(64)))
    await storage.delete(first)
    assert await storage.put(b"abc") == hash_of(b"abc")
    assert not list((tmp_path / "aside").iterdir())


async def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space left: `blob_quota`, and nothing under the name, nothing left aside, nothing counted."""
    storage = DiskStorage(tmp_path, quota=100)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FabstirError) as caught:
            await storage.put(b"content")
    assert caught.value.code == "blob_quota"
    assert await storage.size(hash_of(b"content")) is None
    assert not list((tmp_path / "aside").iterdir())
    await storage.put(bytes(100))


async def test_a_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    """A file in its place: `blob_failed`."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FabstirError) as caught:
        DiskStorage(tmp_path / "file")
    assert caught.value.code == "blob_failed"


async def test_what_a_dead_process_left_aside_is_cleared(tmp_path: Path) -> None:
    """Half-written files are under no name and are gone at the next start; those of a living process stay."""
    DiskStorage(tmp_path)
    (tmp_path / "aside" / "4194999-00").write_bytes(b"hal")
    (tmp_path / "aside" / f"{os.getppid()}-00").write_bytes(b"hal")
    DiskStorage(tmp_path)
    assert [path.name for path in (tmp_path / "aside").iterdir()] == [f"{os.getppid()}-00"]


WRITER = """
import asyncio, sys
from pathlib import Path
from fabstir.protocol.storage.keys import KeyPair
from fabstir.protocol.storage.registry import RegistryEntry, pointer_to
from fabstir.storage.s5.disk import DiskStorage

async def main():
    storage, pair = DiskStorage(Path(sys.argv[1])), KeyPair(bytes([1]) * 32)
    for number in range(1, 10**6):
        blob = await storage.put(b"%d" % number * 500)
        await storage.publish(RegistryEntry.sign(pair, number, pointer_to(blob)))
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.real
def test_what_was_said_survives_a_kill(tmp_path: Path) -> None:
    """A writer that is killed at once: every blob it acknowledged is whole, and the pointer is at the last acknowledged one or after."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        said = [int(writer.stdout.readline()) for _ in range(60)]
        writer.send_signal(signal.SIGKILL)
        said += [int(line) for line in writer.stdout if line.endswith("\n")]
    asyncio.run(check(tmp_path, said))


async def check(root: Path, said: list[int]) -> None:
    storage = DiskStorage(root)
    for number in said:
        await storage.get(hash_of(b"%d" % number * 500))
    pointer = await storage.read(PAIR.public)
    assert pointer and pointer.revision in (said[-1], said[-1] + 1)
    assert not list((root / "aside").iterdir())
