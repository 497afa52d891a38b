"""How stored content is encrypted, and padded so that its size says little.

    sealed blob = 8d | 01 | nonce (24) | XChaCha20-Poly1305(key, nonce, length (4, little-endian) | content | zeros)
    part n of a file = nonce (24) | XChaCha20-Poly1305(file's own key, nonce, content | zeros, aad = n as 8 bytes little-endian)

The first is S5's form for what changes: directories and the nodes of large ones, under the directory's key. The second is for file
content: every file, and every version of it, has a random key of its own, and its number is part of what is authenticated, so
that a part cannot be moved, repeated or taken from elsewhere. Nonces are random, always: a part that is sent again after a break
may be another one. Both are padded to S5's steps: 4 KiB up to 80 KiB, then
steps that double with the size, so that padding beyond 80 KiB adds at most a twentieth. Never draws randomness: the caller gives
nonces and keys. Primitives: libsodium through PyNaCl.
"""

from __future__ import annotations

from typing import Final

import nacl.bindings as sodium
import nacl.exceptions

from fabstir.domain.errors import error

NONCE: Final = 24
MAX_CONTENT: Final = 64 << 20
"""Bytes in one sealed blob."""
_MAGIC: Final = b"\x8d\x01"
_TAG: Final = 16
_LENGTH: Final = 4
_STEP: Final = 4 << 10
_STEPS: Final = 20
"""Up to this many steps of one width; then the width doubles."""


def padded(size: int) -> int:
    """`size` rounded up to S5's steps."""
    step = _STEP
    while size > step * _STEPS:
        step *= 2
    return -(-size // step) * step


def seal(content: bytes, key: bytes, nonce: bytes) -> bytes:
    """A sealed blob. ValueError beyond 64 MiB or where the nonce has another length."""
    if len(content) > MAX_CONTENT or len(nonce) != NONCE:
        raise ValueError(f"{len(content)} bytes, a nonce of {len(nonce)}")
    head = _MAGIC + nonce
    body = len(content).to_bytes(_LENGTH, "little") + content
    body += bytes(padded(len(head) + len(body) + _TAG) - len(head) - len(body) - _TAG)
    return head + _encrypt(body, nonce, key)


def unseal(blob: bytes, key: bytes) -> bytes:
    """The content of a sealed blob. Raises LocalFault (`storage_key_wrong`)."""
    if blob[: len(_MAGIC)] != _MAGIC or len(blob) < len(_MAGIC) + NONCE + _LENGTH + _TAG:
        raise error("storage_key_wrong", f"{len(blob)} bytes are no sealed blob")
    nonce = blob[len(_MAGIC) : len(_MAGIC) + NONCE]
    body = _decrypt(blob[len(_MAGIC) + NONCE :], nonce, key)
    length = int.from_bytes(body[:_LENGTH], "little")
    if length > len(body) - _LENGTH:
        raise error("storage_key_wrong", f"{length} bytes said to be in {len(body)}")
    return body[_LENGTH : _LENGTH + length]


def seal_part(content: bytes, key: bytes, number: int, nonce: bytes) -> bytes:
    """Part `number` of the file that alone has `key`."""
    if len(nonce) != NONCE:
        raise ValueError(f"a nonce of {len(nonce)}")
    padding = padded(NONCE + len(content) + _TAG) - NONCE - len(content) - _TAG
    return nonce + _encrypt(content + bytes(padding), nonce, key, _numbered(number))


def unseal_part(blob: bytes, key: bytes, number: int, size: int) -> bytes:
    """Its first `size` bytes. Raises LocalFault (`storage_key_wrong`)."""
    content = _decrypt(blob[NONCE:], blob[:NONCE], key, _numbered(number))
    if size > len(content):
        raise error("storage_key_wrong", f"a part of {len(content)} bytes, not {size}")
    return content[:size]


def _numbered(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _encrypt(content: bytes, nonce: bytes, key: bytes, aad: bytes = b"") -> bytes:
    return sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(content, aad, nonce, key)


def _decrypt(sealed: bytes, nonce: bytes, key: bytes, aad: bytes = b"") -> bytes:
    try:
        return sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, aad, nonce, key)
    except (nacl.exceptions.CryptoError, nacl.exceptions.TypeError, nacl.exceptions.ValueError) as cause:
        raise error("storage_key_wrong", f"{len(sealed)} bytes") from cause
