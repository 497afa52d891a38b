"""The form of a collection's log: frames of operations, each of which is wholly there or is not.

    frame = "FVL1" | length (4, little-endian) | sequence (8) | CRC-32 of sequence and payload (4) | payload (msgpack)

What is acknowledged together is one frame, and a frame is written only when the one before is on the disk. So only the last frame
can be torn by a crash, and it was never acknowledged: `read` leaves it out. A frame that is damaged and has a whole one after it, or a
gap in the sequence, is damage to what was acknowledged (`vectors_corrupt`). Never touches a file.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from struct import Struct
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.protocol.vectors.points import PointId

MAGIC: Final = b"FVL1"
_HEAD: Final = Struct("<4sIQI")
HEAD: Final = _HEAD.size
MAX_FRAME: Final = 256 << 20


class Upserted(msgspec.Struct, frozen=True, array_like=True, tag="u"):
    """Points at one moment."""

    seconds: float
    ids: list[PointId]
    vectors: bytes
    """Rows in the collection's precision, little-endian."""
    metadata: list[bytes] | None
    """None where all are empty."""


class Deleted(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """Points that are gone; an id that was not there is no mistake."""

    ids: list[PointId]


Operation = Upserted | Deleted
_DECODER: Final = msgspec.msgpack.Decoder(list[Operation])
_ENCODER: Final = msgspec.msgpack.Encoder()


class Frame(msgspec.Struct, frozen=True):
    """Operations that were acknowledged together."""

    sequence: int
    operations: list[Operation]


class Reading(msgspec.Struct, frozen=True):
    """What a file of the log has."""

    frames: list[Frame]
    good: int
    """Bytes up to the end of the last whole frame; what follows was torn."""


def frame_bytes(sequence: int, operations: Iterable[Operation]) -> bytes:
    """One frame."""
    payload = _ENCODER.encode(list(operations))
    checked = zlib.crc32(payload, zlib.crc32(sequence.to_bytes(8, "little")))
    return _HEAD.pack(MAGIC, len(payload), sequence, checked) + payload


def read(data: bytes | memoryview, name: str, first: int | None) -> Reading:
    """All frames; the first has the sequence `first`, if that is known. Raises LocalFault (`vectors_corrupt`)."""
    view, frames, at = memoryview(data), list[Frame](), 0
    while at < len(view):
        found = _frame(view, at)
        if found is None:
            if later := _whole_after(view, at + 1):
                raise error("vectors_corrupt", f"{name}: byte {at} is damaged, a whole frame follows at {later}")
            break
        frame, end = found
        wanted = frames[-1].sequence + 1 if frames else first
        if wanted is not None and frame.sequence != wanted:
            raise error("vectors_corrupt", f"{name}: frame {frame.sequence} where {wanted} should be")
        frames.append(frame)
        at = end
    return Reading(frames, at)


def _frame(view: memoryview, at: int) -> tuple[Frame, int] | None:
    """The whole frame at `at` and where it ends."""
    if len(view) - at < HEAD:
        return None
    magic, length, sequence, checked = _HEAD.unpack_from(view, at)
    end = at + HEAD + length
    if magic != MAGIC or length > MAX_FRAME or end > len(view):
        return None
    payload = view[at + HEAD : end]
    if zlib.crc32(payload, zlib.crc32(view[at + 8 : at + 16])) != checked:
        return None
    try:
        return Frame(sequence, _DECODER.decode(payload)), end
    except msgspec.MsgspecError:
        return None


def _whole_after(view: memoryview, start: int) -> int | None:
    """Where the next whole frame is. Zero and more candidates by their magic; a chance hit also fails its CRC."""
    data = bytes(view[start:])
    at = data.find(MAGIC)
    while at != -1:
        if _frame(view, start + at) is not None:
            return start + at
        at = data.find(MAGIC, at + 1)
    return None
