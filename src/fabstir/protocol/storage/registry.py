"""Registry entries: a signed pointer that can move, and the one rule for moving it.

    signed  = 07 | revision (8, little-endian) | length (1) | data (at most 64)
    entry   = 07 | public key (33) | revision (8) | length (1) | data | signature (64)

Of two entries of one key the higher revision is valid. A store takes an entry only if it is signed and higher than what it
has, and takes the same entry again; everything else is refused by name, so that a late or replayed write cannot undo a newer one.
Never reads or writes a store. Specification: docs.sfive.net/spec/registry.html; wire form of the classic S5 network.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.protocol.storage.blob_id import BLAKE3, BLAKE3_LEGACY, HASH
from fabstir.protocol.storage.keys import KeyPair, is_signed_by

TYPE: Final = 0x07
MAX_DATA: Final = 64
MAX_REVISION: Final = (1 << 64) - 1
_PUBLIC: Final = 33
_SIGNATURE: Final = 64
_HEAD: Final = 1 + _PUBLIC + 8 + 1


class RegistryEntry(msgspec.Struct, frozen=True):
    """A pointer under `public`. Not trusted until `check` has passed."""

    public: bytes
    revision: int
    data: bytes
    signature: bytes

    @classmethod
    def sign(cls, pair: KeyPair, revision: int, data: bytes) -> RegistryEntry:
        """A new entry. ValueError beyond 64 bytes or 64 bits."""
        if len(data) > MAX_DATA or not 0 <= revision <= MAX_REVISION:
            raise ValueError(f"{len(data)} bytes at revision {revision}")
        return cls(pair.public, revision, data, pair.sign(_signed(revision, data)))

    def check(self) -> RegistryEntry:
        """Itself. Raises PeerFault (`registry_invalid`)."""
        if len(self.data) > MAX_DATA or not 0 <= self.revision <= MAX_REVISION:
            raise error("registry_invalid", f"{len(self.data)} bytes at revision {self.revision}")
        if not is_signed_by(self.public, _signed(self.revision, self.data), self.signature):
            raise error("registry_invalid", f"revision {self.revision} under {self.public.hex()[:12]}: wrong signature")
        return self

    def pack(self) -> bytes:
        """The form between peers and in stores."""
        head = bytes((TYPE,)) + self.public + self.revision.to_bytes(8, "little") + bytes((len(self.data),))
        return head + self.data + self.signature

    @classmethod
    def unpack(cls, packed: bytes) -> RegistryEntry:
        """Parsed and checked. Raises PeerFault (`registry_invalid`)."""
        if len(packed) < _HEAD or packed[0] != TYPE or len(packed) != _HEAD + packed[_HEAD - 1] + _SIGNATURE:
            raise error("registry_invalid", f"{len(packed)} bytes")
        end = _HEAD + packed[_HEAD - 1]
        revision = int.from_bytes(packed[34:42], "little")
        return cls(packed[1:34], revision, packed[_HEAD:end], packed[end:]).check()


def pointer_to(digest: bytes) -> bytes:
    """The data of an entry that points to a blob."""
    return bytes((BLAKE3,)) + digest


def pointed_at(entry: RegistryEntry) -> Hash32:
    """The blob that an entry points to. Raises PeerFault (`registry_invalid`)."""
    if len(entry.data) != 1 + HASH or entry.data[0] not in (BLAKE3, BLAKE3_LEGACY):
        raise error("registry_invalid", f"data of {len(entry.data)} bytes is no pointer to a blob")
    return Hash32(entry.data[1:])


def is_news(held: RegistryEntry | None, offered: RegistryEntry) -> bool:
    """Whether a store has to write `offered`: False where it holds just that. Raises `registry_invalid`, `registry_stale`."""
    offered.check()
    if held is None or offered.revision > held.revision:
        return True
    if offered.revision == held.revision and offered.data == held.data:
        return False
    raise error("registry_stale", f"revision {offered.revision} offered, {held.revision} held")


def _signed(revision: int, data: bytes) -> bytes:
    return bytes((TYPE,)) + revision.to_bytes(8, "little") + bytes((len(data),)) + data
