"""The circuit in numbers: what goes in, what comes out, and that nothing else is taken for it."""

from __future__ import annotations

import pytest
from eth_abi import abi
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.ids import Hash32
from fabstir.ports.prover import ProofStatement
from fabstir.proofs import bind

WORD = st.binary(min_size=32, max_size=32)
HALO2 = bytes(range(256)) * 9 + bytes(160)
TOTAL = 77


@given(WORD, WORD)
def test_public_words_are_halves(statement: bytes, seed: bytes) -> None:
    """Each word becomes two field elements below 2^128, high half first, and nothing of it is lost."""
    words = bind.public_words(ProofStatement(Hash32(statement), Hash32(seed), Hash32(bytes(32))))
    assert b"".join(word.to_bytes(16, "big") for word in words) == statement + seed


@given(st.lists(WORD, min_size=1, max_size=256))
def test_records_fill_the_circuit(records: list[bytes]) -> None:
    """Any digests are field elements: 31 bytes each, in order, zeros up to the width of 256."""
    values = bind.record_values(tuple(records))
    assert len(values) == 256 and all(value < bind.FIELD for value in values)
    assert [value.to_bytes(31, "big") for value in values[: len(records)]] == [record[:31] for record in records]
    assert not any(values[len(records) :])


@pytest.mark.parametrize("records", [(), (bytes(32),) * 257, (bytes(31),), (bytes(32), bytes(33))])
def test_wrong_records(records: tuple[bytes, ...]) -> None:
    """No records, too many or of a wrong size are the caller's mistake."""
    with pytest.raises(ValueError, match="1 to 256"):
        bind.record_values(records)


def test_checksum_is_the_sum_in_the_field() -> None:
    """The checksum wraps at the field's order."""
    assert bind.checksum([bind.FIELD - 1, 5]) == 4


def test_commitment_is_point_and_sum() -> None:
    """Digest = keccak-256 of proof bytes 64 to 128 and the checksum: the expression in EzklBindVerifier."""
    assert bind.digest(bind.opening_of_proof(HALO2, TOTAL)) == keccak(HALO2[64:128] + TOTAL.to_bytes(32, "big"))


def test_encoding_is_the_abi_s() -> None:
    """`encode_proof` is abi.encode(uint256, bytes), and `decode_proof` undoes it."""
    encoded = bind.encode_proof(TOTAL, HALO2)
    assert encoded == abi.encode(["uint256", "bytes"], [TOTAL, HALO2])
    assert bind.decode_proof(encoded) == (TOTAL, HALO2)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        bytes(96),
        bind.encode_proof(TOTAL, HALO2)[:-1],
        bind.encode_proof(TOTAL, HALO2) + b"\0",
        bind.encode_proof(TOTAL, HALO2 + bytes(32)),
        bind.encode_proof(bind.FIELD, HALO2),
        bytes(31) + b"\1" + bytes(31) + b"\x60" + bind.encode_proof(TOTAL, HALO2)[64:],
    ],
    ids=["empty", "zeros", "short", "long", "longer proof", "checksum outside the field", "odd offset"],
)
def test_other_encodings_are_none(encoded: bytes) -> None:
    """Whatever is not exactly the one encoding of one proof is not decoded."""
    assert bind.decode_proof(encoded) is None
