"""How a session ends at a host: by the renter, by the chain, or because nobody is there any more."""

from __future__ import annotations

from fabstir.domain.errors import error
from fabstir.domain.ids import to_hex
from fabstir.protocol.context.history import History
from fabstir.protocol.effects import Disconnect, RequestSettlement
from fabstir.protocol.host_core import HostCore
from fabstir.protocol.host_inputs import ChainClosing, RenterLost, SessionState
from fabstir.protocol.host_log import SessionFinished
from fabstir.protocol.messages import Error, SessionEnd


def session_end(core: HostCore, item: SessionEnd, now: float) -> None:
    """`Close` is signed where everything served is signed for: it gives up the rest for ever."""
    core.check_session(item.session_id)
    ledger = core.ledger
    core.abandon("ended")
    released = ledger.exposed == 0
    _finish(core, "ended by the renter", released=released)
    close = ledger.market.close_digest(ledger.job, ledger.amount(ledger.acknowledged), ledger.acknowledged)
    core.send(
        SessionEnd(
            session_id=core.session,
            reason=ledger.finished,
            tokens_served=ledger.served,
            tokens_acknowledged=ledger.acknowledged,
            close_signature=to_hex(core.key.sign(close)) if released else None,
        )
    )
    core.out.append(Disconnect("ended"))


def _finish(core: HostCore, reason: str, *, released: bool = False) -> None:
    core.abandon("ended")
    core.store(SessionFinished(reason, released))
    core.history = History()
    core.state = SessionState.FINISHED
    core.out.append(RequestSettlement(reason))


def chain_closing(core: HostCore, item: ChainClosing, now: float) -> None:
    """The job is closing on chain: whoever is there hears it, and nothing more is served."""
    if core.connected:
        core.send(Error.of(error(item.code), core.session))
        core.out.append(Disconnect(item.code))
    _finish(core, item.code)


def renter_lost(core: HostCore, item: RenterLost, now: float) -> None:
    """The connection is gone; the job stays open for a resume."""
    core.abandon(item.code)
    core.history = History()
    core.state = SessionState.DETACHED
    core.out.append(RequestSettlement("connection lost"))
