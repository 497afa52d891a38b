"""Encrypted blobs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import FabstirError
from fabstir.protocol.storage.sealing import padded, seal, seal_part, unseal, unseal_part

KEY, NONCE = b"\x01" * 32, b"\x02" * 24


def refused(blob: bytes, key: bytes = KEY) -> str:
    with pytest.raises(FabstirError) as caught:
        unseal(blob, key)
    return caught.value.code


@given(st.binary(max_size=300))
def test_sealed_content_opens_with_its_key_alone(content: bytes) -> None:
    """And neither it nor its length shows: short contents are all of one size."""
    blob = seal(content, KEY, NONCE)
    assert unseal(blob, KEY) == content
    assert len(blob) == 4096
    assert refused(blob, b"\x02" * 32) == "storage_key_wrong"


@given(st.binary(max_size=30), st.data())
def test_any_change_is_noticed(content: bytes, chance: st.DataObject) -> None:
    """One flipped bit, or a cut."""
    blob = bytearray(seal(content, KEY, NONCE))
    place = chance.draw(st.integers(0, len(blob) * 8 - 1))
    blob[place // 8] ^= 1 << place % 8
    assert refused(bytes(blob)) == refused(bytes(blob[: place // 8])) == "storage_key_wrong"


@given(st.binary(max_size=5000), st.integers(0, 2**40))
def test_a_part_opens_at_its_place_only(content: bytes, number: int) -> None:
    """A part of a file that stands at another number, or says another length, is refused."""
    part = seal_part(content, KEY, number, NONCE)
    assert unseal_part(part, KEY, number, len(content)) == content
    for at, size in ((number + 1, len(content)), (number, len(part))):
        with pytest.raises(FabstirError) as caught:
            unseal_part(part, KEY, at, size)
        assert caught.value.code == "storage_key_wrong"


@given(st.integers(1, 1 << 40))
def test_padding_is_bounded(size: int) -> None:
    """Whole steps, never less than the size; beyond 80 KiB at most a tenth more."""
    assert size <= padded(size) == padded(padded(size))
    assert padded(size) - size < 4096 if size <= 80 << 10 else padded(size) * 10 <= size * 11
