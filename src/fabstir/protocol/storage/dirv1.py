"""A directory as S5 writes it: DirV1.

    5f 5d | CBOR [ "S5.pro", header {text: any}, directories {name: {int: any}}, files {name: {int: any}} ]

Fields of a file: 3 hash, 4 size, 6 media type, 7 seconds, 22 further fields; of a directory: 2 link (type byte and 32 bytes),
7 seconds. Written deterministically: numbers ascending, names in the order of their UTF-8 bytes (which is not the order of RFC 8949,
hence not `cbor.encode`), sizes always integers. Read leniently, since other clients sort by locale and write large sizes as
floats: any order, with or without the two bytes in front, and fields that we do not know are kept as they are. Never seals anything.
Specification: the DirV1 test vectors of the Rust and JavaScript implementations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import cbor2
import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.protocol.storage import cbor
from fabstir.protocol.storage.blob_id import BLAKE3, HASH
from fabstir.protocol.storage.keys import ED25519

MAGIC: Final = b"\x5f\x5d"
NAME: Final = "S5.pro"
_LINK, _HASH, _SIZE, _MEDIA_TYPE, _SECONDS, _EXTRA = 2, 3, 4, 6, 7, 22

Fields = dict[int, Any]


class FileEntry(msgspec.Struct, frozen=True):
    """A file: the blob that holds it, and what is known about it."""

    hash: Hash32
    size: int
    media_type: str | None = None
    seconds: int | None = None
    extra: dict[str, Any] = {}
    """Field 22. Only ever written into a directory that is sealed, since a file's key is in it."""
    other: Fields = {}
    """Fields of other clients, as they were read."""

    def fields(self) -> Fields:
        """As a map, numbers ascending."""
        found: Fields = {_HASH: self.hash, _SIZE: self.size, **self.other}
        found |= {_MEDIA_TYPE: self.media_type} if self.media_type is not None else {}
        found |= {_SECONDS: self.seconds} if self.seconds is not None else {}
        found |= {_EXTRA: self.extra} if self.extra else {}
        return dict(sorted(found.items()))


class DirectoryEntry(msgspec.Struct, frozen=True):
    """A directory: the registry key under which its pointer is, or a fixed blob."""

    link: bytes
    """`ed` and a public key, or `1e` and a hash."""
    seconds: int | None = None
    other: Fields = {}

    def fields(self) -> Fields:
        """As a map, numbers ascending."""
        found: Fields = {_LINK: self.link, **self.other}
        found |= {_SECONDS: self.seconds} if self.seconds is not None else {}
        return dict(sorted(found.items()))


Entry = FileEntry | DirectoryEntry


class Directory(msgspec.Struct, frozen=True):
    """The whole of a small directory, or the header of a large one. A name is in `entries` once."""

    entries: dict[str, Entry] = {}
    header: dict[str, Any] = {}


def encode(directory: Directory) -> bytes:
    """The one encoding."""
    names = sorted(directory.entries, key=str.encode)
    dirs = {
        name: directory.entries[name].fields() for name in names if isinstance(directory.entries[name], DirectoryEntry)
    }
    files = {name: directory.entries[name].fields() for name in names if isinstance(directory.entries[name], FileEntry)}
    header = {name: directory.header[name] for name in sorted(directory.header, key=str.encode)}
    return MAGIC + cbor2.dumps([NAME, header, dirs, files])


def decode(data: bytes) -> Directory:
    """Raises PeerFault (`storage_encoding`)."""
    found = cbor.loads(data.removeprefix(MAGIC))
    if not (
        isinstance(found, list)
        and len(found) == 4
        and found[0] == NAME
        and all(isinstance(part, dict) for part in found[1:])
    ):
        raise error("storage_encoding", "not a DirV1")
    header, dirs, files = found[1:]
    if any(type(name) is not str for part in found[1:] for name in part):
        raise error("storage_encoding", "a name that is no text")
    if both := dirs.keys() & files.keys():
        raise error("storage_encoding", f"{len(both)} names are both file and directory")
    entries: dict[str, Entry] = {name: directory_entry(fields) for name, fields in dirs.items()}
    entries |= {name: file_entry(fields) for name, fields in files.items()}
    return Directory(entries, header)


def encode_entry(entry: Entry) -> bytes:
    """An entry alone, as large directories keep it: a file's or a directory's fields, told apart by field 2."""
    return cbor2.dumps(entry.fields())


def decode_entry(data: bytes) -> Entry:
    """Raises PeerFault (`storage_encoding`)."""
    fields = cbor.loads(data)
    return directory_entry(fields) if isinstance(fields, dict) and _LINK in fields else file_entry(fields)


def file_entry(fields: object) -> FileEntry:
    """From its map. Raises `storage_encoding`."""
    given = _numbered(fields)
    digest, size, extra = given.pop(_HASH, None), _whole(given.pop(_SIZE, None)), given.pop(_EXTRA, {})
    media_type, seconds = given.pop(_MEDIA_TYPE, None), _whole(given.pop(_SECONDS, None))
    if not (isinstance(digest, bytes) and len(digest) == HASH and size is not None):
        raise error("storage_encoding", "a file without hash or size")
    if not isinstance(extra, dict) or not isinstance(media_type, str | None):
        raise error("storage_encoding", "a file's media type or further fields have another type")
    return FileEntry(Hash32(digest), size, media_type, seconds, extra, given)


def directory_entry(fields: object) -> DirectoryEntry:
    """From its map. Raises `storage_encoding`."""
    given = _numbered(fields)
    link, seconds = given.pop(_LINK, None), _whole(given.pop(_SECONDS, None))
    if not (isinstance(link, bytes) and len(link) == 1 + HASH and link[0] in (BLAKE3, ED25519)):
        raise error("storage_encoding", "a directory without a link")
    return DirectoryEntry(link, seconds, given)


def _numbered(fields: object) -> Fields:
    if not isinstance(fields, Mapping) or any(type(key) is not int for key in fields):
        raise error("storage_encoding", "an entry that is no map of numbers")
    return dict(fields)


def _whole(value: object) -> int | None:
    """An integer from 0; other clients write sizes beyond 32 bits as floats."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or value < 0:
        raise error("storage_encoding", "a size or a time that is no whole number")
    return value
