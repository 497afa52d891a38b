"""What a node needs of a vector index, of an embedder, and what an index needs of the place where its copies lie.

`VectorIndex` is answered by collections on this machine (`fabstir.vectors`) and may be by a service; `fabstir.testing.vectors` is the
fake. Errors are those of `fabstir.domain.errors` that begin with `vector`. A call that changes something returns when it is durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from fabstir.protocol.vectors.collection import RAW, CollectionSpec
from fabstir.protocol.vectors.plan import Kind, Tier
from fabstir.protocol.vectors.points import PointId


class Search(msgspec.Struct, frozen=True):
    """How to search; the defaults are right for nearly everything."""

    limit: int = 10
    filter: dict[str, Any] | None = None
    exact: bool = False
    """Scan everything: recall 1 by definition."""
    breadth: int | None = None
    """Of a graph's search, instead of what was measured when it was built."""
    probes: int | None = None
    """Lists that are looked into, likewise."""
    recent: bool = True
    historical: bool = True
    threshold: float | None = None
    """Only scores at least this good: not lower, or for distances not higher."""
    with_vectors: bool = False


class Hit(msgspec.Struct, frozen=True):
    """A point that was found. `score` is the cosine or the dot product, or the euclidean distance; best first."""

    id: PointId
    score: float
    metadata: dict[str, Any]
    vector: npt.NDArray[np.float32] | None = None


class Point(msgspec.Struct, frozen=True):
    """A point as it is kept: at length one where the metric is cosine."""

    id: PointId
    vector: npt.NDArray[np.float32]
    metadata: dict[str, Any]


class SegmentStats(msgspec.Struct, frozen=True):
    """One segment, as it is now."""

    kind: Kind | Literal["active"]
    tier: Tier
    rows: int
    deleted: int
    recall: float | None
    """At 10, measured on its own rows when it was built; None where it is searched exactly."""
    file_bytes: int


class CollectionStats(msgspec.Struct, frozen=True):
    """What is there, counted and not estimated."""

    spec: CollectionSpec
    points: int
    segments: tuple[SegmentStats, ...]
    log_bytes: int
    file_bytes: int
    upserted: int
    """Since it was opened, as are the following."""
    deleted: int
    searches: int
    rebuilds: int
    revision: int
    """How often it was published; 0 for never."""
    problems: tuple[str, ...]
    """What is wrong now, in words; empty where all is well."""


class VectorIndex(Protocol):
    """Collections of vectors."""

    async def create(self, spec: CollectionSpec) -> None:
        """The same description again is no mistake. Raises `vector_collection_exists`."""
        ...

    async def drop(self, name: str) -> None:
        """With everything in it. Raises `vector_collection_unknown`, as all that follow."""
        ...

    def collections(self) -> list[CollectionSpec]:
        """By name."""
        ...

    async def upsert(
        self,
        name: str,
        ids: Sequence[object],
        vectors: object,
        metadata: Sequence[object] | None = None,
        *,
        embedder: str = RAW,
    ) -> int:
        """How many points; one that is there is replaced whole. All of them or none."""
        ...

    async def delete(self, name: str, ids: Sequence[object]) -> int:
        """How many were there."""
        ...

    async def delete_where(self, name: str, condition: dict[str, Any]) -> int:
        """How many passed the filter when it was looked at."""
        ...

    async def get(self, name: str, ids: Sequence[object]) -> list[Point | None]:
        """In the order of `ids`."""
        ...

    async def search(self, name: str, vector: object, how: Search | None = None, *, embedder: str = RAW) -> list[Hit]:
        """Best first."""
        ...

    async def stats(self, name: str) -> CollectionStats:
        """Now."""
        ...


class Embedder(Protocol):
    """Texts to vectors."""

    @property
    def tag(self) -> str:
        """What the collections of its vectors are tagged with: weights, precision and runtime."""
        ...

    @property
    def dimension(self) -> int:
        """Of its vectors."""
        ...

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One row for each text, in order, at length one. Raises `embedder_text`."""
        ...

    async def count(self, texts: Sequence[str]) -> int:
        """Tokens that it reads of these texts. Raises `embedder_text`."""
        ...


class CopyPlace(Protocol):
    """Where copies lie: a drive, or what has its verbs."""

    async def put(self, path: str, content: bytes) -> object:
        """Durable when it returns."""
        ...

    async def get(self, path: str) -> bytes:
        """Raises `storage_not_found`."""
        ...

    async def delete(self, path: str) -> None:
        """Raises `storage_not_found`."""
        ...
