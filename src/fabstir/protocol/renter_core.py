"""What every part of the renter's session core works on, and the few steps that all of them share.

`renter_session` has the machine; `renter_connecting`, `renter_answers`, `renter_receipts` and `renter_fingerprints` have its handlers, by
concept. None of them does input or output: what is to be done is appended to `out`.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from fabstir.domain.ids import Hash32, SessionId
from fabstir.domain.money import Tokens
from fabstir.protocol.context.history import History
from fabstir.protocol.context.plan import ContextPlan
from fabstir.protocol.fingerprinted import FingerprintedAnswer
from fabstir.protocol.heartbeat import Heartbeat
from fabstir.protocol.messages import ChatMessage, Prompt, StateSync
from fabstir.protocol.renter_items import Connect, RenterEffect, StoreRenter
from fabstir.protocol.renter_log import RenterEvent, RenterLedger
from fabstir.protocol.signing import SigningKey
from fabstir.protocol.transcript import Sampler, TokenRecord, Transcript


class RenterState(Enum):
    """Where a session of the renter stands."""

    OFFLINE = "offline"
    """No connection."""
    OPENING = "opening"
    """session_init or session_resume is sent."""
    READY = "ready"
    """Waiting for a question."""
    RECEIVING = "receiving"
    """An answer streams in."""
    ENDING = "ending"
    """session_end is sent."""
    ENDED = "ended"
    """The host confirmed the end, or was left for good."""


class RenterCore:
    """The data of one session. Memory: the conversation, one transcript head for each token that is not signed for (W and a little), the
    records of the answer at hand, the places of AWAITED answers."""

    def __init__(self, ledger: RenterLedger, key: SigningKey) -> None:
        self.ledger = ledger
        self.state = RenterState.OFFLINE
        self.key = key
        self.transcript = Transcript(ledger.signed_head, ledger.signed)
        self.heads: dict[int, Hash32] = {ledger.signed: ledger.signed_head}
        self.session = SessionId("")
        self.history = History()
        """The conversation as the host has it; nothing of it is counted."""
        self.salt = Hash32(bytes(32))
        self.message_index = 0
        self.prompt: Prompt | None = None
        self.sampler = Sampler(0, 1)
        self.answer: list[str] = []
        self.records: list[TokenRecord] = []
        self.messages: tuple[ChatMessage, ...] = ()
        """What the answer at hand answers: what the engine was given, once that is known."""
        self.plan: ContextPlan | None = None
        """Of the answer at hand, where one was asked for and came."""
        self.answer_starts = Tokens(0)
        self.token: str | None = None
        """For the next `session_resume`, once."""
        self.connecting: Connect | None = None
        """What is under way, where it may have to be said again with a signature."""
        self.capabilities: tuple[str, ...] = ()
        """Of the host at hand, as it said."""
        self.fingerprinting = False
        """This host makes fingerprints for this job."""
        self.awaited: dict[int, FingerprintedAnswer] = {}
        """Answers whose fingerprints have not come, by their index."""
        self.resuming = False
        """The last introduction was a `session_resume`."""
        self.standings: deque[StateSync] = deque()
        """What the next `session_state`s must say, in their order."""
        self.heartbeat: Heartbeat | None = None
        """None: nobody is asked on this connection."""
        self.out: list[RenterEffect] = []

    @property
    def received(self) -> Tokens:
        """Tokens of this job that arrived."""
        return self.transcript.tokens

    @property
    def partial(self) -> str:
        """What of the running or broken answer arrived."""
        return "".join(self.answer)

    def asked(self) -> Prompt:
        """The question in the works; there is one while an answer streams."""
        if self.prompt is None:
            raise AssertionError(f"no question while {self.state.value}")
        return self.prompt

    def record(self, event: RenterEvent) -> None:
        """Into the ledger and the log."""
        self.ledger.apply(event)
        self.out.append(StoreRenter((event,)))
