"""Finds the ids and log-probabilities that llama.cpp's server left out of a stream.

Which tokens they were follows from their bytes and their number. How likely they were is asked for: a request for one
forced token after the same ids reports the raw softmax of that position. Where the bytes can be spelt in several ways,
the likeliest that can have been sampled is taken; the answer then goes on after exactly these ids, so that the record
always states what was computed. Never invents: without such a spelling it is an error.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

from fabstir.domain.errors import error
from fabstir.engines.llama_answer import Found, Gap
from fabstir.engines.llama_vocabulary import Vocabulary
from fabstir.engines.llama_wire import Candidate, micro_nats
from fabstir.ports.engine import TokenRecord

Probe = Callable[[Sequence[int]], Awaitable[list[Candidate]]]
"""The most likely tokens after given ids, best first: all that can have been sampled."""


async def find_tokens(
    gap: Gap, before: Sequence[int], vocabulary: Vocabulary, probe: Probe, top: int, *, certain: bool = False
) -> list[Found]:
    """The tokens of `gap`, which came after the ids `before`. `certain`: the answer goes on after those that were, whatever is found here,
    so that there must be one spelling alone. Raises Interrupted (`engine_failed`)."""
    asked: dict[tuple[int, ...], list[Candidate]] = {}

    async def after(tokens: tuple[int, ...]) -> list[Candidate]:
        if tokens not in asked:
            asked[tokens] = await probe([*before, *tokens])
        return asked[tokens]

    likeliest: list[Found] = []
    highest = -math.inf
    spellings = vocabulary.spellings(gap.data, gap.record.token, gap.hidden)
    if certain and len(spellings) > 1:
        raise error("engine_failed", f"the engine left out {gap.hidden} token ids, which can be spelt in several ways")
    for spelling in spellings:
        found: list[Found] = []
        for position, token in enumerate(spelling):
            if len(spellings) == 1 and position == gap.hidden:
                found.append(Found(gap.record, vocabulary.piece(token)))  # what the stream said of it stands
                break
            candidates = await after(spelling[:position])
            logprob = next((item.logprob for item in candidates if item.id == token), None)
            if logprob is None:
                break
            best = tuple((item.id, micro_nats(item.logprob)) for item in candidates[:top])
            found.append(Found(TokenRecord(token, micro_nats(logprob), best), vocabulary.piece(token)))
        total = sum(item.record.logprob for item in found)
        if len(found) == len(spelling) and total > highest:
            likeliest, highest = found, total
    if not likeliest:
        why = "can have been sampled" if spellings else "fits their bytes"
        raise error("engine_failed", f"the engine left out {gap.hidden} token ids, and no spelling {why}")
    return likeliest
