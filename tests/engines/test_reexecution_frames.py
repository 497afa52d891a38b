"""Frames between supervisor and worker of re-execution: what goes in comes out, and nothing else does."""

from __future__ import annotations

import asyncio
import io
import struct

import msgspec
import pytest

from fabstir.engines.reexecution.frames import MAX_FRAME, Describe, Described, Prefill, frame, read_job, read_reply
from fabstir.protocol.audit_sampler import ClaimedSampler

JOB = Prefill((1, 2), (3,), ((4, 5),), ClaimedSampler(0.8, 0.95, 64), compare=(b"x",))


@pytest.mark.parametrize("job", [JOB, Describe()])
def test_a_job_arrives_as_it_was_sent(job: Prefill | Describe) -> None:
    """Whole, and one for each frame."""
    assert read_job(io.BytesIO(frame(job))) == job


async def test_a_reply_arrives_as_it_was_sent() -> None:
    """Through an asyncio stream."""
    reader = asyncio.StreamReader()
    reader.feed_data(frame(Described("llama", 768, 2048)))
    assert await read_reply(reader) == Described("llama", 768, 2048)


def test_a_closed_connection_is_no_job() -> None:
    """Nobody asked."""
    assert read_job(io.BytesIO(b"")) is None


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\0\0", EOFError),
        (struct.pack(">I", MAX_FRAME + 1), ValueError),
        (struct.pack(">I", 3) + b"abc", msgspec.DecodeError),
        (frame(JOB)[:-1], msgspec.DecodeError),
        (frame(Described("llama", 1, 1)), msgspec.ValidationError),
    ],
    ids=["cut header", "too long", "no msgpack", "cut body", "a reply"],
)
def test_a_frame_that_breaks_the_rules_is_an_error(data: bytes, fault: type[Exception]) -> None:
    """Never half a job."""
    with pytest.raises(fault):
        read_job(io.BytesIO(data))
