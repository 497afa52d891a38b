"""How a renter comes to a host's session: `session_init` and `session_resume`, what `session_ready` says in return, and
the conversation that both sides hold (`session_state`, `session_clear`)."""

from __future__ import annotations

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, SessionId, to_hex
from fabstir.protocol.capabilities import agree, offered
from fabstir.protocol.context.brought import check
from fabstir.protocol.context.history import History
from fabstir.protocol.conversation import conversation_hash
from fabstir.protocol.effects import Store
from fabstir.protocol.heartbeat import Heartbeat
from fabstir.protocol.host_core import HostCore
from fabstir.protocol.host_inputs import SessionState
from fabstir.protocol.messages import (
    PROTOCOL_VERSION,
    SessionClear,
    SessionInit,
    SessionReady,
    SessionResume,
    StateSync,
)


def attach(core: HostCore, message: SessionInit | SessionResume, salt: Hash32, now: float) -> None:
    """Agree on the count and go on from the renter's conversation."""
    if core.state in (SessionState.PREPARING, SessionState.GENERATING, SessionState.BLOCKED):
        raise error("session_busy")
    if core.state is SessionState.FINISHED:
        raise error("job_closed", core.ledger.finished)
    if PROTOCOL_VERSION not in message.protocol:
        raise error("message_malformed", f"this host speaks protocol {PROTOCOL_VERSION}")
    if core.leaving:
        raise error("draining")
    capabilities = agree(core.offer, message.capabilities, message.requires)
    history = check(message.conversation_context, message.summarised, core.offer.limits)
    events = core.meter.agree(message)
    if events:
        core.out.append(Store(events))
    core.history = history
    core.session = SessionId(message.session_id)
    core.salt = salt
    core.state = SessionState.READY
    core.agreed = capabilities
    core.heartbeat = Heartbeat(core.offer.ping_seconds, now) if "ping" in capabilities else None
    core.send(ready(core))
    if isinstance(message, SessionResume) and "state" in capabilities:
        core.send(state(core))
    core.send_receipt()


def clear(core: HostCore, item: SessionClear, now: float) -> None:
    """Forget what was said; the meter stays."""
    core.check_session(item.session_id)
    core.history = History()
    core.send(state(core))


def state(core: HostCore) -> StateSync:
    """Where this host stands."""
    ledger, messages = core.ledger, core.history.messages
    return StateSync(
        session_id=core.session,
        message_index=ledger.message_index,
        messages=len(messages),
        conversation=to_hex(conversation_hash(core.salt, messages)),
        tokens_served=ledger.served,
        tokens_acknowledged=ledger.acknowledged,
        transcript=to_hex(ledger.heads[ledger.served]),
    )


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
        capabilities=offered(core.offer),
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
        server=core.offer.server,
        max_answer_tokens=core.offer.max_answer_tokens,
        ack_timeout_s=int(core.offer.ack_timeout),
        ping_s=int(core.offer.ping_seconds) if core.heartbeat is not None else 0,
    )
