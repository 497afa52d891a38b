"""What the encrypted channel costs: CPU for each message of a token stream, its bytes on the wire, and a handshake.

Both ways are measured as they are used, both ends included: JSON made, then deflated and inflated as the WebSocket does (plain), or
padded, sealed and opened (channel); JSON read. `bare` is JSON alone. The stream is that of an answer with four alternatives for each
token. Only CPU seconds of this process are counted; sockets, which cost both ways the same, are not in it.

    python benchmarks/channel.py [--quick] [--json]
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from common import main
from websockets.frames import Frame, Opcode

from fabstir.domain.ids import Address
from fabstir.ops.compression import TextDeflate
from fabstir.protocol.channel import Channel, RenterHandshake, accept
from fabstir.protocol.messages import StreamChunk, decode_from_host, encode
from fabstir.protocol.signing import Market, SigningKey
from fabstir.protocol.transcript import TokenRecord

MARKET = Market(31337, Address(b"\x0a" * 20))
HOST = SigningKey(bytes([1]) * 32)
SETTINGS = {"memLevel": 4, "level": 1}
"""Those of `fabstir.api.server`."""
Way = Callable[[bytes], bytes]


def stream(messages: int) -> list[StreamChunk]:
    """An answer, a token a message."""
    rng = random.Random(1)
    chunks = []
    for index in range(messages):
        top = tuple((rng.randrange(150_000), -rng.randrange(12_000_000)) for _ in range(4))
        word = " " + "".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 9)))
        record = TokenRecord(top[0][0], top[0][1], top)
        chunks.append(
            StreamChunk(
                session_id="0123456789abcdef01234567", message_index=3, index=index, content=word, tokens=(record,)
            )
        )
    return chunks


def pair() -> tuple[Channel, Channel]:
    """The renter's and the host's end."""
    handshake = RenterHandshake(MARKET, HOST.address, bytes(range(32)))
    answer, channel = accept(handshake.opening, MARKET, HOST, bytes(range(32, 64)))
    return handshake.finish(answer), channel


def microseconds(chunks: list[StreamChunk], out: Way, back: Way) -> tuple[float, float]:
    """CPU for a message at both ends together, and its bytes on the wire."""
    sent, began = 0, time.process_time()
    for chunk in chunks:
        wire = out(encode(chunk))
        sent += len(wire)
        decode_from_host(back(wire))
    return 1e6 * (time.process_time() - began) / len(chunks), sent / len(chunks)


def plain() -> tuple[Way, Way]:
    """permessage-deflate with context takeover, 11 bits, as a host and a renter agree on it."""
    host, renter = TextDeflate(False, False, 11, 11, SETTINGS), TextDeflate(False, False, 11, 11, SETTINGS)
    return (
        lambda message: bytes(host.encode(Frame(Opcode.TEXT, message)).data),
        lambda wire: bytes(renter.decode(Frame(Opcode.TEXT, wire, rsv1=True)).data),
    )


def sealed() -> tuple[Way, Way]:
    """A channel."""
    renter, host = pair()

    def back(wire: bytes) -> bytes:
        opened = renter.open(wire)
        assert isinstance(opened, bytes)
        return opened

    return host.seal, back


def measure(quick: bool) -> dict[str, Any]:
    """The three ways by turns, the median of each."""
    rounds, messages = (5, 2_000) if quick else (15, 20_000)
    chunks = stream(messages)
    ways: dict[str, Callable[[], tuple[Way, Way]]] = {
        "bare": lambda: (lambda message: message, lambda wire: wire),
        "plain": plain,
        "sealed": sealed,
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(microseconds(chunks, *way()))
    cpu = {name: statistics.median(row[0] for row in rows) for name, rows in found.items()}
    size = {name: rows[0][1] for name, rows in found.items()}
    handshakes = 100 if quick else 1_000
    began = time.process_time()
    for _ in range(handshakes):
        pair()
    return {
        "claim": "a message in the channel costs about as much CPU as one that is deflated",
        "ours": round(cpu["sealed"], 2),
        "peer": round(cpu["plain"], 2),
        "ratio": round(cpu["sealed"] / cpu["plain"], 2),
        "unit": "us of CPU for each message, both ends",
        "n": rounds * messages,
        "bare_us": round(cpu["bare"], 2),
        "sealed_bytes": round(size["sealed"]),
        "plain_deflated_bytes": round(size["plain"]),
        "bare_bytes": round(size["bare"]),
        "handshake_us": round(1e6 * (time.process_time() - began) / handshakes),
    }


if __name__ == "__main__":
    main(measure, __doc__ or "")
