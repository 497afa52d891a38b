"""Segments to files and back, and one segment out of several: the work of the thread that rebuilds.

A rebuild takes the living rows of its sources in their order, writes their vectors and columns, builds the index over the vectors as
they lie in the file, measures it, and writes it. Nothing that is searched is touched; the collection puts the new segment in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from fabstir.domain.errors import error
from fabstir.protocol.vectors.collection import CollectionSpec
from fabstir.protocol.vectors.manifest import SegmentEntry
from fabstir.protocol.vectors.plan import Kind, Tier
from fabstir.protocol.vectors.points import PointId
from fabstir.vectors import files, indexes
from fabstir.vectors.segments import Files, Segment

_MILLION: Final = 1_000_000
Mask = npt.NDArray[np.bool_]


class _Columns(msgspec.Struct, frozen=True, array_like=True):
    ids: list[PointId]
    seconds: bytes
    metadata: list[bytes]


def kind_of(spec: CollectionSpec) -> np.dtype[Any]:
    """Of a component at rest."""
    return np.dtype("<f4" if spec.precision == "f32" else "<f2")


def rebuild(
    directory: Path, spec: CollectionSpec, sources: Sequence[tuple[Segment, Mask]], number: int, kind: Kind, tier: Tier
) -> Segment:
    """A stored segment of the rows that the masks name; at least one. Takes seconds. Raises `vectors_full`, `vectors_failed`."""
    ids, metadata = list[PointId](), list[bytes]()
    for segment, mask in sources:
        ids += compress(segment.ids, mask.tolist())
        metadata += compress(segment.metadata, mask.tolist())
    rows = np.concatenate([segment.vectors[: len(mask)][mask].astype(kind_of(spec)) for segment, mask in sources])
    seconds = np.concatenate([segment.seconds[: len(mask)][mask] for segment, mask in sources])
    columns = msgspec.msgpack.encode(_Columns(ids, seconds.astype("<f8").tobytes(), metadata))
    raw: Any = np.ascontiguousarray(rows)
    stored = files.store(directory, memoryview(raw).cast("B")), files.store(directory, columns)
    vectors = _vectors(directory, spec, stored[0], len(ids))
    size = rows.nbytes + len(columns)
    segment = Segment.frozen(spec, number, tier, ids, seconds, metadata, vectors)
    segment.kind, segment.index, name = kind, indexes.build(kind, spec.metric, vectors), None
    if segment.index is not None:
        content = segment.index.to_bytes()
        name, size = files.store(directory, content), size + len(content)
    segment.files = Files(*stored, name, size)
    return segment


def entry_of(segment: Segment) -> SegmentEntry:
    """A stored segment as the manifest has it, with the deletions of this moment."""
    if segment.files is None:
        raise AssertionError("not stored")
    index = segment.index
    return SegmentEntry(
        number=segment.number,
        kind=segment.kind,
        tier=segment.tier,
        rows=segment.rows,
        vectors=segment.files.vectors,
        columns=segment.files.columns,
        index=segment.files.index,
        probes=index.effort if index else 0,
        recall_ppm=round(index.recall * _MILLION) if index else _MILLION,
        dead=np.packbits(np.logical_not(segment.alive)).tobytes(),
    )


def load(directory: Path, spec: CollectionSpec, entry: SegmentEntry) -> Segment:
    """A segment from its files, each checked. Raises `vectors_corrupt`."""
    packed = files.mapped(directory, entry.columns)
    try:
        columns = msgspec.msgpack.decode(packed, type=_Columns)
        seconds = np.frombuffer(columns.seconds, "<f8")
        dead = np.unpackbits(np.frombuffer(entry.dead, np.uint8))[: entry.rows].astype(np.bool_)
    except (msgspec.MsgspecError, ValueError) as cause:
        raise error("vectors_corrupt", f"{directory.name}/{entry.columns}: {cause}") from cause
    if {len(columns.ids), len(columns.metadata), len(seconds), len(dead)} != {entry.rows}:
        raise error("vectors_corrupt", f"{directory.name}/{entry.columns} has another number of rows")
    vectors = _vectors(directory, spec, entry.vectors, entry.rows)
    segment = Segment.frozen(spec, entry.number, entry.tier, columns.ids, seconds, columns.metadata, vectors)
    segment.kind, size = entry.kind, vectors.nbytes + len(packed)
    if entry.index:
        content = bytes(files.mapped(directory, entry.index))
        segment.index = indexes.load(entry.kind, content, entry.rows, entry.probes, entry.recall_ppm / _MILLION)
        size += len(content)
    segment.files = Files(entry.vectors, entry.columns, entry.index, size)
    segment.alive = np.logical_not(dead)
    segment.dead = int(np.count_nonzero(dead))
    return segment


def _vectors(directory: Path, spec: CollectionSpec, name: str, rows: int) -> npt.NDArray[Any]:
    content = files.mapped(directory, name)
    if len(content) != rows * spec.row_bytes:
        raise error("vectors_corrupt", f"{directory.name}/{name} has another number of rows")
    return np.frombuffer(content, kind_of(spec)).reshape(rows, spec.dimension)
