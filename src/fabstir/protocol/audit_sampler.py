"""What the claimed sampler could have drawn at a position, from the whole recomputed distribution. Pure (numpy).

The samplers are those of `fabstir.engines.llama_client`, in its order: the `top_k` most likely, the temperature, `min_p`, the
nucleus `top_p`. Temperature 0 leaves the most likely token alone. For each token of the answer it says how likely it
was, by how much it missed what could be drawn (the shortfall: 0 inside; in nats, so that rounding by e moves it by
about e), and its surprise:

    surprise = -LAMBDA ln q(token) - ln(sum over the support of q ** (1 - LAMBDA))

with q the distribution that was drawn from. Under that distribution exp(surprise) has expectation exactly 1, at every
position, whatever came before; so by Ville's inequality the sum of surprises over an honest answer ever exceeds
ln(1/rate) with probability at most `rate`, however long it is and whenever one looks, without a calibration. It grows
where tokens are drawn from a flatter distribution than claimed: by another model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from fabstir.protocol.transcript import MIN_LOGPROB

LAMBDA: Final = 0.5
"""Half way to the flat distribution over the same tokens."""

Rows = NDArray[np.floating[Any]]


class ClaimedSampler(msgspec.Struct, frozen=True):
    """How a request says that its tokens are drawn."""

    temperature: float
    top_p: float
    top_k: int
    """0: every token is a candidate."""
    min_p: float = 0.0
    """Less than so many times the likeliest is none."""
    shaped: bool = False
    """Penalties, biases or a prescribed form took part (`fabstir.protocol.controls`): what could have been drawn cannot be said, and
    nothing is asked about it. The log-probabilities are of the raw distribution all the same."""


class Position(msgspec.Struct, frozen=True, array_like=True):
    """What re-execution says about one position of an answer; log-probabilities in micro-nats."""

    logprob: int
    """Of the token that stands there."""
    shortfall: int
    """Micro-nats by which the token missed what the sampler could have drawn; 0 inside."""
    surprise: int
    """Micro-nats; 0 where the token could not have been drawn."""
    asked: tuple[int, ...]
    """Log-probabilities of the tokens that the record names as most likely, in its order."""
    top: tuple[tuple[int, int], ...]
    """The most likely (token, log-probability), best first."""

    @property
    def best(self) -> int:
        """The most likely token."""
        return self.top[0][0]


def positions(
    logits: Rows, tokens: Sequence[int], asked: Sequence[Sequence[int]], sampler: ClaimedSampler, top: int
) -> list[Position]:
    """One for each row of `logits` (positions x vocabulary)."""
    lines = log_softmax(logits)
    found = []
    for line, token, others in zip(lines, tokens, asked, strict=True):
        leading = _leading(line, max(top, sampler.top_k or len(line)))
        candidates, weights = _candidates(line, leading, sampler)
        kept = _nucleus(weights, sampler)
        place = np.flatnonzero(candidates == token)
        rank = int(place[0]) if len(place) else len(candidates)
        outside, surprise = 0, 0
        if not sampler.shaped:
            outside = micro(_shortfall(line, candidates, weights, rank, token, sampler)) if rank >= kept else 0
            surprise = micro(_surprise(weights[:kept], rank)) if rank < kept else 0
        found.append(
            Position(
                micro_nats(line[token]),
                outside,
                surprise,
                tuple(micro_nats(line[other]) for other in others),
                tuple((int(other), micro_nats(line[other])) for other in leading[:top]),
            )
        )
    return found


def log_softmax(logits: Rows) -> NDArray[np.float64]:
    """Natural logarithms of the softmax, row by row."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


def micro(value: float) -> int:
    """Nats as whole micro-nats."""
    return round(float(value) * 1e6)


def micro_nats(logprob: float) -> int:
    """A log-probability as records hold it: never above 0, never below the floor."""
    return max(MIN_LOGPROB, min(0, micro(logprob)))


def _leading(line: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """The `count` most likely tokens, best first."""
    if count >= len(line):
        return np.argsort(-line, kind="stable")
    some = np.argpartition(-line, count)[:count]
    return some[np.argsort(-line[some], kind="stable")]


def _candidates(
    line: NDArray[np.float64], leading: NDArray[np.intp], sampler: ClaimedSampler
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The `top_k` most likely tokens, best first, and their probabilities at the temperature."""
    candidates = leading[: sampler.top_k or len(leading)]
    if sampler.temperature <= 0:
        return candidates, np.eye(1, len(candidates))[0]
    weights = np.exp((line[candidates] - line[candidates[0]]) / sampler.temperature)
    kept = weights >= sampler.min_p  # the likeliest weighs 1
    return candidates[kept], weights[kept] / weights[kept].sum()


def _nucleus(weights: NDArray[np.float64], sampler: ClaimedSampler) -> int:
    """How many of the candidates can be drawn."""
    if sampler.temperature <= 0:
        return 1
    if sampler.top_p >= 1:
        return len(weights)
    return min(len(weights), int(np.searchsorted(np.cumsum(weights), sampler.top_p)) + 1)


def _shortfall(
    line: NDArray[np.float64],
    candidates: NDArray[np.intp],
    weights: NDArray[np.float64],
    rank: int,
    token: int,
    sampler: ClaimedSampler,
) -> float:
    """Of a token that cannot be drawn: how far below the best one (greedy), else how much too small the mass from it downwards is."""
    if sampler.temperature <= 0:
        return float(line[candidates[0]] - line[token])
    below = float(line[candidates[-1]] - line[token]) if rank == len(candidates) else 0.0
    if sampler.top_p >= 1:
        return below
    tail = float(weights[min(rank, len(candidates) - 1) :].sum())
    return below + max(0.0, float(np.log(1 - sampler.top_p) - np.log(max(tail, np.finfo(np.float64).tiny))))


def _surprise(weights: NDArray[np.float64], rank: int) -> float:
    drawn_from = weights / weights.sum()
    return float(-LAMBDA * np.log(drawn_from[rank]) - np.log((drawn_from ** (1 - LAMBDA)).sum()))
