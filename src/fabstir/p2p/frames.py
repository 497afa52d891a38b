"""What node and libp2p process say to each other over the socket that both inherit: requests with a number, answers with the same one.

A frame is four bytes of length, big-endian, and a msgpack body. The other side is ours, but it is the one that strangers talk to: its
frames are bounded and typed like theirs. Nothing here decides.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fabstir.protocol.p2p.announcement import MAX_BYTES

MAX_FRAME: Final = 2 << 20
"""A look-up brings at most MAX_FOUND announcements."""
MAX_FOUND: Final = 256
LENGTH: Final = struct.Struct(">I")


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """The first frame to the process. The identity comes this way, so that no argument or environment shows it."""

    seed: bytes
    listen: tuple[str, ...]
    announce: tuple[str, ...]
    """Addresses that others are told, where they differ from those listened on."""
    bootstrap: tuple[str, ...]
    server: bool
    """Holds records for others; false behind a NAT."""
    max_connections: int
    per_address: int
    """Connections from one IP address."""


class Publish(msgspec.Struct, frozen=True, tag="publish"):
    """Give `announcement` to whoever asks, be found under `keys`."""

    number: int
    announcement: bytes
    keys: tuple[bytes, ...]


class Find(msgspec.Struct, frozen=True, tag="find"):
    """What do the providers of `keys` announce?"""

    number: int
    keys: tuple[bytes, ...]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """It listens."""

    node: bytes
    addresses: tuple[str, ...]


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Answer to Publish: it is given from now on; the keys are announced in the background."""

    number: int


class Found(msgspec.Struct, frozen=True, tag="found"):
    """Answer to Find."""

    number: int
    announcements: Annotated[
        tuple[Annotated[bytes, Meta(max_length=MAX_BYTES)], ...],
        Meta(max_length=MAX_FOUND),
    ]


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It could not be done; number 0: the process could not start."""

    number: int
    code: str
    detail: str


class Standing(msgspec.Struct, frozen=True, tag="standing"):
    """How the node stands in the network, told every few seconds: also the sign that the process lives."""

    peers: int
    known: int
    providing: int
    announced_at: float


Request = Setup | Publish | Find
Report = Ready | Done | Found | Failed | Standing

_encoder: Final = msgspec.msgpack.Encoder()
decode_request: Final[msgspec.msgpack.Decoder[Request]] = msgspec.msgpack.Decoder(Request)
decode_report: Final[msgspec.msgpack.Decoder[Report]] = msgspec.msgpack.Decoder(Report)


def frame(message: Request | Report) -> bytes:
    """`message` with its length in front."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """Raises ValueError beyond the bound."""
    (length,) = LENGTH.unpack(header)
    if length > MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes, the bound is {MAX_FRAME}")
    return int(length)
