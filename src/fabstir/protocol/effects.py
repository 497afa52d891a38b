"""What the session cores ask their shells to do. In and out are different families, so that an effect can never be fed
back.

Shells carry effects out in order. `Store` is durable before the next effect runs: nothing is promised on the wire that
the log does not hold.
"""

from __future__ import annotations

import msgspec

from fabstir.protocol.fingerprinted import FingerprintedAnswer
from fabstir.protocol.generation import GenerationRequest
from fabstir.protocol.host_log import HostEvent
from fabstir.protocol.messages import ChatMessage, FromHost


class Store(msgspec.Struct, frozen=True):
    """Append to the job's log; wait until durable."""

    events: tuple[HostEvent, ...]


class Send(msgspec.Struct, frozen=True):
    """Send to the connected renter; dropped where nobody is connected."""

    message: FromHost


class CountTokens(msgspec.Struct, frozen=True):
    """Have the engine count these texts, each alone, and feed back `TokensCounted` or `EngineFailed`."""

    texts: tuple[str, ...]
    turn: int


class RunGeneration(msgspec.Struct, frozen=True):
    """Start one generation and feed its items back as `EngineBatch`, then `EngineFinished` or `EngineFailed`."""

    request: GenerationRequest
    turn: int


class CancelGeneration(msgspec.Struct, frozen=True):
    """Stop the running generation; items of `turn` that still arrive are ignored."""

    turn: int


class RunFingerprints(msgspec.Struct, frozen=True):
    """Make the fingerprints of an answer that is over and feed them back as `FingerprintsMade`, or not at all where there is no time."""

    of: FingerprintedAnswer
    messages: tuple[ChatMessage, ...]
    prefix: str
    answer: tuple[int, ...]
    """Its token ids."""


class Disconnect(msgspec.Struct, frozen=True):
    """Close the connection after what was sent before."""

    code: str


class RequestSettlement(msgspec.Struct, frozen=True):
    """Something can be settled now: wake the settler."""

    reason: str


HostEffect = (
    Store | Send | CountTokens | RunGeneration | CancelGeneration | RunFingerprints | Disconnect | RequestSettlement
)
