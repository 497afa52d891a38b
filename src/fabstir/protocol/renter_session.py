"""One paid session as the renter sees it: a state machine without I/O, the counterpart of `host_session`.

It decides what is sent, what of the host's stream is believed, and above all what is signed: only a receipt that says exactly
what was received, at the price of the terms. Whatever does not fit is answered by signing nothing and leaving the host
(`LeaveHost`). It never chooses hosts; `fabstir.renter` does, and moves on with `session_resume` elsewhere. What it does with each
input stands in `renter_connecting`, `renter_answers`, `renter_receipts` and `renter_fingerprints`; here is the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.money import Tokens
from fabstir.protocol import renter_answers, renter_connecting, renter_fingerprints, renter_receipts
from fabstir.protocol.heartbeat import Beat, Heartbeat
from fabstir.protocol.messages import (
    ChatMessage,
    ContextPlanned,
    Error,
    Fingerprints,
    Handoff,
    Notice,
    PaymentReceived,
    PaymentRequired,
    Ping,
    Pong,
    Receipt,
    Response,
    SessionEnd,
    SessionReady,
    StateSync,
    StreamChunk,
)
from fabstir.protocol.renter_answers import as_fault
from fabstir.protocol.renter_core import RenterCore, RenterState
from fabstir.protocol.renter_items import (
    Ask,
    Clear,
    Connect,
    DropConnection,
    Finish,
    HostLost,
    RenterCommand,
    RenterEffect,
    RenterInput,
    SendHost,
    StopAnswer,
    TellDeposit,
)
from fabstir.protocol.renter_log import RenterLedger
from fabstir.protocol.signing import SigningKey

__all__ = ["TRANSITIONS", "RenterSession", "RenterState", "as_fault"]

PING_SECONDS: Final = 15.0
"""A host that we listen to and that says nothing for so long is asked; after as long again it is given up."""


class RenterSession:
    """The core. `receive(input, now)` -> effects. Memory: that of `RenterCore`."""

    def __init__(self, ledger: RenterLedger, key: SigningKey) -> None:
        self._core = RenterCore(ledger, key)

    def receive(self, item: RenterInput, now: float) -> list[RenterEffect]:
        """Take one input. A host that breaks the protocol is left."""
        core = self._core
        if core.heartbeat is not None:
            core.heartbeat.heard(now)
        handler = TRANSITIONS.get((core.state, type(item)))
        try:
            if handler is None:
                raise error("message_out_of_order", f"{type(item).__name__} while {core.state.value}")
            handler(core, item)
        except FabstirError as fault:
            if isinstance(item, RenterCommand):
                raise  # commands check before they act: there is nothing to take back
            renter_answers.leave(core, fault)
        out, core.out = core.out, []
        return out

    def listen(self, now: float) -> None:
        """From now on what the host sends is read: silence before was ours."""
        core = self._core
        if core.heartbeat is None:
            core.heartbeat = Heartbeat(PING_SECONDS, now)
        core.heartbeat.heard(now)

    def tick(self, now: float) -> list[RenterEffect]:
        """Time has passed while we listened: ask a host that says nothing, give up one that is gone."""
        core = self._core
        if core.heartbeat is None or core.state not in _LIVE:
            return []
        match core.heartbeat.tick(now):
            case Beat.ASK:
                return [SendHost(Ping(id=core.heartbeat.count))]
            case Beat.SILENT:
                core.heartbeat = None
                return [DropConnection()]
        return []

    @property
    def ledger(self) -> RenterLedger:
        """What the log says of the job."""
        return self._core.ledger

    @property
    def state(self) -> RenterState:
        """Where the session stands."""
        return self._core.state

    @property
    def received(self) -> Tokens:
        """Tokens of this job that arrived."""
        return self._core.received

    @property
    def context(self) -> tuple[ChatMessage, ...]:
        """The conversation so far, as the host has it."""
        return self._core.history.messages

    @property
    def summarised(self) -> int:
        """Messages that the first exchange of `context` stands for; 0: it is no summary."""
        return self._core.history.summarised

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Of the host at hand, as it said."""
        return self._core.capabilities

    @property
    def awaits_fingerprints(self) -> bool:
        """Those of an answer on this connection have not come, and may never come."""
        return bool(self._core.awaited)

    @property
    def partial(self) -> str:
        """What of the running or broken answer arrived."""
        return self._core.partial

    def __repr__(self) -> str:
        return f"<RenterSession {self.ledger.job.hex()[:8]} {self.state.value}: received {self.received}, signed {self.ledger.signed}>"


def ping(core: RenterCore, item: Ping) -> None:
    """The host asks whether we are there."""
    core.out.append(SendHost(Pong(id=item.id)))


def ignore(core: RenterCore, item: RenterInput) -> None:
    """Late messages of an answer that is over."""


_Handler = Callable[[RenterCore, Any], None]
_S = RenterState
_LIVE: Final = (_S.OPENING, _S.READY, _S.RECEIVING, _S.ENDING)

TRANSITIONS: Final[dict[tuple[RenterState, type], _Handler]] = {
    (_S.OFFLINE, Connect): renter_connecting.connect,
    (_S.READY, Connect): renter_connecting.connect,
    (_S.READY, Ask): renter_answers.ask,
    (_S.READY, Clear): renter_connecting.clear,
    **{(s, StateSync): renter_connecting.session_state for s in (_S.READY, _S.RECEIVING)},
    **{(s, Handoff): renter_connecting.handoff for s in (_S.READY, _S.RECEIVING)},
    **{
        (_S.OPENING, kind): ignore for kind in (StateSync, Handoff)
    },  # they crossed the introduction, which is answered next
    **{(s, Ping): ping for s in _LIVE},
    (_S.RECEIVING, StopAnswer): renter_answers.stop_answer,
    (_S.READY, StopAnswer): ignore,
    (_S.READY, Finish): renter_connecting.finish,
    **{(s, TellDeposit): renter_connecting.tell_deposit for s in (_S.READY, _S.RECEIVING)},
    **{(s, PaymentRequired): renter_receipts.payment_required for s in (_S.READY, _S.RECEIVING)},
    **{(s, PaymentReceived): renter_receipts.payment_received for s in (_S.READY, _S.RECEIVING)},
    **{(s, HostLost): renter_connecting.lost for s in _LIVE},
    **{(s, HostLost): ignore for s in (_S.OFFLINE, _S.ENDED)},
    (_S.OPENING, SessionReady): renter_connecting.session_ready,
    (_S.RECEIVING, ContextPlanned): renter_answers.context_plan,
    (_S.RECEIVING, StreamChunk): renter_answers.stream_chunk,
    (_S.RECEIVING, Receipt): renter_receipts.receipt,
    (_S.READY, Receipt): renter_receipts.receipt,
    (_S.RECEIVING, Response): renter_answers.response,
    **{(s, Fingerprints): renter_fingerprints.fingerprints for s in _LIVE},
    **{(s, Error): renter_answers.host_error for s in _LIVE},
    (_S.OPENING, Error): renter_connecting.opening_refused,
    **{(s, SessionEnd): renter_connecting.session_ended for s in (_S.READY, _S.RECEIVING, _S.ENDING)},
    **{(s, Pong): ignore for s in RenterState},
    **{(s, Notice): renter_connecting.notice for s in _LIVE},
    **{
        (s, kind): ignore
        for s in (_S.OFFLINE, _S.ENDED)
        for kind in (
            *(ContextPlanned, StreamChunk, Receipt, Response, Fingerprints),
            *(PaymentRequired, PaymentReceived, StateSync, Handoff, Error, SessionEnd, Ping, Notice),
        )
    },
    **{
        (_S.ENDING, kind): ignore
        for kind in (
            *(ContextPlanned, StreamChunk, Receipt, Response),
            *(PaymentRequired, PaymentReceived, StateSync, Handoff),
        )
    },
}
"""(state, input) -> handler. Anything else from the host is a protocol error: the host is left and nothing is signed."""
