"""One value, one encoding."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import FabstirError
from fabstir.protocol.storage import cbor

SCALARS = st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.integers(-9, 300), inner, max_size=4)
    ),
    max_leaves=12,
)

GOLDEN: list[tuple[Any, str]] = [
    (0, "00"),
    (23, "17"),
    (24, "1818"),
    (5_000_000_000, "1b000000012a05f200"),
    (2**64 - 1, "1bffffffffffffffff"),
    (-1, "20"),
    (b"\x01\x55", "420155"),
    ("ü", "62c3bc"),
    ([1, [2, b""]], "8201820240"),
    ({"b": 1, "aa": 2, 10: 3, -1: 4, 100: 5}, "a50a03186405200461620162616102"),
    ({}, "a0"),
    ([None, True, False], "83f6f5f4"),
]


@pytest.mark.parametrize(("value", "encoded"), GOLDEN)
def test_golden(value: Any, encoded: str) -> None:
    """Shortest lengths, keys in the order of their encoded bytes; a size beyond 32 bits stays an integer."""
    assert cbor.encode(value).hex() == encoded
    assert cbor.decode(bytes.fromhex(encoded)) == value


@given(VALUES)
def test_values_survive(value: Any) -> None:
    """Decoding gives the value back."""
    assert cbor.decode(cbor.encode(value)) == value


@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_insertion_does_not_matter(value: Any, chance: Any) -> None:
    """A map is encoded the same, however it was filled."""

    def shuffled(part: Any) -> Any:
        if isinstance(part, dict):
            items = [(key, shuffled(inner)) for key, inner in part.items()]
            chance.shuffle(items)
            return dict(items)
        return [shuffled(inner) for inner in part] if isinstance(part, list) else part

    assert cbor.encode(shuffled(value)) == cbor.encode(value)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "1800",  # 0 in two bytes
        "190017",
        "5f4101ff",  # indefinite bytes
        "9f01ff",
        "a2616201616101",  # keys out of order
        "a2616101616102",  # a key twice
        "f97e00",  # a float
        "fb3ff0000000000000",
        "c101",  # a tag
        "d82a4101",
        "c249010000000000000000",  # a big number
        "0000",  # something at the end
        "8201",  # cut
        "61ff",  # not UTF-8
        "a1f601",  # a key that is neither text nor integer
        "f7",  # undefined
        "81" * 17 + "00",  # too deep
        "9bffffffffffffffff",
    ],
)
def test_every_other_encoding_is_refused(data: str) -> None:
    """Nothing but the one encoding is read."""
    with pytest.raises(FabstirError) as caught:
        cbor.decode(bytes.fromhex(data))
    assert caught.value.code == "storage_encoding"


@given(st.binary(max_size=60))
def test_any_bytes_are_read_exactly_or_refused(data: bytes) -> None:
    """No input raises anything else, and what is read encodes to the same bytes."""
    try:
        value = cbor.decode(data)
    except FabstirError as refused:
        if refused.code != "storage_encoding":
            raise
        return
    assert cbor.encode(value) == data
