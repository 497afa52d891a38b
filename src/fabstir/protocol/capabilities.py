"""What hosts and renters can do beyond the messages that everybody must understand, by name, and what both agree on.

A renter names what it understands in `session_init` and `session_resume`, a host what it has in `session_ready`. A message that a
capability brings is sent only where both named it, so that older programs never see one. A name that one side does not know means
nothing to it.
"""

from __future__ import annotations

from typing import Final

from fabstir.domain.errors import error
from fabstir.protocol.host_inputs import HostOffer

MEANING: Final[dict[str, str]] = {
    "stream": "Answers come token by token.",
    "resume": "A session goes on after a drop (`session_resume`), from the smaller of both counts.",
    "prefix": "An answer goes on after what another host delivered of it.",
    "cancel": "An answer can be stopped.",
    "receipts": "Tokens are counted, receipted and paid by vouchers.",
    "top_up": "The deposit can be raised while the session stands.",
    "clear": "The conversation can be forgotten (`session_clear`).",
    "stateless": "A prompt may bring the whole conversation (`prompt.conversation_context`).",
    "state": "After `session_resume` the host says what it holds (`session_state`).",
    "ping": "The host asks, too, whether the other side is there.",
    "handoff": "A host that leaves says from where another one goes on (`handoff`).",
    "context_truncate": "The oldest turns may be left out of what the engine is given (`prompt.context`).",
    "context_retrieve": "These too, but for the turns that the renter names.",
    "context_compact": "The oldest turns can be summarised.",
    "score": "Answers that are there can be scored.",
    "fingerprints": "Fingerprints of activations are made on rung 2.",
}
"""Name -> meaning; `rung_N` besides: the rung N of the ladder of verification is offered; and the names of controls
(docs/explanation/controls.md)."""
ALWAYS: Final = tuple(name for name in MEANING if name not in ("score", "fingerprints"))
OF_RENTER: Final = ("state", "ping", "handoff")
"""What this version's renter names."""


def offered(offer: HostOffer) -> tuple[str, ...]:
    """The words that `session_ready` carries."""
    named = (("score", offer.scores), ("fingerprints", offer.fingerprints))
    return (
        *ALWAYS,
        *(name for name, here in named if here),
        *(f"rung_{rung}" for rung in offer.rungs),
        *offer.controls,
    )


def agree(offer: HostOffer, named: tuple[str, ...], required: tuple[str, ...]) -> frozenset[str]:
    """What both sides have. Raises Refused (`capability_missing`) where the host lacks something that is required."""
    here = offered(offer)
    missing = [name for name in required if name not in here]
    if missing:
        raise error("capability_missing", ", ".join(missing[:8]))
    return frozenset(here) & frozenset((*named, *required))
