"""What the circuit `spot` needs of an answer that was given: the final hidden state from which each token was drawn.

A server keeps no hidden states while it generates, so they are computed again: prompt and answer through the weights once more. Only ever
in the worker's process, like `weights`. What a trace is: `fabstir.protocol.spot`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fabstir.engines.reexecution.weights import Weights
from fabstir.protocol.sampling import read_record
from fabstir.protocol.spot import quantised

STEP = 32
"""Tokens read at once, as `frames.Prefill.step`."""


class State(NamedTuple):
    """What one token was drawn from."""

    hidden: tuple[int, ...]
    denominator: int


def traces(weights: Weights, prompt: Sequence[int], records: Sequence[bytes]) -> Iterator[State]:
    """One for each record (`transcript.record_preimage` without its tag), in order.

    Raises ValueError where the prompt has fewer than two tokens or a state is out of range; and as `Weights.read`.
    """
    if len(prompt) < 2:
        raise ValueError("a prompt has at least two tokens: the first one has no state before it")
    answer = [read_record(record).token for record in records]
    steps = weights.read(prompt[:-1], [prompt[-1], *answer], step=STEP, states=True)
    rows = [
        (float(_log_sum(row)), state)
        for step in steps
        for row, state in zip(step.logits, _of(step.states), strict=True)
    ]
    # A row says what was thought before its token; its state is that of the token itself, from which the next one was drawn.
    for place in range(len(records)):
        yield State(quantised(rows[place][1].tolist()), round(rows[place + 1][0] * 1_000_000))


def _of(states: np.ndarray | None) -> np.ndarray:
    if states is None:
        raise ValueError("states were asked for")
    return states


def _log_sum(logits: np.ndarray) -> float:
    wide = logits.astype(np.float64)
    largest = wide.max()
    return float(largest + np.log(np.exp(wide - largest).sum()))
