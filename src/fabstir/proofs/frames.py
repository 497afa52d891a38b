"""What supervisor and worker say to each other: one job, one reply, over a socket that both inherit.

A frame is four bytes of length, big-endian, and a msgpack body. Nothing here decides; a frame that breaks the rules
ends the connection.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final, Protocol

import msgspec

from fabstir.ports.prover import ProofStatement
from fabstir.protocol.spot import SpotVector

MAX_FRAME: Final = 1 << 20
"""The largest honest frame, 64 vectors of the circuit `spot`, is below 300 KiB; a prove job of `bind` below 10 KiB."""

_LENGTH: Final = struct.Struct(">I")


class CommitJob(msgspec.Struct, frozen=True, tag="commit"):
    """Commit to these records."""

    records: tuple[bytes, ...]


class ProveJob(msgspec.Struct, frozen=True, tag="prove"):
    """Prove `statement` about these records."""

    statement: ProofStatement
    records: tuple[bytes, ...]


class VerifyJob(msgspec.Struct, frozen=True, tag="verify"):
    """Check `proof` against `statement`."""

    statement: ProofStatement
    proof: bytes


class SpotCommitJob(msgspec.Struct, frozen=True, tag="spot_commit"):
    """Commit to these vectors, hidden states or rows of a head."""

    vectors: tuple[SpotVector, ...]


class SpotProveJob(msgspec.Struct, frozen=True, tag="spot_prove"):
    """Prove what the rows make of the hidden state, for `statement`."""

    statement: ProofStatement
    hidden: SpotVector
    rows: tuple[SpotVector, ...]


class SpotVerifyJob(msgspec.Struct, frozen=True, tag="spot_verify"):
    """Check a halo2 proof of these products against `statement`."""

    statement: ProofStatement
    dots: tuple[int, ...]
    halo2: bytes


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The first frame of a worker: the keys are there."""


class Committed(msgspec.Struct, frozen=True, tag="committed"):
    """Answer to CommitJob: point and checksum."""

    opening: bytes


class Proved(msgspec.Struct, frozen=True, tag="proved"):
    """Answer to ProveJob, as it goes on chain."""

    proof: bytes


class Verified(msgspec.Struct, frozen=True, tag="verified"):
    """Answer to VerifyJob."""

    valid: bool


class SpotCommitted(msgspec.Struct, frozen=True, tag="spot_committed"):
    """Answer to SpotCommitJob: 64 bytes for each vector."""

    points: bytes


class SpotProved(msgspec.Struct, frozen=True, tag="spot_proved"):
    """Answer to SpotProveJob: the products, and the halo2 proof of them."""

    dots: tuple[int, ...]
    halo2: bytes


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """The job or the start failed; `code` is one of the error catalogue."""

    code: str
    detail: str


SpotJob = SpotCommitJob | SpotProveJob | SpotVerifyJob
Job = CommitJob | ProveJob | VerifyJob | SpotJob
Reply = Ready | Committed | Proved | Verified | SpotCommitted | SpotProved | Fault

_decode_job: Final[msgspec.msgpack.Decoder[Job]] = msgspec.msgpack.Decoder(Job)
_decode_reply: Final[msgspec.msgpack.Decoder[Reply]] = msgspec.msgpack.Decoder(Reply)
_encoder: Final = msgspec.msgpack.Encoder()


class ByteStream(Protocol):
    """A blocking file over the socket."""

    def read(self, size: int, /) -> bytes: ...


def frame(message: Job | Reply) -> bytes:
    """`message` with its length in front."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def read_job(stream: ByteStream) -> Job | None:
    """The next job; None where the supervisor closed the connection. Raises EOFError, ValueError, msgspec.DecodeError."""
    header = stream.read(_LENGTH.size)
    if not header:
        return None
    body = stream.read(_body_length(header))
    return _decode_job.decode(body)


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """The next reply. Raises asyncio.IncompleteReadError, ValueError, msgspec.DecodeError."""
    header = await reader.readexactly(_LENGTH.size)
    return _decode_reply.decode(await reader.readexactly(_body_length(header)))


def _body_length(header: bytes) -> int:
    if len(header) != _LENGTH.size:
        raise EOFError("the connection ended inside a frame")
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes, the bound is {MAX_FRAME}")
    return int(length)
