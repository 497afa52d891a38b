"""The host's stake from the settings: with the journal of the host where something is sent, so that one account has one outbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fabstir.bootstrap.keys import read_key
from fabstir.bootstrap.parts import chain_info, connect_chain, open_journal
from fabstir.chain.market import MarketClient
from fabstir.domain.errors import FabstirError, error
from fabstir.host.staking import Staking
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.ports.journal import OutboxStore
from fabstir.storage.journal import SqliteJournal


@asynccontextmanager
async def staking(config: Config) -> AsyncIterator[Staking]:
    """To act. Raises as `host_chain`."""
    async with host_chain(config) as chain:
        yield Staking(chain)


@asynccontextmanager
async def host_chain(config: Config) -> AsyncIterator[MarketClient]:
    """The chain as the host's account that sends by hand. What an earlier process left is finished first.

    Raises LocalFault (`journal_locked` while the host runs), ChainFault.
    """
    key = await asyncio.to_thread(read_key, config, "host")
    try:
        journal = open_journal(config.host.data_dir, config.chain.chain_id)
    except FabstirError as refused:
        if refused.code == "journal_locked":
            raise error("journal_locked", refused.detail, "Stop the host first (`fabstir host stop`).") from refused
        raise
    try:
        chain = await connect_chain(config, key, journal)
        try:
            await chain.reconcile()
            await refuse_waiting(config, journal)
            yield chain
        finally:
            await chain.close()
    finally:
        await journal.close()


async def refuse_waiting(config: Config, journal: SqliteJournal) -> None:
    """What is sent and not mined is not in what the chain shows: deciding by that could stake twice. A devnet's name in the outbox has
    its first block in it, so what an older devnet left is not counted.
    """
    ours = f"{config.chain.chain_id}"
    left = [e.key for e in await journal.unfinished() if e.block == 0 and e.key.startswith((f"{ours}:", f"{ours}-"))]
    if left:
        raise error("transaction_lost", f"{len(left)} earlier transactions wait", "Try again once they are mined.")


@asynccontextmanager
async def stake_view(config: Config, store: OutboxStore) -> AsyncIterator[Staking]:
    """To look, also while the host runs; `store` refuses to be filled."""
    key, info = await asyncio.to_thread(read_key, config, "host"), chain_info(config)
    chain = await MarketClient.connect(config.chain.rpc_urls, key, info, store, SystemClock())
    try:
        yield Staking(chain)
    finally:
        await chain.close()
