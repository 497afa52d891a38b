"""One session of a renter that speaks HTTP: each request is a message of the session protocol, its answer what the host says to it.

The same core as over a WebSocket decides everything: what is served, W, receipts and vouchers. Here requests are put in line,
so that an answer finds the request that it belongs to; and whoever stops reading has its answer cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final, TypeVar, cast

import msgspec

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import JobId
from fabstir.host.http_transport import HttpTransport
from fabstir.protocol.messages import (
    Cancel,
    DepositChanged,
    Error,
    FromHost,
    PaymentReceived,
    PaymentRequired,
    Ping,
    Pong,
    Prompt,
    Receipt,
    ReceiptAck,
    Response,
    SessionEnd,
    SessionInit,
    SessionReady,
    SessionResume,
    StreamChunk,
)

Heard = StreamChunk | Receipt | PaymentRequired | Response
"""What an answer consists of; Response ends it."""
T = TypeVar("T", SessionReady, SessionEnd, PaymentReceived, Pong)


class HttpSession:
    """One admitted job. Memory: its transport, and the last receipt."""

    def __init__(self, job: JobId, now: float) -> None:
        self.job: Final = job
        self.used_at = now
        """When somebody asked something of it last, by the node's monotonic clock."""
        self.transport: Final = HttpTransport(self._take)
        self.ready: SessionReady
        """What the host said last about the session."""
        self.receipt: Receipt | None = None
        """The last one that it sent, until it is acknowledged."""
        self.payment: PaymentRequired | None = None
        """Where the deposit runs out."""
        self._asked: asyncio.Lock = asyncio.Lock()
        self._reply: asyncio.Future[FromHost] | None = None
        self._pings = 0
        self._index: int | None = None
        """Of the prompt that is being answered."""
        self._read = False
        """Somebody reads that answer."""

    def __repr__(self) -> str:
        return f"<HttpSession 0x{self.job.hex()[:8]} {'answers' if self.answering else 'idle'}, {self.transport!r}>"

    @property
    def answering(self) -> bool:
        """A prompt is being answered."""
        return self._index is not None

    @property
    def busy(self) -> bool:
        """A request is at work."""
        return self._read or self._asked.locked()

    # -- requests ----------------------------------------------------------------------------------------------------------

    async def greet(self, hello: SessionInit | SessionResume) -> SessionReady:
        """Begin the session, or replace its conversation. Raises what the host answers."""
        self.ready = await self._command(hello, SessionReady)
        return self.ready

    async def acknowledge(self, voucher: ReceiptAck) -> None:
        """Raises PeerFault (`voucher_*`)."""
        async with self._asked:
            self.transport.say(voucher)
            self._pings += 1
            await self._await(Ping(id=self._pings), Pong)  # what is wrong with the voucher is said before
        if self.receipt is not None and self.receipt.tokens <= voucher.tokens:
            self.receipt = None

    async def deposit_changed(self) -> PaymentReceived:
        """The job was topped up. Raises ChainFault."""
        seen = await self._command(DepositChanged(session_id=self.ready.session_id), PaymentReceived)
        self.payment = None
        return seen

    async def end(self) -> SessionEnd:
        """End and settle; the connection is over afterwards."""
        return await self._command(SessionEnd(session_id=self.ready.session_id), SessionEnd)

    async def answer(self, prompt: Prompt) -> AsyncGenerator[Heard, None]:
        """What comes in answer to `prompt`. Leaving it early cancels it. Raises Refused (`session_busy`), what the host answers, and
        Interrupted where it ends before the answer does."""
        if self.answering:
            raise error("session_busy")
        self._index, self._read = prompt.message_index, True
        try:
            self.transport.say(prompt)
            while not self._over():
                message = await self.transport.heard()
                if _belongs(message, prompt.message_index):
                    if isinstance(message, Error):
                        raise fault_of(message)
                    yield cast(Heard, message)
        finally:
            self._read = False
            self.transport.discard()
            if not self._over() and self.transport.gone is None:
                self.transport.say(Cancel(session_id=prompt.session_id, message_index=prompt.message_index))

    # -- inside ------------------------------------------------------------------------------------------------------------

    def _over(self) -> bool:
        """The answer has ended, and its end was read."""
        return self._index is None and self.transport.empty

    async def _command(self, message: SessionInit | SessionResume | DepositChanged | SessionEnd, kind: type[T]) -> T:
        async with self._asked:
            return await self._await(message, kind)

    async def _await(
        self, message: SessionInit | SessionResume | DepositChanged | SessionEnd | Ping, kind: type[T]
    ) -> T:
        """Say `message`; the reply of `kind`. Raises what the host says instead, Interrupted where it is gone."""
        self._reply = asyncio.get_running_loop().create_future()
        try:
            self.transport.say(message)
            while not self._reply.done() and self.transport.gone is None:
                await self.transport.moved()
            reply = self._reply.result() if self._reply.done() else None
        finally:
            self._reply = None
        if isinstance(reply, Error):
            raise fault_of(reply)
        if not isinstance(reply, kind):
            raise self.transport.gone or error("node_failed", f"{type(reply).__name__} in answer")
        return reply

    def _take(self, message: FromHost) -> bool:
        """Notice what the host says; True where it belongs to the answer that is being read."""
        if isinstance(message, Receipt):
            self.receipt = message
        elif isinstance(message, PaymentRequired):
            self.payment = message
        elif isinstance(message, StreamChunk):
            return self._read
        elif isinstance(message, Response) or (isinstance(message, Error) and message.message_index is not None):
            if message.message_index == self._index:
                self._index = None
            return self._read
        else:
            self._answer_command(message)
            return False
        return self._read

    def _answer_command(self, message: FromHost) -> None:
        """Notices and what nobody waits for are read over."""
        expected = isinstance(message, SessionReady | SessionEnd | PaymentReceived | Pong | Error)
        if expected and self._reply is not None and not self._reply.done():
            self._reply.set_result(message)
            self.transport.wake()


def _belongs(message: FromHost, index: int) -> bool:
    """To the answer of prompt `index`; of the one before, a word may be late."""
    if isinstance(message, StreamChunk | Response | Error):
        return message.message_index == index
    return isinstance(message, Receipt | PaymentRequired)


def fault_of(message: Error) -> FabstirError:
    """The error that the host's message stands for."""
    return error(message.code, message.detail, message.next_step, retry_after=message.retry_after_s)


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """Where a session stands."""

    ready: SessionReady
    """What the host said when it was begun."""
    answering: bool
    message_index: int
    """Index of the next question."""
    tokens_served: int
    """As written down: at least those of the last receipt."""
    tokens_acknowledged: int
    receipt: Receipt | None = None
    """To be acknowledged."""
    payment_required: PaymentRequired | None = None
    """The deposit runs out."""
