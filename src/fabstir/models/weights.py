"""Weights of the kinds in which GGUF files keep an output head, as 32-bit floats, row by row.

    F32, F16, BF16
    Q8_0: 32 weights: f16 d | 32 * i8            w = d * q
    Q4_0: 32 weights: f16 d | 16 bytes           w = d * (q - 8), low halves first
    Q6_K: 256 weights: 128 bytes low | 64 bytes high | 16 * i8 scales | f16 d      w = d * scale * (q - 32)

Exact: what is computed here is what llama.cpp computes from the same bytes (tests compare with the reference package). Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fabstir.domain.errors import error
from fabstir.models.gguf import Tensor

Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]
"""Rows of weights."""

CHUNK_BYTES: Final = 1 << 24
"""Of the file at a time; ten times as much in floats at most."""


class Kind(NamedTuple):
    """One kind of weights."""

    name: str
    weights: int
    """In a block."""
    size: int
    """Bytes of a block."""
    decode: Callable[[Bytes], Floats]
    """(blocks, size) -> (blocks, weights)."""


def _f32(blocks: Bytes) -> Floats:
    return blocks.view("<f4").astype(np.float32)


def _f16(blocks: Bytes) -> Floats:
    return blocks.view("<f2").astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _scale(blocks: Bytes, begin: int) -> Floats:
    return np.ascontiguousarray(blocks[:, begin : begin + 2]).view("<f2").astype(np.float32)


def _q8_0(blocks: Bytes) -> Floats:
    return _scale(blocks, 0) * np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32)


def _q4_0(blocks: Bytes) -> Floats:
    pairs = blocks[:, 2:]
    quants = np.concatenate([pairs & 15, pairs >> 4], axis=1).astype(np.int8) - np.int8(8)
    return _scale(blocks, 0) * quants.astype(np.float32)


def _q6_k(blocks: Bytes) -> Floats:
    count = len(blocks)
    low = blocks[:, :128].reshape(count, 2, 1, 64) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1)
    high = blocks[:, 128:192].reshape(count, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    quants = (low & 15).reshape(count, 256) | ((high & 3) << 4).reshape(count, 256)
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32) * _scale(blocks, 208)
    centred = (quants.astype(np.int8) - np.int8(32)).astype(np.float32)
    return (scales.reshape(count, 16, 1) * centred.reshape(count, 16, 16)).reshape(count, 256)


KINDS: Final = {
    0: Kind("F32", 1, 4, _f32),
    1: Kind("F16", 1, 2, _f16),
    2: Kind("Q4_0", 32, 18, _q4_0),
    8: Kind("Q8_0", 32, 34, _q8_0),
    14: Kind("Q6_K", 256, 210, _q6_k),
    30: Kind("BF16", 1, 2, _bf16),
}
"""By the number of the type in a GGUF file."""


class Rows:
    """The rows of a matrix in a file. Reads what is asked for; memory: CHUNK_BYTES and their floats."""

    def __init__(self, path: Path, tensor: Tensor) -> None:
        """Raises LocalFault (`model_invalid`) where it is no matrix of a kind that is known here."""
        if len(tensor.shape) != 2:
            raise error("model_invalid", f"{path}: the output head is no matrix")
        self.width, self.count = tensor.shape
        kind = KINDS.get(tensor.kind)
        if kind is None:
            known = ", ".join(sorted(kind.name for kind in KINDS.values()))
            raise error("model_invalid", f"{path}: weights of type {tensor.kind} are not read here; known are {known}")
        if not self.width or not self.count or self.width % kind.weights:
            raise error("model_invalid", f"{path}: rows of {self.width} weights in blocks of {kind.weights}")
        self._path, self._offset, self._kind = path, tensor.offset, kind
        self._row_bytes = self.width // kind.weights * kind.size

    def read(self, first: int, count: int) -> Floats:
        """Rows `first` to `first + count`. Raises LocalFault (`model_invalid`)."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset + first * self._row_bytes)
                data = file.read(count * self._row_bytes)
        except OSError as fault:
            raise error("model_invalid", f"{self._path}: {fault.strerror}") from fault
        if len(data) != count * self._row_bytes:
            raise error("model_invalid", f"{self._path}: ends inside the output head")
        blocks = np.frombuffer(data, np.uint8).reshape(-1, self._kind.size)
        return self._kind.decode(blocks).reshape(count, self.width)

    def chunks(self) -> Iterator[Floats]:
        """All rows in order, many at a time."""
        step = max(1, CHUNK_BYTES // self._row_bytes)
        for first in range(0, self.count, step):
            yield self.read(first, min(step, self.count - first))
