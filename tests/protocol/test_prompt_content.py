"""Prompt and result as they are sealed, and what a renter finds out about a result that is not what the chain says."""

from __future__ import annotations

import msgspec
import pytest

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32
from fabstir.domain.money import Tokens
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.prompt_content import (
    PromptBody,
    PromptResult,
    check_result,
    decode_body,
    decode_result,
    digests_of,
    encode,
    request_of,
    result_hash,
)
from fabstir.protocol.transcript import Sampler, TokenRecord, record_digest
from tests.protocol.prompting import terms

BODY = PromptBody(
    messages=(ChatMessage("user", "What is love?"),), reply_key=b"\x01" * 32, record_salt=b"\x02" * 32, seed=7
)
RESULT = PromptResult(
    text="Baby, don't hurt me", finish_reason="stop", records=(TokenRecord(5, -10, ((5, -10),)), TokenRecord(6, -20))
)


def test_both_are_read_back() -> None:
    """What was encoded is what is decoded."""
    assert decode_body(encode(BODY)) == BODY
    assert decode_result(encode(RESULT)) == RESULT


def test_the_engine_is_asked_for_what_is_paid() -> None:
    """The terms bound the answer, the renter chooses the rest."""
    request = BODY.generation(terms(max_tokens=Tokens(77)))
    assert (request.max_tokens, request.messages, request.seed, request.temperature) == (77, BODY.messages, 7, 0.8)


@pytest.mark.parametrize(
    "change",
    [
        {"messages": []},
        {"messages": [{"role": "king", "content": ""}]},
        {"reply_key": "AAAA"},
        {"record_salt": ""},
        {"temperature": 3},
        {"top_p": 0},
        {"seed": -1},
        {"stop": ["", "x"]},
        {"stop": ["x"] * 9},
    ],
)
def test_a_prompt_that_breaks_a_rule(change: dict) -> None:
    """Refused by name, whichever field it is."""
    fields = msgspec.to_builtins(BODY) | change
    with pytest.raises(FabstirError, match="prompt_invalid"):
        decode_body(msgspec.json.encode(fields))


def test_what_the_sealed_prompt_says_is_never_in_the_error() -> None:
    """Errors go to the log."""
    with pytest.raises(FabstirError) as caught:
        decode_body(b'{"messages": "secret"}')
    assert "secret" not in str(caught.value)


def test_a_true_result() -> None:
    """Its hash, its length, its records."""
    content = encode(RESULT)
    assert check_result(BODY, content, result_hash(BODY, content), Tokens(2)) == RESULT
    assert digests_of(BODY, RESULT.records) == tuple(
        record_digest(Hash32(b"\x02" * 32), n, record, Sampler.of(BODY.temperature, BODY.top_p))
        for n, record in enumerate(RESULT.records)
    )


def test_false_results() -> None:
    """Another text, another number of tokens, or no result at all."""
    content = encode(RESULT)
    right = result_hash(BODY, content)
    lies = [
        (content + b" ", right, 2),
        (content, Hash32(bytes(32)), 2),
        (content, right, 3),
        (b"{}", result_hash(BODY, b"{}"), 2),
    ]
    for data, expected, tokens in lies:
        with pytest.raises(FabstirError, match="prompt_result_invalid"):
            check_result(BODY, data, expected, Tokens(tokens))


def test_hashes_cannot_be_searched() -> None:
    """Without the record salt, which is sealed, neither request nor result can be tried out."""
    other = msgspec.structs.replace(BODY, record_salt=b"\x03" * 32)
    content = encode(RESULT)
    assert result_hash(BODY, content) != result_hash(other, content)
    assert request_of(BODY, b"x") != request_of(other, b"x")
