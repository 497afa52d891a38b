"""`fabstir doctor p2p`, from the settings: joins the network as a stranger and looks for this host. Announces nothing, sends nothing else.

The identity is made up for the occasion, so that the node itself may run meanwhile and is seen as others see it.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

import msgspec

from fabstir.bootstrap.keys import read_key
from fabstir.bootstrap.p2p import ANY_PORT
from fabstir.bootstrap.parts import chain_info, served_model
from fabstir.chain.checks import Check, judge
from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Address, ModelId, to_hex
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.p2p.identity import NodeIdentity
from fabstir.p2p.network import Libp2pNetwork, NetworkSettings
from fabstir.ports.clock import Clock
from fabstir.ports.network import Network
from fabstir.protocol.p2p.announcement import Announcement
from fabstir.protocol.p2p.book import AnnouncementBook
from fabstir.protocol.p2p.provider_keys import model_keys
from fabstir.protocol.signing import Market, SigningKey

PATIENCE_SECONDS: Final = 20.0
"""For the first peer, and again for being found."""
LOOK_SECONDS: Final = 0.5


class Sought(msgspec.Struct, frozen=True):
    """Which host is looked for, and under which model."""

    market: Market
    model: ModelId
    account: Address


async def examine_p2p(config: Config, account: Address | None = None) -> list[Check]:
    """All of it. `account`: looked for in the place of the host's key. Raises LocalFault where key, model or contracts are not there."""
    if not config.p2p.enabled:
        return [
            Check(
                name="p2p", verdict="skipped", measured="p2p.enabled is false: hosts are known from the registry alone"
            )
        ]
    reachable = judge(
        "bootstrap",
        bool(config.p2p.bootstrap),
        f"{len(config.p2p.bootstrap)} peers",
        "somebody must be known to join by",
        "Set `p2p.bootstrap`; an address is in the part p2p of any node's /health.",
    )
    if reachable.verdict != "ok":
        return [reachable]
    if account is None:
        account = SigningKey(await asyncio.to_thread(read_key, config, "host")).address
    info, model = chain_info(config), (await served_model(config)).model_id
    settings = NetworkSettings(listen=(ANY_PORT,), bootstrap=config.p2p.bootstrap, server=False)
    network = Libp2pNetwork(NodeIdentity(secrets.token_bytes(32)), settings)
    try:
        await network.start()
        sought = Sought(Market(info.chain_id, info.market), model, account)
        return [reachable, *await examine_network(network, sought, SystemClock())]
    except FabstirError as fault:
        said = f"{fault.code}: {fault.message} ({fault.detail})"
        return [reachable, Check(name="libp2p", verdict="fail", measured=said, next_step=fault.next_step)]
    finally:
        await network.stop()


async def examine_network(network: Network, sought: Sought, clock: Clock) -> list[Check]:
    """Of a network that is started: is somebody there, and does a stranger find the host? Raises LocalFault (`p2p_unavailable`)."""
    deadline = clock.monotonic() + PATIENCE_SECONDS
    while network.condition().known == 0 and clock.monotonic() < deadline:
        await clock.sleep(LOOK_SECONDS)
    stands = network.condition()
    joined = judge(
        "joined",
        stands.known > 0,
        f"{stands.peers} peers connected, {stands.known} known",
        f"within {PATIENCE_SECONDS:g} s",
        "Is one of `p2p.bootstrap` running, and reachable from here?",
    )
    if joined.verdict != "ok":
        return [joined]
    return [joined, await _found(network, sought, clock)]


async def _found(network: Network, sought: Sought, clock: Clock) -> Check:
    deadline = clock.monotonic() + PATIENCE_SECONDS
    said, heard, refusals = None, 0, ""
    while said is None and clock.monotonic() < deadline:
        announcements = await network.find(model_keys(sought.market, sought.model))
        heard = len(announcements)
        said, refusals = _own(announcements, sought, clock.now())
        if said is None:
            await clock.sleep(LOOK_SECONDS)
    if said is not None:
        left = said.expires_at - int(clock.now())
        measured = f"{said.url}, {said.free} of {said.slots} places free, for {left} s more"
        return Check(name="found", verdict="ok", measured=measured)
    others = f"{heard} announcements of the model, none of {to_hex(sought.account)}"
    return Check(
        name="found",
        verdict="fail",
        measured=f"{others}; {refusals}" if refusals else others,
        why="what renters see of this host",
        next_step="Does the host run with `p2p.enabled`? Look at `p2p` in its /health.",
    )


def _own(announcements: tuple[bytes, ...], sought: Sought, now: float) -> tuple[Announcement | None, str]:
    """The host's own, and why one of its own is not believed."""
    book, why = AnnouncementBook(sought.market), ""
    for raw in announcements:
        try:
            return book.take(raw, now, {sought.account}), ""
        except FabstirError as refusal:
            why = why if refusal.code == "announcement_foreign" else f"{refusal.code}: {refusal.detail}"
    return None, why
