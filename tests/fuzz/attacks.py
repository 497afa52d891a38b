"""What a stranger may do to a WebSocket: rubbish, fragments, bombs, floods, reading slowly or not at all, vanishing without a word.

Each attack is one connection of its own, made by hand on a raw socket, since a library would not send such frames. It returns how many
messages or frames it sent. All chance comes from the `random.Random` that it is given. An attack never expects anything: whether the host
stood it is seen elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

GOLDEN: Final[list[dict[str, str]]] = json.loads(
    (Path(__file__).parents[1] / "protocol" / "vectors" / "messages.json").read_text("utf-8")
)
DEFLATE: Final = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
BOMB: Final = 64 << 20
"""Bytes that a compressed message unfolds to; on the wire it has a thousandth of that."""
Attack = Callable[["Raw", random.Random], Awaitable[int]]


class Raw:
    """A TCP connection to the host."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = str(parts.hostname), int(parts.port or 80)
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def connect(self, receive_buffer: int | None = None) -> None:
        """The TCP connection alone."""
        plain = socket.socket()
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(plain, (self.host, self.port))
            self.reader, self.writer = await asyncio.open_connection(sock=plain, limit=1 << 16)
        except BaseException:
            plain.close()
            raise

    async def upgrade(self, extra: str = "", path: str = "/v1/ws", version: int = 13) -> None:
        """The handshake of a WebSocket."""
        key = base64.b64encode(os.urandom(16)).decode()
        self.writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {version}\r\n{extra}\r\n".encode()
        )
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), 5)

    async def taste(self, seconds: float = 0.05) -> None:
        """Read what there is, for a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self.reader.read(1 << 16):
                    pass

    def reset(self) -> None:
        """Gone with RST, in the middle of whatever it was."""
        plain = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def frame(
    payload: bytes, opcode: int = 1, *, fin: bool = True, rsv: int = 0, masked: bool = True, length: int | None = None
) -> bytes:
    """One frame, right or wrong as the arguments say; `length` is what the header claims."""
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    size = len(payload) if length is None else length
    bit = 0x80 if masked else 0
    if size < 126:
        head = struct.pack(">BB", first, bit | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, bit | 126, size)
    else:
        head = struct.pack(">BBQ", first, bit | 127, size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    keys = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return head + mask + (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(len(payload), "big")


def mutated(chance: random.Random) -> bytes:
    """A message of the protocol with something wrong, or none at all."""
    text = chance.choice(GOLDEN)["encoded"]
    match chance.randrange(7):
        case 0:
            return text.encode()
        case 1:
            return text[: chance.randrange(len(text))].encode()
        case 2:
            data = bytearray(text.encode())
            for _ in range(chance.randrange(1, 8)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            return bytes(data)
        case 3:
            message: dict[str, Any] = json.loads(text)
            message[chance.choice(list(message))] = _value(chance)
            return json.dumps(message).encode("utf-8", "surrogatepass")
        case 4:
            return b"[" * chance.randrange(1, 50_000)
        case 5:
            return chance.randbytes(chance.randrange(1, 2_000))
        case _:
            return json.dumps(_value(chance)).encode("utf-8", "surrogatepass")


def _value(chance: random.Random) -> Any:
    return chance.choice(
        [
            None,
            True,
            -1,
            2**32,
            2**64,
            1e300,
            "",
            "\udfff",
            "x" * 2_000,
            "0x" + "g" * 64,
            [],
            {},
            [[]] * 50,
            {"type": "ping"},
        ]
    )


async def rubbish(raw: Raw, chance: random.Random) -> int:
    """No HTTP, or HTTP that is no handshake."""
    await raw.connect()
    heads = [
        chance.randbytes(chance.randrange(1, 4_000)),
        b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * chance.randrange(2_000) + b"\r\n",
        b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"POST /v1/ws HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\nx",
        b"GET /v1/ws HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    await raw.send(chance.choice(heads))
    await raw.taste()
    return 1


async def handshakes(raw: Raw, chance: random.Random) -> int:
    """Of another version, for another path, with extensions that nobody has."""
    await raw.connect()
    extra = chance.choice(
        [
            "Sec-WebSocket-Extensions: " + "a;b=" * chance.randrange(1, 200) + "c\r\n",
            "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n",
            "Sec-WebSocket-Protocol: " + "p," * 500 + "q\r\n",
            "Cookie: " + "c" * 20_000 + "\r\n",
            "Sec-WebSocket-Version: 12\r\n",
        ]
    )
    await raw.upgrade(
        extra,
        path=chance.choice(["/v1/ws", "/v1/ws/", "/v1/ws?x=%00", "/" + "a" * 8_000]),
        version=chance.choice([13, 8, 0]),
    )
    await raw.taste()
    return 1


async def frames(raw: Raw, chance: random.Random) -> int:
    """Opcodes, bits, lengths and masks as they may not be; text that is none; close codes that are none."""
    await raw.connect()
    await raw.upgrade(chance.choice(["", DEFLATE]))
    sent = 0
    for _ in range(chance.randrange(1, 20)):
        payload = chance.randbytes(chance.randrange(0, 300))
        await raw.send(
            frame(
                payload,
                chance.randrange(16),
                fin=chance.random() < 0.8,
                rsv=chance.choice([0, 0, 0, 1, 2, 4, 7]),
                masked=chance.random() < 0.9,
                length=chance.choice([None, None, None, 0, len(payload) + 5, 2**31, 2**63, 2**64 - 1]),
            )
        )
        sent += 1
    await raw.taste()
    return sent


async def fragments(raw: Raw, chance: random.Random) -> int:
    """A message in very many pieces, with pings between; its end never comes, or a new one begins before."""
    await raw.connect()
    await raw.upgrade()
    text, sent = mutated(chance), 0
    pieces = [
        text[at : at + 1 + len(text) // 40] for at in range(0, len(text), 1 + len(text) // 40)
    ] * chance.randrange(1, 4)
    for at, piece in enumerate(pieces):
        await raw.send(frame(piece, 1 if at == 0 else chance.choice([0, 0, 0, 0, 0, 0, 0, 1]), fin=False))
        sent += 1
        if chance.random() < 0.2:
            await raw.send(frame(b"p", 9))
            sent += 1
    if chance.random() < 0.5:
        await raw.send(frame(b"", 0))
        sent += 1
    await raw.taste()
    return sent


async def bombs(raw: Raw, chance: random.Random) -> int:
    """Small on the wire, huge once unfolded; whole, in fragments, or many of them."""
    await raw.connect()
    await raw.upgrade(DEFLATE)
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = b" " * (1 << 20)
    data = b"".join(packed.compress(block) for _ in range(chance.choice([2, 8, BOMB >> 20]))) + packed.flush(
        zlib.Z_SYNC_FLUSH
    )
    data = data.removesuffix(b"\x00\x00\xff\xff")
    if chance.random() < 0.5:
        await raw.send(frame(data, rsv=4))
        await raw.taste(0.5)
        return 1
    half = len(data) // 2
    await raw.send(frame(data[:half], rsv=4, fin=False))
    await raw.send(frame(data[half:], 0))
    await raw.taste(0.5)
    return 2


async def messages(raw: Raw, chance: random.Random) -> int:
    """Well-formed frames with messages that are wrong in one thing, or in all."""
    await raw.connect()
    await raw.upgrade(chance.choice(["", DEFLATE]))
    sent = 0
    for _ in range(chance.randrange(5, 60)):
        await raw.send(frame(mutated(chance), chance.choice([1, 1, 1, 1, 2])))
        sent += 1
    await raw.taste()
    return sent


async def floods(raw: Raw, chance: random.Random) -> int:
    """As many pings and messages as fit, and nothing read."""
    await raw.connect(receive_buffer=2_048)
    await raw.upgrade()
    sent, one = 0, frame(b'{"type":"ping","id":1}', 1) + frame(b"x" * 125, 9)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(chance.uniform(0.05, 0.5)):
            for _ in range(200):
                await raw.send(one * 20)
                sent += 40
    return sent


async def half_open(raw: Raw, chance: random.Random) -> int:
    """Here, and never heard of again."""
    await raw.connect(receive_buffer=2_048)
    if chance.random() < 0.8:
        await raw.upgrade()
        await raw.send(frame(b'{"type":"ping","id":1}') * chance.randrange(3))
    await asyncio.sleep(chance.uniform(0.1, 8.0))
    return 1


ATTACKS: Final[dict[str, Attack]] = {
    attack.__name__: attack for attack in (rubbish, handshakes, frames, fragments, bombs, messages, floods, half_open)
}
