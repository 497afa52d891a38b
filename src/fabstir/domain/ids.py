"""Identifiers, each with a type of its own.

Decides nothing. An address or a hash crosses module borders as raw bytes in a `NewType`; text forms (0x-prefixed,
checksummed where the field expects it) exist only on the wire, in files and on the screen.
"""

from __future__ import annotations

from typing import Final, NewType

Address = NewType("Address", bytes)
"""20 bytes, an EVM account or contract."""

Hash32 = NewType("Hash32", bytes)
"""32 bytes, the output of keccak-256, SHA-256 or the like."""

JobId = NewType("JobId", bytes)
"""32 bytes, keccak-256 of the ABI-encoded terms: names one payment channel between one renter and one host."""

ModelId = NewType("ModelId", bytes)
"""32 bytes, keccak-256 of (repository, file, SHA-256 of weights, tokenizer and template) as `ModelRegistry` computes it."""

SessionId = NewType("SessionId", str)
"""Chosen by the renter, 1 to 64 characters of [A-Za-z0-9_-]: names one conversation inside a job."""

TokenId = NewType("TokenId", int)
"""An id of the model's own tokenizer."""

ZERO_ADDRESS: Final = Address(bytes(20))
"""As the token of a job: the chain's native coin (ETH)."""

ZERO_HASH: Final = Hash32(bytes(32))


def to_hex(value: bytes) -> str:
    """`value` as 0x-prefixed lower-case hexadecimal."""
    return "0x" + value.hex()


def from_hex(text: str, length: int) -> bytes:
    """The `length` bytes that 0x-prefixed `text` stands for.

    Raises ValueError where the prefix is missing, the length differs or a digit is none.
    """
    if not text.startswith("0x") or len(text) != 2 + 2 * length:
        raise ValueError(f"expected 0x and {2 * length} hexadecimal digits")
    return bytes.fromhex(text[2:])


def address(text: str) -> Address:
    """The address written as `text`; letter case is not checked. Raises ValueError."""
    return Address(from_hex(text, 20))


def hash32(text: str) -> Hash32:
    """The 32 bytes written as `text`. Raises ValueError."""
    return Hash32(from_hex(text, 32))
