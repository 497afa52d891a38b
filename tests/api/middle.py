"""A TCP proxy between renter and host that reads WebSocket frames, as one that ended TLS could: it records them, and may change them."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple
from urllib.parse import urlsplit

TEXT, BINARY = 1, 2


class Frame(NamedTuple):
    """One WebSocket frame (RFC 6455, 5.2), unmasked."""

    head: int
    payload: bytes

    @property
    def opcode(self) -> int:
        return self.head & 15

    @property
    def compressed(self) -> bool:
        return bool(self.head & 64)

    def encoded(self, masked: bool) -> bytes:
        """As it travels; with a mask of zeros where there must be one."""
        size, mask = len(self.payload), 128 if masked else 0
        if size < 126:
            length = bytes((mask | size,))
        elif size < 1 << 16:
            length = bytes((mask | 126,)) + size.to_bytes(2, "big")
        else:
            length = bytes((mask | 127,)) + size.to_bytes(8, "big")
        return bytes((self.head,)) + length + (bytes(4) if masked else b"") + self.payload


Change = Callable[[bool, Frame], list[Frame] | None]
"""What is passed on for a frame (True: of the host); None: the connection is cut there."""


class Recorder:
    """What passed, of all connections."""

    def __init__(self) -> None:
        self.raw = bytearray()
        """Every byte, in both directions, before anything was changed."""
        self.frames: list[tuple[bool, Frame]] = []
        self.change: Change = lambda of_host, frame: [frame]
        self.upgrades = 0
        self._inflate: dict[tuple[int, bool], zlib._Decompress] = {}
        self.texts: list[bytes] = []
        """Text frames as they were before compression."""

    def take(self, connection: int, of_host: bool, frame: Frame) -> list[Frame] | None:
        """Write `frame` down; what is passed on."""
        self.frames.append((of_host, frame))
        if frame.opcode == TEXT:
            text = frame.payload
            if frame.compressed:
                inflate = self._inflate.setdefault((connection, of_host), zlib.decompressobj(wbits=-15))
                text = inflate.decompress(text + b"\x00\x00\xff\xff")
            self.texts.append(text)
        return self.change(of_host, frame)


async def _frame(reader: asyncio.StreamReader, recorder: Recorder) -> Frame:
    head, length = start = await reader.readexactly(2)
    recorder.raw += start
    size = length & 127
    if size > 125:
        more = await reader.readexactly(2 if size == 126 else 8)
        size = int.from_bytes(more, "big")
    mask = await reader.readexactly(4) if length & 128 else bytes(4)
    body = await reader.readexactly(size)
    recorder.raw += body
    return Frame(head, bytes(byte ^ mask[n % 4] for n, byte in enumerate(body)))


async def _pass(
    connection: int, of_host: bool, source: asyncio.StreamReader, target: asyncio.StreamWriter, recorder: Recorder
) -> None:
    """One direction, until its end or the cut."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while (frames := recorder.take(connection, of_host, await _frame(source, recorder))) is not None:
            target.write(b"".join(frame.encoded(not of_host) for frame in frames))
            await target.drain()


@contextlib.asynccontextmanager
async def between(url: str) -> AsyncIterator[tuple[str, Recorder]]:
    """A proxy in front of the host at `url`: its own URL, and what it sees."""
    recorder, place, serving = Recorder(), urlsplit(url), set[asyncio.Task[None] | None]()

    async def serve(renter: asyncio.StreamReader, to_renter: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        host, to_host = await asyncio.open_connection(place.hostname, place.port)
        try:
            while True:
                request = await renter.readuntil(b"\r\n\r\n")
                recorder.raw += request
                to_host.write(request)
                answer = await host.readuntil(b"\r\n\r\n")
                recorder.raw += answer
                to_renter.write(answer)
                if answer.startswith(b"HTTP/1.1 101"):
                    break
                size = next(
                    int(row[15:]) for row in answer.lower().split(b"\r\n") if row.startswith(b"content-length:")
                )
                to_renter.write(await host.readexactly(size))
            recorder.upgrades += 1
            ways = [
                asyncio.ensure_future(_pass(recorder.upgrades, False, renter, to_host, recorder)),
                asyncio.ensure_future(_pass(recorder.upgrades, True, host, to_renter, recorder)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for writer in (to_renter, to_host):
                writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", recorder
        for task in filter(None, serving):
            task.cancel()
