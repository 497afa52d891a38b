"""Copies of collections where the renter's files lie: published piece by piece, restored from there alone.

    vectors/<collection>/<hash>      an immutable file of a segment
    vectors/<collection>/manifest    what the collection is; replaced last, so that a copy is whole at every moment

Only files that the last published manifest does not name are sent, and those that only it named are deleted after the new one is there. A
copy that this machine neither published nor restored last is somebody else's work and is not replaced
(`vectors_published_elsewhere`). The place encrypts; what is here knows nothing of keys.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.ports.vectors import CopyPlace
from fabstir.protocol.vectors import manifest
from fabstir.protocol.vectors.manifest import Manifest
from fabstir.vectors.collection import Collection
from fabstir.vectors.database import VectorDatabase


class Published(msgspec.Struct, frozen=True):
    """What a publication did."""

    revision: int
    sent_files: int
    sent_bytes: int
    kept_files: int
    """That were there already."""


async def publish(collection: Collection, place: CopyPlace) -> Published:
    """All that was acknowledged before the call. Raises what the place raises; what was there then stays."""
    async with collection.publishing:
        copy = await collection.copy()
        sent: Manifest | None = None
        try:
            before = await _before(place, copy.manifest)
            there = before.files() if before else frozenset()
            size = 0
            for each in sorted(copy.manifest.files() - there):
                content = await collection.file(each)
                await place.put(_path(collection.spec.name, each), content)
                size += len(content)
            now = msgspec.structs.replace(copy.manifest, revision=(before.revision if before else 0) + 1, intended="")
            await collection.intend(now)
            await place.put(_path(collection.spec.name, "manifest"), manifest.encode(now))
            sent = now
        finally:
            await collection.release(copy, sent)
        for each in sorted(there - now.files()):
            with suppress(FabstirError):  # room that is not freed is no reason to fail what is done
                await place.delete(_path(collection.spec.name, each))
        return Published(now.revision, len(now.files() - there), size, len(now.files() & there))


async def _before(place: CopyPlace, ours: Manifest) -> Manifest | None:
    """What lies there, if it is what this machine published, restored, or had begun to publish when it crashed."""
    name = ours.spec.name
    if (packed := await _manifest_at(place, name)) is None:
        return None
    if manifest.digest(packed) not in (ours.published, ours.intended):
        raise error("vectors_published_elsewhere", name)
    return manifest.decode(packed, _path(name, "manifest"))


async def restore(database: VectorDatabase, place: CopyPlace, name: str) -> int:
    """A collection that is not here, from its copy. Its revision. Raises `vector_collection_unknown`, `vectors_corrupt`."""
    if (packed := await _manifest_at(place, name)) is None:
        raise error("vector_collection_unknown", f"{name[:64]} was not published there")
    there = manifest.decode(packed, _path(name, "manifest"))
    if there.spec.name != name:
        raise error("vectors_corrupt", f"the copy of {name} is one of {there.spec.name}")
    first = msgspec.structs.replace(there, published=manifest.digest(packed))
    await database.restore(first, lambda each: place.get(_path(name, each)))
    return there.revision


async def _manifest_at(place: CopyPlace, name: str) -> bytes | None:
    try:
        return await place.get(_path(name, "manifest"))
    except FabstirError as missing:
        if missing.code != "storage_not_found":
            raise
        return None


def _path(name: str, file: str) -> str:
    return f"vectors/{name}/{file}"
