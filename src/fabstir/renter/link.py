"""One connection to one host under one job: drives the session core, message by message, as somebody asks for the next
event.

It decides nothing: what is sent, believed and signed is the core's business, and an effect that stores is durable
before the next one runs. No answer is read in the background: who does not ask for more is not served more, so a
consumer that stops, stops the meter within W tokens. Between two answers `Vigil` lets it read, so that pings are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from fabstir.domain.errors import FabstirError, Interrupted, LocalFault, PeerFault, error
from fabstir.domain.ids import Hash32, SessionId
from fabstir.ports.clock import Clock
from fabstir.ports.transport import Transport
from fabstir.protocol.messages import (
    ChatMessage,
    ContextPlan,
    FromRenter,
    ReceiptAck,
    SessionReady,
    decode_from_host,
    encode,
)
from fabstir.protocol.renter_items import (
    AnswerBroken,
    AnswerDone,
    Ask,
    Clear,
    Connect,
    Deliver,
    DropConnection,
    FingerprintsKept,
    Finish,
    HandedOff,
    HostLost,
    LeaveHost,
    PaymentDue,
    PaymentSeen,
    Planned,
    RenterEffect,
    RenterInput,
    Rewound,
    SendHost,
    SessionClosed,
    SessionOpened,
    ShowNotice,
    StopAnswer,
    StoreRenter,
    TellDeposit,
    TurnKept,
)
from fabstir.protocol.renter_session import RenterState
from fabstir.protocol.transcript_file import SpokenTurn
from fabstir.renter.jobs import Jobs, RenterJob
from fabstir.renter.settings import RenterSettings
from fabstir.renter.sizes import fits, require_size
from fabstir.renter.vigil import Vigil

AnswerEvent = Deliver | AnswerDone | AnswerBroken
"""What `next` brings."""
T = TypeVar("T")

FINGERPRINT_SECONDS: Final = 10.0
"""For which an end waits for the last answer's fingerprints: a prefill of it, and those before it in the host's queue."""


class Link:
    """One connection. Memory: events that nobody took yet, at most those of one message of the host."""

    def __init__(
        self, job: RenterJob, transport: Transport, jobs: Jobs, clock: Clock, settings: RenterSettings
    ) -> None:
        self.job: Final = job
        self._core = job.core
        self._transport = transport
        self._jobs = jobs
        self._clock = clock
        self._settings = settings
        self._keeper = jobs.keeper
        self._events: deque[RenterEffect] = deque()
        self._acting: asyncio.Task[None] | None = None
        self._vigil = Vigil(clock, self._core, transport, self._send, self._idle, self._may_idle)
        self._owes_receipt = False
        self._acknowledged = -1
        """Tokens of the last voucher that was sent on this connection."""
        self._session = SessionId("")
        self._brought: tuple[ChatMessage, ...] | None = None
        """The conversation that the next question brings along."""
        self._summarised = 0
        self.payment_due: int | None = None
        """Tokens that the deposit still paid for when the host asked for more; None where it did not ask since."""
        self.plan: ContextPlan | None = None
        """What the engine was given for the answer that streams or ended last."""
        self.last_turn: SpokenTurn | None = None
        """The last answer that ended here, with its records."""
        self.lost: FabstirError | None = None
        """Why the connection is gone."""
        self.left: FabstirError | None = None
        """Why this host is not talked to any more: it refused us, or broke the protocol."""
        self.leaving: FabstirError | None = None
        """The host goes down and has said so: `depart`, and go on with another one."""
        self._sending = asyncio.Lock()

    def __repr__(self) -> str:
        state = "left" if self.left else "lost" if self.lost else self._core.state.value
        return f"<Link {state}: {self.job!r}>"

    @property
    def usable(self) -> bool:
        """Questions can be asked, after `open` where the core is offline."""
        return (
            not (self.lost or self.left or self.leaving or self.job.spoiled)
            and self._core.state is not RenterState.ENDED
        )

    @property
    def context(self) -> tuple[ChatMessage, ...] | None:
        """The conversation that the host holds; None where both sides must agree again."""
        if self._core.state is not RenterState.READY:
            return None
        return self._core.context if self._brought is None else self._brought

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the host said that it can do."""
        return self._core.capabilities

    # -- what a session does ---------------------------------------------------------------------------------------------

    async def open(self, session: SessionId, context: tuple[ChatMessage, ...], summarised: int = 0) -> SessionReady:
        """Introduce ourselves, or replace the conversation. Raises what the host answered, or `host_unreachable`."""
        self._session, self._brought = session, None
        issued_at, nonce = int(self._clock.now()), Hash32(os.urandom(32))
        await self._command(
            Connect(session_id=session, context=context, summarised=summarised, nonce=nonce, issued_at=issued_at)
        )
        ready = (await self._expect(SessionOpened)).ready
        self._owes_receipt = ready.tokens_served > ready.tokens_acknowledged
        return ready

    def bring(self, context: tuple[ChatMessage, ...], summarised: int = 0) -> bool:
        """Let the next question bring this conversation along; False where the host does not take it so."""
        if self.context is None or "stateless" not in self._core.capabilities:
            return False
        self._brought, self._summarised = context, summarised
        return True

    async def clear(self) -> None:
        """Let the host forget the conversation; nothing where it does not know how, or holds none."""
        if self.usable and self.context and "clear" in self._core.capabilities:
            await self._command(Clear())

    async def ask(self, question: Ask) -> None:
        """Send the question; its answer comes with `next`. Raises PeerFault (`message_too_large`)."""
        if self._brought is not None:
            whole = msgspec.structs.replace(question, conversation=self._brought, summarised=self._summarised)
            if fits(whole, self.job.max_message_bytes):
                question, self._brought = whole, None
            else:  # in two messages, then
                await self.open(self._session, self._brought, self._summarised)
        require_size(question, self.job.max_message_bytes)
        self.plan = None
        await self._command(question)

    async def next(self, patience: float | None = None) -> AnswerEvent:
        """What comes next of the answer. A connection that breaks comes as AnswerBroken; one that brings nothing but signs of life for too
        long is broken off."""
        await self._vigil.stop_idling(finishing=self.leaving is not None)
        due = self._now() + (self._settings.answer_patience if patience is None else patience)
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, (Deliver, AnswerDone, AnswerBroken)):
                    return event
            await self._pull(due - self._now())

    async def stop(self, take: Callable[[Deliver], object]) -> AnswerDone | AnswerBroken:
        """Cancel the answer; what was delivered until the host noticed goes to `take`, and is acknowledged as usual."""
        await self._command(StopAnswer())
        while isinstance(event := await self.next(self._settings.greeting_patience), Deliver):
            take(event)
        return event

    async def tell_deposit(self) -> None:
        """The job was topped up: return once the host knows. Raises `deposit_exhausted` where it does not see it, or what it answered."""
        await self._command(TellDeposit())
        seen = (await self._expect(PaymentSeen)).deposit
        if seen < self.job.ledger.deposit:
            raise error("deposit_exhausted", f"the host sees {seen} base units, {self.job.ledger.deposit} are there")
        self.payment_due = None

    async def finish(self) -> None:
        """End the session: acknowledge what is open, then let the host settle. Raises `host_unreachable`, or why it was
        left.
        """
        await self._vigil.stop_idling(finishing=self.leaving is not None)
        await self._finish()

    async def depart(self) -> None:
        """The host leaves: end the session with it while it is there, as far as that works. Never raises what the host did."""
        await self._vigil.stop_idling(finishing=True)
        if self._core.state is not RenterState.ENDED:
            with contextlib.suppress(FabstirError):
                await self.finish()
        await self.close()

    async def _finish(self) -> None:
        while self._owes_receipt:
            await self._pull(self._settings.greeting_patience)
        if self._keeper is not None and self._keeper.words:
            await self._await_fingerprints()
        await self._order(Finish())
        await self._expect(SessionClosed)

    async def close(self, code: str = "ended") -> None:
        """Let go of the connection. Idempotent."""
        await self._vigil.stop_idling(finishing=self.leaving is not None)
        self._vigil.end()
        await self._settle_acting()
        if not self.lost:
            await self._transport.close(code)
            self.lost = error("host_unreachable", "closed here")
            if not isinstance(self.job.spoiled, LocalFault):  # else nothing can be written about it any more
                await self._take(self._core.receive(HostLost("closed here"), self._now()))

    # -- inside ------------------------------------------------------------------------------------------------------------

    async def _command(self, command: RenterInput) -> None:
        await self._vigil.stop_idling(finishing=self.leaving is not None)
        await self._order(command)

    async def _order(self, command: RenterInput) -> None:
        await self._settle_acting()
        await self._act(self._core.receive(command, self._now()))
        self._raise_fault()

    async def _expect(self, kind: type[T]) -> T:
        """The next event of `kind`; others are for nobody."""
        due = self._now() + self._settings.greeting_patience
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, kind):
                    return event
            self._raise_fault()
            await self._pull(due - self._now())

    async def _pull(self, patience: float) -> None:
        """Take in one message of the host, or the end of the connection. Raises the latter unless it cut an answer
        off.
        """
        await self._settle_acting()
        self._raise_fault()
        streaming = self._core.state is RenterState.RECEIVING
        try:
            with self._vigil.listening(patience):
                message = decode_from_host(await self._transport.receive())
        except (Interrupted, PeerFault) as fault:
            await self._lose(fault, streaming)
            return
        await self._take(self._core.receive(message, self._now()))

    async def _await_fingerprints(self) -> None:
        """On rung 2 the host may still be making some, and would not send them after the end."""
        alarm = asyncio.ensure_future(self._clock.sleep(FINGERPRINT_SECONDS))
        try:
            while self._core.awaits_fingerprints and not alarm.done():
                pull = asyncio.ensure_future(self._pull(2 * FINGERPRINT_SECONDS))
                try:
                    await asyncio.wait((pull, alarm), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    pull.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await pull
        finally:
            alarm.cancel()

    async def _lose(self, why: FabstirError, streaming: bool) -> None:
        """The connection is gone, or what came over it cannot be read and it is dropped for that."""
        self.lost = why
        if isinstance(why, PeerFault):
            self.left = why
            self._transport.abort()
        self._vigil.end()
        await self._take(self._core.receive(HostLost(why.detail), self._now()))
        if not streaming:
            raise why

    async def _take(self, effects: list[RenterEffect]) -> None:
        """Carry `effects` out to the end even where the caller is cancelled in the middle of them."""
        if len(effects) == 1 and type(effects[0]) is Deliver:
            self._events.append(effects[0])
        else:
            await self._act(effects)

    async def _act(self, effects: list[RenterEffect]) -> None:
        self._acting = asyncio.ensure_future(self._carry_out(effects))
        await asyncio.shield(self._acting)
        self._acting = None

    async def _settle_acting(self) -> None:
        """Wait for what a cancelled caller left running; where it failed, the job is spoiled."""
        task = self._acting
        if task is not None:
            await asyncio.wait((task,))
            task.exception()
            self._acting = None

    async def _carry_out(self, effects: list[RenterEffect]) -> None:
        for effect in effects:
            match effect:
                case StoreRenter():
                    await self._jobs.store(self.job, effect.events)
                case SendHost():
                    await self._tell(effect.message)
                case LeaveHost():
                    self.left = effect.fault
                    await self._transport.close(effect.fault.code)
                case PaymentDue(tokens_left=left):
                    self.payment_due = left
                case Planned(plan=plan):
                    self.plan = plan
                case HandedOff():
                    self.leaving = effect.fault
                case DropConnection():
                    self._transport.abort()
                case ShowNotice():
                    pass
                case TurnKept() | FingerprintsKept() | Rewound():
                    await self._keep(effect)
                case _:
                    self._events.append(effect)

    async def _keep(self, effect: TurnKept | FingerprintsKept | Rewound) -> None:
        if isinstance(effect, TurnKept):
            self.last_turn = effect.turn
        if self._keeper is None:
            return
        match effect:
            case TurnKept():
                await self._keeper.keep(self.job.id, effect.turn)
            case FingerprintsKept():
                await self._keeper.fingerprinted(self.job.id, effect)
            case Rewound():
                await self._keeper.rewind(self.job.id, effect.tokens)

    async def _tell(self, message: FromRenter) -> None:
        """A host may repeat its last receipt; what was acknowledged on this connection has arrived and is not
        repeated.
        """
        if isinstance(message, ReceiptAck):
            self._owes_receipt = False
            if message.tokens == self._acknowledged:
                return
            self._acknowledged = message.tokens
        await self._send(message)

    async def _send(self, message: FromRenter) -> None:
        """A connection that is gone is noticed at the next `_pull`."""
        async with self._sending:
            with contextlib.suppress(Interrupted):
                await self._transport.send(encode(message))

    def _raise_fault(self) -> None:
        fault = self.left or self.lost
        if fault is not None and self._core.state is not RenterState.RECEIVING and not self._events:
            raise fault

    def _may_idle(self) -> bool:
        return self.usable and self._core.state is RenterState.READY and self._acting is None and not self._events

    async def _idle(self) -> None:
        """Between two questions. A handoff is answered at once: the host waits only for a moment."""
        while self.usable and self._core.state is RenterState.READY:
            await self._pull(math.inf)
        if self.leaving is not None:
            await self._finish()

    def _now(self) -> float:
        return self._clock.monotonic()
