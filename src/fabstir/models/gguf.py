"""The header of a GGUF file: its key-value pairs as bytes, its tensors, and where each lies.

Reads what is asked for and no weights. Knows no types of weights; that is `fabstir.models.weights`. A file that breaks the format, or ends
early, is `model_invalid`. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from fabstir.domain.errors import error

MAGIC: Final = b"GGUF"
SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
MAX_PAIRS: Final = 1 << 16
MAX_TENSORS: Final = 1 << 20
MAX_STRING: Final = 1 << 24
"""Longer than any chat template; a damaged length must not make us read the whole file."""
MAX_DIMENSIONS: Final = 8
DEFAULT_ALIGNMENT: Final = 32


class Value(NamedTuple):
    """One value: its type, and its bytes as they are in the file."""

    kind: int
    data: bytes


class Tensor(NamedTuple):
    """One tensor; `shape` begins with the length of a row."""

    shape: tuple[int, ...]
    kind: int
    offset: int
    """From the beginning of the file."""


class Header(NamedTuple):
    """All of the header. Memory: as large as the vocabulary."""

    values: dict[str, Value]
    tensors: dict[str, Tensor]

    def text(self, key: str) -> str | None:
        """A string value; None where there is none of the name."""
        value = self.values.get(key)
        return value.data[8:].decode("utf-8", "replace") if value is not None and value.kind == STRING else None


def read_header(path: Path) -> Header:
    """Raises LocalFault (`model_invalid`)."""
    try:
        with path.open("rb") as file:
            return _header(file)
    except OSError as fault:
        raise error("model_invalid", f"{path}: {fault.strerror}") from fault
    except (struct.error, ValueError, KeyError) as fault:
        raise error("model_invalid", f"{path}: not a GGUF file, or its header is damaged") from fault


def is_gguf(path: Path) -> bool:
    """Whether the file says so. Raises LocalFault (`model_invalid`) where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as fault:
        raise error("model_invalid", f"{path}: {fault.strerror}") from fault


def _header(file: BinaryIO) -> Header:
    if file.read(4) != MAGIC:
        raise ValueError("magic")
    version, tensors, pairs = _unpack(file, "<IQQ")
    if version not in {2, 3} or tensors > MAX_TENSORS or pairs > MAX_PAIRS:
        raise ValueError("version or counts")
    values = dict(_pair(file) for _ in range(pairs))
    places = [_tensor(file) for _ in range(tensors)]
    alignment = DEFAULT_ALIGNMENT
    if "general.alignment" in values:
        (alignment,) = struct.unpack("<I", values["general.alignment"].data)
    start = -(-file.tell() // alignment) * alignment
    return Header(values, {name: tensor._replace(offset=start + tensor.offset) for name, tensor in places})


def _pair(file: BinaryIO) -> tuple[str, Value]:
    key = _string(file)[8:].decode()
    (kind,) = _unpack(file, "<I")
    return key, Value(kind, b"".join(_value(file, kind)))


def _value(file: BinaryIO, kind: int) -> Iterator[bytes]:
    if kind == STRING:
        yield _string(file)
    elif kind == ARRAY:
        head = _exactly(file, 12)
        item, count = struct.unpack("<IQ", head)
        yield head
        if item in SCALARS:
            yield _exactly(file, count * struct.calcsize(SCALARS[item]))
        else:
            for _ in range(count):
                yield from _value(file, item)
    else:
        yield _exactly(file, struct.calcsize(SCALARS[kind]))


def _tensor(file: BinaryIO) -> tuple[str, Tensor]:
    name = _string(file)[8:].decode()
    (dimensions,) = _unpack(file, "<I")
    if not 0 < dimensions <= MAX_DIMENSIONS:
        raise ValueError("dimensions")
    shape = _unpack(file, f"<{dimensions}Q")
    kind, offset = _unpack(file, "<IQ")
    return name, Tensor(shape, kind, offset)


def _string(file: BinaryIO) -> bytes:
    """With its length in front."""
    head = _exactly(file, 8)
    (length,) = struct.unpack("<Q", head)
    if length > MAX_STRING:
        raise ValueError("string length")
    return head + _exactly(file, length)


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, _exactly(file, struct.calcsize(layout)))


def _exactly(file: BinaryIO, size: int) -> bytes:
    if size > 1 << 30:
        raise ValueError("size")
    data = file.read(size)
    if len(data) != size:
        raise ValueError("cut off")
    return data
