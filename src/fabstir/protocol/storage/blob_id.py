"""What a blob is called: its BLAKE3-256 and its size, as S5 writes them.

    identifier = 5b 82 | 1e | hash (32) | size, little-endian without trailing zero bytes, at least one byte

Parsing also takes what older S5 software still sends (`26 1f hash size`, and the multihashes `1e hash` and `1f hash`, which say no
size); writing gives the current form, except `wire_hash`, since queries between peers still carry the legacy byte. A CIDv1 of the
raw bytes can be printed for tools of the IPFS kind. Never reads a blob. Specification: docs.sfive.net/spec/blobs.html.
"""

from __future__ import annotations

from typing import Final

import msgspec
from blake3 import blake3

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.protocol.storage import multibase
from fabstir.protocol.storage.multibase import Base

MAGIC: Final = b"\x5b\x82"
BLAKE3: Final = 0x1E
"""The multihash code of BLAKE3."""
BLAKE3_LEGACY: Final = 0x1F
"""What the classic S5 network writes in its place."""
LEGACY_RAW: Final = 0x26
"""First byte of an old raw CID."""
HASH: Final = 32
MAX_SIZE_BYTES: Final = 8
_CID_V1_RAW: Final = bytes((0x01, 0x55, BLAKE3, HASH))


class BlobId(msgspec.Struct, frozen=True, order=True):
    """A blob, by content. `size` is None where whoever named it did not say."""

    hash: Hash32
    size: int | None = None

    @classmethod
    def of(cls, content: bytes) -> BlobId:
        """The identifier of `content`."""
        return cls(hash_of(content), len(content))

    def to_bytes(self) -> bytes:
        """The binary identifier. A size that is unknown is written as 0, as S5 does."""
        size = (self.size or 0).to_bytes(MAX_SIZE_BYTES, "little").rstrip(b"\0") or b"\0"
        return MAGIC + bytes((BLAKE3,)) + self.hash + size

    def to_text(self, base: Base = "b") -> str:
        """The identifier in a multibase."""
        return multibase.encode(self.to_bytes(), base)

    def __str__(self) -> str:
        return self.to_text()

    def wire_hash(self) -> bytes:
        """The multihash with the legacy byte, for hash queries and storage locations between peers."""
        return bytes((BLAKE3_LEGACY,)) + self.hash

    def cid_v1(self) -> str:
        """A CIDv1 `raw` of the same bytes, in base32, for tools that know no S5."""
        return multibase.encode(_CID_V1_RAW + self.hash, "b")

    @classmethod
    def parse(cls, given: str | bytes) -> BlobId:
        """Text in a multibase, or bytes. Raises PeerFault (`storage_id_malformed`)."""
        data = multibase.decode(given) if isinstance(given, str) else given
        offset = _hash_offset(data)
        if data[offset - 1] not in (BLAKE3, BLAKE3_LEGACY):
            raise error("storage_id_malformed", f"hash type {data[offset - 1]:#04x} is not BLAKE3")
        end = offset + HASH
        digest, size = Hash32(data[offset:end]), data[end:]
        if len(digest) != HASH or len(size) > MAX_SIZE_BYTES:
            raise error("storage_id_malformed", f"{len(data)} bytes")
        if offset == 1 and data[0] != LEGACY_RAW and size:
            raise error("storage_id_malformed", "bytes after a multihash")
        if len(size) > 1 and size[-1] == 0:
            raise error("storage_id_malformed", "the size has zero bytes at its end")
        return cls(digest, int.from_bytes(size, "little") or None if size else None)


def hash_of(content: bytes) -> Hash32:
    """BLAKE3-256."""
    return Hash32(blake3(content).digest())


def _hash_offset(data: bytes) -> int:
    """Where the 32 bytes of the hash begin; the byte before them is the type of the hash."""
    if data[: len(MAGIC)] == MAGIC and len(data) > len(MAGIC):
        return len(MAGIC) + 1
    if data[:1] == bytes((LEGACY_RAW,)) and len(data) > 1:
        return 2
    if data[:1] in (bytes((BLAKE3,)), bytes((BLAKE3_LEGACY,))):
        return 1
    raise error("storage_id_malformed", f"begins with {data[:3].hex()!r}")
