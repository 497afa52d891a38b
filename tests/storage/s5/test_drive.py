"""Files by path: what comes back, what is refused, and what the backend gets to see."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore
from tests.storage.s5.backends import Backend

from fabstir.domain.errors import FabstirError
from fabstir.protocol.storage.keys import DirectoryKeys, Identity
from fabstir.storage.s5.contents import PART
from fabstir.storage.s5.disk import DiskStorage
from fabstir.storage.s5.drive import Drive
from fabstir.storage.s5.mirror import MirroredBlobs, MirroredRegistry
from fabstir.storage.s5.objects import ObjectStorage
from fabstir.testing.clock import ManualClock
from fabstir.testing.storage import MemoryStorage

IDENTITY = Identity.of(bytes(range(16)))


def drive_on(storage: MemoryStorage, keys: DirectoryKeys | None = None) -> Drive:
    return Drive(keys or IDENTITY.root(), storage, storage, ManualClock())


async def code_of(attempt: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(FabstirError) as caught:
        await attempt
    return caught.value.code


async def listed(drive: Drive, path: str = "", limit: int = 1_000) -> list[str]:
    """Every path of a directory, page by page."""
    found, cursor = [], None
    while True:
        page = await drive.list(path, cursor, limit)
        found += [stat.path for stat in page.entries]
        if (cursor := page.cursor) is None:
            return found


async def test_a_file_comes_back_on_every_backend(backend: Backend) -> None:
    """Put, got, sized, listed, replaced and deleted, with what is above it, by a drive and by the next one."""
    drive = Drive(IDENTITY.root(), backend.blobs, backend.registry, ManualClock(now=1_700_000_000))
    stat = await drive.put("notes/2024/one.txt", b"first", "text/plain")
    assert (stat.path, stat.kind, stat.size, stat.media_type, stat.seconds) == (
        "notes/2024/one.txt",
        "file",
        5,
        "text/plain",
        1_700_000_000,
    )
    await drive.put("notes/two", bytes(3_000_000))
    await drive.put("/notes/2024/one.txt/", b"second")
    drive = Drive(IDENTITY.root(), backend.blobs, backend.registry, ManualClock())
    assert await drive.get("notes/2024/one.txt") == b"second"
    assert await drive.get("notes/two") == bytes(3_000_000)
    assert sorted(await listed(drive, "notes")) == ["notes/2024", "notes/two"]
    assert (await drive.stat("notes")).kind == "directory" and (await drive.stat("")).kind == "directory"
    await drive.delete("notes/two")
    await drive.delete("notes/2024/one.txt")
    await drive.delete("notes/2024")
    assert await listed(drive, "notes") == []
    assert await code_of(drive.get("notes/two")) == "storage_not_found"
    await drive.close()


async def test_a_directory_grows_past_a_thousand_and_shrinks_again() -> None:
    """1,300 files, listed in pages while it grows and shrinks; at each size the backend has what is needed and nothing else."""
    storage = MemoryStorage()
    drive = drive_on(storage)
    names = [f"file-{number}" for number in range(1_300)]
    await drive.batch({name: name.encode() for name in names[:990]})
    first = await drive.list(limit=300)
    await drive.close()
    assert len(storage.blobs) == 990 + 1
    await asyncio.gather(*(drive.put(name, name.encode()) for name in names[990:]))
    seen, cursor = [stat.path for stat in first.entries], first.cursor
    while cursor:
        page = await drive.list(cursor=cursor, limit=300)
        seen += [stat.path for stat in page.entries]
        cursor = page.cursor
    assert len(seen) == len(set(seen)) and set(names[:990]) <= set(seen)
    assert sorted(await listed(drive, limit=7)) == sorted(names)
    assert [await drive.get(name) for name in names[::100]] == [name.encode() for name in names[::100]]
    await drive.close()
    nodes = len(storage.blobs) - 1_300 - 1
    assert 20 < nodes < 60
    await drive.batch(dict.fromkeys(names[1_000:]))
    await drive.close()
    assert len(storage.blobs) == 1_000 + 1  # one blob again, although the tree had nodes below its root
    await drive.batch(dict.fromkeys(names[5:]))
    assert sorted(await listed(drive)) == sorted(names[:5])
    await drive.close()
    assert len(storage.blobs) == 5 + 1


async def test_at_the_edge_nothing_is_left_behind() -> None:
    """From 1,001 entries to 1,000 and back: the nodes that did not change go, too."""
    storage = MemoryStorage()
    drive = drive_on(storage)
    await drive.batch({f"{number}": b"" for number in range(1_001)})
    for _ in range(2):
        await drive.delete("1000")
        await drive.close()
        assert len(storage.blobs) == 1_000 + 1
        await drive.put("1000", b"")
    assert len(await listed(drive)) == 1_001


async def test_the_backend_learns_nothing() -> None:
    """No content, no name, no media type, no key and no public key of another directory is anywhere in what is stored."""
    storage = MemoryStorage()
    drive = drive_on(storage)
    await drive.batch({f"secret-folder/secret-name-{number}": b"secret content %d" % number for number in range(1_100)})
    await drive.put("secret-folder/below/secret-name", b"secret content", "text/secret")
    assert not storage.holds(b"secret")
    root = IDENTITY.root()
    for keys in (root, root.child("secret-folder"), root.child("secret-folder").child("below")):
        assert not storage.holds(keys.read) and not storage.holds(keys.seal)
        assert not any(keys.public[1:] in blob for blob in storage.blobs.values())
    assert {len(blob) for blob in storage.blobs.values() if len(blob) < 5_000} == {4_096}
    sizes = {len(blob) % 4_096 for blob in storage.blobs.values()}
    assert sizes == {0}


async def test_another_phrase_sees_nothing() -> None:
    """Another identity has an empty drive; with the right pointer and a wrong read key everything is `storage_key_wrong`."""
    storage = MemoryStorage()
    await drive_on(storage).put("a", b"mine")
    other = Identity.of(bytes(16)).root()
    assert await listed(drive_on(storage, other)) == []
    thief = drive_on(storage, DirectoryKeys(other.read, public=IDENTITY.root().public))
    assert await code_of(thief.get("a")) == "storage_key_wrong"


async def test_a_reader_reads_its_subtree_only() -> None:
    """Shared keys read the directory and what is below, follow later changes, and write nothing."""
    storage = MemoryStorage()
    owner = drive_on(storage)
    await owner.batch({"shared/a": b"a", "shared/deep/er/b": b"b", "private/c": b"c"})
    reader = drive_on(storage, await owner.share("shared"))
    assert (await reader.get("a"), await reader.get("deep/er/b")) == (b"a", b"b")
    await owner.put("shared/a", b"later")
    assert await reader.get("a") == b"later"
    assert sorted(await listed(reader)) == ["a", "deep"]
    for attempt in (
        reader.put("a", b""),
        reader.delete("a"),
        reader.batch({"a": None}),
        reader.begin_upload("x"),
        reader.make_directory("d"),
    ):
        assert await code_of(attempt) == "storage_read_only"
    assert await code_of(reader.get("private/c")) == "storage_not_found"
    assert await code_of(owner.share("shared/a")) == "storage_is_file"


async def test_files_and_directories_do_not_replace_each_other() -> None:
    """A file where a directory is, a directory where a file is, and a directory that is not empty: each by name, nothing left behind."""
    storage = MemoryStorage()
    drive = drive_on(storage)
    await drive.put("d/f", b"x")
    await drive.close()
    blobs = set(storage.blobs)
    assert await code_of(drive.put("d", b"")) == "storage_is_directory"
    assert await code_of(drive.put("d/f/g", b"")) == "storage_is_file"
    assert await code_of(drive.get("d")) == "storage_is_directory"
    assert await code_of(drive.list("d/f")) == "storage_is_file"
    assert await code_of(drive.delete("d")) == "storage_is_directory"
    assert await code_of(drive.make_directory("d/f")) == "storage_is_file"
    assert await code_of(drive.list("absent")) == "storage_not_found"
    assert await code_of(drive.delete("absent")) == "storage_not_found"
    await drive.close()
    assert set(storage.blobs) == blobs
    assert (await drive.make_directory("d")).kind == "directory"
    assert await listed(drive, "d") == ["d/f"]


@pytest.mark.parametrize(
    "path", ["", "/", "a//b", "a/./b", "..", "a/\x00", "a\n", "x" * 256, "\ud800", "/".join("a" * 65)]
)
async def test_what_is_no_path_is_refused(path: str) -> None:
    """The root, empty names, dots, control characters, long names, half characters, too deep."""
    drive = drive_on(MemoryStorage())
    assert await code_of(drive.put(path, b"")) == "storage_path"


async def test_a_foreign_cursor_is_refused() -> None:
    """And the cursor of a name that has gone is taken."""
    drive = drive_on(MemoryStorage())
    await drive.batch({str(number): b"" for number in range(10)})
    page = await drive.list(limit=3)
    await drive.delete(page.entries[-1].path)
    assert len((await drive.list(cursor=page.cursor)).entries) == 7
    for cursor in ("", "AAAA", "%%%", (page.cursor or "") + "A"):
        assert await code_of(drive.list(cursor=cursor)) == "storage_cursor"


async def test_reading_a_part() -> None:
    """Any range across parts, and `storage_range` beyond the end; only the parts that are needed are read."""
    storage = MemoryStorage()
    drive = drive_on(storage)
    content = bytes(range(251)) * (2 * PART // 250)
    await drive.put("large", content)
    for start, length in ((0, 10), (PART - 5, 10), (PART, PART), (len(content) - 3, 3), (7, 0), (0, len(content))):
        assert await drive.read("large", start, length) == content[start : start + length]
    assert b"".join([part async for part in drive.stream("large")]) == content
    for start, length in ((-1, 2), (0, len(content) + 1), (len(content) + 1, 0)):
        assert await code_of(drive.read("large", start, length)) == "storage_range"
    assert len(storage.blobs) == 1 + 3 + 1  # directory, parts, the list of them
    await drive.delete("large")
    await drive.close()
    assert len(storage.blobs) == 1


async def test_damage_is_named_and_healed_from_a_copy(tmp_path: Path) -> None:
    """A changed or missing blob, of a file or of a directory: named on one backend, invisible where a copy exists."""
    disk, copy = DiskStorage(tmp_path), ObjectStorage(MemoryStore())
    mirror = MirroredBlobs(disk, copy)
    mirrored = Drive(IDENTITY.root(), mirror, MirroredRegistry(disk, copy), ManualClock())
    await mirrored.batch({f"n{number}": b"v%d" % number for number in range(1_050)})
    files = sorted((tmp_path / "blobs").glob("??/*"))
    for file in files[::2]:
        file.write_bytes(file.read_bytes()[:-1])
    for file in files[1::2]:
        file.unlink()
    alone = Drive(IDENTITY.root(), disk, disk, ManualClock())
    assert await code_of(alone.get("n1")) in ("blob_corrupt", "blob_missing")
    mirrored = Drive(IDENTITY.root(), mirror, MirroredRegistry(disk, copy), ManualClock())
    assert len(await listed(mirrored)) == 1_050
    assert [await mirrored.get(f"n{number}") for number in range(0, 1_050, 3)] == [
        b"v%d" % number for number in range(0, 1_050, 3)
    ]
    assert mirror.healed > 350
    assert await Drive(IDENTITY.root(), disk, disk, ManualClock()).get("n3") == b"v3"


MODEL_PATHS = ["a", "b", "d/a", "d/b", "d/e/a", "d/e"]
MODEL_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "delete", "batch", "reopen"]), st.sampled_from(MODEL_PATHS), st.binary(max_size=4)
    ),
    max_size=14,
)


@settings(max_examples=60)
@given(MODEL_STEPS)
def test_a_drive_is_a_map(steps: list[tuple[str, str, bytes]]) -> None:
    """Any sequence of puts, deletes and batches, by drives that come and go: exactly the files of a plain map, and no blob besides."""
    asyncio.run(run_model(steps))


async def run_model(steps: list[tuple[str, str, bytes]]) -> None:
    storage, model = MemoryStorage(), dict[str, bytes]()
    drive = drive_on(storage)
    for verb, path, content in steps:
        try:
            if verb == "put":
                await drive.put(path, content)
                model[path] = content
            elif verb == "delete":
                await drive.delete(path)
                model.pop(path, None)
            elif verb == "batch":
                await drive.batch({path: content, "a": None})
                model.pop("a", None)
                model |= {path: content} if path != "a" else {}
            else:
                drive = drive_on(storage)
        except FabstirError as refused:
            if refused.code not in ("storage_is_directory", "storage_is_file", "storage_not_found"):
                raise
            if verb == "batch":  # the part in the root may have been made
                model = {name: found for name in model if (found := await read_or_none(drive, name)) is not None}
    assert {name: await read_or_none(drive, name) for name in MODEL_PATHS} == {
        name: model.get(name) for name in MODEL_PATHS
    }
    directories = sum(1 for pointer in storage.pointers.values() if pointer.revision)
    await drive.close()
    assert len(storage.blobs) == len(model) + directories


async def read_or_none(drive: Drive, path: str) -> bytes | None:
    try:
        return await drive.get(path)
    except FabstirError as refused:
        if refused.code not in ("storage_not_found", "storage_is_directory"):
            raise
        return None


async def test_the_stat_of_a_put_is_the_stat_of_the_path() -> None:
    """What `put` returns is what `stat` and `list` say."""
    drive = drive_on(MemoryStorage())
    put = await drive.put("x/y", b"abc", "text/plain")
    assert put == await drive.stat("x/y") == (await drive.list("x")).entries[0]
    assert put.blob
