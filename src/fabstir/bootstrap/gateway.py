"""The renter's gateway from start to end, and its API keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from fabstir.api.gateway import MAX_BODY_BYTES, gateway_app
from fabstir.api.server import listen, serve, url_of
from fabstir.bootstrap.renter import renter_market
from fabstir.domain.money import BaseUnits
from fabstir.ops.config import Config
from fabstir.ops.last_words import guard_last_words, guard_tasks
from fabstir.ports.private_process import leave_no_core
from fabstir.renter.gateway_keys import KEYS_FILE, KeyCard, KeyRing, read_cards
from fabstir.renter.pool import Pool
from fabstir.renter.spending import STREAM, Tally
from fabstir.storage.journal import JOURNAL_FILE
from fabstir.storage.reader import JournalReader

DRAIN_SECONDS: Final = 30.0

log = structlog.get_logger()


async def run_gateway(config: Config, stop: asyncio.Event, on_ready: Callable[[str], None]) -> None:
    """Serve until `stop` is set, let running answers end, end the sessions. `on_ready` gets the URL. Raises LocalFault, ChainFault."""
    leave_no_core()
    guard_last_words()
    guard_tasks(asyncio.get_running_loop())
    async with renter_market(config) as market:
        pool = Pool(market, limit=config.renter.gateway_parallel)
        listener = listen(config.renter.gateway_host, config.renter.gateway_port)
        try:
            keys = KeyRing(keys_file(config))
            if keys.cards is not None:
                log.info("gateway_keys", count=len(keys.cards))
            app = gateway_app(market, pool, config.renter.gateway_key, keys)
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


def keys_file(config: Config) -> Path:
    """Where the gateway's API keys are: beside the journal that counts what they spent."""
    return config.renter.data_dir / KEYS_FILE


def keys_with_spending(config: Config) -> tuple[tuple[KeyCard, BaseUnits], ...]:
    """Each key and what it has cost, read beside a gateway that runs. Raises LocalFault (`config_invalid`, `journal_unreadable`)."""
    path = config.renter.data_dir / JOURNAL_FILE
    tally = Tally()
    if path.exists():
        with JournalReader(path) as journal:
            tally = Tally.replay(journal.events(STREAM))
    return tuple((card, tally.spent[card.id]) for card in read_cards(keys_file(config)))
