"""The host's side of payment within a session: vouchers that come in, deposits that run out and are raised."""

from __future__ import annotations

from typing import Final

from fabstir.protocol.host_core import HostCore
from fabstir.protocol.host_inputs import DepositSeen
from fabstir.protocol.host_log import DepositRaised
from fabstir.protocol.messages import PaymentReceived, PaymentRequired

ANNOUNCE_AHEAD: Final = 4
"""`payment_required` is sent where the deposit pays for fewer than so many W of tokens: time for a top-up to be mined."""


def announce_payment(core: HostCore) -> None:
    """Once for each deposit, before it is used up."""
    ledger = core.ledger
    if core.announced_at == ledger.deposit or core.meter.left > ANNOUNCE_AHEAD * ledger.terms.exposure:
        return
    core.announced_at = ledger.deposit
    core.send(
        PaymentRequired(
            session_id=core.session,
            tokens_served=core.served,
            tokens_affordable=ledger.affordable,
            deposit=str(ledger.deposit),
        )
    )


def deposit_seen(core: HostCore, item: DepositSeen, now: float) -> None:
    """What was paid counts from the next prompt on: the running answer was asked for within the old deposit."""
    ledger = core.ledger
    if item.deposit > ledger.deposit:
        core.store(DepositRaised(item.deposit))
    core.send(
        PaymentReceived(session_id=core.session, tokens_affordable=ledger.affordable, deposit=str(ledger.deposit))
    )
