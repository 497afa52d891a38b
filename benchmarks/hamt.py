"""Claim: one change in a directory of a million entries writes a few nodes, not the directory: bytes written by one change, against
the same directory as one DirV1 blob, as S5 keeps small ones.

For each size: a batch of everything into an empty tree (`bulk`, CPU seconds), single changes stored one by one, a batch of 1,000,
cold look-ups that read every node, and the whole listing. Nodes are sealed and padded as in the product and lie in a dict; CPU time of
this process is counted, since nothing waits. The peer writes the blob of all entries for each change; its bytes are measured
by encoding and sealing that blob. `depth_*` and `reads_*` grow with the logarithm of the size or the benchmark fails.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from typing import Any

from common import main

from fabstir.domain.ids import Hash32
from fabstir.protocol.storage import dirv1, hamt
from fabstir.protocol.storage.blob_id import hash_of
from fabstir.protocol.storage.dirv1 import Directory, Entry, FileEntry
from fabstir.protocol.storage.hamt import EMPTY, Link, Node
from fabstir.storage.s5.nodes import NodeStore
from fabstir.testing.storage import MemoryStorage

KEY = bytes(32)
SINGLE = 200
"""Changes made one by one."""


class Counting(MemoryStorage):
    """Counts what is read and written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[int] = []
        self.reads = 0

    async def put(self, content: bytes) -> Hash32:
        blob = hash_of(content)
        self.blobs[blob] = content
        self.written.append(len(content))
        return blob

    async def get(self, blob: Hash32) -> bytes:
        self.reads += 1
        return self.blobs[blob]


def entry_of(number: int) -> Entry:
    """A file's entry, of the size that entries have."""
    chance = random.Random(number)
    return FileEntry(Hash32(chance.randbytes(32)), number, "text/plain", 1_700_000_000, {"key": chance.randbytes(32)})


def name_of(number: int) -> str:
    return f"conversation-{number:07}.txt"


class Measured:
    """A tree of one size."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.storage = Counting()
        self.root: Node = EMPTY
        self.figures: dict[str, float] = {}
        self.entries = {name_of(number): dirv1.encode_entry(entry_of(number)) for number in range(size)}

    async def change(self, values: dict[str, bytes | None]) -> None:
        """Apply, store, forget what was replaced, and start over with nothing cached."""
        nodes, dropped = NodeStore(self.storage), list[Link]()
        root = await nodes.walk(hamt.apply(self.root, hamt.changes_of(values), dropped), KEY)
        self.root, _ = await nodes.store(root, KEY)
        for link in dropped:
            del self.storage.blobs[link.place]

    async def run(self) -> dict[str, float]:
        """Every figure."""
        began = time.process_time()
        await self.change(dict(self.entries))
        cpu = time.process_time() - began
        self.note("bulk_cpu_s", cpu)
        self.note("bulk_inserts_per_cpu_s", self.size / cpu)
        self.note("nodes", len(self.storage.blobs))
        self.note("stored_bytes", sum(map(len, self.storage.blobs.values())))
        await self.singles()
        await self.lookups()
        began, self.storage.written = time.process_time(), []
        await self.change({name_of(number): b"batch" for number in range(0, self.size, max(self.size // 1000, 1))})
        self.note("batch_1000_cpu_ms", (time.process_time() - began) * 1e3)
        self.note("batch_1000_nodes", len(self.storage.written))
        return self.figures

    async def singles(self) -> None:
        """One change, one store, as a put does."""
        chance, began = random.Random(1), time.process_time()
        self.storage.written = []
        for number in range(SINGLE):
            await self.change({name_of(chance.randrange(self.size)): b"changed %d" % number})
        self.note("single_cpu_ms", (time.process_time() - began) * 1e3 / SINGLE)
        self.note("single_nodes", len(self.storage.written) / SINGLE)
        self.note("single_bytes", sum(self.storage.written) / SINGLE)

    async def lookups(self) -> None:
        """With nothing cached but the root."""
        chance, began = random.Random(2), time.process_time()
        self.storage.reads = 0
        for _ in range(SINGLE):
            if (
                await NodeStore(self.storage).walk(hamt.lookup(self.root, name_of(chance.randrange(self.size))), KEY)
                is None
            ):
                raise AssertionError("an entry is missing")
        self.note("cold_lookup_cpu_ms", (time.process_time() - began) * 1e3 / SINGLE)
        self.note("cold_lookup_reads", self.storage.reads / SINGLE)

    def note(self, name: str, value: float) -> None:
        self.figures[f"{name}_{self.size}"] = round(value, 3)


async def one_blob(size: int) -> int:
    """Bytes that the peer writes for a change."""
    storage = Counting()
    flat = {name_of(number): entry_of(number) for number in range(size)}
    content = dirv1.encode(Directory(flat))
    if len(content) < 60 << 20:  # what may be sealed as one blob
        await NodeStore(storage).put(content, KEY)
        return storage.written[0]
    return len(content)


async def measured(sizes: tuple[int, ...]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for size in sizes:
        figures |= await Measured(size).run()
        gc.collect()
    small, large = (figures[f"cold_lookup_reads_{size}"] for size in (sizes[0], sizes[-1]))
    if large > small + 3:
        raise AssertionError(f"{small} reads at {sizes[0]}, {large} at {sizes[-1]}: that is not logarithmic")
    return figures


def measure(quick: bool) -> dict[str, Any]:
    """Everything, at 1,000, 100,000 and (not when quick) a million entries."""
    sizes = (1_000, 100_000) if quick else (1_000, 100_000, 1_000_000)
    figures = asyncio.run(measured(sizes))
    ours, peer = figures[f"single_bytes_{sizes[-1]}"], asyncio.run(one_blob(sizes[-1]))
    return {
        "claim": f"bytes written by one change in a directory of {sizes[-1]:,} entries, against one DirV1 blob",
        "ours": round(ours),
        "peer": peer,
        "ratio": round(peer / ours, 1),
        "unit": "bytes per change",
        "n": SINGLE,
        **figures,
    }


if __name__ == "__main__":
    main(measure, (__doc__ or "").partition("\n")[0])
