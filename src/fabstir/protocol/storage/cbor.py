"""CBOR in which one value has one encoding: RFC 8949 section 4.2.1, without floats and tags.

What is encoded: None, bool, integers of 64 bits, bytes, text, arrays, and maps whose keys are text or integers, sorted by their
encoded bytes. What is decoded has to be exactly what `encode` would write; anything else (a longer form of a length, a key
out of order or twice, an indefinite length, bytes at the end) is refused, so that a hash over the bytes is a hash over the value.
Never used for DirV1, whose names have another order (`dirv1`). Depth and size are bounded before anything is built.
"""

from __future__ import annotations

from typing import Any, Final

import cbor2

from fabstir.domain.errors import error

MAX_DEPTH: Final = 16
MAX_BYTES: Final = 64 << 20
_INT_MIN: Final = -(1 << 64)
_INT_MAX: Final = (1 << 64) - 1
_SCALARS: Final = (bytes, str, bool, type(None))


def encode(value: Any) -> bytes:
    """The one encoding. TypeError and ValueError where `value` has none: that is the caller's mistake, not its data's."""
    return cbor2.dumps(_ordered(value, MAX_DEPTH))


def decode(data: bytes) -> Any:
    """Raises PeerFault (`storage_encoding`)."""
    value = loads(data)
    try:
        again = encode(value)
    except (TypeError, ValueError) as cause:
        raise error("storage_encoding", str(cause)) from cause
    if again != data:
        raise error("storage_encoding", "not the one encoding of its value")
    return value


def loads(data: bytes) -> Any:
    """Well-formed CBOR, in whatever order its keys are. Raises PeerFault (`storage_encoding`)."""
    if len(data) > MAX_BYTES:
        raise error("storage_encoding", f"{len(data)} bytes, at most {MAX_BYTES}")
    try:
        return cbor2.loads(data, max_depth=MAX_DEPTH, allow_indefinite=False, allow_duplicate_keys=False)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError) as cause:
        raise error("storage_encoding", str(cause)) from cause


def _ordered(value: Any, depth: int) -> Any:
    """`value` with the keys of its maps in order."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is int:
        if not _INT_MIN <= value <= _INT_MAX:
            raise ValueError("integer beyond 64 bits")
        return value
    if not depth:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if kind is list or kind is tuple:
        return [_ordered(item, depth - 1) for item in value]
    if kind is dict:
        if not all(type(key) in (str, int) for key in value):
            raise TypeError("a key is neither text nor an integer")
        return {key: _ordered(value[key], depth - 1) for key in sorted(value, key=cbor2.dumps)}
    raise TypeError(f"{kind.__name__} is not encoded")
