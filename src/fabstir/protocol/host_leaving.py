"""How a host that goes down takes leave of a renter: from where another host goes on (`handoff`), or a notice to one that does not know
the message.

It never ends the job: the renter does, with `session_end`, once it has acknowledged what it received.
"""

from __future__ import annotations

from typing import Final

from fabstir.domain.ids import to_hex
from fabstir.protocol.host_core import HostCore
from fabstir.protocol.host_inputs import SessionState
from fabstir.protocol.messages import Handoff, Notice

LEAVING: Final = Notice(code="draining", message="This host is shutting down; go on with another one.")


def hand_off(core: HostCore) -> None:
    """Once nothing is being answered: this is where the other host begins. Nothing to a renter that does not know the message."""
    ledger = core.ledger
    if not core.leaving or core.handed_over or core.state is not SessionState.READY or "handoff" not in core.agreed:
        return
    core.handed_over = True
    core.send_receipt()
    core.send(
        Handoff(
            session_id=core.session,
            reason="draining",
            message_index=ledger.message_index,
            tokens_served=ledger.served,
            tokens_acknowledged=ledger.acknowledged,
            transcript=to_hex(ledger.heads[ledger.served]),
            grace_s=int(core.offer.leave_grace),
        )
    )
