"""What an answer needs of a host, what went wrong so far on the way to it, and how that is told when no host is left. Remembers;
`access` decides."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from fabstir.domain.errors import FabstirError, PeerFault, error
from fabstir.domain.ids import Address
from fabstir.market.choice import Choice
from fabstir.protocol.controls import missing
from fabstir.protocol.messages import ChatMessage
from fabstir.renter.purse import Purse
from fabstir.renter.sizes import require_size

Context = tuple[ChatMessage, ...]
_OF_WHAT_WAS_SAID: Final = frozenset(("context_invalid", "context_too_large", "message_too_large"))
"""Where all hosts say so, it is not the hosts that failed."""


class Setbacks:
    """Of one answer."""

    def __init__(self, needed: frozenset[str] = frozenset()) -> None:
        """`needed`: the controls without which a host cannot give it."""
        self.needed = needed
        self.given_up: dict[Address, FabstirError] = {}
        self.redialled: set[Address] = set()
        self.reopened: set[Address] = set()
        self.changed: set[Address] = set()
        """Offered something else than a moment before."""

    def __repr__(self) -> str:
        return f"<Setbacks {len(self.given_up)} given up, {len(self.redialled)} redialled>"

    def suits(self, offered: Collection[str]) -> bool:
        """A host that offers these has what the answer needs."""
        return self.needed.issubset(offered)

    def require(self, offered: tuple[str, ...]) -> None:
        """Raises Refused (`control_unsupported`) where it does not."""
        if fault := missing(self.needed, offered):
            raise fault


def fits(context: Context, host: Address, limit: int, setbacks: Setbacks) -> bool:
    """The conversation is not longer than the host reads; else another one is asked, and this one is not blamed."""
    try:
        require_size(context, limit)
    except PeerFault as fault:
        setbacks.given_up[host] = fault
        return False
    return True


def nobody(choice: Choice, setbacks: Setbacks, purse: Purse | None) -> FabstirError:
    """Why no host is left. `purse` is given where more money would help."""
    said = [f"0x{host.hex()[:8]} said {fault.code} ({fault.detail})" for host, fault in setbacks.given_up.items()]
    others = [str(row) for row in choice.discarded if row.candidate.address not in setbacks.given_up]
    story = "; ".join(said + others)
    if purse is not None:
        return error("budget_exceeded", f"{purse.left} of {purse.budget} base units left; {story}")
    codes = {fault.code for fault in setbacks.given_up.values()}
    if len(codes) == 1 and codes <= _OF_WHAT_WAS_SAID:
        return error(codes.pop(), story)
    return error("hosts_exhausted" if said else "no_host", story)
