"""Reads a JSON body as JSON Schema means it: a number without a fraction is an integer, however it is written (`16.0`).

The decoder is stricter than the published documents, which cannot tell the two apart. The strict way is tried first, since nearly
everybody writes integers as such. Decides nothing else.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from fabstir.domain.errors import FabstirError
from fabstir.protocol.messages import FromRenter, decode_from_renter

_EXACT: Final = 2**53
"""Above this a float is not the number that was written."""
T = TypeVar("T")


def read_json(body: bytes, kind: type[T]) -> T:
    """`body` as `kind`. Raises msgspec.MsgspecError, UnicodeError or RecursionError."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as strict:
        if "got `float`" not in str(strict):
            raise
        return msgspec.convert(whole(msgspec.json.decode(body)), kind)


def read_message(body: bytes) -> FromRenter:
    """A message of the session protocol. Raises as `decode_from_renter`."""
    try:
        return decode_from_renter(body)
    except FabstirError as strict:
        if "got `float`" not in strict.detail:
            raise
        return decode_from_renter(msgspec.json.encode(whole(msgspec.json.decode(body))))


def whole(value: Any) -> Any:
    """The same tree with integers for floats that are some."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if isinstance(value, dict):
        return {name: whole(one) for name, one in value.items()}
    return [whole(one) for one in value] if isinstance(value, list) else value
