"""A connection as it arrives at a host: its first message says whether it is held in an encrypted channel or in plain text.

It decides nothing else. Where the host requires encryption, plain text is answered with `channel_required` before it is looked at.
A connection that began in one way never changes to the other.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from fabstir.domain.errors import Interrupted, error
from fabstir.ports.sealed_transport import SealedTransport
from fabstir.ports.transport import Transport
from fabstir.protocol.channel import INTEGRITY_FAULTS, accept, opens_channel
from fabstir.protocol.signing import Market, SigningKey


class Entrance:
    """`fabstir.ports.transport.Transport` that becomes sealed or stays plain with its first message. Memory: the channel's."""

    def __init__(
        self,
        transport: Transport,
        market: Market,
        key: SigningKey,
        *,
        required: bool,
        report: Callable[[str], None],
    ) -> None:
        """`key` is the host's account's. `report` is told of each of INTEGRITY_FAULTS."""
        self._plain: Final = transport
        self._inner: Transport = transport
        self._market = market
        self._key = key
        self._required = required
        self._report = report
        self._decided = False

    @property
    def sealed(self) -> bool:
        """Whether it is a channel by now."""
        return self._inner is not self._plain

    def __repr__(self) -> str:
        return f"<Entrance {self._inner!r}>"

    async def send(self, message: bytes) -> None:
        """In the channel where there is one."""
        await self._inner.send(message)

    async def receive(self) -> bytes | str:
        """The next message. Raises what the transport does, and Refused (`channel_required`, `channel_refused`), after which the
        connection stands."""
        while not self._decided:
            message = await self._plain.receive()
            if opens_channel(message):
                await self._seal(message)
            elif self._required:
                raise error("channel_required")
            else:
                self._decided = True
                return message
        try:
            return await self._inner.receive()
        except Interrupted as fault:
            if fault.code in INTEGRITY_FAULTS:
                self._report(fault.code)
            raise

    async def close(self, code: str) -> None:
        """In the channel where there is one."""
        await self._inner.close(code)

    def abort(self) -> None:
        """At once."""
        self._inner.abort()

    async def _seal(self, opening: bytes | str) -> None:
        answer, channel = accept(opening, self._market, self._key, secrets.token_bytes(32))
        self._decided, self._inner = True, SealedTransport(self._plain, channel)
        await self._plain.send(answer)
