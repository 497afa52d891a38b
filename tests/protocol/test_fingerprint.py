"""Fingerprints of activations: small, the same for the same states, near for near ones, far for others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.protocol.fingerprint import distance, fingerprint
from fabstir.protocol.fingerprinted import CHUNK_TOKENS, SIZE


def states(seed: int, tokens: int = CHUNK_TOKENS, width: int = 256) -> np.ndarray:
    """Like a hidden state after its norm."""
    return np.random.Generator(np.random.PCG64(seed)).standard_normal((tokens, width), dtype=np.float32)


@given(st.integers(0, 2**32), st.integers(1, CHUNK_TOKENS), st.sampled_from([1, 64, 128, 4096]))
def test_a_fingerprint_of_the_same_states_is_at_distance_zero(seed: int, tokens: int, width: int) -> None:
    """And takes 258 bytes at most, whatever the width."""
    given_states = states(seed, tokens, width)
    made = fingerprint(given_states)
    assert len(made) <= SIZE == 258
    assert distance(given_states, made) == 0.0


def test_rounding_is_near_and_other_states_are_far() -> None:
    """In this order, with room between them."""
    made = fingerprint(states(1))
    noise = states(2)
    near = distance(states(1) * (1 + np.float32(1e-3) * noise), made)
    middle = distance(states(1) + np.float32(0.1) * noise, made)
    far = distance(states(3), made)
    assert 0 < near < 0.02 < middle < 0.5
    assert 0.95 < far <= 1


@given(st.binary(max_size=300))
def test_whatever_a_host_hands_in_has_a_distance(made: bytes) -> None:
    """Bytes of any length and content."""
    assert 0 <= distance(states(1), made) <= 1


@pytest.mark.parametrize("wrong", [states(1, 33), states(1)[:0], np.full((2, 64), np.nan)], ids=["long", "none", "nan"])
def test_states_that_have_no_fingerprint_are_refused(wrong: np.ndarray) -> None:
    """Never a fingerprint of something else."""
    with pytest.raises(ValueError, match="states"):
        fingerprint(wrong)
