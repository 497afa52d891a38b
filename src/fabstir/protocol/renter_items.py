"""What goes into the renter's session core, and what comes out of it: commands of whoever asks, and effects that a shell carries out.

Nouns only; `renter_session` decides.
"""

from __future__ import annotations

import msgspec

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32, SessionId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.protocol.controls import Controls
from fabstir.protocol.fingerprinted import FingerprintedAnswer
from fabstir.protocol.messages import (
    ChatMessage,
    ContextPlan,
    ContextRequest,
    FromHost,
    FromRenter,
    Notice,
    Response,
    SessionEnd,
    SessionReady,
    Signature,
)
from fabstir.protocol.renter_log import RenterEvent
from fabstir.protocol.transcript import TokenRecord
from fabstir.protocol.transcript_file import SpokenTurn

# -- commands (in) ----------------------------------------------------------------------------------------------------------


class Connect(msgspec.Struct, frozen=True, kw_only=True):
    """A connection stands: introduce ourselves. `nonce` is 32 fresh random bytes."""

    session_id: SessionId
    context: tuple[ChatMessage, ...] = ()
    summarised: int = 0
    """Messages that the first exchange of `context` stands for, where it is a summary."""
    nonce: Hash32
    issued_at: int


class Ask(Controls, frozen=True, kw_only=True):
    """Ask a question, or bring the result of a call; `prefix` is what an earlier host delivered of the answer."""

    content: str
    role: str = "user"
    tool_call_id: str = ""
    prefix: str = ""
    score: tuple[int, ...] = ()
    """Token ids of an answer that is there: how likely is each?"""
    context: ContextRequest | None = None
    """What may be left out where the conversation does not fit."""
    conversation: tuple[ChatMessage, ...] | None = None
    """What was said before, to be sent along in place of what the host holds; only to a host with the capability `stateless`."""
    summarised: int = 0
    """Messages that the first exchange of `conversation` stands for; 0: it is no summary."""


class Clear(msgspec.Struct, frozen=True):
    """Forget the conversation, at the host too."""


class StopAnswer(msgspec.Struct, frozen=True):
    """Cancel the running answer."""


class Finish(msgspec.Struct, frozen=True):
    """End the session and let the host settle."""


class TellDeposit(msgspec.Struct, frozen=True):
    """The job was topped up: let the host look."""


class HostLost(msgspec.Struct, frozen=True):
    """The connection is gone."""

    detail: str = ""


RenterCommand = Connect | Ask | Clear | StopAnswer | Finish | TellDeposit | HostLost

# -- effects (out) ------------------------------------------------------------------------------------------------------------


class StoreRenter(msgspec.Struct, frozen=True):
    """Append to the job's log; durable before the next effect runs."""

    events: tuple[RenterEvent, ...]


class SendHost(msgspec.Struct, frozen=True):
    """Send to the host."""

    message: FromRenter


class SessionOpened(msgspec.Struct, frozen=True):
    """Questions may be asked."""

    ready: SessionReady


class Deliver(msgspec.Struct, frozen=True):
    """Text for the person; `tokens` is how many it took."""

    text: str
    tokens: int
    records: tuple[TokenRecord, ...] = ()
    """What was committed about each of them."""


class Planned(msgspec.Struct, frozen=True):
    """What the engine is given, before the first token of its answer."""

    plan: ContextPlan


class AnswerDone(msgspec.Struct, frozen=True):
    """The answer is complete."""

    response: Response


class AnswerBroken(msgspec.Struct, frozen=True):
    """The answer was cut off; the connection may still stand."""

    fault: FabstirError


class LeaveHost(msgspec.Struct, frozen=True):
    """Close the connection: this host is not to be trusted or does not want us. Nothing more is signed."""

    fault: FabstirError


class TurnKept(msgspec.Struct, frozen=True):
    """An answer ended, with all that came of it: for whoever keeps transcripts."""

    turn: SpokenTurn


class FingerprintsKept(msgspec.Struct, frozen=True):
    """The host's fingerprints of an answer that was kept before, signed by it."""

    of: FingerprintedAnswer
    fingerprints: tuple[bytes, ...]
    signature: Signature


class Rewound(msgspec.Struct, frozen=True):
    """Both sides go on from here; what came after was not delivered."""

    tokens: Tokens


class SessionClosed(msgspec.Struct, frozen=True):
    """The host confirmed the end."""

    end: SessionEnd


class PaymentDue(msgspec.Struct, frozen=True):
    """The deposit will soon be used up."""

    tokens_left: int


class PaymentSeen(msgspec.Struct, frozen=True):
    """The host knows of this deposit."""

    deposit: BaseUnits


class DropConnection(msgspec.Struct, frozen=True):
    """The host was asked whether it is there and said nothing: cut the connection off, whoever waits for it goes on with `HostLost`."""


class HandedOff(msgspec.Struct, frozen=True):
    """The host leaves: end the session with it, and go on with another one."""

    fault: FabstirError


class ShowNotice(msgspec.Struct, frozen=True):
    """For people."""

    notice: Notice


RenterEffect = (
    StoreRenter
    | SendHost
    | SessionOpened
    | Planned
    | Deliver
    | AnswerDone
    | AnswerBroken
    | LeaveHost
    | TurnKept
    | FingerprintsKept
    | Rewound
    | SessionClosed
    | PaymentDue
    | PaymentSeen
    | ShowNotice
    | HandedOff
    | DropConnection
)
RenterInput = RenterCommand | FromHost
