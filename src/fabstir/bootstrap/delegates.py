"""A renter's delegates from the settings: with the renter's journal where something is sent, beside it where somebody only looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fabstir.bootstrap.keys import read_key
from fabstir.bootstrap.parts import chain_info, connect_chain, open_journal
from fabstir.chain.market import MarketClient
from fabstir.domain.errors import FabstirError
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.ports.journal import OutboxStore
from fabstir.renter.delegates import STREAM, Delegate, Delegates, read_budgets
from fabstir.storage.journal import JOURNAL_FILE
from fabstir.storage.reader import JournalReader


@asynccontextmanager
async def delegating(config: Config) -> AsyncIterator[Delegates]:
    """To act. What an earlier process left is finished first. Raises LocalFault (`journal_locked` while a gateway runs), ChainFault."""
    key = await asyncio.to_thread(read_key, config, "renter")
    journal = open_journal(config.renter.data_dir, config.chain.chain_id)
    try:
        chain = await connect_chain(config, key, journal)
        try:
            await chain.reconcile()
            yield Delegates(chain, journal, SystemClock())
        finally:
            await chain.close()
    finally:
        await journal.close()


async def look_at_delegates(config: Config, store: OutboxStore) -> tuple[Delegate, ...]:
    """Also while a gateway runs; `store` refuses to be filled. Raises LocalFault, ChainFault."""
    key, info = await asyncio.to_thread(read_key, config, "renter"), chain_info(config)
    chain = await MarketClient.connect(config.chain.rpc_urls, key, info, store, SystemClock())
    try:
        return await read_budgets(chain, await asyncio.to_thread(_named, config))
    finally:
        await chain.close()


def _named(config: Config) -> list[bytes]:
    try:
        with JournalReader(config.renter.data_dir / JOURNAL_FILE) as journal:
            return list(journal.events(STREAM))
    except FabstirError as refused:
        if refused.code == "journal_missing":
            return []
        raise
