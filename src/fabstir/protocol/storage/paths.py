"""Paths and cursors: what a name may be, and where a listing goes on. Both come from callers and are refused by name.

A path is names between slashes; slashes at its ends do not count, and the empty path is the root. A name is 1 to 255 bytes of UTF-8 without
slash and without control characters, and is not `.` or `..`. Names are compared byte for byte: nothing is folded or normalised.
A listing goes by the BLAKE3 of the names, in directories of every size, so that a cursor (the last place and name, in base64url)
keeps its meaning while entries come and go and while a directory grows from one form into the other.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from fabstir.domain.errors import error
from fabstir.protocol.storage.hamt import place_of

MAX_NAME: Final = 255
MAX_DEPTH: Final = 64
_PLACE: Final = 8
_FIRST_PRINTABLE: Final = 0x20
_DELETE: Final = 0x7F


def parse(path: str) -> tuple[str, ...]:
    """The names on the way. Raises PeerFault (`storage_path`)."""
    inner = path.strip("/")
    names = tuple(inner.split("/")) if inner else ()
    if len(names) > MAX_DEPTH:
        raise error("storage_path", f"{len(names)} names, at most {MAX_DEPTH}")
    for name in names:
        if not name or name in (".", ".."):
            raise error("storage_path", f"{name!r} is no name")
        if any(
            ord(letter) < _FIRST_PRINTABLE or ord(letter) == _DELETE or 0xD800 <= ord(letter) < 0xE000
            for letter in name
        ):
            raise error("storage_path", "a control character in a name")
        if len(name.encode()) > MAX_NAME:
            raise error("storage_path", f"a name of {len(name.encode())} bytes, at most {MAX_NAME}")
    return names


def parse_file(path: str) -> tuple[tuple[str, ...], str]:
    """The directory and the name in it. Raises `storage_path` for the root."""
    names = parse(path)
    if not names:
        raise error("storage_path", "the root is a directory")
    return names[:-1], names[-1]


def cursor_of(name: str) -> str:
    """The cursor after `name`."""
    return base64.urlsafe_b64encode(place_of(name).to_bytes(_PLACE, "big") + name.encode()).decode().rstrip("=")


def after_of(cursor: str | None) -> tuple[int, str] | None:
    """Place and name that a cursor stands for. Raises PeerFault (`storage_cursor`)."""
    if cursor is None:
        return None
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        name = data[_PLACE:].decode()
    except (binascii.Error, ValueError) as cause:
        raise error("storage_cursor") from cause
    if cursor_of(name) != cursor:
        raise error("storage_cursor")
    return place_of(name), name
