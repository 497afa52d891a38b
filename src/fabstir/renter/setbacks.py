"""What an answer needs of a host, and what went wrong so far on the way to it. Remembers; `access` decides."""

from __future__ import annotations

from collections.abc import Collection

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Address
from fabstir.protocol.controls import missing


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
