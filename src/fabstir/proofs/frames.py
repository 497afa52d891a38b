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

MAX_FRAME: Final = 1 << 20
"""The largest honest frame, a prove job, is below 10 KiB."""

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


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """The job or the start failed; `code` is one of the error catalogue."""

    code: str
    detail: str


Job = CommitJob | ProveJob | VerifyJob
Reply = Ready | Committed | Proved | Verified | Fault

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
