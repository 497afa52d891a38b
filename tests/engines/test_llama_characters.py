"""Tokens that end inside a UTF-8 character, which llama.cpp's server leaves out of its stream: recorded like all others.

The model is a bigram in closed form, so that every id and every log-probability can be checked against the truth.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import numpy as np
import pytest
from tests.engines.asking import Collected, ask, collect
from tests.engines.bigram import END, RARE, Bigram

from fabstir.engines.llama import LlamaEngine

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="session")]

SPOKEN = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 120}


def request(seed: int, **fields: Any) -> Any:
    """Sentences, sampled."""
    return ask("Hello", **{**SPOKEN, "seed": seed, **fields})


async def several(engine: LlamaEngine, count: int = 8, **fields: Any) -> list[Collected]:
    """A few answers, two at a time."""
    return await asyncio.gather(*(collect(engine, request(seed, **fields)) for seed in range(count)))


async def test_every_token_of_a_character_has_its_record(spelling: LlamaEngine, bigram: Bigram) -> None:
    """The ids spell the text to the byte, and each of them follows the one before as the model's sentences have it."""
    several_tokens = 0
    for answer in await several(spelling):
        assert b"".join(bigram.pieces[token] for token in answer.ids).decode() == answer.text
        for last, token in itertools.pairwise([bigram.ids[b"\n"], *answer.ids]):
            assert bigram.log_p[last, token] > np.log(2 * RARE)
        assert answer.ids[-1] == END
        several_tokens += sum(len(character.encode()) > 1 for character in answer.text)
    assert several_tokens > 8, "the promise was hardly tried"


async def test_log_probabilities_are_the_models(spelling: LlamaEngine, bigram: Bigram) -> None:
    """Of every token and every alternative, whether the server reported it or it was asked for: the known truth within 1e-3."""
    for answer in await several(spelling):
        last = bigram.ids[b"\n"]
        for record in answer.records:
            truth = bigram.log_p[last]
            assert abs(truth[record.token] * 1e6 - record.logprob) < 1000
            assert len(record.top) == 4
            for token, logprob in record.top:
                assert abs(truth[token] * 1e6 - logprob) < 1000
            last = record.token


async def test_an_ambiguous_character_is_spelt_as_it_was_sampled(spelling: LlamaEngine, bigram: Bigram) -> None:
    """A smile of three tokens can be spelt in two ways; the one that the model says is recorded."""
    pair, other = bigram.ids["😀".encode()[:2]], bigram.ids["😀".encode()[1:3]]
    answers = await several(spelling)
    assert any(pair in answer.ids for answer in answers)
    assert not any(other in answer.ids for answer in answers)


@pytest.mark.parametrize("limit", range(1, 14))
async def test_limits_inside_characters_are_exact(spelling: LlamaEngine, bigram: Bigram, limit: int) -> None:
    """However the limit falls: so many records, and the text is what is complete."""
    answer = await collect(spelling, request(3, max_tokens=limit, ignore_eos=True))
    assert (len(answer.records), answer.end.finish_reason) == (limit, "length")
    spelt = b"".join(bigram.pieces[token] for token in answer.ids)
    assert answer.text == spelt.decode("utf-8", "ignore")


@pytest.mark.parametrize("stop", ["s €", "€.", "😀", " 中文", "."])
async def test_stop_sequences_around_characters(spelling: LlamaEngine, stop: str) -> None:
    """A sequence is found also where the stream was begun anew for the ids of a character."""
    answers = await several(spelling, stop=(stop,), ignore_eos=True)
    assert {answer.end.finish_reason for answer in answers} <= {"stop", "length"}
    assert any(answer.end.finish_reason == "stop" for answer in answers)
    assert not any(stop in answer.text for answer in answers)


async def test_the_context_may_end_at_any_token_of_a_character(spelling: LlamaEngine) -> None:
    """Such an answer ends by `length` and counts what was recorded; it does not fail."""
    empty = await spelling.count_tokens(ask("").messages)
    for room in range(4, 24):
        answer = await collect(spelling, ask("x" * (512 - empty - room), max_tokens=100, ignore_eos=True))
        assert answer.end.finish_reason == "length"
        assert room - 4 <= len(answer.records) <= room


async def test_an_answer_goes_on_after_every_complete_character(spelling: LlamaEngine) -> None:
    """Prefix and greedy continuation are one answer, also where the prefix ends with a character of several tokens."""
    whole = await collect(spelling, ask("Hello", max_tokens=40, ignore_eos=True))
    for batch_count in range(1, len(whole.batches)):
        prefix = "".join(batch.text for batch in whole.batches[:batch_count])
        done = sum(len(batch.records) for batch in whole.batches[:batch_count])
        rest = await collect(spelling, ask("Hello", max_tokens=40 - done, ignore_eos=True, prefix=prefix))
        assert prefix + rest.text == whole.text
