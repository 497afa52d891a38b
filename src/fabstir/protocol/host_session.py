"""One paid session as the host sees it: a state machine without I/O.

It decides what is served, when the stream must stop (never more than W tokens beyond the renter's last signature, never
beyond the deposit), what is written to the log, which receipt is issued and which voucher is good. It never reads a clock, a
socket or the chain, and never keeps what was said anywhere but in `History` (memory). Admission (does the job exist on
chain?) happened before: see `fabstir.protocol.admission`. What it does with each input stands in `host_attaching`,
`host_preparing`, `host_answering`, `host_paying`, `host_fingerprints` and `host_ending`; here is the machine that calls them.
Theory of operation: docs/explanation/session.md. Transitions are the table at the end of this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Hash32
from fabstir.domain.money import Tokens
from fabstir.protocol import (
    host_answering,
    host_attaching,
    host_ending,
    host_fingerprints,
    host_leaving,
    host_paying,
    host_preparing,
)
from fabstir.protocol.effects import Disconnect, HostEffect
from fabstir.protocol.heartbeat import Beat
from fabstir.protocol.held_records import HeldRecords
from fabstir.protocol.host_core import HostCore
from fabstir.protocol.host_inputs import (
    ChainClosing,
    DepositSeen,
    EngineBatch,
    EngineFailed,
    EngineFinished,
    FingerprintsMade,
    HostInput,
    HostOffer,
    Leaving,
    MemoryShort,
    RenterLost,
    SessionState,
    TimerRest,
    TokensCounted,
)
from fabstir.protocol.host_log import HostLedger
from fabstir.protocol.messages import (
    Cancel,
    Error,
    Ping,
    Pong,
    Prompt,
    ReceiptAck,
    SessionClear,
    SessionEnd,
    SessionInit,
    SessionResume,
)
from fabstir.protocol.signing import SigningKey

__all__ = [
    "TRANSITIONS",
    "ChainClosing",
    "DepositSeen",
    "EngineBatch",
    "EngineFailed",
    "EngineFinished",
    "FingerprintsMade",
    "HostInput",
    "HostOffer",
    "HostSession",
    "Leaving",
    "MemoryShort",
    "RenterLost",
    "SessionState",
    "TimerRest",
    "TokensCounted",
]


class HostSession:
    """The core. `receive(input, now)` -> effects; `tick(now)` when `next_deadline()` has passed. Memory: that of `HostCore`."""

    def __init__(self, ledger: HostLedger, key: SigningKey, offer: HostOffer, held: HeldRecords | None = None) -> None:
        self._core = HostCore(ledger, key, offer, held)

    # -- the verbs -----------------------------------------------------------------------------------------------------

    def attach(self, message: SessionInit | SessionResume, salt: Hash32, now: float) -> list[HostEffect]:
        """An admitted renter connects (or replaces the conversation between two answers). `salt` is 32 fresh random bytes."""
        return self._run(lambda: host_attaching.attach(self._core, message, salt, now))

    def receive(self, item: HostInput, now: float) -> list[HostEffect]:
        """Take one input. Errors of the peer become an `error` message; the state is unchanged by them."""
        handler = TRANSITIONS.get((self.state, type(item)))
        index = host_preparing.decided(self._core, item)
        if handler is None:
            return self._run(lambda: self._refuse(item), index)
        return self._run(lambda: handler(self._core, item, now), index)

    def heard(self, now: float) -> None:
        """Something came from the renter, whatever it was."""
        if self._core.heartbeat is not None:
            self._core.heartbeat.heard(now)

    def tick(self, now: float) -> list[HostEffect]:
        """Time has passed: end an answer whose acknowledgement is overdue, ask a renter that says nothing, give up one that is gone."""
        core = self._core
        if core.blocked_until is not None and now >= core.blocked_until:
            return self._run(lambda: host_answering.overdue(core))
        return self._run(lambda: _beat(core, now))

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        core = self._core
        if core.blocked_until is not None or core.heartbeat is None or not core.connected:
            return core.blocked_until
        return core.heartbeat.deadline

    # -- views -----------------------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> HostLedger:
        """What the log says of the job."""
        return self._core.ledger

    @property
    def state(self) -> SessionState:
        """Where the session stands."""
        return self._core.state

    @property
    def served(self) -> Tokens:
        """Tokens sent, stored or not."""
        return self._core.served

    @property
    def connected(self) -> bool:
        """A renter is attached."""
        return self._core.connected

    @property
    def hands_off(self) -> bool:
        """The renter was told where another host goes on; it ends the session when it has acknowledged what it received."""
        return self._core.leaving and "handoff" in self._core.agreed

    def __repr__(self) -> str:
        return (
            f"<HostSession {self.ledger.job.hex()[:8]} {self.state.value}: served {self.served}, "
            f"acknowledged {self.ledger.acknowledged}, W {self.ledger.terms.exposure}>"
        )

    @property
    def history_bytes(self) -> int:
        """About what the conversation takes in memory."""
        return self._core.history_bytes

    @property
    def rests(self) -> bool:
        """The conversation is compressed, until it is asked about."""
        return self._core.rests

    # -- inside ------------------------------------------------------------------------------------------------------------

    def _refuse(self, item: HostInput) -> None:
        raise error("message_out_of_order", f"{type(item).__name__} while {self.state.value}")

    def _run(self, step: Callable[[], None], message_index: int | None = None) -> list[HostEffect]:
        """Run one step. A named error becomes a message and takes back nothing, because steps check before they act. It carries
        `message_index` only where the prompt of that index was refused: other errors do not end an answer."""
        core = self._core
        try:
            step()
        except FabstirError as fault:
            core.send(Error.of(fault, core.session or None, message_index))
        host_leaving.hand_off(core)
        out, core.out = core.out, []
        return out


def ping(core: HostCore, item: Ping, now: float) -> None:
    """The renter asks whether we are there."""
    core.send(Pong(id=item.id))


def _beat(core: HostCore, now: float) -> None:
    """While a stream waits for an acknowledgement, that is what is waited for."""
    if core.heartbeat is None or not core.connected or core.state is SessionState.BLOCKED:
        return
    match core.heartbeat.tick(now):
        case Beat.ASK:
            core.send(Ping(id=core.heartbeat.count))
        case Beat.SILENT:
            core.heartbeat = None
            core.out.append(Disconnect("peer_silent"))


def ignore(core: HostCore, item: HostInput, now: float) -> None:
    """Late items of a generation that ended, or a fact that changes nothing any more."""


_Handler = Callable[[HostCore, Any, float], None]
_S = SessionState
_STREAMING: Final = (_S.GENERATING, _S.BLOCKED)
_WORKING: Final = (_S.PREPARING, *_STREAMING)
_ATTACHED: Final = (_S.READY, *_WORKING)

TRANSITIONS: Final[dict[tuple[SessionState, type], _Handler]] = {
    (_S.READY, Prompt): host_preparing.prompt,
    **{(s, Prompt): host_answering.busy for s in _WORKING},
    (_S.PREPARING, TokensCounted): host_preparing.tokens_counted,
    (_S.PREPARING, EngineFailed): host_preparing.counting_failed,
    (_S.PREPARING, Cancel): host_preparing.cancel_preparing,
    **{(_S.PREPARING, kind): ignore for kind in (EngineBatch, EngineFinished)},
    **{(s, TokensCounted): ignore for s in SessionState if s is not _S.PREPARING},
    **{(s, EngineBatch): host_answering.engine_batch for s in _STREAMING},
    **{(s, EngineFinished): host_answering.engine_finished for s in _STREAMING},
    **{(s, EngineFailed): host_answering.engine_failed for s in _STREAMING},
    **{
        (s, kind): ignore
        for s in (_S.DETACHED, _S.READY, _S.FINISHED)
        for kind in (EngineBatch, EngineFinished, EngineFailed)
    },
    **{(s, FingerprintsMade): host_fingerprints.fingerprints_made for s in _ATTACHED},
    **{(s, FingerprintsMade): ignore for s in (_S.DETACHED, _S.FINISHED)},
    **{(s, ReceiptAck): host_answering.receipt_ack for s in _ATTACHED},
    **{(s, Cancel): host_answering.cancel for s in (_S.READY, *_STREAMING)},
    (_S.READY, SessionClear): host_attaching.clear,
    **{(s, SessionClear): host_answering.busy for s in _WORKING},
    **{(s, SessionEnd): host_ending.session_end for s in _ATTACHED},
    **{(s, Ping): ping for s in SessionState},
    **{(s, Pong): ignore for s in SessionState},
    **{(s, Leaving): host_answering.leaving for s in _ATTACHED},
    **{(s, Leaving): ignore for s in (_S.DETACHED, _S.FINISHED)},
    **{(s, RenterLost): host_ending.renter_lost for s in _ATTACHED},
    **{(s, RenterLost): ignore for s in (_S.DETACHED, _S.FINISHED)},
    **{(s, ChainClosing): host_ending.chain_closing for s in (_S.DETACHED, *_ATTACHED)},
    (_S.FINISHED, ChainClosing): ignore,
    (_S.READY, TimerRest): host_preparing.rest,
    (_S.READY, MemoryShort): host_preparing.forget,
    **{(s, kind): ignore for s in SessionState if s is not _S.READY for kind in (TimerRest, MemoryShort)},
    **{(s, DepositSeen): host_paying.deposit_seen for s in _ATTACHED},
    **{(s, DepositSeen): ignore for s in (_S.DETACHED, _S.FINISHED)},
}
"""(state, input) -> handler. What is not in here is refused with `message_out_of_order`; tests walk every pair."""
