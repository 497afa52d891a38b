"""A renter's market."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from fabstir.bootstrap.attestation import renter_attestations
from fabstir.bootstrap.keys import key_file, read_key
from fabstir.bootstrap.p2p import discovery
from fabstir.bootstrap.parts import connect_chain, open_journal
from fabstir.bootstrap.prompts import order_services
from fabstir.chain.keys import held
from fabstir.chain.market import MarketClient
from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, ModelId, to_hex
from fabstir.domain.money import BaseUnits
from fabstir.engines.reexecution.tolerances import tolerance_in
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.ports.vectors import Embedder
from fabstir.protocol.audit import Tolerance
from fabstir.protocol.signing import SigningKey
from fabstir.renter.keeping import Keeper
from fabstir.renter.market import Market
from fabstir.renter.settings import RenterSettings


@asynccontextmanager
async def renter_market(config: Config, *, prompts: bool = False) -> AsyncIterator[Market]:
    """A renter's market with the account of `renter.key_file`; with `prompts` it can also post prompt jobs, for which a sealing key is
    made where there is none. Raises LocalFault, ChainFault."""
    key = await asyncio.to_thread(read_key, config, "renter")
    journal = open_journal(config.renter.data_dir, config.chain.chain_id)
    try:
        with held(key_file(config, "renter")):
            chain = await connect_chain(config, key, journal)
            try:
                await chain.reconcile()
                settings = RenterSettings.of(config)
                wallet = SigningKey(key)
                async with AsyncExitStack() as stack:
                    judge = await stack.enter_async_context(renter_attestations(config))
                    market = Market(chain, journal, SystemClock(), settings=settings, wallet=wallet).attesting(judge)
                    _prepare(market, chain, config)
                    if (found := await stack.enter_async_context(discovery(config, chain))) is not None:
                        market.finding(found)
                    if (embedder := await stack.enter_async_context(embeddings(config))) is not None:
                        market.embedding(embedder)
                    if prompts:
                        services = order_services(config, chain, journal, settings, wallet)
                        market.with_prompts(await stack.enter_async_context(services))
                    yield await stack.enter_async_context(market)
            finally:
                await chain.close()
    finally:
        await journal.close()


@asynccontextmanager
async def embeddings(config: Config) -> AsyncIterator[Embedder | None]:
    """The embedder of this machine, where `renter.embeddings` says so. Raises LocalFault (`embedder_unavailable`, `embedder_corrupt`,
    `tool_missing`)."""
    if not config.renter.embeddings:
        yield None
        return
    from fabstir.vectors.embedding.minilm import MiniLm  # noqa: PLC0415  its libraries are an extra

    embedder = await MiniLm.open(config.renter.embedder_dir)
    try:
        yield embedder
    finally:
        await embedder.close()


def _prepare(market: Market, chain: MarketClient, config: Config) -> None:
    """What is kept of its sessions, and who checks them."""
    renter = config.renter
    market.keeping(keeper_of(config))
    tolerances = Tolerances(chain, renter.tolerance_dir)
    market.auditing(tolerances.of, renter.audit_per_1000 / 1_000, BaseUnits(renter.audit_budget))


class Tolerances:
    """The tolerance of a model: the registry says which weights it is, a file says how far honest answers of these stray."""

    def __init__(self, chain: MarketClient, folder: Path | None) -> None:
        self._chain = chain
        self._folder = folder

    async def of(self, model: ModelId) -> Tolerance:
        """Raises LocalFault (`tolerance_missing`, `tolerance_invalid`), ChainFault."""
        registered = await self._chain.registered_model(model)
        if registered is None:
            raise error("tolerance_missing", f"model {to_hex(model)} is not in the registry")
        return await asyncio.to_thread(tolerance_in, Hash32(registered.sha256_hash), self._folder)


def keeper_of(config: Config) -> Keeper:
    """What is kept of sessions lies beside the journal."""
    return Keeper(config.renter.data_dir / "transcripts", words=config.renter.keep_words)
