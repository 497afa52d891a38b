"""Which records agree with their own sampler, and how exactly it is computed."""

from __future__ import annotations

import random
from decimal import Context, Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.protocol.sampling import ONE, drawn_within_bounds, exp_of_minus, read_record
from fabstir.protocol.transcript import RECORD_TAG, SHAPED, Sampler, TokenRecord, record_preimage, record_salt
from tests.protocol.recording import GREEDY, SALT, WARM, drawn

EXACT = Context(prec=60)
HALF, QUARTER, EIGHTH, TENTH = -693_147, -1_386_294, -2_079_442, -2_302_585
TOP = ((7, HALF), (3, QUARTER), (9, EIGHTH))
LOW = ((7, HALF), (3, QUARTER), (9, TENTH))


@given(st.one_of(st.integers(0, 2**25 - 1), st.integers(0, 25).map(lambda bit: (1 << bit) - 1)))
def test_the_exponential_is_never_above_and_hardly_below(micro_nats: int) -> None:
    """The bound that Exponential.sol proves: 0 <= true value - computed < 2^-122."""
    true = Decimal(-micro_nats).scaleb(-6).exp(EXACT)
    assert 0 <= EXACT.subtract(EXACT.multiply(true, Decimal(ONE)), Decimal(exp_of_minus(micro_nats))) < 2**6


def test_the_exponential_at_its_ends() -> None:
    """exp(0) is exactly 1; what is less likely than 3e-15 counts as nothing."""
    assert exp_of_minus(0) == ONE
    assert exp_of_minus(2**25 - 1) > 0
    assert exp_of_minus(2**25) == exp_of_minus(2**31) == 0


@given(st.integers(0, 2**32), st.integers(0, 2_000), st.integers(1, 1_000_000), st.integers(1, 20))
def test_an_honest_record_always_holds(seed: int, temperature: int, top_p: int, k: int) -> None:
    """Whatever the sampler, what it draws is within bounds, in either order of tempering and cutting."""
    sampler = Sampler(temperature, top_p)
    assert drawn_within_bounds(drawn(random.Random(seed), sampler, k), sampler)


@pytest.mark.parametrize(
    ("record", "sampler"),
    [
        (TokenRecord(7, HALF, TOP), GREEDY),
        (TokenRecord(4, HALF, ((7, HALF),)), GREEDY),  # as likely as the first, and the list is full
        (TokenRecord(3, QUARTER, TOP), Sampler(1_000, 500_001)),
        (TokenRecord(3, QUARTER, TOP), Sampler(1_000, 499_001)),  # at the edge of the tolerance
        (TokenRecord(5, TENTH, TOP), Sampler(1, 950_000)),
        (TokenRecord(5, TENTH, TOP), Sampler(1_001, 1)),  # above temperature 1 the raw nucleus says nothing
        (TokenRecord(4, TENTH, LOW), WARM),
        (TokenRecord(5, -(2**31), ()), WARM),
        (TokenRecord(5, 0, ()), WARM),
        (TokenRecord(5, -20_000_000, TOP), SHAPED),  # a grammar may take what hardly ever comes
    ],
)
def test_what_holds(record: TokenRecord, sampler: Sampler) -> None:
    """Records at the edges that are within bounds."""
    assert drawn_within_bounds(record, sampler)


@pytest.mark.parametrize(
    ("record", "sampler"),
    [
        pytest.param(TokenRecord(3, QUARTER, TOP), GREEDY, id="greedy, and not the first"),
        pytest.param(TokenRecord(7, QUARTER, TOP), SHAPED, id="shaped, and listed with another log-probability"),
        pytest.param(TokenRecord(5, HALF, ((7, HALF), (3, HALF))), SHAPED, id="shaped, and more than 1 in all"),
        pytest.param(TokenRecord(7, HALF, ()), GREEDY, id="greedy, and nothing listed"),
        pytest.param(TokenRecord(3, HALF, TOP), GREEDY, id="listed with another log-probability"),
        pytest.param(TokenRecord(4, -2_040_221, LOW), WARM, id="not listed, and likelier than the last listed"),
        pytest.param(TokenRecord(3, QUARTER, TOP), Sampler(1_000, 498_000), id="outside the nucleus"),
        pytest.param(TokenRecord(5, TENTH, TOP), Sampler(500, 870_000), id="not listed, outside the nucleus"),
        pytest.param(TokenRecord(7, HALF, (TOP[1], TOP[0])), WARM, id="not sorted"),
        pytest.param(TokenRecord(7, HALF, (TOP[0], TOP[0])), WARM, id="a token twice"),
        pytest.param(TokenRecord(7, -100, ((7, -100), (8, -200))), WARM, id="more than certain"),
        pytest.param(TokenRecord(5, HALF, ((7, HALF), (8, HALF))), WARM, id="more than certain with the drawn one"),
        pytest.param(TokenRecord(7, 1, ()), WARM, id="above 0"),
        pytest.param(TokenRecord(7, HALF, ((8, 1),)), WARM, id="above 0 in the list"),
        pytest.param(TokenRecord(7, HALF, TOP), Sampler(800, 0), id="top_p of 0"),
        pytest.param(TokenRecord(7, HALF, TOP), Sampler(800, 1_000_001), id="top_p above 1"),
        pytest.param(TokenRecord(1, -9_000_000, tuple((n, -9_000_000) for n in range(21))), WARM, id="21 listed"),
    ],
)
def test_what_does_not_hold(record: TokenRecord, sampler: Sampler) -> None:
    """Each lie is refused."""
    assert not drawn_within_bounds(record, sampler)


@given(st.integers(0, 2**32), st.integers(1, 20))
def test_another_token_at_temperature_zero_is_found(seed: int, k: int) -> None:
    """A record that names another token than the likeliest, with its true log-probability, does not hold at temperature 0."""
    record = drawn(random.Random(seed), WARM, 20)
    other, logprob = next(pair for pair in record.top[1:] if pair[1] < record.top[0][1])
    lie = msgspec.structs.replace(record, token=other, logprob=logprob, top=record.top[:k])
    assert not drawn_within_bounds(lie, GREEDY)


@given(st.integers(0, 2**32), st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_a_record_reads_back(seed: int, k: int, index: int) -> None:
    """What was hashed, without the tag, is the record, its salt, its index and its sampler."""
    record = drawn(random.Random(seed), WARM, k)
    data = record_preimage(SALT, index, record, WARM).removeprefix(RECORD_TAG)
    opened = read_record(data)
    assert (opened.token, opened.logprob, opened.top) == (record.token, record.logprob, record.top)
    assert (opened.salt, opened.index, opened.sampler) == (record_salt(SALT, index), index, WARM)
    for other in (data[:-1], data + b"\0", b""):
        with pytest.raises(ValueError, match="one record"):
            read_record(other)
