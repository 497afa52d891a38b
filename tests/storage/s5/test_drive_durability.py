"""What a put means: after it returned, no crash, no second writer and no lying backend takes the file away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from tests.storage.s5.test_drive import code_of, drive_on, listed, read_or_none

from fabstir.domain.errors import FabstirError
from fabstir.storage.s5.contents import PART
from fabstir.testing.storage import MemoryStorage

Said = dict[str, bytes | None]


async def test_put_returns_when_the_pointer_is_durable() -> None:
    """While the registry has not answered, neither does the put; the blobs were there before."""
    storage = MemoryStorage()
    storage.gate.clear()
    put = asyncio.create_task(drive_on(storage).put("a", b"content"))
    await storage.waiting.wait()
    assert not put.done() and len(storage.blobs) == 2
    storage.gate.set()
    await put
    assert storage.history == ["put", "put", "publish"]


async def scenario(storage: MemoryStorage, said: Said) -> None:
    """Everything that writes. `said` has what was acknowledged; a path that is being changed is taken out before."""
    drive = drive_on(storage)

    async def step(path: str, content: bytes | None, act: Awaitable[object]) -> None:
        said.pop(path, None)
        await act
        said[path] = content

    await step("a", b"1", drive.put("a", b"1"))
    await step("d/e/f", b"2", drive.put("d/e/f", b"2"))
    await step("a", b"3", drive.put("a", b"3"))
    await step("many/new", b"4", drive.put("many/new", b"4"))  # one blob becomes a tree
    await step("many/7", b"5", drive.put("many/7", b"5"))
    await step("many/8", None, drive.delete("many/8"))  # and one blob again
    await step("d/e/f", None, drive.delete("d/e/f"))
    await step("d/e", None, drive.delete("d/e"))
    upload = await drive.begin_upload("up")
    await upload.write(0, bytes(PART + 3))
    await step("up", bytes(PART + 3), drive.finish_upload(upload))


async def test_a_crash_after_any_write_loses_nothing_that_was_said() -> None:
    """The process stops after the first write, after the second, ...: whoever comes next finds what was acknowledged, and goes on."""
    prepared = MemoryStorage()
    await drive_on(prepared).batch({f"many/{number}": b"m" for number in range(1_000)})
    whole = prepared.copy()
    await scenario(whole, {})
    publishes = [at for at, verb in enumerate(whole.history) if verb == "publish"]
    assert len(publishes) > 10
    for stop in sorted({at + shift for at in publishes for shift in (-1, 0, 1)}):
        storage, said = prepared.copy(), Said()
        storage.stop_after = stop
        if not await is_stopped(storage, said):
            continue
        storage.stop_after = None
        drive = drive_on(storage)
        for path, content in said.items():
            assert await read_or_none(drive, path) == content, (stop, path)
        assert await drive.get("many/9") == b"m"
        await drive.put("many/7", b"afterwards")
        assert await drive.get("many/7") == b"afterwards"
        assert len(await listed(drive, "many")) in (1_000, 1_001)


async def is_stopped(storage: MemoryStorage, said: Said) -> bool:
    """Run the scenario until the storage stops: what was not answered by then is not answered any more."""
    running, stop = asyncio.ensure_future(scenario(storage, said)), asyncio.ensure_future(storage.stopped.wait())
    await asyncio.wait((running, stop), return_when=asyncio.FIRST_COMPLETED)
    for task in (running, stop):
        task.cancel()
    await asyncio.gather(running, stop, return_exceptions=True)
    return storage.stopped.is_set()


async def test_two_writers_of_one_directory_lose_nothing() -> None:
    """Two drives put forty files each into one directory at once, and replace and delete each other's: all of it is there."""
    storage = MemoryStorage()
    first, second = drive_on(storage), drive_on(storage)
    await asyncio.gather(
        *(first.put(f"d/first-{number}", b"1") for number in range(40)),
        *(second.put(f"d/second-{number}", b"2") for number in range(40)),
    )
    assert len(await listed(first, "d")) == 80
    await asyncio.gather(
        *(first.delete(f"d/second-{number}") for number in range(40)),
        *(second.put(f"d/first-{number}", b"3") for number in range(40)),
    )
    assert sorted(await listed(second, "d")) == sorted(f"d/first-{number}" for number in range(40))
    assert [await first.get(f"d/first-{number}") for number in range(40)] == [b"3"] * 40
    await first.close()
    assert len(storage.blobs) == 40 + 2


async def test_two_writers_of_a_large_directory() -> None:
    """The same above a thousand entries, where nodes are shared and replaced."""
    storage = MemoryStorage()
    first, second = drive_on(storage), drive_on(storage)
    await first.batch({f"{number}": b"" for number in range(1_500)})
    for turn in range(5):
        await asyncio.gather(
            *(first.put(f"{number}", b"%d" % turn) for number in range(0, 1_500, 100)),
            *(second.put(f"{number}", b"%d" % turn) for number in range(50, 1_500, 100)),
        )
    assert [await first.get(f"{number}") for number in range(0, 1_500, 50)] == [b"4"] * 30
    assert len(await listed(second)) == 1_500


async def test_a_reader_is_never_caught_between_two_versions() -> None:
    """A file that is replaced again and again reads as one of its versions, always."""
    storage = MemoryStorage()
    writer, reader = drive_on(storage), drive_on(storage)
    await writer.put("a", b"0")
    writing = asyncio.create_task(replace_often(writer))
    seen = []
    while not writing.done():
        seen.append(int(await reader.get("a")))
        assert await listed(reader) == ["a"]
    assert seen == sorted(seen) and len(set(seen)) > 1


async def replace_often(drive) -> None:
    for number in range(30):
        await drive.put("a", b"%d" % number)


async def test_a_reader_that_is_overtaken_reads_again() -> None:
    """The directory, or the file, is replaced and its old blob deleted between two steps of a read: the new one is read."""
    storage = MemoryStorage()
    writer, reader = drive_on(storage), drive_on(storage)
    await writer.put("a", b"0")

    async def replace(content: bytes) -> None:
        await writer.put("a", content)
        await writer.close()

    storage.meanwhile["get"] = lambda: replace(b"1")  # before the directory's blob
    assert await reader.get("a") == b"1"
    storage.meanwhile["get"] = lambda: replace(b"2")  # before the file's: the directory is cached
    assert await reader.get("a") == b"2"
    storage.blobs.clear()
    assert await code_of(reader.get("a")) == "blob_missing"


async def test_what_was_refused_is_not_made_later() -> None:
    """A put that was refused beside others stays undone, although the change is made again on what another writer wrote."""
    storage = MemoryStorage()
    drive, other = drive_on(storage), drive_on(storage)
    await drive.make_directory("taken")
    storage.meanwhile["publish"] = lambda: other.delete("taken")
    outcomes = await asyncio.gather(drive.put("x", b"1"), drive.put("taken", b"2"), return_exceptions=True)
    refused = isinstance(outcomes[1], FabstirError) and outcomes[1].code == "storage_is_directory"
    assert refused or not isinstance(
        outcomes[1], BaseException
    )  # not refused: its turn came after the directory had gone
    assert sorted(await listed(drive)) == (["x"] if refused else ["taken", "x"])


async def test_an_older_pointer_is_noticed() -> None:
    """A backend that goes back to a pointer it had before, or to none: `registry_rolled_back`, for reading and for writing."""
    storage = MemoryStorage()
    drive = drive_on(storage)
    await drive.put("a", b"1")
    old = dict(storage.pointers)
    await drive.put("a", b"2")
    for pointers in (old, {}):
        storage.pointers = dict(pointers)
        assert await code_of(drive.get("a")) == "registry_rolled_back"
        assert await code_of(drive.put("a", b"3")) == "registry_rolled_back"


async def test_an_unknown_outcome_deletes_nothing() -> None:
    """The pointer moved although the registry's answer was lost: the put fails by name, and what the pointer reaches is whole."""
    storage = MemoryStorage()
    drive = drive_on(storage)
    await drive.put("a", b"1")
    storage.fail_publish = "storage_unavailable"
    assert await code_of(drive.put("a", b"2")) == "storage_unavailable"
    storage.fail_publish = None
    assert await drive.get("a") == b"2" == await drive_on(storage).get("a")
    await drive.put("a", b"3")
    assert await drive.get("a") == b"3"


async def test_storage_that_is_away_is_said_and_comes_back() -> None:
    """Every verb is refused by the name of the fault; afterwards everything is as before."""
    storage = MemoryStorage()
    drive = drive_on(storage)
    await drive.put("a", b"1")
    for code in ("storage_unavailable", "blob_failed", "blob_quota"):
        storage.fail = code
        for attempt in (drive.get("a"), drive.put("a", b"2"), drive.list(), drive.delete("a"), drive.begin_upload("u")):
            assert await code_of(attempt) == code
        storage.fail = None
        assert await drive.get("a") == b"1"


async def test_one_that_is_refused_does_not_fail_the_others() -> None:
    """Puts that wait together are made together, but each has its own answer."""
    drive = drive_on(MemoryStorage())
    await drive.make_directory("taken")
    outcomes = await asyncio.gather(
        drive.put("x", b"1"), drive.put("taken", b"2"), drive.put("y", b"3"), return_exceptions=True
    )
    assert isinstance(outcomes[1], FabstirError) and outcomes[1].code == "storage_is_directory"
    assert (await drive.get("x"), await drive.get("y")) == (b"1", b"3")


async def test_an_upload_goes_on_after_a_restart() -> None:
    """What is durable is known by its number to the next drive; nothing is at the path before the end; then it is whole."""
    storage, content = MemoryStorage(), bytes(range(199)) * (PART // 60)
    upload = await drive_on(storage).begin_upload("models/large", "model/gguf")
    assert await upload.write(0, content[: PART + 100]) == PART + 100
    drive = drive_on(storage)
    assert await code_of(drive.get("models/large")) == "storage_not_found"
    upload = await drive.resume_upload(upload.number)
    assert upload.offset == upload.received == PART and upload.path == "models/large"
    for wrong in (0, PART + 100):
        assert await code_of(upload.write(wrong, b"x")) == "upload_offset"
    for start in range(PART, len(content), 700_001):
        await upload.write(start, content[start : start + 700_001])
    stat = await drive.finish_upload(upload)
    assert (stat.size, stat.media_type) == (len(content), "model/gguf")
    assert await drive.get("models/large") == content
    assert await code_of(drive.resume_upload(upload.number)) == "upload_unknown"


async def test_an_upload_that_cannot_be_entered_stays() -> None:
    """Where a directory is in its place the finish is refused; once that is gone it succeeds."""
    drive = drive_on(MemoryStorage())
    upload = await drive.begin_upload("place")
    await upload.write(0, b"content")
    await drive.make_directory("place")
    assert await code_of(drive.finish_upload(upload)) == "storage_is_directory"
    await drive.delete("place")
    await drive.finish_upload(upload)
    assert await drive.get("place") == b"content"


async def test_an_abandoned_upload_leaves_no_blob() -> None:
    """Its parts are deleted; an empty upload is an empty file."""
    storage = MemoryStorage()
    drive = drive_on(storage)
    upload = await drive.begin_upload("x")
    await upload.write(0, bytes(2 * PART))
    await upload.abandon()
    await drive.close()
    assert len(storage.blobs) == 1  # the directory of uploads
    empty = await drive.begin_upload("empty")
    await drive.finish_upload(empty)
    assert await drive.get("empty") == b""
