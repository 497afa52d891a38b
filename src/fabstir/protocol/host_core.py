"""What every part of the host's session core works on, and the few steps that all of them share.

`host_session` has the machine; `host_attaching`, `host_preparing`, `host_answering`, `host_paying` and `host_ending` have its handlers, by
concept. None of them does input or output: what is to be done is appended to `out`.
"""

from __future__ import annotations

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, SessionId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.protocol.answer import Answer
from fabstir.protocol.context.history import History
from fabstir.protocol.context.preparing import NOTHING, Preparation, Prepared
from fabstir.protocol.context.resting import PackedHistory, bytes_of
from fabstir.protocol.effects import CancelGeneration, HostEffect, Send, Store
from fabstir.protocol.heartbeat import Heartbeat
from fabstir.protocol.held_records import HeldAnswer, HeldRecords
from fabstir.protocol.host_inputs import HostOffer, SessionState
from fabstir.protocol.host_log import HostEvent, HostLedger, TurnEnded
from fabstir.protocol.messages import FromHost
from fabstir.protocol.meter import Meter
from fabstir.protocol.signing import SigningKey


class HostCore:
    """The data of one session. Memory: the conversation, at most `max_answer_tokens` tokens held back, W record digests not yet stored."""

    def __init__(self, ledger: HostLedger, key: SigningKey, offer: HostOffer, held: HeldRecords | None = None) -> None:
        self.ledger = ledger
        self.key = key
        self.offer = offer
        self.held = held
        self.meter = Meter(ledger, key, held)
        self.state = SessionState.FINISHED if ledger.finished or ledger.closed else SessionState.DETACHED
        self.session = SessionId("")
        self.salt = Hash32(bytes(32))
        self._history: History | PackedHistory = History()
        self.forgotten = False
        """The conversation was given up for want of memory; the renter brings it along when it asks next."""
        self.preparation: Preparation | None = None
        """The prompt that is being counted."""
        self.prepared: Prepared = NOTHING
        """What the answer in the works was given."""
        self.answer: Answer | None = None
        self.held_answer: HeldAnswer | None = None
        self.turns = 0
        self.blocked_until: float | None = None
        self.announced_at = BaseUnits(0)
        """The deposit for which `payment_required` was sent."""
        self.agreed: frozenset[str] = frozenset()
        """Capabilities that both sides of this connection have."""
        self.heartbeat: Heartbeat | None = None
        """Where the renter agreed to be asked."""
        self.leaving = False
        """Nothing new is begun."""
        self.handed_over = False
        """The renter was told where another host goes on."""
        self.out: list[HostEffect] = []

    @property
    def history(self) -> History:
        """The conversation; where it rested, it does no more."""
        if isinstance(self._history, PackedHistory):
            self._history = self._history.opened()
        return self._history

    @history.setter
    def history(self, history: History) -> None:
        self._history, self.forgotten = history, False

    @property
    def rests(self) -> bool:
        """The conversation is compressed."""
        return isinstance(self._history, PackedHistory)

    @property
    def history_bytes(self) -> int:
        """About what the conversation takes in memory."""
        held = self._history
        return len(held.data) if isinstance(held, PackedHistory) else bytes_of(held)

    def rest(self) -> None:
        """Compress the conversation until it is needed."""
        self._history = PackedHistory.of(self.history)

    @property
    def served(self) -> Tokens:
        """Tokens sent, stored or not."""
        return self.meter.served

    @property
    def connected(self) -> bool:
        """A renter is attached."""
        return self.state not in (SessionState.DETACHED, SessionState.FINISHED)

    def preparing(self) -> Preparation:
        """The prompt that is being counted; there is one while preparing."""
        if self.preparation is None:
            raise AssertionError(f"no prompt while {self.state.value}")
        return self.preparation

    def running(self) -> Answer:
        """The answer in the works; there is one in every state that streams."""
        if self.answer is None:
            raise AssertionError(f"no answer while {self.state.value}")
        return self.answer

    def check_session(self, session: str) -> None:
        """Raises PeerFault (`message_out_of_order`) where a message names another session."""
        if session != self.session:
            raise error("message_out_of_order", "another session_id than session_init named")

    def send(self, message: FromHost) -> None:
        """To the connected renter."""
        self.out.append(Send(message))

    def store(self, *events: HostEvent) -> None:
        """Write tokens not yet stored together with `events`."""
        written = self.meter.record(*events)
        if written:
            self.out.append(Store(written))

    def send_receipt(self) -> None:
        """Over what is stored, where the renter has none yet."""
        receipt = self.meter.receipt(self.session)
        if receipt is not None:
            self.send(receipt)

    def abandon(self, reason: str) -> None:
        """End the answer without a word: nobody is there to hear it."""
        answer, self.answer = self.answer, None
        self.preparation = None
        self.blocked_until = None
        if answer is not None:
            self.out.append(CancelGeneration(answer.turn))
            self.store(TurnEnded(answer.prompt.message_index, reason))
