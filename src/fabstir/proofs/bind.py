"""The `bind` circuit in numbers: which field elements go in, which public words come out, how a proof lies in bytes.

Pure; knows no ezkl and no files. The contract `EzklBindVerifier` computes the same from its side, so every layout here
is one that the chain checks. What the circuit shows and does not show: docs/explanation/proofs.md.
"""

from __future__ import annotations

from typing import Final

from eth_utils.crypto import keccak

from fabstir.domain.ids import Hash32
from fabstir.ports.prover import CHECKPOINT_TOKENS, ProofStatement

FIELD: Final = 21888242871839275222246405745257275088548364400416034343698204186575808495617
"""Order of the scalar field of BN254."""

RECORD_BYTES: Final = 31
"""Of a 32-byte digest, so that the integer is always below FIELD. 248 bits are plenty against collisions."""

HALO2_BYTES: Final = 2464
"""Length of every proof of this circuit; a multiple of 32, so that its ABI form has no padding."""

_RECORDS_POINT: Final = slice(64, 128)
"""The proof opens with one curve point for each input tensor: first ctx, then records."""

_PREFIX: Final = 3 * 32
"""ABI: checksum, offset of the bytes (64), their length."""


def record_values(records: tuple[bytes, ...]) -> list[int]:
    """The records as field elements, filled up with zeros to the circuit's width. Raises ValueError on a wrong count or size."""
    if not 1 <= len(records) <= CHECKPOINT_TOKENS or any(len(record) != 32 for record in records):
        raise ValueError(f"a checkpoint is 1 to {CHECKPOINT_TOKENS} digests of 32 bytes")
    values = [int.from_bytes(record[:RECORD_BYTES], "big") for record in records]
    return values + [0] * (CHECKPOINT_TOKENS - len(values))


def is_statement(statement: ProofStatement) -> bool:
    """Whether its words have their size."""
    return all(len(word) == 32 for word in (statement.statement, statement.seed, statement.commitment))


def public_words(statement: ProofStatement) -> list[int]:
    """Statement and seed in halves of 128 bits, high half first: 256 bits do not fit one field element."""
    halves = (word[at : at + 16] for word in (statement.statement, statement.seed) for at in (0, 16))
    return [int.from_bytes(half, "big") for half in halves]


def checksum(values: list[int]) -> int:
    """The sum that the circuit makes public. It keeps the records inside the circuit; it is no hash of them."""
    return sum(values) % FIELD


def opening(point: bytes, total: int) -> bytes:
    """Curve point (x, y, big-endian) and checksum: what a commitment's digest is the hash of."""
    return point + total.to_bytes(32, "big")


def digest(opened: bytes) -> Hash32:
    """The commitment to an `opening`."""
    return Hash32(keccak(opened))


def opening_of_proof(halo2: bytes, total: int) -> bytes:
    """The opening that a proof speaks of."""
    return opening(halo2[_RECORDS_POINT], total)


def encode_proof(total: int, halo2: bytes) -> bytes:
    """abi.encode(uint256 checksum, bytes proof)."""
    return b"".join(n.to_bytes(32, "big") for n in (total, 64, len(halo2))) + halo2


def decode_proof(encoded: bytes) -> tuple[int, bytes] | None:
    """(checksum, proof), or None where `encoded` is not exactly what `encode_proof` makes for this circuit.

    Stricter than Solidity, which ignores bytes after the end: nothing honest looks like that.
    """
    total, halo2 = int.from_bytes(encoded[:32], "big"), encoded[_PREFIX:]
    if len(halo2) != HALO2_BYTES or total >= FIELD or encode_proof(total, halo2) != encoded:
        return None
    return total, halo2
