"""Bytes as text with a letter that says how: `f` hexadecimal, `b` base32, `z` base58btc, `u` base64url. Nothing else is read.

Strict in what it takes: lower case only, no padding, no stray bits at the end, so that one value has one text in each base.
Specification: github.com/multiformats/multibase; S5 uses these four.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, Literal

from fabstir.domain.errors import error

Base = Literal["f", "b", "z", "u"]

MAX_TEXT: Final = 512
"""Characters: base58 takes quadratic time, and nothing that is named here is longer."""
_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGIT: Final = {letter: value for value, letter in enumerate(_ALPHABET)}


def encode(data: bytes, base: Base) -> str:
    """The letter of the base, then the text."""
    if base == "f":
        return "f" + data.hex()
    if base == "b":
        return "b" + base64.b32encode(data).decode().rstrip("=").lower()
    if base == "z":
        return "z" + _to_base58(data)
    return "u" + base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode(text: str) -> bytes:
    """Raises PeerFault (`storage_id_malformed`)."""
    if len(text) > MAX_TEXT:
        raise error("storage_id_malformed", f"{len(text)} characters, at most {MAX_TEXT}")
    base, body = text[:1], text[1:]
    try:
        data = _decode(base, body)
    except (ValueError, KeyError, binascii.Error) as cause:
        raise error("storage_id_malformed", f"not base {base!r}: {text[:80]!r}") from cause
    if encode(data, base) != text:  # type: ignore[arg-type]
        raise error("storage_id_malformed", f"not the one way to write it in base {base!r}: {text[:80]!r}")
    return data


def _decode(base: str, body: str) -> bytes:
    if base == "f":
        return bytes.fromhex(body)
    if base == "b":
        return base64.b32decode(body.upper() + "=" * (-len(body) % 8))
    if base == "z":
        return _from_base58(body)
    if base == "u":
        return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    raise ValueError(base)


def _to_base58(data: bytes) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def _from_base58(text: str) -> bytes:
    number = 0
    for letter in text:
        number = number * 58 + _DIGIT[letter]
    body = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes(len(text) - len(text.lstrip("1"))) + body
