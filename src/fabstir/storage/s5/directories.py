"""Encrypted directories: what is in one, and the durable change of it.

A directory is one sealed DirV1 blob to which its registry pointer points; above 1,000 entries the blob has the root of a tree
of sealed nodes instead of the entries, and at 1,000 it is one blob again. Changes that wait at one moment are made together: one new
blob (or one path of nodes for each), one pointer. The order is always new blobs, pointer, then deletion of what the pointer no longer
reaches, so that a crash at any moment leaves the old or the new directory, and at most blobs that nobody names. A caller is answered
when the pointer is durable. Where another writer was faster, the change is made again on what it wrote, at most `ATTEMPTS` times.

Memory: `CACHED` directories, and the revision of every directory that was seen, by which an older pointer is noticed.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Hash32
from fabstir.ports.storage import BlobBackend, Registry
from fabstir.protocol.storage import dirv1, hamt
from fabstir.protocol.storage.dirv1 import Directory, DirectoryEntry, Entry, FileEntry
from fabstir.protocol.storage.hamt import EMPTY, Link, Node, place_of
from fabstir.protocol.storage.keys import DirectoryKeys
from fabstir.protocol.storage.registry import RegistryEntry, pointed_at, pointer_to
from fabstir.storage.s5.nodes import NodeStore, Random

INLINE: Final = 1_000
"""Entries of a directory that is one blob (research: store, section 2, as the plan asks)."""
ATTEMPTS: Final = 10
CACHED: Final = 64
MAX_BATCH: Final = 10_000
"""Names changed by one pointer: more would only make the first of them wait longer."""
_HEAVY: Final = 200
_OVERTAKEN: Final = ("registry_stale", "storage_conflict")
_TREE: Final = "hamt"
_VERSION: Final = 1
Changes = Mapping[str, Entry | None]
Result = TypeVar("Result")


class State(msgspec.Struct, frozen=True):
    """A directory at one revision. Either `flat` has the entries or `root` has the tree."""

    revision: int = 0
    blob: Hash32 | None = None
    """Where its blob is; None for one that was never written."""
    flat: dict[str, Entry] = {}
    root: Node | None = None

    @property
    def count(self) -> int:
        """Entries in it."""
        return self.root.count if self.root else len(self.flat)


class _Waiting:
    """One change on its way into a directory."""

    __slots__ = ("changes", "future")

    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        self.future: asyncio.Future[dict[str, Entry | None]] = asyncio.get_running_loop().create_future()

    def answer(self, outcome: dict[str, Entry | None] | Exception) -> None:
        """A caller that was cancelled, or was told before, is told nothing."""
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


_Answer = tuple[_Waiting, dict[str, Entry | None]]


class Directories:
    """All directories on one pair of backends, whoever's they are."""

    def __init__(self, blobs: BlobBackend, registry: Registry, random: Random = os.urandom) -> None:
        """Nothing is read yet."""
        self._blobs = blobs
        self._registry = registry
        self._nodes = NodeStore(blobs, random)
        self._cache: OrderedDict[bytes, State] = OrderedDict()
        self._highest: dict[bytes, int] = {}
        self._waiting: dict[bytes, list[_Waiting]] = {}
        self._writers: set[asyncio.Task[None]] = set()
        self._garbage: set[Hash32] = set()

    def __repr__(self) -> str:
        return f"<Directories: {len(self._highest)} seen, {len(self._writers)} writing, {len(self._garbage)} blobs to delete>"

    async def read(self, keys: DirectoryKeys) -> State:
        """As its pointer has it now. Raises `registry_rolled_back` where that is older than what was seen before."""
        return await self._current(keys, self._state)

    async def _current(self, keys: DirectoryKeys, act: Callable[[DirectoryKeys], Awaitable[Result]]) -> Result:
        """What `act` finds. Where a blob went while it read, because the directory was changed, it reads again."""
        for _ in range(ATTEMPTS):
            revision = self._highest.get(keys.public, 0)
            try:
                return await act(keys)
            except FabstirError as lost:
                pointer = await self._registry.read(keys.public)
                if lost.code != "blob_missing" or pointer is None or pointer.revision == revision:
                    raise
                self._highest[keys.public] = max(revision, pointer.revision)
        raise error("storage_conflict", f"directory {keys.public.hex()[:12]}, {ATTEMPTS} attempts")

    async def _state(self, keys: DirectoryKeys) -> State:
        pointer = await self._registry.read(keys.public)
        revision, highest = pointer.revision if pointer else 0, self._highest.get(keys.public, 0)
        if revision < highest:
            raise error("registry_rolled_back", f"revision {revision} of {keys.public.hex()[:12]}, {highest} before")
        if pointer is None:
            return State()
        place = pointed_at(pointer)
        state = self._cache.get(keys.public)
        if state is None or state.blob != place:
            state = await self._opened(keys, place)
        self._remember(keys, state := msgspec.structs.replace(state, revision=revision))
        return state

    async def entry(self, keys: DirectoryKeys, name: str) -> Entry | None:
        """What is under a name."""

        async def found(keys: DirectoryKeys) -> Entry | None:
            return (await self._found(keys, await self._state(keys), {name}))[name]

        return await self._current(keys, found)

    async def page(self, keys: DirectoryKeys, after: tuple[int, str] | None, limit: int) -> list[tuple[str, Entry]]:
        """At most `limit` entries in the order of their places, after a place and a name."""
        return await self._current(keys, lambda keys: self._page(keys, after, limit))

    async def _page(self, keys: DirectoryKeys, after: tuple[int, str] | None, limit: int) -> list[tuple[str, Entry]]:
        state = await self._state(keys)
        if state.root:
            found = await self._nodes.walk(hamt.page(state.root, after, limit), keys.seal)
            return [(name, dirv1.decode_entry(value)) for _, name, value in found]
        places = sorted((place_of(name), name) for name in state.flat)
        return [(name, state.flat[name]) for place, name in places if after is None or (place, name) > after][:limit]

    async def change(self, keys: DirectoryKeys, changes: Changes) -> dict[str, Entry | None]:
        """Durable when it returns: what was under the names before. None deletes. A file never replaces a directory, nor the reverse.

        Raises `storage_is_directory`, `storage_is_file`, `storage_conflict`, `storage_read_only`.
        """
        if keys.pair is None:
            raise error("storage_read_only", keys.public.hex()[:12])
        waiting = _Waiting(changes)
        queue = self._waiting.setdefault(keys.public, [])
        queue.append(waiting)
        if len(queue) == 1:
            writer = asyncio.create_task(self._write_all(keys, queue))
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        return await waiting.future

    async def discard(self, places: list[Hash32]) -> None:
        """Delete blobs that nothing reaches. What cannot be deleted now is tried again with the next ones."""
        self._garbage.update(places)
        for place in list(self._garbage):
            try:
                await self._blobs.delete(place)
            except FabstirError:
                return
            self._garbage.discard(place)

    async def close(self) -> None:
        """When every change that was begun has been answered."""
        while self._writers:
            await asyncio.wait(self._writers)

    async def _write_all(self, keys: DirectoryKeys, queue: list[_Waiting]) -> None:
        await asyncio.sleep(0)  # whoever calls at the same moment is in the same batch
        while queue:
            batch: list[_Waiting] = []
            names = 0
            while len(batch) < len(queue) and (not batch or names + len(queue[len(batch)].changes) <= MAX_BATCH):
                names += len(queue[len(batch)].changes)
                batch.append(queue[len(batch)])
            try:
                await self._commit(keys, batch)
            except Exception as failure:
                self._cache.pop(keys.public, None)
                for waiting in batch:
                    waiting.answer(failure)
            finally:
                del queue[: len(batch)]
        self._waiting.pop(keys.public, None)

    async def _commit(self, keys: DirectoryKeys, batch: list[_Waiting]) -> None:
        for attempt in range(ATTEMPTS):
            try:
                before, unreached = await self._current(keys, lambda keys: self._attempt(keys, batch))
            except FabstirError as refused:
                if refused.code not in _OVERTAKEN:
                    raise
                await asyncio.sleep(0.002 * 2**attempt * (1 + os.urandom(1)[0] / 255))
                continue
            for waiting, old in before:
                waiting.answer(old)
            await self.discard(unreached)
            return
        raise error("storage_conflict", f"directory {keys.public.hex()[:12]}, {ATTEMPTS} attempts")

    async def _attempt(self, keys: DirectoryKeys, batch: list[_Waiting]) -> tuple[list[_Answer], list[Hash32]]:
        """The answers, and the blobs that the pointer no longer reaches."""
        state = await self._state(keys)
        merged, before = await self._merge(keys, state, [waiting for waiting in batch if not waiting.future.done()])
        return before, await self._publish(keys, state, merged) if merged else []

    async def _merge(
        self, keys: DirectoryKeys, state: State, batch: list[_Waiting]
    ) -> tuple[dict[str, Entry | None], list[_Answer]]:
        """What the batch changes, and what each of it replaces. One that may not be made is answered, and left out."""
        now = await self._found(keys, state, {name for waiting in batch for name in waiting.changes})
        merged: dict[str, Entry | None] = {}
        before: list[_Answer] = []
        for waiting in batch:
            old = {name: now[name] for name in waiting.changes}
            try:
                for name, entry in waiting.changes.items():
                    _check_kind(name, old[name], entry)
            except FabstirError as refused:
                waiting.answer(refused)
                continue
            changed = {name: entry for name, entry in waiting.changes.items() if entry != old[name]}
            now |= changed
            merged |= changed
            before.append((waiting, old))
        return merged, before

    async def _publish(self, keys: DirectoryKeys, state: State, changes: dict[str, Entry | None]) -> list[Hash32]:
        """New blobs, then the pointer; returns what is no longer reached."""
        if keys.pair is None:
            raise AssertionError("asked to write without a key")
        new, written, dropped = await self._written(keys, state, changes)
        if new.blob is None:
            raise AssertionError("written")
        try:
            await self._registry.publish(RegistryEntry.sign(keys.pair, state.revision + 1, pointer_to(new.blob)))
        except FabstirError as refused:
            if refused.code in _OVERTAKEN:
                await self.discard([*written, new.blob])
            raise
        self._remember(keys, msgspec.structs.replace(new, revision=state.revision + 1))
        return [*dropped, *([state.blob] if state.blob else [])]

    async def _written(
        self, keys: DirectoryKeys, state: State, changes: dict[str, Entry | None]
    ) -> tuple[State, list[Hash32], list[Hash32]]:
        """The directory with `changes`, its blobs durable; the nodes that were written, and the places of those it no longer has."""
        dropped: list[Link] = []
        if state.root is None:
            flat = {name: entry for name, entry in {**state.flat, **changes}.items() if entry is not None}
            root = None if len(flat) <= INLINE else await self._applied(keys, EMPTY, flat, dropped)
        else:
            flat, root = {}, await self._applied(keys, state.root, changes, dropped)
            if root.count <= INLINE:
                dropped += await self._nodes.walk(hamt.links(root), keys.seal)
                entries = await self._nodes.walk(hamt.page(root, None, INLINE), keys.seal)
                flat, root = {name: dirv1.decode_entry(value) for _, name, value in entries}, None
        written: list[Hash32] = []
        header = {}
        if root is not None:
            root, written = await self._nodes.store(root, keys.seal)
            header = {_TREE: {"v": _VERSION, "count": root.count, "root": bytes(root.link or b"")}}
        content = dirv1.encode(Directory({} if root else flat, header))
        blob = await self._nodes.put(content, keys.seal)
        return State(blob=blob, flat=flat, root=root), written, [link.place for link in dropped]

    async def _applied(
        self, keys: DirectoryKeys, root: Node, changes: Mapping[str, Entry | None], dropped: list[Link]
    ) -> Node:
        values = {name: dirv1.encode_entry(entry) if entry else None for name, entry in changes.items()}
        steps = hamt.apply(root, hamt.changes_of(values), dropped)
        return await self._nodes.walk(steps, keys.seal, heavy=len(values) > _HEAVY)

    async def _found(self, keys: DirectoryKeys, state: State, names: set[str]) -> dict[str, Entry | None]:
        if state.root is None:
            return {name: state.flat.get(name) for name in names}
        wanted = sorted((place_of(name), name) for name in names)
        values = await self._nodes.walk(hamt.lookup_many(state.root, wanted), keys.seal, heavy=len(wanted) > _HEAVY)
        return {name: dirv1.decode_entry(values[name]) if name in values else None for name in names}

    async def _opened(self, keys: DirectoryKeys, place: Hash32) -> State:
        directory = dirv1.decode(await self._nodes.get(place, keys.seal))
        tree = directory.header.get(_TREE)
        if tree is None:
            return State(blob=place, flat=directory.entries)
        if not isinstance(tree, dict) or tree.get("v") != _VERSION:
            raise error("storage_encoding", "a tree of another version")
        link = Link.of(tree.get("root"))
        root = hamt.decode(await self._nodes.get(link.place, keys.seal), link)
        return State(blob=place, root=root)

    def _remember(self, keys: DirectoryKeys, state: State) -> None:
        self._highest[keys.public] = state.revision
        self._cache[keys.public] = state
        self._cache.move_to_end(keys.public)
        while len(self._cache) > CACHED:
            self._cache.popitem(last=False)


def _check_kind(name: str, old: Entry | None, new: Entry | None) -> None:
    if isinstance(old, DirectoryEntry) and isinstance(new, FileEntry):
        raise error("storage_is_directory", name)
    if isinstance(old, FileEntry) and isinstance(new, DirectoryEntry):
        raise error("storage_is_file", name)
