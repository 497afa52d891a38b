"""The settings of the peer-to-peer network: part of the tree of `fabstir.ops.config`. Reads nothing."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fabstir.ops.config_types import Count, Section, about

Multiaddr = Annotated[str, Meta(title="multiaddr", pattern=r"^/[!-~]{1,127}\Z")]
Region = Annotated[str, Meta(title="ISO 3166", pattern=r"^([A-Z]{2}(-[A-Z0-9]{1,3})?)?\Z")]


class P2PSection(Section, frozen=True, kw_only=True):
    """Finding and being found over libp2p, beside the registry. Needs the extra `p2p` of the package."""

    enabled: Annotated[bool, about("Take part. Off: hosts are known from the registry alone.")] = False
    listen: Annotated[
        tuple[Multiaddr, ...],
        Meta(max_length=8),
        about("Where the node listens; TCP only. A renter listens on a free port."),
    ] = ("/ip4/127.0.0.1/tcp/4001",)
    allow_remote: Annotated[bool, about("Allow `listen` to name an address beyond this machine.")] = False
    announce: Annotated[
        tuple[Multiaddr, ...],
        Meta(max_length=8),
        about("Addresses that others are told, where they differ from `listen` (port forwarding)."),
    ] = ()
    bootstrap: Annotated[
        tuple[Multiaddr, ...],
        Meta(max_length=64),
        about("Peers to join by, each with its peer id: /ip4/.../tcp/.../p2p/..."),
    ] = ()
    server: Annotated[bool, about("Hold records for others. Off for a host that nobody can reach from outside.")] = True
    region: Annotated[Region, about("Where this host is, `DE` or `DE-BY`. Empty: not said.")] = ""
    max_connections: Annotated[int, Meta(ge=8, le=10_000), about("Connections at the same time.")] = 256
    max_per_address: Annotated[Count, about("Connections from one IP address at the same time.")] = 64
