"""How a supervisor and its child process speak: one message, one frame, over a socket that both have.

A frame is four bytes of length, big-endian, and a msgpack body. Which messages there are, and how large one may be, each pair says for
itself; a frame that breaks the rules ends the connection.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

Job = TypeVar("Job")
Reply = TypeVar("Reply")
_LENGTH: Final = struct.Struct(">I")


class ByteStream(Protocol):
    """A blocking file over the socket."""

    def read(self, size: int, /) -> bytes: ...


class Framing(Generic[Job, Reply]):
    """The frames of one pair: jobs to the child, replies from it, each of at most `limit` bytes."""

    def __init__(self, job: Any, reply: Any, limit: int) -> None:
        """`job` and `reply` are the unions of the messages."""
        self._job: msgspec.msgpack.Decoder[Job] = msgspec.msgpack.Decoder(job)
        self._reply: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(reply)
        self._encoder = msgspec.msgpack.Encoder()
        self._limit = limit

    def __repr__(self) -> str:
        return f"<Framing of at most {self._limit} bytes>"

    def frame(self, message: Job | Reply) -> bytes:
        """`message` with its length in front."""
        body = self._encoder.encode(message)
        return _LENGTH.pack(len(body)) + body

    def read_job(self, stream: ByteStream) -> Job | None:
        """The next job; None where the other end closed. Raises EOFError, ValueError, msgspec.DecodeError."""
        header = stream.read(_LENGTH.size)
        if not header:
            return None
        return self._job.decode(stream.read(self._body_length(header)))

    async def read_reply(self, reader: asyncio.StreamReader) -> Reply:
        """The next reply. Raises asyncio.IncompleteReadError, ValueError, msgspec.DecodeError."""
        header = await reader.readexactly(_LENGTH.size)
        return self._reply.decode(await reader.readexactly(self._body_length(header)))

    def _body_length(self, header: bytes) -> int:
        if len(header) != _LENGTH.size:
            raise EOFError("the connection ended inside a frame")
        (length,) = _LENGTH.unpack(header)
        if length > self._limit:
            raise ValueError(f"a frame of {length} bytes, the bound is {self._limit}")
        return int(length)
