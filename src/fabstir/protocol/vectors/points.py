"""Points as they come in: ids, vectors and metadata, checked and brought into the one form in which they are kept.

An id is an integer from 0 below 2^64, a UUID (kept as lower-case text, so that two spellings are one point), or other text. A vector is
float32; for the cosine metric it is kept at length one, so that every tier compares by one dot product. Metadata is a JSON object and
is kept as its bytes. Everything else is refused by name before anything is written. Never stores anything.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from fabstir.domain.errors import error
from fabstir.protocol.vectors.collection import CollectionSpec

PointId = int | str
Matrix = npt.NDArray[np.float32]

MAX_BATCH: Final = 10_000
MAX_BATCH_BYTES: Final = 64 << 20
MAX_ID_BYTES: Final = 256
MAX_METADATA: Final = 16 << 10
"""Bytes of its JSON: metadata is for filters and short texts; documents belong into files."""
MAX_DEPTH: Final = 8
LARGEST: Final = 1e16
"""Of a component: products of two vectors of 4,096 then stay finite."""
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_SAFE: Final = (1 << 63) - 1


class Batch(msgspec.Struct, frozen=True):
    """Points that are written together; row n of `vectors` is that of `ids[n]`. Only `batch_of` makes one."""

    ids: list[PointId]
    vectors: Matrix
    metadata: list[bytes]


def point_id(value: object) -> PointId:
    """Raises PeerFault (`vector_id`)."""
    if type(value) is int:
        if 0 <= value < 1 << 64:
            return value
        raise error("vector_id", "an integer from 0 below 2^64")
    if isinstance(value, uuid.UUID):
        return str(value)
    if not isinstance(value, str):
        raise error("vector_id", f"{type(value).__name__} is neither an integer nor text")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as cause:
        raise error("vector_id", "not well-formed Unicode") from cause
    if not 1 <= size <= MAX_ID_BYTES:
        raise error("vector_id", f"text of 1 to {MAX_ID_BYTES} bytes, not {size}")
    if not value.isprintable():
        raise error("vector_id", "text without control characters")
    return value.lower() if _UUID.fullmatch(value) else value


def metadata_bytes(value: object) -> bytes:
    """The JSON in which metadata is kept. Raises PeerFault (`vector_metadata`)."""
    if value is None:
        return b"{}"
    if not isinstance(value, dict):
        raise error("vector_metadata", f"a JSON object, not {type(value).__name__}")
    _check(value, MAX_DEPTH)
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError as cause:
        raise error("vector_metadata", "not well-formed Unicode") from cause
    if len(encoded) > MAX_METADATA:
        raise error("vector_metadata", f"{len(encoded)} bytes of JSON, at most {MAX_METADATA}")
    return encoded


def _check(value: object, depth: int) -> None:
    if value is None or isinstance(value, str | bool):
        return
    if isinstance(value, int):
        if not -_SAFE <= value <= _SAFE:
            raise error("vector_metadata", "an integer beyond 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise error("vector_metadata", "a number that is not finite")
    elif not depth:
        raise error("vector_metadata", f"nested deeper than {MAX_DEPTH}")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise error("vector_metadata", "a key that is not text")
            _check(item, depth - 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth - 1)
    else:
        raise error("vector_metadata", f"{type(value).__name__} is not JSON")


def matrix_of(spec: CollectionSpec, vectors: object) -> Matrix:
    """Rows in the precision and at the length in which they are kept. Raises PeerFault (`vector_dimension`, `vector_invalid`)."""
    rows = _array(vectors)
    if rows.ndim != 2:
        raise error("vector_invalid", f"a list of vectors, not {rows.ndim} dimensions of numbers")
    if rows.shape[1] != spec.dimension:
        raise error("vector_dimension", f"{rows.shape[1]} numbers, {spec.name} has {spec.dimension}")
    with np.errstate(invalid="ignore"):
        _refuse_first(
            np.asarray(np.logical_not(np.abs(rows) <= LARGEST).any(axis=1)), f"is not finite, or beyond {LARGEST:g}"
        )
    if spec.metric == "cosine":
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
        _refuse_first(np.asarray(np.less(lengths, 1e-30)), "has no direction")
        rows = np.asarray(rows / lengths[:, None].astype(np.float32), np.float32)
    if spec.precision == "f16":
        with np.errstate(over="ignore"):
            rows = np.asarray(rows.astype(np.float16), np.float32)
        _refuse_first(np.asarray(np.isinf(rows).any(axis=1)), "is beyond half precision")
    return rows


def vector_of(spec: CollectionSpec, vector: object) -> npt.NDArray[np.float32]:
    """One vector to search with. Raises as `matrix_of`."""
    row = _array(vector)
    if row.ndim != 1:
        raise error("vector_invalid", f"one vector, not {row.ndim} dimensions of numbers")
    rows: Matrix = matrix_of(spec, row[None])
    only: npt.NDArray[np.float32] = rows[0]
    return only


def batch_of(
    spec: CollectionSpec, ids: Sequence[object], vectors: object, metadata: Sequence[object] | None = None
) -> Batch:
    """Raises PeerFault: `vector_batch`, and what its parts raise, with the number of the point in the detail."""
    if not 1 <= len(ids) <= MAX_BATCH:
        raise error("vector_batch", f"{len(ids)} points, 1 to {MAX_BATCH} in a batch")
    if metadata is not None and len(metadata) != len(ids):
        raise error("vector_batch", f"{len(ids)} ids and {len(metadata)} times metadata")
    rows = matrix_of(spec, vectors)
    if len(rows) != len(ids):
        raise error("vector_batch", f"{len(ids)} ids and {len(rows)} vectors")
    kept = [b"{}"] * len(ids) if metadata is None else [metadata_bytes(value) for value in metadata]
    size = rows.nbytes + sum(map(len, kept))
    if size > MAX_BATCH_BYTES:
        raise error("vector_batch", f"{size} bytes, at most {MAX_BATCH_BYTES}")
    return Batch([point_id(value) for value in ids], rows, kept)


def _array(vectors: object) -> Matrix:
    try:
        given = np.asarray(vectors)
        if given.dtype.kind not in "fiu":
            raise error("vector_invalid", "numbers of one length in every row")
        with np.errstate(over="ignore"):
            rows: Matrix = np.ascontiguousarray(given, dtype=np.float32)
        return rows
    except (ValueError, TypeError) as cause:
        raise error("vector_invalid", "numbers of one length in every row") from cause


def _refuse_first(bad: npt.NDArray[np.bool_], what: str) -> None:
    if bad.any():
        raise error("vector_invalid", f"vector {int(bad.argmax())} {what}")
