"""Who a model is: the hashes that go into its id, read from the weights file.

The tokenizer is every `tokenizer.*` pair of a GGUF file but the chat templates, the template the pair `tokenizer.chat_template`:

    tokenizer = SHA-256 over the pairs by key: u64 length of the key | key | u32 type | value as it is in the file
    template  = SHA-256 over the template's bytes

Another kind of file states neither here, and the SHA-256 of the whole covers it. Never reads weights, but for that hash.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from pathlib import Path
from typing import Final

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.models.gguf import Header, is_gguf, read_header
from fabstir.protocol.model_identity import NOT_STATED, ModelIdentity

TOKENIZER: Final = "tokenizer."
TEMPLATE: Final = "tokenizer.chat_template"


def identify(path: Path, repository: str) -> ModelIdentity:
    """The identity of a file of `repository`. Blocks (about 1 GB/s); remembered for as long as size and modification time stay.

    Raises LocalFault (`model_invalid`).
    """
    try:
        stat = path.stat()
        sha256, tokenizer, template = _hashes(path.resolve(), stat.st_size, stat.st_mtime_ns)
    except OSError as fault:
        raise error("model_invalid", f"{path}: {fault.strerror}") from fault
    return ModelIdentity(repository=repository, file=path.name, sha256=sha256, tokenizer=tokenizer, template=template)


@lru_cache(maxsize=64)
def _hashes(path: Path, _size: int, _mtime_ns: int) -> tuple[Hash32, Hash32, Hash32]:
    with path.open("rb") as file:
        sha256 = Hash32(hashlib.file_digest(file, "sha256").digest())
    if not is_gguf(path):
        return sha256, NOT_STATED, NOT_STATED
    header = read_header(path)
    return sha256, tokenizer_hash(header), template_hash(header)


def tokenizer_hash(header: Header) -> Hash32:
    """Zeros where the file states no tokenizer."""
    keys = sorted(key for key in header.values if key.startswith(TOKENIZER) and not key.startswith(TEMPLATE))
    digest = hashlib.sha256()
    for key in keys:
        value = header.values[key]
        name = key.encode()
        digest.update(struct.pack("<Q", len(name)) + name + struct.pack("<I", value.kind))
        digest.update(value.data)
    return Hash32(digest.digest()) if keys else NOT_STATED


def template_hash(header: Header) -> Hash32:
    """Zeros where the file states no template."""
    value = header.values.get(TEMPLATE)
    return Hash32(hashlib.sha256(value.data[8:]).digest()) if value is not None else NOT_STATED
