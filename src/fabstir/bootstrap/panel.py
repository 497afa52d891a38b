"""A panel of verifiers, made from the settings with the arbiter's key and journal. Made twice, it is one: its address follows from what
it is. Decides nothing; which panels there can be says `fabstir.protocol.panel`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fabstir.bootstrap.disputes import intent, sender
from fabstir.bootstrap.parts import chain_info
from fabstir.chain.panel import panel_creation
from fabstir.domain.ids import Address
from fabstir.ops.config import Config
from fabstir.ports.chain import TxResult
from fabstir.protocol.panel import Panel


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A panel that is there."""

    panel: Panel
    """Read back from the chain."""
    sent: TxResult | None
    """None: it was there before."""


async def make_panel(config: Config, members: Sequence[Address], threshold: int) -> Made:
    """Raises PeerFault (`request_invalid`: no such panel can be), LocalFault, ChainFault."""
    creation = panel_creation(chain_info(config).market, members, threshold)
    async with sender(config, "arbiter") as chain:
        sent = await chain.make_panel(intent("panel"), creation)
        return Made(panel=await chain.panel(creation.address), sent=sent)
