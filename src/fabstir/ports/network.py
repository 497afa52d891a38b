"""The network of peers: where hosts announce themselves and are found. libp2p in a process of its own, in tests an internet in memory.

Nothing that it gives is believed: announcements are a stranger's bytes until `fabstir.protocol.p2p.book` has looked at them. Nobody
calls it on the path of a request; a look-up may take seconds.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class NetworkCondition(msgspec.Struct, frozen=True, kw_only=True):
    """How this node stands in the network."""

    status: str
    """`ok`, `alone` (no peer is connected), `restarting`, `stopped`."""
    reason: str = ""
    peers: int = 0
    """Connected now."""
    known: int = 0
    """Peers in the routing table."""
    restarts: int = 0
    """How often the process was started again."""
    addresses: tuple[str, ...] = ()
    """Where this node listens, as multiaddrs with its peer id."""
    providing: int = 0
    """Keys under which this node is announced."""
    announced_at: float = 0.0
    """Unix seconds of the last announcement that at least one other node took; 0 where none did."""


class Network(Protocol):
    """One node of the network."""

    @property
    def node(self) -> bytes:
        """The Ed25519 public key under which others know it."""
        ...

    async def start(self) -> None:
        """Join. Idempotent. Raises LocalFault (`p2p_missing`, `p2p_unavailable`)."""
        ...

    async def stop(self) -> None:
        """Leave. Idempotent."""
        ...

    async def publish(self, announcement: bytes, keys: tuple[bytes, ...]) -> None:
        """Give `announcement` to whoever asks, and be found under `keys`, in place of what was published before. The keys are renewed
        until `stop`, through restarts of the process; the announcement expires by its own word. Raises LocalFault (`p2p_unavailable`)."""
        ...

    async def find(self, keys: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """What the providers of `keys` announce, each once, as it arrived; those that do not answer are left out. Raises LocalFault
        (`p2p_unavailable`)."""
        ...

    def condition(self) -> NetworkCondition:
        """How it stands; costs nothing to ask."""
        ...
