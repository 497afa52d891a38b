"""One contract, kept by each backend: the local disk, memory, a real S3 server, and two of them mirrored."""

from __future__ import annotations

import asyncio

import pytest
from tests.storage.s5.backends import Backend

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32
from fabstir.protocol.storage.blob_id import hash_of
from fabstir.protocol.storage.keys import KeyPair
from fabstir.protocol.storage.registry import RegistryEntry

PAIR = KeyPair(b"\x01" * 32)


def entry(revision: int, data: bytes = b"", pair: KeyPair = PAIR) -> RegistryEntry:
    return RegistryEntry.sign(pair, revision, data)


async def test_a_blob_is_named_by_its_hash(backend: Backend) -> None:
    """Put, sized, read back; empty and large ones, too; the same again changes nothing."""
    for content in (b"", b"hello", bytes(range(256)) * 20_000):
        blob = await backend.blobs.put(content)
        assert blob == hash_of(content) == await backend.blobs.put(content)
        assert await backend.blobs.size(blob) == len(content)
        assert await backend.blobs.get(blob) == content


async def test_what_is_not_there_is_missing_by_name(backend: Backend) -> None:
    """`blob_missing`; no size; deleting it is no mistake; a deleted blob is gone."""
    absent = hash_of(b"absent")
    await backend.blobs.delete(absent)
    blob = await backend.blobs.put(b"brief")
    await backend.blobs.delete(blob)
    for gone in (absent, blob):
        assert await backend.blobs.size(gone) is None
        with pytest.raises(FabstirError) as caught:
            await backend.blobs.get(gone)
        assert caught.value.code == "blob_missing"


async def test_every_blob_is_listed(backend: Backend) -> None:
    """Each name once, and only blobs: pointers are not among them."""
    put = {await backend.blobs.put(bytes([number])) for number in range(40)}
    await backend.registry.publish(entry(1))
    listed = [name async for name in backend.blobs.names()]
    assert sorted(listed) == sorted(put)


async def test_many_puts_at_once(backend: Backend) -> None:
    """Fifty at a time, some of them the same content."""
    blobs = await asyncio.gather(*(backend.blobs.put(bytes([number % 20])) for number in range(50)))
    assert [await backend.blobs.get(Hash32(blob)) for blob in blobs] == [bytes([number % 20]) for number in range(50)]


async def test_a_pointer_moves_forward_only(backend: Backend) -> None:
    """None at first; higher replaces; the same again is taken; lower, or other data at the same revision, is `registry_stale`."""
    assert await backend.registry.read(PAIR.public) is None
    for revision in (0, 5, 2**40):
        await backend.registry.publish(entry(revision, b"at %d" % revision))
        await backend.registry.publish(entry(revision, b"at %d" % revision))
    for late in (entry(7, b"late"), entry(2**40, b"other")):
        with pytest.raises(FabstirError) as caught:
            await backend.registry.publish(late)
        assert caught.value.code == "registry_stale"
    assert await backend.registry.read(PAIR.public) == entry(2**40, b"at %d" % 2**40)


async def test_a_forged_pointer_is_refused(backend: Backend) -> None:
    """Signed by another key: `registry_invalid`, and nothing is stored."""
    forged = RegistryEntry(PAIR.public, 3, b"x", entry(3, b"x", KeyPair(b"\x02" * 32)).signature)
    with pytest.raises(FabstirError) as caught:
        await backend.registry.publish(forged)
    assert caught.value.code == "registry_invalid"
    assert await backend.registry.read(PAIR.public) is None


async def test_of_two_writers_one_wins(backend: Backend) -> None:
    """Ten different entries of one revision at once: one is kept, nine are told `registry_stale`."""
    offered = [entry(1, b"writer %d" % number) for number in range(10)]
    outcomes = await asyncio.gather(*(backend.registry.publish(each) for each in offered), return_exceptions=True)
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert [getattr(outcome, "code", outcome) for outcome in refused] == ["registry_stale"] * 9
    assert await backend.registry.read(PAIR.public) == offered[outcomes.index(None)]


async def test_racing_revisions_end_at_the_highest(backend: Backend) -> None:
    """Whatever the order in which they arrive, what was acknowledged is never replaced by less."""
    outcomes = await asyncio.gather(
        *(backend.registry.publish(entry(number)) for number in (3, 9, 1, 7, 5)), return_exceptions=True
    )
    assert outcomes[1] is None
    assert await backend.registry.read(PAIR.public) == entry(9)


async def test_every_pointer_is_listed(backend: Backend) -> None:
    """Each key once, at its highest revision."""
    pairs = [KeyPair(bytes([number]) * 32) for number in range(1, 6)]
    for pair in pairs:
        await backend.registry.publish(entry(1, pair=pair))
        await backend.registry.publish(entry(2, pair=pair))
    listed = [each async for each in backend.registry.entries()]
    assert {(each.public, each.revision) for each in listed} == {(pair.public, 2) for pair in pairs}
    assert len(listed) == 5
