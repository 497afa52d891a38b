"""How a renter comes to a host and leaves it: introduction, agreement on the count, end, and the loss of the connection."""

from __future__ import annotations

from typing import Final

import msgspec

import fabstir
from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, from_hex, to_hex
from fabstir.domain.money import Tokens
from fabstir.protocol.capabilities import OF_RENTER
from fabstir.protocol.context.history import History
from fabstir.protocol.conversation import conversation_hash
from fabstir.protocol.messages import (
    PROTOCOL_VERSION,
    DepositChanged,
    Error,
    FromRenter,
    Handoff,
    Notice,
    SessionAuth,
    SessionClear,
    SessionEnd,
    SessionInit,
    SessionReady,
    SessionResume,
    StateSync,
    WireTerms,
)
from fabstir.protocol.renter_answers import break_off, host_error
from fabstir.protocol.renter_core import RenterCore, RenterState
from fabstir.protocol.renter_items import (
    Clear,
    Connect,
    HandedOff,
    HostLost,
    RenterInput,
    Rewound,
    SendHost,
    SessionClosed,
    SessionOpened,
    ShowNotice,
)
from fabstir.protocol.renter_log import HostReleased
from fabstir.protocol.rungs import Rung
from fabstir.protocol.signing import recover
from fabstir.protocol.transcript import Transcript

CLIENT: Final = f"fabstir/{fabstir.__version__}"


def connect(core: RenterCore, item: Connect) -> None:
    """Introduce ourselves: from the start, or with what was said and received before."""
    ledger = core.ledger
    if core.state is RenterState.OFFLINE:  # what was being made for the connection before is gone with it
        core.awaited = {}
    core.session, core.prompt, core.answer = item.session_id, None, []
    core.history = History.of(item.context, item.summarised)
    digest = ledger.market.session_auth_digest(ledger.job, item.session_id, item.issued_at, item.nonce)
    auth = SessionAuth(issued_at=item.issued_at, nonce=to_hex(item.nonce), signature=to_hex(core.key.sign(digest)))
    job, terms = to_hex(ledger.job), WireTerms.of(ledger.terms)
    core.heartbeat = None
    core.standings.clear()
    if core.received == 0 and not item.context:
        message: FromRenter = SessionInit(
            session_id=item.session_id,
            job_id=job,
            terms=terms,
            auth=auth,
            rung=ledger.planned.rung,
            capabilities=OF_RENTER,
            client=CLIENT,
        )
    else:
        message = SessionResume(
            session_id=item.session_id,
            job_id=job,
            terms=terms,
            auth=auth if core.token is None else None,
            token=core.token,
            conversation_context=item.context,
            summarised=core.history.summarised,
            last_message_index=len(item.context),
            tokens_received=core.received,
            transcript=to_hex(core.heads[core.received]),
            rung=ledger.planned.rung,
            capabilities=OF_RENTER,
            client=CLIENT,
        )
        core.connecting = item if core.token is not None else None
    core.token = None
    core.resuming = isinstance(message, SessionResume)
    core.state = RenterState.OPENING
    core.out.append(SendHost(message))


def opening_refused(core: RenterCore, item: Error) -> None:
    """Where the host does not know our token any more (it was restarted, or we took too long) we sign instead; else it does not want us."""
    again, core.connecting = core.connecting, None
    if again is None or item.code != "session_token_invalid":
        host_error(core, item)
        return
    core.state = RenterState.READY  # what is awaited stays awaited
    connect(core, again)


def session_ready(core: RenterCore, item: SessionReady) -> None:
    """Both sides go on from the same count, with the same head, or not at all."""
    ledger, terms = core.ledger, core.ledger.terms
    named = (item.session_id, item.job_id, item.host, item.model_id, item.price_per_mtok, item.protocol)
    agreed = (to_hex(ledger.job), to_hex(terms.host), to_hex(terms.model_id), str(terms.price), PROTOCOL_VERSION)
    if named != (core.session, *agreed):
        raise error("message_malformed", "session_ready names another session, job, host, model, price or protocol")
    head = core.heads.get(item.tokens_served)
    if head is None or to_hex(head) != item.transcript:
        raise error(
            "transcript_mismatch",
            f"host continues at {item.tokens_served}, received {core.received}, signed {ledger.signed}",
        )
    core.transcript = Transcript(head, Tokens(item.tokens_served))
    core.heads = {n: h for n, h in core.heads.items() if n <= item.tokens_served}
    core.salt = Hash32(from_hex(item.salt, 32))
    core.message_index = item.message_index
    core.token, core.connecting = item.token, None
    core.capabilities = item.capabilities
    core.fingerprinting = ledger.planned.rung == Rung.FINGERPRINTS and "fingerprints" in item.capabilities
    core.awaited = {i: one for i, one in core.awaited.items() if one.first + one.tokens <= item.tokens_served}
    core.state = RenterState.READY
    if core.resuming and "state" in core.capabilities:
        _expect_state(core)
    core.out += (Rewound(core.received), SessionOpened(item))


def clear(core: RenterCore, item: Clear) -> None:
    """Forget the conversation here and there; `session_state` confirms it."""
    if "clear" not in core.capabilities:
        raise error("capability_missing", "clear")
    core.history = History()
    _expect_state(core)
    core.out.append(SendHost(SessionClear(session_id=core.session)))


def _expect_state(core: RenterCore) -> None:
    """The host will say where it stands: here is where this side does. What it says comes later than what is asked meanwhile."""
    core.standings.append(
        StateSync(
            session_id=core.session,
            message_index=core.message_index,
            messages=len(core.history.messages),
            conversation=to_hex(conversation_hash(core.salt, core.history.messages)),
            tokens_served=core.received,
            tokens_acknowledged=core.ledger.signed,
            transcript=to_hex(core.heads[core.received]),
        )
    )


def session_state(core: RenterCore, item: StateSync) -> None:
    """What the host holds is what this side held when the host was told. Of vouchers that are on their way it may know less."""
    if not core.standings:
        raise error("message_out_of_order", "session_state that was not asked for")
    here = core.standings.popleft()
    if (item.tokens_served, item.transcript) != (here.tokens_served, here.transcript):
        raise error("transcript_mismatch", f"the host stands at {item.tokens_served}, received {here.tokens_served}")
    if item != msgspec.structs.replace(here, tokens_acknowledged=item.tokens_acknowledged):
        raise error("state_mismatch", f"{item.messages} messages there, {here.messages} here")


def handoff(core: RenterCore, item: Handoff) -> None:
    """The host leaves. A running answer is cut off at what arrived of it; the session is ended by whoever drives it."""
    if item.session_id != core.session or item.tokens_served != core.received:
        raise error("transcript_mismatch", f"the host leaves at {item.tokens_served}, received {core.received}")
    fault = error("draining", item.reason)
    if core.state is RenterState.RECEIVING:
        break_off(core, fault)
        core.message_index = item.message_index
        core.state = RenterState.READY
    core.out.append(HandedOff(fault))


def tell_deposit(core: RenterCore, item: RenterInput) -> None:
    """The job was topped up."""
    core.out.append(SendHost(DepositChanged(session_id=core.session)))


def finish(core: RenterCore, item: RenterInput) -> None:
    """End the session."""
    core.state = RenterState.ENDING
    core.out.append(SendHost(SessionEnd(session_id=core.session, reason="renter")))


def session_ended(core: RenterCore, item: SessionEnd) -> None:
    """The end is confirmed; a `Close` signature is kept."""
    ledger = core.ledger
    if item.close_signature is not None and item.tokens_acknowledged == ledger.signed:
        amount, signature = ledger.amount(ledger.signed), from_hex(item.close_signature, 65)
        if recover(ledger.market.close_digest(ledger.job, amount, ledger.signed), signature) == ledger.terms.host:
            core.record(HostReleased(ledger.signed, amount, signature))
    if core.state is RenterState.RECEIVING:
        break_off(core, error("host_unreachable", item.reason))
    core.state = RenterState.ENDED
    core.out.append(SessionClosed(item))


def lost(core: RenterCore, item: HostLost) -> None:
    """The connection is gone; a running answer is cut off."""
    fault = error("host_unreachable", item.detail)
    if core.state is RenterState.RECEIVING:
        break_off(core, fault)
    core.state = RenterState.OFFLINE


def notice(core: RenterCore, item: Notice) -> None:
    """For people."""
    core.out.append(ShowNotice(item))
