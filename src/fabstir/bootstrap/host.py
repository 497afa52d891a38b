"""A host from start to end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from fabstir.api.app import host_app
from fabstir.api.host_guard import ApiRules
from fabstir.api.server import listen, serve, settle_garbage_collector, url_of
from fabstir.bootstrap.attestation import make_attester
from fabstir.bootstrap.keys import key_file, read_key
from fabstir.bootstrap.models import served_models
from fabstir.bootstrap.p2p import announced
from fabstir.bootstrap.parts import (
    connect_chain,
    make_fingerprinter,
    make_held,
    open_journal,
)
from fabstir.bootstrap.prompts import make_desk, sealing_key
from fabstir.bootstrap.spot import make_host_prover
from fabstir.chain.job_events import JobEvents
from fabstir.chain.keys import held
from fabstir.chain.market import MarketClient
from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, JobId, ModelId
from fabstir.host.attestation import Attester
from fabstir.host.node import HostNode
from fabstir.host.prompt_voucher import awaits_voucher
from fabstir.host.prompts import PromptDesk
from fabstir.host.settings import HostSettings, settlement_rules
from fabstir.host.settler import Settler
from fabstir.host.watchtower import Watchtower
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.ops.last_words import guard_last_words, guard_tasks
from fabstir.ops.metrics import Metrics
from fabstir.p2p.identity import identity_file, load_or_make
from fabstir.ports.chain import NO_KEY
from fabstir.ports.private_process import leave_no_core
from fabstir.proofs.stored import StoredProver
from fabstir.protocol.signing import SigningKey
from fabstir.storage.journal import SqliteJournal

FINISH_SECONDS: Final = 30.0
"""A host that is stopped first settles the jobs that are over: a commitment, its challenge three blocks later, a proof, the close."""


async def run_host(config: Config, stop: asyncio.Event, on_ready: Callable[[HostNode, str], None]) -> None:
    """A host from start to end: serves until `stop` is set, drains, goes down. `on_ready` gets the node and its URL.

    Raises LocalFault and ChainFault where a part cannot work; nothing is served then.
    """
    leave_no_core()
    guard_last_words()
    guard_tasks(asyncio.get_running_loop())
    clock = SystemClock()
    key = await asyncio.to_thread(read_key, config, "host")
    journal = open_journal(config.host.data_dir, config.chain.chain_id)
    try:
        with held(key_file(config, "host")):
            chain = await connect_chain(config, key, journal)
            try:
                await _serve_host(config, chain, journal, SigningKey(key), clock, stop, on_ready)
            finally:
                await chain.close()
    finally:
        await journal.close()


async def _serve_host(
    config: Config,
    chain: MarketClient,
    journal: SqliteJournal,
    key: SigningKey,
    clock: SystemClock,
    stop: asyncio.Event,
    on_ready: Callable[[HostNode, str], None],
) -> None:
    served = await served_models(config)
    for each in served:
        await _require_approved(chain, each.model.model_id)
    (first, *_), further = served, tuple(each.terms for each in served[1:])
    model, identity, engine = first.model, first.model.model_id, first.engines["engine"]
    sealing = await asyncio.to_thread(sealing_key, config, "host") if config.host.prompt_slots else None
    encryption_key = Hash32(sealing.public) if sealing is not None else NO_KEY
    attester = await make_attester(config, key.address, encryption_key, identity)
    node_identity = await asyncio.to_thread(load_or_make, identity_file(key_file(config, "host")), key.address)
    records = make_held(config)
    making = await make_host_prover(config, model, engine, chain, records, clock)
    prover = StoredProver(making, config.host.data_dir / "proofs")
    listener = listen(config.api.host, config.api.port)
    node = HostNode(
        engines={each.model.model_id: each.engines for each in served},
        chain=chain,
        prover=prover,
        journal=journal,
        clock=clock,
        keys=(key, node_identity.secret),
        settings=HostSettings.of(config, identity, url_of(listener), encryption_key, further),
        metrics=Metrics(chain.info.usdc),
    )
    node.book.held = records
    node.fingerprinter = make_fingerprinter(config, engine)
    chain.count_ends(node.metrics.transaction)
    settler = Settler(
        node.book,
        chain,
        prover,
        clock,
        settlement_rules(config),
        idle_for=node.idle_for,
        on_closing=node.chain_closing,
        watch_seconds=float(config.host.settle_interval_s),
    )
    settler.count_in(node.metrics)
    node.claims = settler.claims
    node.proven_weaker = settler.proven_weaker
    settler.postponed = lambda ledger: awaits_voucher(ledger, clock.now())
    node.on_settlement_request = lambda _job: settler.wake()
    try:
        await node.start()
        desk = None
        if sealing is not None:
            desk = await make_desk(config, node, chain, node.shelf.get(identity).pool, journal, identity, sealing)
            await desk.start()
        async with announced(config, node, key, node.settings.url or url_of(listener)):
            await _run_background(config, _Parts(node, settler, desk, attester), chain, listener, stop, on_ready)
    finally:
        listener.close()
        await node.stop()


async def _require_approved(chain: MarketClient, model: ModelId) -> None:
    if not await chain.model_approved(model):
        raise error(
            "model_invalid", f"model 0x{model.hex()} is not approved in ModelRegistry", "See docs/how-to/host.md."
        )


class _Parts(NamedTuple):
    """What runs in the background of a host."""

    node: HostNode
    settler: Settler
    desk: PromptDesk | None
    attester: Attester | None

    async def drain(self) -> None:
        """Let nobody in, let what runs end."""
        await asyncio.gather(self.node.drain(), *([self.desk.drain()] if self.desk is not None else []))


def _watchtower(node: HostNode, settler: Settler, chain: MarketClient) -> Watchtower:
    def ours(job: JobId) -> bool:
        return node.book.get(job) is not None

    return Watchtower(chain, JobEvents(chain), clock=SystemClock(), ours=ours, wake=settler.wake)


def _rules(config: Config) -> ApiRules:
    """Who is answered. The name under which the host is registered is one of its names."""
    api, advertised = config.api, urlsplit(config.host.advertise_url or "").hostname
    return ApiRules(
        names=frozenset(name.lower() for name in (*api.allowed_hosts, *([advertised] if advertised else []))),
        origins=frozenset(origin.lower() for origin in api.allowed_origins),
        operator_key=api.operator_key,
        max_per_address=api.max_per_address,
        requests_per_minute=api.requests_per_minute,
    )


async def _run_background(
    config: Config,
    parts: _Parts,
    chain: MarketClient,
    listener: socket.socket,
    stop: asyncio.Event,
    on_ready: Callable[[HostNode, str], None],
) -> None:
    node, settler, desk, attester = parts
    app = host_app(node, max_connections=config.api.max_connections, rules=_rules(config), desk=desk, attester=attester)
    settle_garbage_collector()
    async with asyncio.TaskGroup() as tasks:
        background = [
            tasks.create_task(chain.reconcile()),
            tasks.create_task(node.run()),
            tasks.create_task(settler.run()),
            tasks.create_task(_watchtower(node, settler, chain).run()),
            *([tasks.create_task(desk.run())] if desk is not None else []),
        ]
        on_ready(node, url_of(listener))
        await serve(app, listener, max_message_bytes=config.api.max_message_bytes, stop=stop, drain=parts.drain)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await settler.finish(FINISH_SECONDS)
