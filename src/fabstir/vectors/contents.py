"""What a collection holds, in memory: its segments, and where each point is. Applies what the log has; never touches a file.

Everything that changes it runs on one thread (the event loop, or whoever opens it). `search` may run on any. The segments are a tuple
that is replaced as a whole, so that a search works on one moment's segments. A point's place may name a segment that was rebuilt
since; it is followed to where its row is now. Memory: 200 bytes a point beside its id, metadata and, until it is stored, vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from fabstir.domain.errors import error
from fabstir.ports.vectors import Hit, Point, Search
from fabstir.protocol.vectors.collection import CollectionSpec
from fabstir.protocol.vectors.filters import Filter
from fabstir.protocol.vectors.log import Deleted, Operation, Upserted
from fabstir.protocol.vectors.points import Matrix, PointId
from fabstir.vectors.fields import object_of
from fabstir.vectors.scoring import Query, score_of
from fabstir.vectors.segments import Probe, Segment

MAX_LIMIT = 1_000
Place = tuple[Segment, int]


class Contents:
    """Of one collection."""

    def __init__(self, spec: CollectionSpec, frozen: Sequence[Segment], generation: int) -> None:
        """`frozen`, oldest first, are what is stored; their living rows are distinct points."""
        self.spec = spec
        self._next = max((each.number for each in frozen), default=0) + 1
        self.active = Segment(spec, self.new_number(), generation)
        self._frozen = tuple(frozen)
        self._segments = (*self._frozen, self.active)
        self._places: dict[PointId, Place] = {}
        self.lost_rows = 0
        """Rows of frozen segments that died since the keeper last looked."""
        for segment in frozen:
            ids = segment.ids
            self._places.update((ids[row], (segment, row)) for row in np.flatnonzero(segment.alive).tolist())

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"<Contents {self.spec.name}: {len(self)} points in {len(self._segments)} segments>"

    @property
    def frozen(self) -> tuple[Segment, ...]:
        """Oldest first."""
        return self._frozen

    def new_number(self) -> int:
        """For a segment that will be made."""
        self._next += 1
        return self._next - 1

    def apply(self, operation: Operation, vectors: Matrix | None = None) -> int:
        """How many points were written, or deleted. `vectors` are those of the operation, where they are at hand."""
        if isinstance(operation, Deleted):
            gone = [self._places.pop(each, None) for each in operation.ids]
            for place in gone:
                self._kill(place)
            return sum(place is not None for place in gone)
        return self._upsert(operation, matrix_in(self.spec, operation) if vectors is None else vectors)

    def rotate(self, generation: int) -> None:
        """The active segment is frozen, and a new one begins."""
        if self.active.rows:
            self.active.freeze()
            self._frozen = (*self._frozen, self.active)
        self.active = Segment(self.spec, self.new_number(), generation)
        self._segments = (*self._frozen, self.active)

    def replace(self, sources: Sequence[Segment], taken: Sequence[npt.NDArray[np.bool_]], new: Segment | None) -> None:
        """`new` has the rows of `sources` that were `taken`, in order; None where there were none. What died since is dead in it, too."""
        first = 0
        for source, rows in zip(sources, taken, strict=True):
            moved = np.full(len(rows), -1, np.int32)
            count = int(np.count_nonzero(rows))
            moved[rows] = np.arange(first, first + count)
            first += count
            if new is not None:
                for row in moved[rows & np.logical_not(source.alive)].tolist():
                    new.kill(row)
                source.forward = (new, moved)
        self._frozen = tuple(_replaced(self._frozen, sources, new))
        self._segments = (*self._frozen, self.active)

    def settle(self, ids: Sequence[PointId]) -> None:
        """Follow the places of these points now, so that segments that were rebuilt are let go."""
        for each in ids:
            if (place := self._places.get(each)) is not None:
                self._places[each] = _followed(place)

    def get(self, point: PointId) -> Point | None:
        """As it is now."""
        if (place := self._places.get(point)) is None:
            return None
        segment, row = _followed(place)
        return Point(point, np.asarray(segment.vectors[row], np.float32), object_of(segment.metadata[row]))

    def matching(self, condition: Filter) -> list[PointId]:
        """The points that pass."""
        found: list[PointId] = []
        for segment in self._segments:
            rows = segment.rows
            mask = segment.mask(condition, rows) & segment.alive[:rows]
            found += [segment.ids[row] for row in np.flatnonzero(mask).tolist()]
        return list(dict.fromkeys(found))

    def search(self, query: Query, how: Search, condition: Filter | None = None) -> list[Hit]:
        """Best first. Raises PeerFault (`vector_query`)."""
        _check(how)
        probe = Probe(query, how.limit, condition, how.exact, how.breadth, how.probes)
        found: dict[PointId, tuple[float, Segment, int]] = {}
        for segment in self._segments:
            if not (how.recent if segment.tier == "recent" else how.historical):
                continue
            rows, ranks = segment.search(probe)
            for row, rank in zip(rows.tolist(), ranks.tolist(), strict=True):
                found[segment.ids[row]] = (rank, segment, row)  # of a point that is just being replaced, the newer row
        chosen = sorted(found.items(), key=lambda each: -each[1][0])[: how.limit]
        hits = [self._hit(point, rank, segment, row, how) for point, (rank, segment, row) in chosen]
        return [hit for hit in hits if self._good_enough(hit, how.threshold)]

    def _hit(self, point: PointId, rank: float, segment: Segment, row: int, how: Search) -> Hit:
        vector = np.asarray(segment.vectors[row], np.float32) if how.with_vectors else None
        return Hit(point, score_of(self.spec.metric, rank), object_of(segment.metadata[row]), vector)

    def _good_enough(self, hit: Hit, threshold: float | None) -> bool:
        if threshold is None:
            return True
        return hit.score <= threshold if self.spec.metric == "euclidean" else hit.score >= threshold

    def _upsert(self, operation: Upserted, vectors: Matrix) -> int:
        row = self.active.append(operation, vectors)
        active, places = self.active, self._places
        for each in operation.ids:
            before = places.get(each)
            places[each] = (active, row)
            if before is not None:
                self._kill(before)
            row += 1
        return len(operation.ids)

    def _kill(self, place: Place | None) -> None:
        if place is None:
            return
        segment, row = _followed(place)
        segment.kill(row)
        self.lost_rows += segment is not self.active


def matrix_in(spec: CollectionSpec, operation: Upserted) -> Matrix:
    """The vectors that the log has. Raises LocalFault (`vectors_corrupt`)."""
    kind = np.dtype("<f4" if spec.precision == "f32" else "<f2")
    if len(operation.vectors) != len(operation.ids) * spec.dimension * kind.itemsize:
        raise error("vectors_corrupt", f"the log of {spec.name} has vectors of another dimension")
    rows = np.frombuffer(operation.vectors, kind).reshape(len(operation.ids), spec.dimension)
    return np.asarray(rows, np.float32)


def _followed(place: Place) -> Place:
    segment, row = place
    while (forward := segment.forward) is not None:
        segment, row = forward[0], int(forward[1][row])
    return segment, row


def _replaced(frozen: Sequence[Segment], sources: Sequence[Segment], new: Segment | None) -> Iterator[Segment]:
    """The new one where the last of its sources was."""
    last = max(frozen.index(each) for each in sources)
    for position, each in enumerate(frozen):
        if each not in sources:
            yield each
        elif position == last and new is not None:
            yield new


def _check(how: Search) -> None:
    if type(how.limit) is not int or not 1 <= how.limit <= MAX_LIMIT:
        raise error("vector_query", f"a limit is from 1 to {MAX_LIMIT}")
    for name, value in (("breadth", how.breadth), ("probes", how.probes)):
        if value is not None and (type(value) is not int or not 1 <= value <= 4_096):
            raise error("vector_query", f"{name} is from 1 to 4096")
    if how.threshold is not None and not np.isfinite(how.threshold):
        raise error("vector_query", "a threshold is a finite number")
