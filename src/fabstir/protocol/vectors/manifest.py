"""A collection at one moment: its description, its segments by the hashes of their files, what of them is gone, where its log goes on.

The local manifest and the published one have the same form; a published one has no log. Files are immutable and called by their
BLAKE3, so that a copy needs only those that it does not have. The encoding is canonical CBOR behind its own hash: a manifest
that was changed is refused (`vectors_corrupt`). Never touches a file.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from blake3 import blake3

from fabstir.domain.errors import FabstirError, error
from fabstir.protocol.storage import cbor
from fabstir.protocol.vectors.collection import CollectionSpec, spec_of
from fabstir.protocol.vectors.plan import Kind, Tier

VERSION: Final = 1
_HASH: Final = 32


class SegmentEntry(msgspec.Struct, frozen=True):
    """A frozen segment. Hashes are hexadecimal BLAKE3-256."""

    number: int
    kind: Kind
    tier: Tier
    rows: int
    vectors: str
    """Rows in the collection's precision."""
    columns: str
    """Ids, times and metadata."""
    index: str | None
    probes: int
    """How far a search looks: lists for `ivf`, breadth for `hnsw`; 0 where it is exact."""
    recall_ppm: int
    """Recall at 10 with that, measured on its own rows when it was built, in millionths."""
    dead: bytes
    """One bit a row, most significant first."""

    def files(self) -> tuple[str, ...]:
        """What has to be there."""
        return (self.vectors, self.columns, *((self.index,) if self.index else ()))


class Manifest(msgspec.Struct, frozen=True):
    """See above."""

    spec: CollectionSpec
    segments: tuple[SegmentEntry, ...]
    wal_from: int
    """The first file of the log that is still needed."""
    sequence: int
    """Of the first frame in it."""
    revision: int
    """How often it was published, or restored from what was; 0 for never."""
    published: str
    """Hash of the manifest that was published last."""
    intended: str
    """Hash of the one whose publication was begun last: after a crash it may lie there, or `published` still."""

    def files(self) -> frozenset[str]:
        """Every file that it names."""
        return frozenset(name for each in self.segments for name in each.files())


def digest(data: bytes) -> str:
    """What a file is called."""
    return blake3(data).hexdigest()


def encode(manifest: Manifest) -> bytes:
    """Hash and value."""
    value = cbor.encode({"version": VERSION, **msgspec.to_builtins(manifest, builtin_types=(bytes,))})
    return blake3(value).digest() + value


def decode(data: bytes, name: str) -> Manifest:
    """Raises LocalFault (`vectors_corrupt`)."""
    if blake3(data[_HASH:]).digest() != data[:_HASH]:
        raise error("vectors_corrupt", f"{name}: its hash is not that of its content")
    try:
        value: Any = cbor.decode(data[_HASH:])
        if value.pop("version") != VERSION:
            raise error("vectors_corrupt", f"{name}: written by another version")
        spec = spec_of(value.pop("spec"))
        rest = msgspec.convert({**value, "spec": msgspec.to_builtins(spec)}, Manifest)
    except FabstirError as cause:
        if cause.code == "vectors_corrupt":
            raise
        raise error("vectors_corrupt", f"{name}: {cause}") from cause
    except (msgspec.ValidationError, KeyError, AttributeError, TypeError) as cause:
        raise error("vectors_corrupt", f"{name}: {cause}") from cause
    return rest
