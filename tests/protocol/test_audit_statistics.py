"""Thresholds: never crossed more often than promised, tighter with more evidence, exact where exact arithmetic is at hand."""

from __future__ import annotations

import math
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.protocol.audit_statistics import (
    SMALLEST_BOUND,
    at_most,
    bernstein_excess,
    cut_mean,
    most_of,
    spread_of,
    upper_rate,
)


@pytest.mark.parametrize("rate", [0.1, 0.01])
@pytest.mark.parametrize("count", [5, 50, 500])
def test_a_mean_exceeds_its_threshold_no_more_often_than_promised(count: int, rate: float) -> None:
    """Also for the worst kind of value: rarely as large as it can be."""
    chance = np.random.Generator(np.random.PCG64(3))
    values = (chance.random((4000, count)) < 0.02).astype(float)
    limit = 0.02 + bernstein_excess(0.02 * 0.98, 1.0, count, rate)
    assert (values.mean(axis=1) > limit).mean() <= rate


@given(st.integers(1, 60), st.floats(0.001, 0.999))
def test_the_binomial_tail_is_exact(trials: int, rate: float) -> None:
    """Against the sum of its terms."""
    for events in range(trials + 1):
        terms = sum(comb(trials, n) * rate**n * (1 - rate) ** (trials - n) for n in range(events + 1))
        assert at_most(events, trials, rate) == pytest.approx(terms, abs=1e-9)


@given(st.integers(0, 3000), st.floats(0, 0.05), st.sampled_from([0.01, 2e-5]))
def test_what_is_allowed_is_the_smallest_number_that_is_exceeded_rarely(trials: int, rate: float, doubt: float) -> None:
    """One less would be exceeded too often."""
    allowed = most_of(trials, rate, doubt)
    assert 1 - at_most(allowed, trials, rate) <= doubt
    assert allowed == 0 or 1 - at_most(allowed - 1, trials, rate) > doubt


def test_what_never_happened_may_still_happen_at_three_in_as_many_trials() -> None:
    """The rule of three."""
    assert upper_rate(0, 1000) == pytest.approx(3 / 1000, rel=0.01)
    assert upper_rate(0, 0) == upper_rate(5, 5) == 1.0


def test_more_evidence_gives_a_tighter_threshold() -> None:
    """And a calibration that saw little gives a loose one."""
    chance = np.random.Generator(np.random.PCG64(4))
    small, large = (spread_of(chance.exponential(1e-3, (answers, 20)).tolist()) for answers in (5, 500))
    assert large.threshold(10, 1e-4) > large.threshold(100, 1e-4) > large.threshold(10_000, 1e-4) > large.mean
    assert small.threshold(100, 1e-4) > large.threshold(100, 1e-4)


def test_tokens_of_one_answer_that_go_together_count_for_less() -> None:
    """Ten answers of 50 equal values are ten measurements, not 500."""
    together = spread_of([[float(n % 2)] * 50 for n in range(10)])
    apart = spread_of([[float(n % 2) for n in range(50)] for _ in range(10)])
    assert together.effect == pytest.approx(50)
    assert apart.effect == 1.0
    assert together.threshold(100, 1e-4) > apart.threshold(100, 1e-4)


def test_exact_agreement_leaves_room_for_the_smallest_bound_only() -> None:
    """Where honest values are all 0, nothing larger than the bound is needed to accuse."""
    spread = spread_of([[0.0] * 100] * 20)
    assert (spread.bound, spread.mean, spread.variance, spread.effect) == (SMALLEST_BOUND, 0.0, 0.0, 1.0)
    assert 0 < spread.threshold(200, 1e-4) < SMALLEST_BOUND


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(1e-3, 10))
def test_one_wild_value_counts_as_the_bound(values: list[float], bound: float) -> None:
    """So a mean is never above it."""
    assert 0 <= cut_mean(values, bound) <= bound * (1 + 1e-12)


def test_nothing_measured_is_no_spread() -> None:
    """A tolerance of nothing would accept everything or nothing."""
    with pytest.raises(ValueError, match="nothing"):
        spread_of([[], []])
    assert bernstein_excess(1.0, 1.0, 0, 0.1) == math.inf
