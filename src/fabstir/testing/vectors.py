"""An index in memory that scans everything, and an embedder that hashes words. For tests of what is built on these ports.

`MemoryIndex` keeps the contract of `ports.vectors.VectorIndex`; `tests/vectors/test_contract.py` runs it on this and on the real one.
`WordEmbedder` gives texts with common words close vectors, always the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from blake3 import blake3

from fabstir.domain.errors import error
from fabstir.ports.vectors import CollectionStats, Hit, Point, Search, SegmentStats
from fabstir.protocol.vectors import filters
from fabstir.protocol.vectors.collection import RAW, CollectionSpec, check_embedder
from fabstir.protocol.vectors.points import PointId, batch_of, point_id, vector_of


class MemoryIndex:
    """Implements `VectorIndex`."""

    def __init__(self) -> None:
        self.points: dict[str, dict[PointId, Point]] = {}
        self._specs: dict[str, CollectionSpec] = {}
        self.fail: str | None = None
        """The error code of every verb, while it is set."""

    async def create(self, spec: CollectionSpec) -> None:
        self._enter()
        if self._specs.setdefault(spec.name, spec) != spec:
            raise error("vector_collection_exists", spec.name)
        self.points.setdefault(spec.name, {})

    async def drop(self, name: str) -> None:
        self._spec(name)
        del self._specs[name], self.points[name]

    def collections(self) -> list[CollectionSpec]:
        return [self._specs[name] for name in sorted(self._specs)]

    async def upsert(
        self,
        name: str,
        ids: Sequence[object],
        vectors: object,
        metadata: Sequence[object] | None = None,
        *,
        embedder: str = RAW,
    ) -> int:
        spec = self._spec(name)
        check_embedder(spec, embedder)
        batch = batch_of(spec, ids, vectors, metadata)
        for each, vector, packed in zip(batch.ids, batch.vectors, batch.metadata, strict=True):
            self.points[name][each] = Point(each, vector, msgspec.json.decode(packed))
        return len(batch.ids)

    async def delete(self, name: str, ids: Sequence[object]) -> int:
        self._spec(name)
        return sum(self.points[name].pop(point_id(each), None) is not None for each in ids)

    async def delete_where(self, name: str, condition: dict[str, Any]) -> int:
        self._spec(name)
        parsed = filters.parse(condition)
        found = [each.id for each in self.points[name].values() if filters.holds(parsed, each.metadata)]
        return await self.delete(name, found)

    async def get(self, name: str, ids: Sequence[object]) -> list[Point | None]:
        self._spec(name)
        return [self.points[name].get(point_id(each)) for each in ids]

    async def search(self, name: str, vector: object, how: Search | None = None, *, embedder: str = RAW) -> list[Hit]:
        spec, how = self._spec(name), how or Search()
        check_embedder(spec, embedder)
        if not 1 <= how.limit <= 1_000:
            raise error("vector_query", "a limit is from 1 to 1000")
        query, parsed = vector_of(spec, vector), filters.parse(how.filter) if how.filter else None
        far = spec.metric == "euclidean"
        hits = [
            Hit(
                each.id,
                float(np.linalg.norm(each.vector - query)) if far else float(each.vector @ query),
                each.metadata,
                each.vector if how.with_vectors else None,
            )
            for each in self.points[name].values()
            if parsed is None or filters.holds(parsed, each.metadata)
        ]
        if (bound := how.threshold) is not None:
            hits = [hit for hit in hits if (hit.score <= bound if far else hit.score >= bound)]
        return sorted(hits, key=lambda hit: hit.score if far else -hit.score)[: how.limit]

    async def stats(self, name: str) -> CollectionStats:
        spec, count = self._spec(name), len(self.points[name])
        segment = SegmentStats("active", "recent", count, 0, None, 0)
        return CollectionStats(spec, count, (segment,), 0, 0, 0, 0, 0, 0, 0, ())

    def _spec(self, name: str) -> CollectionSpec:
        self._enter()
        if name not in self._specs:
            raise error("vector_collection_unknown", name)
        return self._specs[name]

    def _enter(self) -> None:
        if self.fail:
            raise error(self.fail, "as the test asks")


class WordEmbedder:
    """Implements `Embedder`: the mean of a vector for each word."""

    tag = "words/test"
    dimension = 64

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        """What was asked for, in order."""

    async def count(self, texts: Sequence[str]) -> int:
        """Words."""
        return sum(len(text.split()) for text in texts)

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.batches.append(list(texts))
        if not all(text.strip() for text in texts):
            raise error("embedder_text", "an empty text")
        rows = np.stack([sum((self._word(word) for word in text.lower().split()), np.zeros(64)) for text in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def _word(self, word: str) -> npt.NDArray[np.float64]:
        seed = int.from_bytes(blake3(word.encode()).digest(8), "little")
        return np.random.default_rng(seed).standard_normal(self.dimension)
