"""Bytes of the server become events however they are cut, and log-probabilities become integers that a record can hold."""

from __future__ import annotations

import pytest

from fabstir.engines.llama_wire import EventStream, micro_nats
from fabstir.protocol.transcript import MIN_LOGPROB

STREAM = (
    b'data: {"content":"\xe2\x82\xac","tokens_predicted":1}\n\n'
    b": ping\n\n"
    b'data: {"content":"b","tokens_predicted":2,"unknown":[1]}\n\n'
    b'data: {"stop_type":"eos"}\n\n'
    b"data: [DONE]\n\n"
)


@pytest.mark.parametrize("cut", range(len(STREAM)))
def test_events_do_not_depend_on_the_pieces(cut: int) -> None:
    """Wherever a read ends, also inside a character."""
    events = EventStream()
    chunks = events.feed(STREAM[:cut]) + events.feed(STREAM[cut:])
    assert [(chunk.content, chunk.tokens_predicted, chunk.stop_type) for chunk in chunks] == [
        ("€", 1, ""),
        ("b", 2, ""),
        ("", 0, "eos"),
    ]


@pytest.mark.parametrize(
    ("logprob", "integer"),
    [(-0.0000014, -1), (-1.5, -1_500_000), (0.0, 0), (1e-9, 0), (-3.4028234663852886e38, MIN_LOGPROB)],
)
def test_log_probabilities_fit_a_record(logprob: float, integer: int) -> None:
    """Micro-nats, never above 0; what the server writes for "impossible" is the floor."""
    assert micro_nats(logprob) == integer
