"""Finds the ids and log-probabilities that llama.cpp's server left out of a stream.

Which tokens they were follows from their bytes and their number. How likely they were is asked for: a request for one forced
token after the same ids reports the raw softmax of that position. Where the bytes can be spelt in several ways, the likeliest is
taken; the answer then goes on after exactly these ids, so that the record always states what was computed. Never invents: without
a spelling it is an error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from fabstir.domain.errors import error
from fabstir.engines.llama_answer import Found, Gap
from fabstir.engines.llama_vocabulary import Vocabulary
from fabstir.engines.llama_wire import Candidate, micro_nats
from fabstir.ports.engine import TokenRecord

Probe = Callable[[Sequence[int]], Awaitable[list[Candidate]]]
"""The most likely tokens after given ids, best first: all that can have been sampled."""


async def find_tokens(gap: Gap, before: Sequence[int], vocabulary: Vocabulary, probe: Probe, top: int) -> list[Found]:
    """The tokens of `gap`, which came after the ids `before`. Raises Interrupted (`engine_failed`)."""
    spellings = vocabulary.spellings(gap.data, gap.last, gap.hidden)
    if not spellings:
        raise error("engine_failed", f"the engine left out {gap.hidden} token ids that its bytes do not determine")
    found: list[Found] = []
    ids = list(before)
    for position in range(gap.hidden + 1):
        possible = frozenset(spelling[position] for spelling in spellings)
        candidates = await probe(ids)
        chosen = next((item for item in candidates if item.id in possible), None)
        if chosen is None:
            raise error("engine_failed", "the engine does not report the probability of a token that it chose")
        best = tuple((item.id, micro_nats(item.logprob)) for item in candidates[:top])
        record = TokenRecord(chosen.id, micro_nats(chosen.logprob), best)
        found.append(Found(record, vocabulary.piece(chosen.id)))
        ids.append(chosen.id)
        spellings = [spelling for spelling in spellings if spelling[position] == chosen.id]
    return found
