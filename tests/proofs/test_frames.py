"""Frames between supervisor and worker: what is sent arrives, and what breaks the rules ends the connection."""

from __future__ import annotations

import asyncio
import io

import msgspec
import pytest

from fabstir.domain.ids import Hash32
from fabstir.ports.prover import ProofStatement
from fabstir.proofs.frames import (
    MAX_FRAME,
    CommitJob,
    Committed,
    Fault,
    Job,
    Proved,
    ProveJob,
    Ready,
    Reply,
    Verified,
    VerifyJob,
    frame,
    read_job,
    read_reply,
)

STATEMENT = ProofStatement(Hash32(b"a" * 32), Hash32(b"b" * 32), Hash32(b"c" * 32))
JOBS: list[Job] = [CommitJob((b"r" * 32,)), ProveJob(STATEMENT, (b"r" * 32,) * 256), VerifyJob(STATEMENT, bytes(2560))]
REPLIES: list[Reply] = [
    Ready(),
    Committed(b"o" * 96),
    Proved(bytes(2560)),
    Verified(False),
    Fault("proof_failed", "why"),
]


def _reader(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


def test_jobs_arrive_in_order() -> None:
    """Every kind of job comes out as it went in; the end of the stream is None."""
    stream = io.BytesIO(b"".join(frame(job) for job in JOBS))
    assert [read_job(stream) for _ in JOBS] == JOBS
    assert read_job(stream) is None


async def test_replies_arrive_in_order() -> None:
    """Every kind of reply comes out as it went in."""
    reader = _reader(b"".join(frame(reply) for reply in REPLIES))
    assert [await read_reply(reader) for _ in REPLIES] == REPLIES


@pytest.mark.parametrize("data", [b"\0", frame(JOBS[0])[:-1], b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", frame(Ready())])
async def test_broken_frames_are_refused(data: bytes) -> None:
    """A cut header or body, a length above the bound, bytes that are no msgpack, a message of the wrong direction: never a job."""
    with pytest.raises((EOFError, ValueError, msgspec.DecodeError)):
        read_job(io.BytesIO(data))


async def test_a_frame_is_bounded() -> None:
    """A length above MAX_FRAME is refused before anything is read for it."""
    with pytest.raises(ValueError, match="the bound is"):
        await read_reply(_reader((MAX_FRAME + 1).to_bytes(4, "big")))
