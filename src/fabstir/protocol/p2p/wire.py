"""The messages of `/fabstir/announce/1` and `/fabstir/job/1`, and how they are framed on a stream.

A frame is four bytes of length, big-endian, and a msgpack map with a `type`. The length is checked before anything is kept, a body
against its type before anybody sees it. The number in the protocol's name is the version: a message that cannot be read by its
rules is a fault, never a guess. Amounts are twelve bytes, big-endian. Sans-IO; vectors: tests/protocol/vectors/p2p.json.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, Generic, TypeVar

import msgspec
from msgspec import Meta

from fabstir.domain.errors import error
from fabstir.protocol.p2p.announcement import MAX_BYTES, Bytes20, Bytes32

ANNOUNCE: Final = "/fabstir/announce/1"
JOB: Final = "/fabstir/job/1"
MAX_ANNOUNCE_FRAME: Final = MAX_BYTES + 256
MAX_JOB_FRAME: Final = 16_384
_LENGTH: Final = struct.Struct(">I")

Amount = Annotated[bytes, Meta(min_length=12, max_length=12)]
Signature = Annotated[bytes, Meta(min_length=65, max_length=65)]
Reason = Annotated[str, Meta(max_length=400)]
Count = Annotated[int, Meta(ge=0, le=2**32 - 2)]


class Ask(msgspec.Struct, frozen=True, tag="ask", forbid_unknown_fields=True):
    """*What do you announce?*"""


class Announced(msgspec.Struct, frozen=True, tag="announced", forbid_unknown_fields=True):
    """The answer: `fabstir.protocol.p2p.announcement`, signed."""

    announcement: Annotated[bytes, Meta(max_length=MAX_BYTES)]


class Fault(msgspec.Struct, frozen=True, tag="fault", forbid_unknown_fields=True):
    """It cannot be answered; `code` is one of docs/reference/errors.md. Of both protocols."""

    code: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}\Z")]
    detail: Reason = ""


class Claim(msgspec.Struct, frozen=True, tag="claim", forbid_unknown_fields=True):
    """Host to renter: *I claimed this prompt job*. The chain is what counts; this is a hint to look."""

    prompt: Bytes32
    host: Bytes20
    transaction: Bytes32


class Result(msgspec.Struct, frozen=True, tag="result", forbid_unknown_fields=True):
    """Host to renter: *the answer is there*."""

    prompt: Bytes32
    content: Bytes32
    """BLAKE3 of the sealed answer."""
    size: Annotated[int, Meta(ge=1, le=2**40)]
    tokens: Count
    amount: Amount
    transcript: Bytes32
    """The head over the answer's token records."""
    signature: Signature
    """The host's receipt, EIP-712 `Receipt`."""


class Voucher(msgspec.Struct, frozen=True, tag="voucher", forbid_unknown_fields=True):
    """Renter to host: payment of the whole answer, EIP-712 `Voucher`."""

    prompt: Bytes32
    tokens: Count
    amount: Amount
    transcript: Bytes32
    signature: Signature


class AskStatus(msgspec.Struct, frozen=True, tag="ask_status", forbid_unknown_fields=True):
    """*Where does this prompt job stand at your place?*"""

    prompt: Bytes32


class Status(msgspec.Struct, frozen=True, tag="status", forbid_unknown_fields=True):
    """The answer; the stages are those of `GET /v1/prompts`."""

    prompt: Bytes32
    stage: Annotated[str, Meta(pattern=r"^[a-z_]{1,32}\Z")]
    reason: Reason
    at_ms: Annotated[int, Meta(ge=0, le=2**50)]


AnnounceMessage = Ask | Announced | Fault
JobMessage = Claim | Result | Voucher | AskStatus | Status | Fault

M = TypeVar("M")
_encoder: Final = msgspec.msgpack.Encoder()


def encode(message: AnnounceMessage | JobMessage) -> bytes:
    """One frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class FrameReader(Generic[M]):
    """Takes bytes as they arrive and gives whole messages. Memory: one frame, never more than `bound`."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[M], bound: int) -> None:
        self._decoder = decoder
        self._bound = bound
        self._held = bytearray()

    def __repr__(self) -> str:
        return f"<FrameReader {len(self._held)} of at most {self._bound} bytes>"

    @property
    def clean(self) -> bool:
        """The stream may end here: no frame is cut."""
        return not self._held

    def feed(self, data: bytes) -> list[M]:
        """The messages that `data` completes. After a fault nothing of this stream can be read any more.

        Raises PeerFault (`message_too_large`, `message_malformed`).
        """
        self._held += data
        found: list[M] = []
        while (body := self._next()) is not None:
            try:
                found.append(self._decoder.decode(body))
            except (msgspec.MsgspecError, ValueError) as unreadable:
                raise error("message_malformed", str(unreadable)[:200]) from unreadable
        return found

    def _next(self) -> bytes | None:
        if len(self._held) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._held)
        if length > self._bound:
            raise error("message_too_large", f"a frame of {length} bytes, the bound is {self._bound}")
        end = _LENGTH.size + length
        if len(self._held) < end:
            return None
        body = bytes(self._held[_LENGTH.size : end])
        del self._held[:end]
        return body


_announce: Final[msgspec.msgpack.Decoder[AnnounceMessage]] = msgspec.msgpack.Decoder(AnnounceMessage)
_job: Final[msgspec.msgpack.Decoder[JobMessage]] = msgspec.msgpack.Decoder(JobMessage)


def announce_reader() -> FrameReader[AnnounceMessage]:
    """For one stream of `/fabstir/announce/1`."""
    return FrameReader(_announce, MAX_ANNOUNCE_FRAME)


def job_reader() -> FrameReader[JobMessage]:
    """For one stream of `/fabstir/job/1`."""
    return FrameReader(_job, MAX_JOB_FRAME)
