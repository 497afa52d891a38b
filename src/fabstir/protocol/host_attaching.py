"""How a renter comes to a host's session: `session_init` and `session_resume`, and what `session_ready` says in return."""

from __future__ import annotations

from typing import Final

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, SessionId, to_hex
from fabstir.protocol.context.brought import check
from fabstir.protocol.effects import Store
from fabstir.protocol.host_core import HostCore
from fabstir.protocol.host_inputs import HostOffer, SessionState
from fabstir.protocol.messages import PROTOCOL_VERSION, SessionInit, SessionReady, SessionResume

CAPABILITIES: Final = (
    *("stream", "resume", "prefix", "cancel", "receipts", "top_up"),
    *("context_truncate", "context_retrieve", "context_compact"),
)


def attach(core: HostCore, message: SessionInit | SessionResume, salt: Hash32) -> None:
    """Agree on the count and go on from the renter's conversation."""
    if core.state in (SessionState.PREPARING, SessionState.GENERATING, SessionState.BLOCKED):
        raise error("session_busy")
    if core.state is SessionState.FINISHED:
        raise error("job_closed", core.ledger.finished)
    if PROTOCOL_VERSION not in message.protocol:
        raise error("message_malformed", f"this host speaks protocol {PROTOCOL_VERSION}")
    history = check(message.conversation_context, message.summarised, core.offer.limits)
    agreed = core.meter.agree(message)
    if agreed:
        core.out.append(Store(agreed))
    core.history = history
    core.session = SessionId(message.session_id)
    core.salt = salt
    core.state = SessionState.READY
    core.send(ready(core))
    core.send_receipt()


def ready(core: HostCore) -> SessionReady:
    """What this host says about the session."""
    ledger, terms = core.ledger, core.ledger.terms
    return SessionReady(
        session_id=core.session,
        job_id=to_hex(ledger.job),
        host=to_hex(terms.host),
        model=core.offer.model,
        model_id=to_hex(terms.model_id),
        protocol=PROTOCOL_VERSION,
        capabilities=capabilities(core.offer),
        price_per_mtok=str(terms.price),
        exposure=terms.exposure,
        context_size=core.offer.context_size,
        max_message_bytes=core.offer.max_message_bytes,
        tokens_served=ledger.served,
        tokens_acknowledged=ledger.acknowledged,
        tokens_affordable=ledger.affordable,
        transcript=to_hex(ledger.head),
        salt=to_hex(core.salt),
        message_index=ledger.message_index,
    )


def capabilities(offer: HostOffer) -> tuple[str, ...]:
    """The words that `session_ready` carries."""
    named = (("score", offer.scores), ("fingerprints", offer.fingerprints))
    extras = (*(name for name, here in named if here), *(f"rung_{rung}" for rung in offer.rungs))
    return (*CAPABILITIES, *extras, *offer.controls)
