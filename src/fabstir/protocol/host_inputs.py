"""What a host's session is fed with, and the states that it can be in."""

from __future__ import annotations

from enum import Enum

import msgspec

from fabstir.domain.errors import FabstirError
from fabstir.domain.money import BaseUnits
from fabstir.protocol.context.brought import ContextLimits
from fabstir.protocol.context.history import Weight
from fabstir.protocol.context.planner import Frame
from fabstir.protocol.fingerprinted import FingerprintedAnswer
from fabstir.protocol.generation import GenerationEnd, TokenBatch
from fabstir.protocol.messages import (
    Cancel,
    Ping,
    Pong,
    Prompt,
    ReceiptAck,
    SessionClear,
    SessionEnd,
    SessionInit,
    SessionResume,
)


class SessionState(Enum):
    """Where a session of the host stands."""

    DETACHED = "detached"
    """No renter is connected; the job is open and can be resumed."""
    READY = "ready"
    """Connected; waiting for a prompt."""
    PREPARING = "preparing"
    """A prompt is here; what is said in it is being counted."""
    GENERATING = "generating"
    """An answer is being generated and streamed."""
    BLOCKED = "blocked"
    """Generated tokens wait: W tokens are served and not acknowledged."""
    FINISHED = "finished"
    """Nothing more will be served; the job is being settled."""


class HostOffer(msgspec.Struct, frozen=True, kw_only=True):
    """What this host says about itself in `session_ready`, and its bounds."""

    model: str
    context_size: int
    max_message_bytes: int
    max_answer_tokens: int = 4096
    """Bounds the tokens that one session may hold back while it waits for an acknowledgement."""
    scores: bool = False
    """Answers that are there can be scored."""
    fingerprints: bool = False
    """Fingerprints of answers are made for sessions on rung 2."""
    rungs: tuple[int, ...] = ()
    """Of the ladder of verification, as in the offer."""
    frame: Frame = Frame()
    """What the model's template adds."""
    limits: ContextLimits = ContextLimits()
    controls: tuple[str, ...] = ()
    """What prompts may ask of an answer here, and facts about how answers read (`fabstir.protocol.controls`)."""
    ack_timeout: float = 30.0
    """Seconds for which a stream waits at the exposure bound."""
    ping_seconds: float = 20.0
    """A renter that says nothing for so long is asked, and after as long again it is gone."""
    leave_grace: float = 5.0
    """Seconds for which a host that leaves waits for the last acknowledgement."""
    server: str = ""
    """Program and version, for people."""


class TokensCounted(msgspec.Struct, frozen=True):
    """Of the texts of prompt `turn`, in their order."""

    turn: int
    weights: tuple[Weight, ...]


class EngineBatch(msgspec.Struct, frozen=True):
    """Items of generation `turn`."""

    turn: int
    batch: TokenBatch


class EngineFinished(msgspec.Struct, frozen=True):
    """Generation `turn` is complete."""

    turn: int
    end: GenerationEnd


class EngineFailed(msgspec.Struct, frozen=True):
    """Generation `turn` was cut off."""

    turn: int
    fault: FabstirError


class FingerprintsMade(msgspec.Struct, frozen=True):
    """Of an answer that is over."""

    of: FingerprintedAnswer
    fingerprints: tuple[bytes, ...]


class RenterLost(msgspec.Struct, frozen=True):
    """The connection is gone."""

    code: str = "host_unreachable"


class ChainClosing(msgspec.Struct, frozen=True):
    """The chain shows that the job is closing, closed or expiring: serve nothing more."""

    code: str = "job_closed"


class TimerRest(msgspec.Struct, frozen=True):
    """No question came for a while: the conversation may be compressed."""


class MemoryShort(msgspec.Struct, frozen=True):
    """The machine's memory is short: the conversation is given up."""


class DepositSeen(msgspec.Struct, frozen=True):
    """The chain was asked what the job's deposit is now."""

    deposit: BaseUnits


class Leaving(msgspec.Struct, frozen=True):
    """This host goes down: nothing new is begun. A running answer may end, unless `now`."""

    now: bool = False


HostInput = (
    SessionInit
    | SessionResume
    | Prompt
    | ReceiptAck
    | Cancel
    | SessionEnd
    | SessionClear
    | Ping
    | TokensCounted
    | Pong
    | EngineBatch
    | EngineFinished
    | EngineFailed
    | FingerprintsMade
    | RenterLost
    | ChainClosing
    | DepositSeen
    | Leaving
    | TimerRest
    | MemoryShort
)
