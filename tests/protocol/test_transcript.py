"""The transcript against its golden vectors (made without this code) and its rules: everything that was served changes the head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.ids import Address, Hash32, address, from_hex, hash32
from fabstir.domain.money import Tokens
from fabstir.protocol.context.preparing import bound_request
from fabstir.protocol.messages import ChatMessage, ContextPlan, Prompt, WireTerms, canonical
from fabstir.protocol.signing import Market, job_id
from fabstir.protocol.transcript import (
    Sampler,
    TokenRecord,
    Transcript,
    extend,
    job_head,
    record_digest,
    record_preimage,
    record_salt,
    request_hash,
    turn_head,
)
from tests.protocol.make_vectors import files
from tests.protocol.market import MARKET, terms

VECTORS: Final = Path(__file__).parent / "vectors"
GOLDEN: Final[dict[str, Any]] = json.loads((VECTORS / "transcript.json").read_text("utf-8"))

words = st.binary(min_size=32, max_size=32).map(Hash32)
tops = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(-(2**31), 0)), max_size=20).map(tuple)
records = st.builds(TokenRecord, st.integers(0, 2**32 - 1), st.integers(-(2**31), 0), tops)


def from_json(value: Any, kind: Any) -> Any:
    return msgspec.convert(value, kind)


@pytest.mark.parametrize("name", ["transcript.json", "messages.json"])
def test_the_vectors_are_those_of_the_generator(name: str) -> None:
    """Whoever changes one of both runs make_vectors.py, and breaks every other SDK knowingly."""
    assert (VECTORS / name).read_text("utf-8") == files()[name]


def test_golden_job() -> None:
    """The job's id and its first head."""
    agreed = from_json(GOLDEN["terms"], WireTerms).terms()
    market = Market(GOLDEN["chain_id"], address(GOLDEN["market"]))
    assert job_id(agreed) == from_hex(GOLDEN["job_id"], 32)
    assert job_head(market, agreed) == hash32(GOLDEN["job_head"])


def test_golden_request() -> None:
    """The canonical encoding of history and prompt, to the byte, and its salted hash."""
    request = GOLDEN["request"]
    history = from_json(request["history"], tuple[ChatMessage, ...])
    prompt = msgspec.json.decode(json.dumps(request["prompt"]), type=Prompt)
    assert canonical((history, prompt)) == request["canonical"].encode()
    assert request_hash(hash32(GOLDEN["salt"]), canonical((history, prompt))) == hash32(request["hash"])


def test_golden_planned_request() -> None:
    """Where a prompt has a context, its hash binds the plan too: what the engine was given and what was left out."""
    request = GOLDEN["planned_request"]
    seen = from_json(request["seen"], tuple[ChatMessage, ...])
    prompt = msgspec.json.decode(json.dumps(request["prompt"]), type=Prompt)
    plan = from_json(request["plan"], ContextPlan)
    assert canonical((seen, prompt, plan)) == request["canonical"].encode()
    assert bound_request(hash32(GOLDEN["salt"]), seen, prompt, plan) == hash32(request["hash"])


def test_golden_steps() -> None:
    """Turn by turn and token by token, both by hand and by `Transcript`."""
    salt, head = hash32(GOLDEN["salt"]), hash32(GOLDEN["job_head"])
    sampler = Sampler.of(GOLDEN["request"]["prompt"]["temperature"], GOLDEN["request"]["prompt"]["top_p"])
    assert sampler == Sampler(**GOLDEN["sampler"])
    running = Transcript(head, Tokens(0))
    for step in GOLDEN["steps"]:
        if "turn" in step:
            head = turn_head(head, step["turn"], Tokens(step["tokens"]), hash32(step["request"]))
            assert running.tokens == step["tokens"]
            running.begin_turn(step["turn"], hash32(step["request"]))
        else:
            record = from_json(list(step["record"].values()), TokenRecord)
            digest = record_digest(salt, step["index"], record, sampler)
            assert digest == hash32(step["digest"])
            head = extend(head, (digest,))
            assert running.append(salt, (record,), sampler) == [digest]
        assert head == running.head == hash32(step["head"])
    assert repr(running) == f"<Transcript 4 tokens, head {head.hex()[:8]}>"


SAMPLER = Sampler(800, 950_000)


@given(salt=words, first=st.integers(0, 2**31), taken=st.lists(records, max_size=8), cut=st.integers(0, 8))
def test_appending_at_once_or_in_pieces_is_the_same(
    salt: Hash32, first: int, taken: list[TokenRecord], cut: int
) -> None:
    """And the same as folding the digests: the host stores digests, the renter sees tokens."""
    start = Hash32(bytes(32))
    whole, pieces = Transcript(start, Tokens(first)), Transcript(start, Tokens(first))
    digests = whole.append(salt, taken, SAMPLER)
    assert pieces.append(salt, taken[:cut], SAMPLER) + pieces.append(salt, taken[cut:], SAMPLER) == digests
    assert digests == [record_digest(salt, first + i, record, SAMPLER) for i, record in enumerate(taken)]
    assert (whole.head, whole.tokens) == (pieces.head, pieces.tokens) == (extend(start, digests), first + len(taken))


@given(one=records, other=records, index=st.integers(0, 2**32 - 2), salt=words, second=words)
def test_every_part_of_a_record_counts(
    one: TokenRecord, other: TokenRecord, index: int, salt: Hash32, second: Hash32
) -> None:
    """Another record, position or salt is another digest."""
    digest = record_digest(salt, index, one, SAMPLER)
    assert len(digest) == 32
    assert (record_digest(salt, index, other, SAMPLER) == digest) == (one == other)
    assert record_digest(salt, index + 1, one, SAMPLER) != digest
    assert (record_digest(second, index, one, SAMPLER) == digest) == (second == salt)
    assert record_digest(salt, index, one, Sampler(0, SAMPLER.top_p)) != digest
    assert record_digest(salt, index, one, Sampler(SAMPLER.temperature, 1)) != digest


def test_a_record_is_opened_alone() -> None:
    """Its salt says nothing of the connection's, nor of its neighbours'; a sampler that is on is never written as off."""
    salt = Hash32(b"\x06" * 32)
    preimage = record_preimage(salt, 7, TokenRecord(1, -2, ((1, -2),)), SAMPLER)
    assert len(preimage) == 67 + 8 and preimage.count(record_salt(salt, 7)) == 1 and preimage.count(salt) == 0
    assert record_salt(salt, 8) != record_salt(salt, 7)
    assert Sampler.of(0.0001, 1e-9) == Sampler(1, 1) and Sampler.of(0, 1) == Sampler(0, 1_000_000)


def test_every_part_of_a_job_counts() -> None:
    """Another chain, contract, host, model or job starts another transcript."""
    agreed = terms()
    heads = {
        job_head(MARKET, agreed),
        job_head(Market(1, MARKET.address), agreed),
        job_head(Market(31337, Address(bytes(20))), agreed),
        *(
            job_head(MARKET, msgspec.structs.replace(agreed, **change))
            for change in ({"host": bytes(20)}, {"model_id": bytes(32)}, {"salt": bytes(32)}, {"price": 1})
        ),
    }
    assert len(heads) == 7


def test_every_part_of_a_turn_counts() -> None:
    """Index, position and request are in the head; the order of tokens is."""
    head = Hash32(bytes(32))
    one, two = b"\1" * 32, b"\2" * 32
    heads = {
        head,
        turn_head(head, 0, Tokens(0), head),
        turn_head(head, 1, Tokens(0), head),
        turn_head(head, 0, Tokens(1), head),
        turn_head(head, 0, Tokens(0), Hash32(one)),
        extend(head, (one, two)),
        extend(head, (two, one)),
    }
    assert len(heads) == 7
    assert extend(head, ()) == head
