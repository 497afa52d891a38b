"""Segments: columns of points, searched as one. The active one grows at its end; a frozen one only loses rows.

Rows are never moved. A point that is replaced or deleted is a row that is no longer alive. So a search may run in another thread
while points come and go: it sees each row as it was or as it is, and asks for the number of rows before anything else. Deletions
in a frozen segment that is being rebuilt are carried over when the new one takes its place (`forward`).
Memory: the vectors of stored segments are mapped from their files and belong to the system's cache; ids, times and metadata are held.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from fabstir.protocol.vectors.collection import CollectionSpec, Metric
from fabstir.protocol.vectors.filters import Filter
from fabstir.protocol.vectors.log import Upserted
from fabstir.protocol.vectors.plan import Kind, SegmentFacts, Tier
from fabstir.protocol.vectors.points import Matrix, PointId
from fabstir.vectors.fields import Fields, mask_of_few
from fabstir.vectors.indexes import RowIndex, candidates_for
from fabstir.vectors.scoring import Query, Ranks, Rows, Vectors, best, ranks_of, scan

SCAN_ROWS: Final = 4_096
SCAN_SHARE: Final = 0.05
"""A filter that leaves fewer rows, or a smaller share, is answered by a scan of these: recall 1, and quicker than a wide search."""
_FIRST_ROWS: Final = 256
_CHUNK: Final = 512
"""Rows of the growing segment whose fields are indexed together; those after the last whole chunk are looked at one by one."""


class Files(msgspec.Struct, frozen=True):
    """The files of a stored segment, by their hashes, and their bytes together."""

    vectors: str
    columns: str
    index: str | None
    size: int


class Probe(msgspec.Struct, frozen=True):
    """What a search is, for one segment."""

    query: Query
    limit: int
    condition: Filter | None = None
    exact: bool = False
    breadth: int | None = None
    probes: int | None = None


class Segment:
    """Columns; row n of each belongs together."""

    def __init__(self, spec: CollectionSpec, number: int, generation: int) -> None:
        """An empty, growing one, whose rows will be in the log's file `generation`."""
        self.number = number
        self.generation = generation
        """The file of the log with its rows, until it is stored."""
        self.kind: Kind = "exact"
        self.tier: Tier = "recent"
        self.metric: Metric = spec.metric
        self.ids: list[PointId] = []
        self.metadata: list[bytes] = []
        self.rows = 0
        self.dead = 0
        self.vectors: Vectors = np.empty((_FIRST_ROWS, spec.dimension), np.float32)
        self.seconds: npt.NDArray[np.float64] = np.empty(_FIRST_ROWS, np.float64)
        self.alive: npt.NDArray[np.bool_] = np.ones(_FIRST_ROWS, np.bool_)
        self.newest = 0.0
        self.index: RowIndex | None = None
        self.files: Files | None = None
        self.forward: tuple[Segment, npt.NDArray[np.int32]] | None = None
        """The segment that took this one's place, and the row there of each row here, or -1."""
        self._fields: list[Fields] = []
        self._indexed = 0
        """Rows whose fields are in `_fields`."""
        self._indexing = threading.Lock()

    def __repr__(self) -> str:
        return f"<Segment {self.number} {self.tier} {self.kind}: {self.rows - self.dead} of {self.rows} rows>"

    @classmethod
    def frozen(
        cls,
        spec: CollectionSpec,
        number: int,
        tier: Tier,
        ids: list[PointId],
        seconds: npt.NDArray[np.float64],
        metadata: list[bytes],
        vectors: Vectors,
    ) -> Segment:
        """One with all its rows alive and no index yet."""
        segment = cls(spec, number, 0)
        segment.tier = tier
        segment.ids, segment.metadata, segment.rows = ids, metadata, len(ids)
        segment.vectors, segment.seconds = vectors, seconds
        segment.alive = np.ones(len(ids), np.bool_)
        segment.freeze()
        return segment

    def freeze(self) -> None:
        """No row comes any more. All fields of all rows are indexed as one."""
        self.vectors = self.vectors[: self.rows]
        self.seconds = self.seconds[: self.rows]
        self.alive = self.alive[: self.rows]
        self.newest = float(self.seconds.max(initial=0.0))
        with self._indexing:
            self._fields, self._indexed = [Fields(self.metadata)], self.rows

    def append(self, operation: Upserted, vectors: Matrix) -> int:
        """The first of the new rows, which are visible once this has returned."""
        first, last = self.rows, self.rows + len(vectors)
        if last > len(self.vectors):
            self._grow(max(last, 2 * len(self.vectors)))
        self.vectors[first:last] = vectors
        self.seconds[first:last] = operation.seconds
        self.ids += operation.ids
        self.metadata += operation.metadata or [b"{}"] * len(vectors)
        self.rows = last
        return first

    def kill(self, row: int) -> None:
        """Idempotent."""
        if self.alive[row]:
            self.alive[row] = False
            self.dead += 1

    def facts(self) -> SegmentFacts:
        """For the plan."""
        stored = self.files is not None
        return SegmentFacts(self.number, self.kind, self.tier, self.rows, self.dead, self.newest, stored)

    def mask(self, condition: Filter, rows: int) -> npt.NDArray[np.bool_]:
        """Of the first `rows` rows, those that pass."""
        with self._indexing:
            while rows - self._indexed >= _CHUNK:
                self._fields.append(Fields(self.metadata[self._indexed : self._indexed + _CHUNK]))
                self._indexed += _CHUNK
            known, indexed = list(self._fields), self._indexed
        masks = [each.mask(condition) for each in known]
        masks.append(mask_of_few(self.metadata[indexed:rows], condition))
        return np.concatenate(masks)[:rows]

    def search(self, probe: Probe) -> tuple[Rows, Ranks]:
        """The best rows with their exact ranks, best first."""
        rows = self.rows
        allowed, count = self.alive[:rows], rows - self.dead
        if probe.condition is not None:
            allowed = allowed & self.mask(probe.condition, rows)
            count = int(np.count_nonzero(allowed))
        if count <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        few = count <= max(SCAN_ROWS, int(SCAN_SHARE * rows))
        if self.index is not None and not probe.exact and not few:
            found = self._by_index(self.index, probe, allowed, count)
            if len(found[0]) >= min(probe.limit, count):
                return found
        if 4 * count <= rows:
            chosen = np.flatnonzero(allowed)
            ranks = ranks_of(self.metric, self.vectors, chosen, probe.query)
            return best(chosen, ranks, probe.limit)
        return scan(self.metric, self.vectors[:rows], allowed, probe.query, probe.limit)

    def _by_index(
        self, index: RowIndex, probe: Probe, allowed: npt.NDArray[np.bool_], count: int
    ) -> tuple[Rows, Ranks]:
        wanted = min(self.rows, int(candidates_for(probe.limit) * self.rows / count))
        effort = probe.breadth if self.kind == "hnsw" else probe.probes
        if effort is None and probe.condition is not None:
            effort = 2 * index.effort
        proposed = index.propose(probe.query, wanted, effort)
        proposed = np.sort(proposed[allowed[proposed]])
        return best(proposed, ranks_of(self.metric, self.vectors, proposed, probe.query), probe.limit)

    def _grow(self, rows: int) -> None:
        """New arrays: a search goes on with those that it has."""
        vectors: npt.NDArray[Any] = np.empty((rows, self.vectors.shape[1]), np.float32)
        vectors[: self.rows] = self.vectors[: self.rows]
        seconds = np.empty(rows, np.float64)
        seconds[: self.rows] = self.seconds[: self.rows]
        alive = np.ones(rows, np.bool_)
        alive[: self.rows] = self.alive[: self.rows]
        self.vectors, self.seconds, self.alive = vectors, seconds, alive
