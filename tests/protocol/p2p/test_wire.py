"""Frames and provider keys: the bytes of the specification, bounds before memory, one meaning whatever the chunks."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import FabstirError
from fabstir.protocol.p2p import wire
from fabstir.protocol.p2p.provider_keys import SHARDS, capability_key, model_key, model_keys, shard_of
from fabstir.protocol.p2p.wire import MAX_ANNOUNCE_FRAME, MAX_JOB_FRAME, announce_reader, encode, job_reader
from tests.protocol.p2p.announcing import MARKET, MODEL

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "p2p.json").read_text())
PROMPT, AMOUNT, HEAD, SIGNATURE = bytes([8]) * 32, (5).to_bytes(12, "big"), bytes([9]) * 32, bytes([7]) * 65
MESSAGES: dict[str, wire.AnnounceMessage | wire.JobMessage] = {
    "ask": wire.Ask(),
    "announced": wire.Announced(b"\x01\x02"),
    "fault": wire.Fault("capacity", "full"),
    "claim": wire.Claim(PROMPT, bytes([3]) * 20, bytes([6]) * 32),
    "result": wire.Result(PROMPT, bytes([2]) * 32, 70_000, 42, AMOUNT, HEAD, SIGNATURE),
    "voucher": wire.Voucher(PROMPT, 42, AMOUNT, HEAD, SIGNATURE),
    "ask_status": wire.AskStatus(PROMPT),
    "status": wire.Status(PROMPT, "running", "", 1_800_000_000_000),
}
OF_JOBS = sorted(set(MESSAGES) - {"ask", "announced"})


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_frames(name: str) -> None:
    """Each message has the bytes of the independent generator, and they mean it."""
    frame = bytes.fromhex(VECTORS["frames"][name])
    assert encode(MESSAGES[name]) == frame
    assert (job_reader() if name in OF_JOBS else announce_reader()).feed(frame) == [MESSAGES[name]]


def test_every_message_has_a_vector() -> None:
    """A message without a vector could change unnoticed."""
    assert set(VECTORS["frames"]) == set(MESSAGES)


@given(st.lists(st.sampled_from(OF_JOBS), max_size=5), st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_chunks_do_not_matter(names: list[str], cuts: list[int]) -> None:
    """The messages are the same however the stream cuts the bytes, and a stream that ends between frames ends clean."""
    data = b"".join(encode(MESSAGES[name]) for name in names)
    reader, found, at = job_reader(), [], 0
    for cut in [*cuts, len(data)]:
        found += reader.feed(data[at : at + cut])
        at += cut
    assert found == [MESSAGES[name] for name in names] and reader.clean


def test_lengths_are_checked_first() -> None:
    """A frame beyond the bound is refused at its length, before a byte of it is kept."""
    for reader, bound in ((announce_reader(), MAX_ANNOUNCE_FRAME), (job_reader(), MAX_JOB_FRAME)):
        with pytest.raises(FabstirError, match="message_too_large"):
            reader.feed((bound + 1).to_bytes(4, "big"))


def test_a_cut_frame_is_not_clean() -> None:
    """Whoever reads can tell a stream that was cut."""
    reader = announce_reader()
    assert reader.feed(encode(wire.Ask())[:-1]) == [] and not reader.clean


BROKEN: dict[str, object] = {
    "unknown type": {"type": "shout"},
    "no type": {},
    "a field too many": {"type": "ask", "more": 1},
    "a field too few": {"type": "announced"},
    "a long announcement": {"type": "announced", "announcement": bytes(4097)},
    "text for bytes": {"type": "announced", "announcement": "x"},
    "a message of the other protocol": {"type": "ask_status", "prompt": PROMPT},
    "an array": [1, 2],
    "a strange code": {"type": "fault", "code": "Not A Code"},
}


@pytest.mark.parametrize("what", BROKEN)
def test_malformed(what: str) -> None:
    """What breaks its type is `message_malformed`."""
    body = msgspec.msgpack.encode(BROKEN[what])
    with pytest.raises(FabstirError, match="message_malformed"):
        announce_reader().feed(len(body).to_bytes(4, "big") + body)


@given(st.binary(max_size=64))
def test_garbage(data: bytes) -> None:
    """Whatever arrives, the answer is messages or one of our errors."""
    try:
        found, code = announce_reader().feed(data), ""
    except FabstirError as refusal:
        found, code = [], refusal.code
    assert code in ("", "message_too_large", "message_malformed") and all(one in MESSAGES.values() for one in found)


def test_golden_provider_keys() -> None:
    """The keys are those of the independent generator: a SHA-256 multihash of market, shard and what is sought."""
    assert model_key(MARKET, MODEL, 3).hex() == VECTORS["provider_keys"]["model"]
    assert capability_key(MARKET, "region:DE", 3).hex() == VECTORS["provider_keys"]["capability"]
    assert len(set(model_keys(MARKET, MODEL))) == SHARDS
    with pytest.raises(ValueError, match="shard"):
        model_key(MARKET, MODEL, SHARDS)


@given(st.binary(min_size=32, max_size=32))
def test_shards(node: bytes) -> None:
    """Every node key has its shard, and only one."""
    assert 0 <= shard_of(node) < SHARDS
