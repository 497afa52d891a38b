"""The claimed sampler, computed again: what it could have drawn, and how surprising what it drew is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.protocol.audit_sampler import LAMBDA, ClaimedSampler, Position, log_softmax, micro, positions

LIKELY = np.log(np.array([[0.5, 0.3, 0.15, 0.04, 0.01]]))


def one(token: int, sampler: ClaimedSampler, asked: tuple[int, ...] = ()) -> Position:
    """The position of one token after the distribution above."""
    (found,) = positions(LIKELY, [token], [asked], sampler, 3)
    return found


def test_a_position_says_what_was_likely() -> None:
    """The token's own log-probability, those that were asked for, the best three."""
    found = one(2, ClaimedSampler(1.0, 1.0, 64), asked=(0, 4))
    assert found.logprob == micro(math.log(0.15))
    assert found.asked == (micro(math.log(0.5)), micro(math.log(0.01)))
    assert [token for token, _ in found.top] == [0, 1, 2] and found.best == 0


@pytest.mark.parametrize(
    ("sampler", "inside"),
    [
        (ClaimedSampler(1.0, 0.94, 64), {0, 1, 2}),
        (ClaimedSampler(1.0, 0.96, 64), {0, 1, 2, 3}),
        (ClaimedSampler(1.0, 1.0, 64), {0, 1, 2, 3, 4}),
        (ClaimedSampler(1.0, 1.0, 2), {0, 1}),
        (ClaimedSampler(1.0, 0.96, 0), {0, 1, 2, 3}),
        (ClaimedSampler(1.0, 1.0, 0), {0, 1, 2, 3, 4}),
        (ClaimedSampler(0.0, 0.9, 64), {0}),
        (ClaimedSampler(0.25, 0.96, 64), {0, 1}),
        (ClaimedSampler(1.0, 1.0, 64, 0.25), {0, 1, 2}),
        (ClaimedSampler(0.0, 0.9, 1, 0.0, shaped=True), {0, 1, 2, 3, 4}),
    ],
    ids=repr,
)
def test_tokens_that_the_sampler_could_draw_have_no_shortfall(sampler: ClaimedSampler, inside: set[int]) -> None:
    """First the most likely k, then the temperature, then the nucleus: as the engine does it."""
    assert {token for token in range(5) if one(token, sampler).shortfall == 0} == inside


def test_of_a_shaped_draw_only_the_log_probabilities_are_said() -> None:
    """What a grammar or a penalty took away cannot be computed again: neither shortfall nor surprise accuses, whatever was drawn."""
    shaped = [one(token, ClaimedSampler(0.0, 0.5, 1, 0.9, shaped=True)) for token in range(5)]
    assert [(found.shortfall, found.surprise) for found in shaped] == [(0, 0)] * 5
    assert [found.logprob for found in shaped] == [
        one(token, ClaimedSampler(1.0, 1.0, 0)).logprob for token in range(5)
    ]


def test_a_shortfall_at_the_edge_is_as_small_as_the_rounding_that_makes_it() -> None:
    """A nucleus that ends a millionth before a token must not call it impossible."""
    assert 0 < one(3, ClaimedSampler(1.0, 0.949999, 64)).shortfall < 50
    assert one(4, ClaimedSampler(1.0, 0.5, 64)).shortfall > 1_000_000


@given(
    st.lists(st.floats(-8, 8), min_size=2, max_size=40),
    st.floats(0.1, 3),
    st.floats(0.05, 1),
    st.integers(1, 64),
)
def test_the_surprise_of_an_honest_draw_is_one_on_average(
    logits: list[float], temperature: float, top_p: float, top_k: int
) -> None:
    """exp(surprise) has expectation 1 whatever the distribution is: the property that the threshold stands on."""
    sampler = ClaimedSampler(temperature, top_p, top_k)
    line = np.array([logits])
    every = [positions(line, [token], [()], sampler, 1)[0] for token in range(len(logits))]
    inside = [token for token, found in enumerate(every) if found.shortfall == 0]
    weights = np.exp(log_softmax(line)[0][inside] / temperature)
    weights /= weights.sum()
    mean = sum(weight * math.exp(every[token].surprise / 1e6) for token, weight in zip(inside, weights, strict=True))
    assert mean == pytest.approx(1, abs=1e-4)


def test_the_sum_of_surprises_accuses_an_honest_sampler_no_more_often_than_promised() -> None:
    """Over 2,000 answers of 60 tokens, looked at after every token, at a rate of 1 in 20."""
    chance = np.random.Generator(np.random.PCG64(5))
    weights = np.array([0.5, 0.3, 0.15, 0.05])
    surprise = -LAMBDA * np.log(weights) - np.log((weights ** (1 - LAMBDA)).sum())
    drawn = chance.choice(4, (2000, 60), p=weights)
    assert (surprise[drawn].cumsum(axis=1).max(axis=1) > math.log(20)).mean() <= 0.05


def test_tokens_of_a_flatter_distribution_are_surprising() -> None:
    """Another model's tokens: the sum grows."""
    chance = np.random.Generator(np.random.PCG64(6))
    tokens = chance.integers(0, 4, 300)
    found = positions(np.repeat(LIKELY, 300, axis=0), list(tokens), [()] * 300, ClaimedSampler(1.0, 0.96, 64), 1)
    assert sum(position.surprise for position in found) / 1e6 > math.log(1e5)


def test_greedy_answers_are_never_surprising() -> None:
    """Their tokens are the best or impossible."""
    assert [one(token, ClaimedSampler(0.0, 1.0, 64)).surprise for token in range(5)] == [0] * 5
