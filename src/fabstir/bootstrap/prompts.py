"""What prompt jobs need beside the other parts: sealing keys, blob directories, the host's desk.

The X25519 key to which others seal lies beside the role's key file, as `<key file>.seal`, under the same password and mode
0600. Whoever loses it loses nothing but what was sealed to it. Decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fabstir.bootstrap.keys import key_file, make_key_file, read_key_file
from fabstir.chain.market import MarketClient
from fabstir.domain.ids import ZERO_ADDRESS, ModelId
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import ProofPolicy
from fabstir.host.node import HostNode
from fabstir.host.prompt_settings import DeskSettings, DeskStores
from fabstir.host.prompts import PromptDesk
from fabstir.market.contents import HttpContents
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config, Role
from fabstir.ports.engine import Engine
from fabstir.ports.journal import Journal
from fabstir.protocol.sealed import SealingKey
from fabstir.protocol.signing import SigningKey
from fabstir.renter.prompt_case import OrderServices
from fabstir.renter.settings import RenterSettings
from fabstir.storage.blobs import DirectoryBlobs

BLOBS: Final = "blobs"
_DAY: Final = 86_400.0
_MIB: Final = 1 << 20


def sealing_secret(config: Config, role: Role) -> bytes:
    """The role's X25519 key, made where there is none yet. Raises LocalFault (`key_invalid`)."""
    of = key_file(config, role)
    path, chain_id = of.with_name(of.name + ".seal"), config.chain.chain_id
    return read_key_file(path, chain_id) if path.exists() else make_key_file(path, chain_id)


def sealing_key(config: Config, role: Role) -> SealingKey:
    """The same, ready to open what is sealed to it."""
    return SealingKey(sealing_secret(config, role))


def blobs(data_dir: Path, name: str, quota_mb: int, days: int) -> DirectoryBlobs:
    """A directory of sealed content. Raises LocalFault (`blob_failed`)."""
    return DirectoryBlobs(data_dir / BLOBS / name, SystemClock(), quota=quota_mb * _MIB, max_age=days * _DAY)


async def make_desk(
    config: Config,
    node: HostNode,
    chain: MarketClient,
    engine: Engine,
    journal: Journal,
    model_id: ModelId,
    key: SealingKey,
) -> PromptDesk:
    """The desk of a node that has started, not started itself."""
    host = config.host
    names = ("uploads", "results")
    uploads, results = [
        await asyncio.to_thread(blobs, host.data_dir, name, host.blob_quota_mb, host.blob_days) for name in names
    ]
    (registered, *_) = node.settings.registered(chain.info.usdc)  # what the board pays by
    settings = DeskSettings(
        model_id=model_id,
        price=registered.price,
        slots=host.prompt_slots,
        policies=frozenset(ProofPolicy[name.upper()] for name in config.proofs.accepted),
        arbiters=frozenset((ZERO_ADDRESS, *node.settings.arbiters)),
        bond_min=node.settings.bond_min,
        min_value=BaseUnits(host.claim_tail_above),
        max_unpaid=BaseUnits(host.prompt_unpaid_max),
        max_queued=host.prompt_queue,
        history=float(host.prompt_history_s),
    )
    return PromptDesk(node, chain, engine, journal, DeskStores(uploads, results), SystemClock(), key, settings)


@asynccontextmanager
async def order_services(
    config: Config, chain: MarketClient, journal: Journal, settings: RenterSettings, wallet: SigningKey
) -> AsyncIterator[OrderServices]:
    """What a renter needs for prompt jobs. Its sealing key is made where there is none. Raises LocalFault."""
    renter = config.renter
    secret = await asyncio.to_thread(sealing_secret, config, "renter")
    kept = await asyncio.to_thread(blobs, renter.data_dir, "orders", renter.blob_quota_mb, renter.blob_days)
    contents = HttpContents(SystemClock().now)
    try:
        yield OrderServices(
            chain=chain,
            journal=journal,
            blobs=kept,
            contents=contents,
            clock=SystemClock(),
            secret=secret,
            settings=settings,
            wallet=wallet,
        )
    finally:
        await contents.close()
