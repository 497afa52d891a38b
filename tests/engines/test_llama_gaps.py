"""What a stream left out is found by asking, and only what was asked for is recorded."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fabstir.domain.errors import FabstirError
from fabstir.engines.llama_answer import Gap
from fabstir.engines.llama_gaps import Probe, find_tokens
from fabstir.engines.llama_vocabulary import Vocabulary
from fabstir.engines.llama_wire import Candidate
from fabstir.ports.engine import TokenRecord

SMILE = "😀".encode()
LAST = TokenRecord(5, -300_000, ((5, -300_000),))
VOCABULARY = Vocabulary([(1, SMILE[:1]), (2, SMILE[:2]), (3, SMILE[1:3]), (4, SMILE[2:3]), (5, SMILE[3:]), (9, b"x")])


def probing(answers: dict[tuple[int, ...], list[tuple[int, float]]]) -> Probe:
    """A server that knows the distributions after certain ids."""

    async def probe(ids: Sequence[int]) -> list[Candidate]:
        return [Candidate(token, logprob, []) for token, logprob in answers[tuple(ids)]]

    return probe


async def test_each_token_has_the_probability_of_its_own_position() -> None:
    """Records hold what the server reports after exactly the ids before them; of the last token, what the stream said."""
    probe = probing({(7,): [(9, -0.1), (2, -2.5)], (7, 2): [(4, -0.2), (9, -3.0)]})
    vocabulary = Vocabulary([(2, SMILE[:2]), (4, SMILE[2:3]), (5, SMILE[3:]), (9, b"x")])
    found = await find_tokens(Gap(2, LAST, SMILE, "😀"), [7], vocabulary, probe, top=1)
    assert [item.record for item in found] == [
        TokenRecord(2, -2_500_000, ((9, -100_000),)),
        TokenRecord(4, -200_000, ((4, -200_000),)),
        LAST,
    ]
    assert b"".join(item.data for item in found) == SMILE


async def test_of_two_spellings_the_likelier_is_taken() -> None:
    """Likelier as a whole, whatever its first token says; one that cannot have been sampled is none."""
    probe = probing(
        {(): [(1, -0.1), (2, -0.9)], (1,): [(3, -5.0)], (1, 3): [(5, -0.1)], (2,): [(4, -0.1)], (2, 4): [(5, -0.1)]}
    )
    found = await find_tokens(Gap(2, LAST, SMILE, "😀"), [], VOCABULARY, probe, top=1)
    assert [item.record.token for item in found] == [2, 4, 5]

    probe = probing({(): [(1, -0.1), (2, -0.9)], (1,): [(3, -5.0)], (1, 3): [(5, -0.1)], (2,): [(9, -0.1)]})
    found = await find_tokens(Gap(2, LAST, SMILE, "😀"), [], VOCABULARY, probe, top=1)
    assert [item.record.token for item in found] == [1, 3, 5]


@pytest.mark.parametrize(
    ("gap", "detail"),
    [
        (Gap(1, LAST, SMILE, "😀"), "left out 1 token ids, and no spelling fits"),
        (Gap(2, LAST, SMILE, "😀"), "no spelling can have been sampled"),
    ],
)
async def test_what_cannot_be_known_is_an_error(gap: Gap, detail: str) -> None:
    """No spelling, or no probability: the answer fails by name and no record is made up."""
    with pytest.raises(FabstirError, match=detail) as caught:
        await find_tokens(gap, [], VOCABULARY, probing({(): [(9, -0.1)]}), top=1)
    assert caught.value.code == "engine_failed"
