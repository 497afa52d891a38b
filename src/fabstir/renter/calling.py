"""Calling the hosts of one session: in their encrypted channel, or in plain text where a host offers none and none was asked for.

It decides that nothing falls back: once a channel was asked for, whatever came of it, only hosts with one are called. A host that
does not open its channel is not talked to.
"""

from __future__ import annotations

import asyncio
import os

import structlog

from fabstir.domain.errors import error
from fabstir.domain.ids import Address
from fabstir.ports.clock import Clock
from fabstir.ports.sealed_transport import SealedTransport
from fabstir.ports.transport import Transport
from fabstir.protocol.channel import CHANNEL_VERSION, RenterHandshake, largest_message
from fabstir.protocol.offer import Offer
from fabstir.protocol.signing import Market
from fabstir.renter.settings import RenterSettings
from fabstir.renter.transport import Dial

log = structlog.get_logger()


def way_to(offer: Offer) -> tuple[bool, int]:
    """How the host of `offer` is called: in a channel?, and the bytes of the longest message that it reads then."""
    encrypted = CHANNEL_VERSION in offer.channel
    return encrypted, largest_message(offer.max_message_bytes) if encrypted else offer.max_message_bytes


class Caller:
    """Calls for one session. Memory: whether a channel was asked for."""

    def __init__(self, dial: Dial, market: Market, clock: Clock, settings: RenterSettings) -> None:
        self._dial = dial
        self._market = market
        self._clock = clock
        self._patience = settings.greeting_patience
        self.only_encrypted = settings.require_encryption
        """Hosts without a channel are not called."""

    def __repr__(self) -> str:
        return f"<Caller{' in channels only' if self.only_encrypted else ''}>"

    async def call(self, url: str, host: Address, *, encrypted: bool) -> Transport:
        """A connection to the host whose account is `host`; nothing is said on it yet.

        Raises Interrupted (`host_unreachable`), Refused (`channel_refused`), PeerFault (`channel_untrusted`).
        """
        transport = await self._dial(url)
        if not encrypted:
            log.warning("call_in_plain_text", host_address=host)
            return transport
        self.only_encrypted = True
        try:
            return await self._enter(transport, RenterHandshake(self._market, host, os.urandom(32)))
        except BaseException:
            transport.abort()
            raise

    async def _enter(self, transport: Transport, handshake: RenterHandshake) -> SealedTransport:
        await transport.send(handshake.opening)
        answer = asyncio.ensure_future(transport.receive())
        alarm = asyncio.ensure_future(self._clock.sleep(self._patience))
        try:
            await asyncio.wait((answer, alarm), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise error("host_unreachable", f"no channel_ready within {self._patience:g} s")
            return SealedTransport(transport, handshake.finish(answer.result()))
        finally:
            answer.cancel()
            alarm.cancel()
