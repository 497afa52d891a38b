"""All collections of one directory: the index of a node that needs no service.

One process at a time (`vectors_locked`). Inputs are checked here, before anything is written; filters are parsed strictly; vectors of
another embedder than the collection's are refused, for writing and for searching. Implements `ports.vectors.VectorIndex`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from fabstir.domain.errors import FabstirError, error
from fabstir.ports.clock import Clock
from fabstir.ports.vectors import CollectionStats, Hit, Point, Search
from fabstir.protocol.vectors import filters
from fabstir.protocol.vectors.collection import RAW, CollectionSpec, check_embedder
from fabstir.protocol.vectors.manifest import Manifest, digest
from fabstir.protocol.vectors.plan import Policy
from fabstir.protocol.vectors.points import MAX_BATCH, PointId, batch_of, point_id, vector_of
from fabstir.vectors import files, opening, storing
from fabstir.vectors.collection import Collection, Threads
from fabstir.vectors.segments import Segment

Result = TypeVar("Result")
SEARCHERS: Final = 2
CHECKED_AT_ONCE: Final = 500
"""Points of a batch that are checked on the event loop: a millisecond. Larger batches are checked in a thread."""


class VectorDatabase:
    """`open` makes one; `close` at the end. Memory: that of its collections (`contents`)."""

    def __init__(self, root: Path, clock: Clock, policy: Policy, rebuild: Callable[..., Segment]) -> None:
        self._root = root
        self._clock = clock
        self._policy = policy
        self._lock = files.Lock(root)
        self._changing = asyncio.Lock()
        disk, search, build = (ThreadPoolExecutor(count, "vectors") for count in (2, SEARCHERS, 1))
        self._pools = (disk, search, build)
        self._threads = Threads(disk, search, build, rebuild)
        self._collections: dict[str, Collection] = {}
        self._damaged: dict[str, FabstirError] = {}
        """Collections that could not be opened, and why."""

    def __repr__(self) -> str:
        return f"<VectorDatabase {self._root.name}: {len(self._collections)} collections>"

    @classmethod
    async def open(
        cls,
        root: Path,
        clock: Clock,
        policy: Policy | None = None,
        rebuild: Callable[..., Segment] = storing.rebuild,
    ) -> VectorDatabase:
        """With every collection in it; one that is damaged is refused by name and can be dropped.

        Raises `vectors_locked`, `vectors_failed`.
        """
        database = cls(root, clock, policy or Policy(), rebuild)
        try:
            for name in await database._do(lambda: files.collections_in(root)):
                try:
                    await database._open(name)
                except FabstirError as damaged:
                    if damaged.code != "vectors_corrupt":
                        raise
                    database._damaged[name] = damaged
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """When all that was begun is done."""
        for collection in self._collections.values():
            await collection.close()
        self._collections = {}
        for pool in self._pools:
            await asyncio.to_thread(pool.shutdown)
        self._lock.release()

    def collections(self) -> list[CollectionSpec]:
        """By name."""
        return [self._collections[name].spec for name in sorted(self._collections)]

    def collection(self, name: str) -> Collection:
        """Raises `vector_collection_unknown`, `vectors_corrupt`."""
        if name in self._damaged:
            raise self._damaged[name]
        if (found := self._collections.get(name)) is None:
            raise error("vector_collection_unknown", name[:64])
        return found

    async def create(self, spec: CollectionSpec) -> None:
        """Idempotent for one description."""
        async with self._changing:
            if spec.name in self._collections or spec.name in self._damaged:
                if self.collection(spec.name).spec != spec:
                    raise error("vector_collection_exists", spec.name)
                return
            await self._do(lambda: opening.make(self._root / spec.name, spec))
            await self._open(spec.name)

    async def restore(self, manifest: Manifest, fetch: Callable[[str], Awaitable[bytes]]) -> None:
        """A collection from a copy of its files, each fetched and checked. Raises `vector_collection_exists`, `vectors_corrupt`."""
        name = manifest.spec.name
        async with self._changing:
            if name in self._collections or name in self._damaged:
                raise error("vector_collection_exists", name)
            aside = await self._do(lambda: opening.begin(self._root / name))
            for each in sorted(manifest.files()):
                content = await fetch(each)
                if digest(content) != each:
                    raise error("vectors_corrupt", f"the copy of {name}: {each} is not what its name says")
                await self._do(lambda each=each, content=content: files.write(aside / each, content))  # type: ignore[misc]
            await self._do(lambda: opening.finish(self._root / name, aside, manifest))
            await self._open(name)

    async def drop(self, name: str) -> None:
        """Gone when it returns."""
        async with self._changing:
            if self._damaged.pop(name, None) is None:
                await self.collection(name).close()
                del self._collections[name]
            gone = self._root / f".{name}.dropped"
            await self._do(lambda: _rename(self._root / name, gone))
            await self._do(lambda: files.remove(gone))

    async def upsert(
        self,
        name: str,
        ids: Sequence[object],
        vectors: object,
        metadata: Sequence[object] | None = None,
        *,
        embedder: str = RAW,
    ) -> int:
        """Durable when it returns. Raises what `points.batch_of` raises, `vector_embedder`, `vectors_full`, `vectors_failed`."""
        collection = self.collection(name)
        check_embedder(collection.spec, embedder)
        if len(ids) <= CHECKED_AT_ONCE:
            return await collection.upsert(batch_of(collection.spec, ids, vectors, metadata))
        loop = asyncio.get_running_loop()
        checking = loop.run_in_executor(self._threads.search, batch_of, collection.spec, ids, vectors, metadata)
        return await collection.upsert(await checking)

    async def delete(self, name: str, ids: Sequence[object]) -> int:
        """Durable when it returns."""
        return await self.collection(name).delete(_ids(ids))

    async def delete_where(self, name: str, condition: dict[str, Any]) -> int:
        """In batches: after a failure some are gone."""
        collection, parsed, count = self.collection(name), filters.parse(condition), 0
        found = await collection.matching(parsed)
        for at in range(0, len(found), MAX_BATCH):
            count += await collection.delete(found[at : at + MAX_BATCH])
        return count

    async def get(self, name: str, ids: Sequence[object]) -> list[Point | None]:
        """None for what is not there."""
        return self.collection(name).get(_ids(ids))

    async def search(self, name: str, vector: object, how: Search | None = None, *, embedder: str = RAW) -> list[Hit]:
        """Best first."""
        collection, how = self.collection(name), how or Search()
        check_embedder(collection.spec, embedder)
        condition = None if how.filter is None else filters.parse(how.filter)
        return await collection.search(vector_of(collection.spec, vector), how, condition)

    async def stats(self, name: str) -> CollectionStats:
        """Counted now."""
        collection = self.collection(name)
        return await self._do(collection.stats)

    def problems(self) -> dict[str, tuple[str, ...]]:
        """What is wrong, by collection; empty where all is well."""
        told = {name: collection.problems() for name, collection in self._collections.items()}
        told |= {name: (str(damaged),) for name, damaged in self._damaged.items()}
        return {name: problems for name, problems in told.items() if problems}

    async def _open(self, name: str) -> None:
        path = self._root / name
        opened = await self._do(lambda: opening.open_collection(path))
        self._collections[name] = Collection(path, opened, self._policy, self._clock, self._threads)

    async def _do(self, act: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads.disk, act)


def _ids(ids: Sequence[object]) -> list[PointId]:
    if len(ids) > MAX_BATCH:
        raise error("vector_batch", f"{len(ids)} ids, at most {MAX_BATCH}")
    return [point_id(each) for each in ids]


def _rename(old: Path, new: Path) -> None:
    with files.translated():
        old.rename(new)
        files.sync(new.parent)
