"""Attacks that need a session, and the renter beside them whose session must not be disturbed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from fabstir.domain.errors import FabstirError
from fabstir.protocol.capabilities import OF_RENTER
from fabstir.protocol.messages import Cancel, Ping, Pong, Prompt, SessionClear, SessionEnd, encode
from tests.api.served import SocketWire
from tests.fuzz.attacks import mutated
from tests.host.world import Renter, some_terms


class Patient(Renter):
    """A renter with this machine's clock, that answers pings."""

    def auth(self, **options: Any) -> Any:
        return super().auth(**{"issued_at": int(time.time()), **options})

    async def next(self) -> Any:
        while isinstance(message := await super().next(), Ping):
            await self.send(Pong(id=message.id))
        return message


async def opened(url: str, **options: Any) -> Patient:
    """A session that stands."""
    socket = await connect(url.replace("http", "ws") + "/v1/ws", **options)
    renter = Patient(SocketWire(socket), some_terms(expires_at=int(time.time()) + 100_000))
    await renter.open(renter.init(capabilities=OF_RENTER))
    return renter


async def close(renter: Renter, chance: random.Random) -> None:
    """In good order, or not."""
    assert isinstance(renter.wire, SocketWire)
    if chance.random() < 0.5:
        renter.wire.socket.transport.abort()
    await renter.wire.socket.close()


async def session(url: str, chance: random.Random) -> int:
    """Right messages in the wrong order, wrong ones between, and gone in the middle of an answer."""
    renter = await opened(url, max_queue=4)
    sent, index = 1, renter.message_index
    try:
        for _ in range(chance.randrange(1, 30)):
            message = chance.choice(
                [
                    lambda: encode(
                        Prompt(session_id="chat", message_index=index + chance.randrange(3), content="count 30")
                    ),
                    lambda: encode(Cancel(session_id="chat", message_index=chance.randrange(3))),
                    lambda: encode(SessionClear(session_id="chat")),
                    lambda: encode(renter.voucher(chance.randrange(100), str(chance.randrange(100)), "0x" + "ab" * 32)),
                    lambda: encode(renter.resume()),
                    lambda: encode(SessionEnd(session_id=chance.choice(["chat", "other"]))),
                    lambda: mutated(chance),
                ]
            )()
            await renter.send(message.decode("utf-8", "replace"))
            sent += 1
            if chance.random() < 0.3:
                await asyncio.sleep(0.005)
    finally:
        await close(renter, chance)
    return sent


async def slow_reader(url: str, chance: random.Random) -> int:
    """Asks for a long answer, takes a piece of it, and stops: reading, or acknowledging."""
    renter = await opened(url, max_queue=1)
    try:
        await renter.ask("count 300", max_tokens=400)
        for _ in range(chance.randrange(1, 6)):
            await renter.next()
        await asyncio.sleep(chance.uniform(0.1, 8.0))
    finally:
        await close(renter, chance)
    return 2


class Bystander:
    """Chats beside the attacks, and counts what was not as it must be."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers = 0
        self.disturbed: list[str] = []
        self.slowest = 0.0
        self.times: list[float] = []

    def __repr__(self) -> str:
        return f"<Bystander {self.answers} answers, {len(self.disturbed)} disturbed>"

    async def run(self) -> None:
        """Until cancelled: sessions of 20 questions."""
        while True:
            renter = None
            try:
                renter = await opened(self._url)
                for _ in range(20):
                    began = time.monotonic()
                    text = await renter.chat("count 20")
                    self.times.append(time.monotonic() - began)
                    if text != " ".join(map(str, range(1, 21))):
                        self.disturbed.append(f"answer {text!r}")
                    self.answers += 1
                    await asyncio.sleep(0.05)
                await renter.send(SessionEnd(session_id="chat"))
            except (FabstirError, WebSocketException, OSError, AssertionError, TimeoutError) as broken:
                self.disturbed.append(f"{type(broken).__name__}: {broken}"[:200])
                await asyncio.sleep(0.2)
            finally:
                if renter is not None and isinstance(renter.wire, SocketWire):
                    with contextlib.suppress(WebSocketException, OSError):
                        await renter.wire.socket.close()


def told(log: str) -> list[str]:
    """Lines of a host's log that say that it broke."""
    lines = []
    for line in log.splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and row.get("level") not in ("error", "critical"):
                continue
        if line.strip():
            lines.append(line[:300])
    return lines
