"""The renter's OpenAI gateway from start to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from fabstir.api.gateway import MAX_BODY_BYTES, gateway_app
from fabstir.api.server import listen, serve, url_of
from fabstir.bootstrap.renter import renter_market
from fabstir.ops.config import Config
from fabstir.renter.pool import Pool

DRAIN_SECONDS: Final = 30.0


async def run_gateway(config: Config, stop: asyncio.Event, on_ready: Callable[[str], None]) -> None:
    """Serve until `stop` is set, let running answers end, end the sessions. `on_ready` gets the URL. Raises LocalFault, ChainFault."""
    async with renter_market(config) as market:
        pool = Pool(market, limit=config.renter.gateway_parallel)
        listener = listen(config.renter.gateway_host, config.renter.gateway_port)
        try:
            app = gateway_app(market, pool, config.renter.gateway_key)
            on_ready(url_of(listener))
            await serve(app, listener, max_message_bytes=MAX_BODY_BYTES, stop=stop, drain=lambda: _drained(pool))
        finally:
            listener.close()
            await pool.close()


async def _drained(pool: Pool) -> None:
    for _ in range(int(DRAIN_SECONDS / 0.1)):
        if not pool.busy:
            return
        await asyncio.sleep(0.1)
