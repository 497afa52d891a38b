"""Facts about a weights file: its digest, its name, whether it is a GGUF file at all; and the model that ships with the
package.

Reads the file, never loads the model. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32

MAGIC: Final = b"GGUF"
SCALAR_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
MAX_STRING: Final = 1 << 24
"""Longer than any chat template; a damaged length must not make us read the whole file."""


def default_model() -> Path:
    """The tiny chat model in the package: 1.7 MB, answers from a synthetic grammar (docs/explanation/tiny-model.md)."""
    return Path(__file__).with_name("data") / "tiny-chat-f16.gguf"


def file_sha256(path: Path) -> Hash32:
    """SHA-256 of the file. Blocks (about 1 GB/s); remembered for as long as size and modification time stay. Raises LocalFault."""
    try:
        stat = path.stat()
        return _sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)
    except OSError as fault:
        raise error("model_invalid", f"{path}: {fault.strerror}") from fault


@lru_cache(maxsize=64)
def _sha256(path: Path, _size: int, _mtime_ns: int) -> Hash32:
    with path.open("rb") as file:
        return Hash32(hashlib.file_digest(file, "sha256").digest())


def model_name(path: Path) -> str:
    """`general.name` of a GGUF file, or the file's own name where it has none. Raises LocalFault (`model_invalid`)."""
    try:
        with path.open("rb") as file:
            return _general_name(file) or path.stem
    except OSError as fault:
        raise error("model_invalid", f"{path}: {fault.strerror}") from fault
    except (struct.error, ValueError, KeyError) as fault:
        raise error("model_invalid", f"{path}: not a GGUF file, or its header is damaged") from fault


def _general_name(file: BinaryIO) -> str:
    """The value of `general.name`, reading no further than needed."""
    if file.read(4) != MAGIC:
        raise ValueError("magic")
    _version, _tensors, pairs = _unpack(file, "<IQQ")
    for _ in range(pairs):
        key = _string(file)
        (kind,) = _unpack(file, "<I")
        if key == "general.name" and kind == STRING:
            return _string(file)
        _skip(file, kind)
    return ""


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<Q")
    if length > MAX_STRING:
        raise ValueError("string length")
    data = file.read(length)
    if len(data) != length:
        raise ValueError("string cut off")
    return data.decode("utf-8", "replace")


def _skip(file: BinaryIO, kind: int) -> None:
    if kind == STRING:
        _string(file)
    elif kind == ARRAY:
        item, count = _unpack(file, "<IQ")
        if item in SCALAR_SIZES:
            file.seek(count * SCALAR_SIZES[item], 1)
        else:
            for _ in range(count):
                _skip(file, item)
    else:
        file.seek(SCALAR_SIZES[kind], 1)
