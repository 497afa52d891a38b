"""The log's form: what is whole is read, what is torn at the end is left out, what is damaged before that is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import LocalFault
from fabstir.protocol.vectors.log import Deleted, Operation, Upserted, frame_bytes, read

OPERATIONS: list[Operation] = [Upserted(5.0, [1, "b"], b"\0" * 24, [b"{}", b'{"a":1}']), Deleted(["b"])]
FRAMES = [frame_bytes(7, OPERATIONS), frame_bytes(8, [Deleted([3])]), frame_bytes(9, [Deleted([4])])]
WHOLE = b"".join(FRAMES)


def test_what_is_written_is_read() -> None:
    """With its sequence."""
    reading = read(WHOLE, "wal", 7)
    assert [frame.sequence for frame in reading.frames] == [7, 8, 9]
    assert reading.frames[0].operations == OPERATIONS and reading.good == len(WHOLE)


@given(st.integers(0, len(WHOLE)))
def test_an_end_that_was_torn_is_left_out(length: int) -> None:
    """At every byte: the frames before are all there, and nothing else."""
    reading = read(WHOLE[:length], "wal", 7)
    ends = [sum(map(len, FRAMES[:count])) for count in range(4)]
    assert reading.good == max(end for end in ends if end <= length)
    assert len(reading.frames) == ends.index(reading.good)


@given(st.integers(0, len(FRAMES[0]) + len(FRAMES[1]) - 1), st.integers(1, 255))
def test_damage_before_the_end_is_named(place: int, change: int) -> None:
    """A byte that changed in what was acknowledged: a whole frame comes after it."""
    damaged = bytearray(WHOLE)
    damaged[place] ^= change
    with pytest.raises(LocalFault, match="vectors_corrupt"):
        read(bytes(damaged), "wal", 7)


@given(st.integers(len(FRAMES[0]) + len(FRAMES[1]), len(WHOLE) - 1), st.integers(1, 255))
def test_a_changed_byte_in_the_last_frame_never_becomes_data(place: int, change: int) -> None:
    """It cannot be told from a torn one, so it is left out."""
    damaged = bytearray(WHOLE)
    damaged[place] ^= change
    assert len(read(bytes(damaged), "wal", 7).frames) == 2


@pytest.mark.parametrize(("data", "first"), [(FRAMES[0] + FRAMES[2], 7), (WHOLE, 6), (FRAMES[1], 7)])
def test_a_gap_is_named(data: bytes, first: int) -> None:
    """A frame, or a file, that is missing."""
    with pytest.raises(LocalFault, match="vectors_corrupt"):
        read(data, "wal", first)
