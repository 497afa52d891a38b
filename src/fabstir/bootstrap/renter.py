"""A renter's market."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fabstir.bootstrap.keys import read_key
from fabstir.bootstrap.parts import connect_chain, open_journal
from fabstir.bootstrap.prompts import order_services
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.protocol.signing import SigningKey
from fabstir.renter.market import Market
from fabstir.renter.settings import RenterSettings


@asynccontextmanager
async def renter_market(config: Config) -> AsyncIterator[Market]:
    """A renter's market with the account of `renter.key_file`. Raises LocalFault, ChainFault."""
    key = await asyncio.to_thread(read_key, config, "renter")
    journal = open_journal(config.renter.data_dir, config.chain.chain_id)
    try:
        chain = await connect_chain(config, key, journal)
        try:
            await chain.reconcile()
            settings = RenterSettings.of(config)
            wallet = SigningKey(key)
            market = Market(chain, journal, SystemClock(), settings=settings, wallet=wallet)
            async with (
                order_services(config, chain, journal, settings, wallet) as prompts,
                market.with_prompts(prompts),
            ):
                yield market
        finally:
            await chain.close()
    finally:
        await journal.close()
