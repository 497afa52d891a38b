"""A libp2p host as this network wants it: Ed25519, TCP, Noise and Yamux and nothing else, bounded, with a DHT that stores providers only.

Never the library's default security options, which accept plaintext and with it any identity. Runs inside the worker, on trio.
"""

from __future__ import annotations

from typing import Any, Final

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key
from libp2p.host.ping import ID as PING
from libp2p.host.ping import handle_ping
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.network.config import ConnectionConfig
from libp2p.rcmgr import ResourceManager
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.rcmgr.manager import ResourceLimits
from libp2p.records.validator import NamespacedValidator
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

DHT_HANDLERS: Final = 128
"""Questions of others that are answered at the same time. The library's 12 reset the rest, so that thirty nodes could not join at once."""
MAX_STREAMS: Final = 4_000
UPGRADE_SECONDS: Final = 10.0
"""For the handshake of a connection, and for agreeing on the protocol of a stream."""


def make_host(seed: bytes, listen: tuple[str, ...], announce: tuple[str, ...], max_connections: int) -> Any:
    """A host that does not run yet."""
    key = create_new_key_pair(seed)
    return new_host(
        key_pair=key,
        sec_opt={NOISE: Noise(key, noise_privkey=create_noise_key().private_key)},
        muxer_opt={YAMUX: Yamux},
        listen_addrs=[Multiaddr(address) for address in listen],
        announce_addrs=[Multiaddr(address) for address in announce] or None,
        disable_identify_address_discovery=True,  # addresses are what the operator says; a stranger's word would be announced as ours
        connection_config=ConnectionConfig(
            max_connections=max_connections,
            high_watermark=max(1, max_connections - max_connections // 10),
            low_watermark=0,  # else every known peer is dialled until there are a hundred connections
            min_connections=0,
            max_connections_per_peer=2,
            inbound_upgrade_timeout=UPGRADE_SECONDS,
            outbound_upgrade_timeout=UPGRADE_SECONDS,
            inbound_stream_protocol_negotiation_timeout=UPGRADE_SECONDS,
        ),
        resource_manager=ResourceManager(
            limits=ResourceLimits(max_connections=2 * max_connections, max_streams=MAX_STREAMS, max_memory_mb=512),
            connection_limits=ConnectionLimits(max_established_per_peer=4),
        ),
    )


def make_dht(host: Any, server: bool) -> Any:
    """The DHT of a running host. It has a validator for no namespace: nobody can store values here."""
    host.set_stream_handler(PING, handle_ping)
    dht = KadDHT(
        host,
        DHTMode.SERVER if server else DHTMode.CLIENT,
        validator=NamespacedValidator({}, strict_validation=True),
        validator_changed=True,
        strict_validation=True,
    )
    dht._inbound_limiter = trio.CapacityLimiter(DHT_HANDLERS)
    return dht
