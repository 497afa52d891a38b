"""What the circuit `spot` needs of an answer that was given: the final hidden state from which each token was drawn.

A server keeps no hidden states while it generates, so they are computed again: prompt and answer through the weights once more. Only ever
in the worker's process, like `weights`. What a trace is: `fabstir.protocol.spot`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fabstir.domain.ids import Hash32
from fabstir.engines.reexecution.weights import Weights
from fabstir.protocol.sampling import read_record
from fabstir.protocol.spot import TokenTrace, hidden_salt, quantised

STEP = 32
"""Tokens read at once, as `frames.Prefill.step`."""


def traces(weights: Weights, prompt: Sequence[int], records: Sequence[bytes], salt: Hash32) -> Iterator[TokenTrace]:
    """One trace for each record (`transcript.record_preimage` without its tag), in order. `salt` is that of the connection.

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
    for place, record in enumerate(records):
        yield TokenTrace(
            hidden=quantised(rows[place][1].tolist()),
            denominator=round(rows[place + 1][0] * 1_000_000),
            record=record,
            salt=hidden_salt(salt, read_record(record).index),
        )


def _of(states: np.ndarray | None) -> np.ndarray:
    if states is None:
        raise ValueError("states were asked for")
    return states


def _log_sum(logits: np.ndarray) -> float:
    wide = logits.astype(np.float64)
    largest = wide.max()
    return float(largest + np.log(np.exp(wide - largest).sum()))
