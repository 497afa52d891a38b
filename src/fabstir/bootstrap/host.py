"""A host from start to end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from fabstir.api.app import host_app
from fabstir.api.control import Control, control_socket
from fabstir.api.host_guard import ApiRules
from fabstir.api.server import listen, serve, settle_garbage_collector, url_of
from fabstir.bootstrap.attestation import make_attester
from fabstir.bootstrap.keys import key_file, read_key
from fabstir.bootstrap.models import Served, require_approved, served_models
from fabstir.bootstrap.p2p import announced
from fabstir.bootstrap.parts import (
    connect_chain,
    make_fingerprinter,
    make_held,
    open_journal,
)
from fabstir.bootstrap.prompts import make_desk, sealing_key
from fabstir.bootstrap.reloading import Applying, Reloader, Source, fixed
from fabstir.bootstrap.spot import make_host_prover
from fabstir.chain.job_events import JobEvents
from fabstir.chain.keys import held
from fabstir.chain.market import MarketClient
from fabstir.domain.ids import Hash32, JobId
from fabstir.host.attestation import Attester
from fabstir.host.node import HostNode
from fabstir.host.prompt_voucher import awaits_voucher
from fabstir.host.prompts import PromptDesk
from fabstir.host.queueing import Asker
from fabstir.host.settings import HostSettings, settlement_rules
from fabstir.host.settler import Settler
from fabstir.host.standing import StandingInLine
from fabstir.host.watchtower import Watchtower
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import Config
from fabstir.ops.last_words import guard_last_words, guard_tasks
from fabstir.ops.machine import SystemMachine
from fabstir.ops.metrics import Metrics
from fabstir.ops.tracing import make_spans
from fabstir.p2p.identity import identity_file, load_or_make
from fabstir.ports.chain import NO_KEY
from fabstir.ports.private_process import leave_no_core
from fabstir.proofs.stored import StoredProver
from fabstir.protocol.signing import SigningKey
from fabstir.storage.journal import SqliteJournal

FINISH_SECONDS: Final = 30.0
"""A host that is stopped first settles the jobs that are over: a commitment, its challenge three blocks later, a proof, the close."""


OnReady = Callable[[HostNode, str, Path], None]
"""Gets the node, its URL, and the socket of its control."""


async def run_host(config: Config, stop: asyncio.Event, on_ready: OnReady, source: Source | None = None) -> None:
    """A host from start to end: serves until `stop` is set, drains, goes down. It follows `source`, where its settings come from.

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
                running = Running(config, source or fixed(config), stop, on_ready)
                await _serve_host(running, chain, journal, SigningKey(key), clock)
            finally:
                await chain.close()
    finally:
        await journal.close()


class Running(NamedTuple):
    """What a host was started with."""

    config: Config
    source: Source
    stop: asyncio.Event
    on_ready: OnReady


async def _serve_host(
    running: Running, chain: MarketClient, journal: SqliteJournal, key: SigningKey, clock: SystemClock
) -> None:
    config = running.config
    served = await served_models(config)
    for each in served:
        await require_approved(chain, each.model.model_id)
    (first, *_) = served
    model, identity, engine = first.model, first.model.model_id, first.engines["engine"]
    sealing = await asyncio.to_thread(sealing_key, config, "host") if config.host.prompt_slots else None
    encryption_key = Hash32(sealing.public) if sealing is not None else NO_KEY
    attester = await make_attester(config, key.address, encryption_key, identity)
    node_identity = await asyncio.to_thread(load_or_make, identity_file(key_file(config, "host")), key.address)
    records = make_held(config)
    making = await make_host_prover(config, model, engine, chain, records, clock)
    prover = StoredProver(making, config.host.data_dir / "proofs")
    listener = listen(config.api.host, config.api.port)

    def settings_of(wanted: Config, models: tuple[Served, ...]) -> HostSettings:
        further = tuple(each.terms for each in models[1:])
        return HostSettings.of(wanted, identity, url_of(listener), encryption_key, further)

    node = HostNode(
        engines={each.model.model_id: each.engines for each in served},
        chain=chain,
        prover=prover,
        journal=journal,
        clock=clock,
        keys=(key, node_identity.secret),
        settings=settings_of(config, served),
        metrics=Metrics(chain.info.usdc),
    )
    node.book.held = records
    node.shelf.get(identity).needed_for = _needed_for(config)
    node.spans = spans = make_spans(config.telemetry)
    node.machine = SystemMachine(config.host.data_dir, clock.monotonic)
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
            standing = StandingInLine(node.shelf.get(identity), Asker(key.address))
            desk = await make_desk(config, node, chain, standing, journal, identity, sealing)
            await desk.start()
        async with announced(config, node, key, node.settings.url or url_of(listener)):
            applying = Applying(node, settler, chain, served, settings_of)
            await _run_background(running, _Parts(node, settler, desk, attester), chain, listener, applying)
    finally:
        listener.close()
        await node.stop()
        if spans is not None:
            await asyncio.to_thread(spans.close)


def _needed_for(config: Config) -> str:
    """What of a host works with its first model alone."""
    reasons = {
        "prompt jobs are made with it (host.prompt_slots)": config.host.prompt_slots > 0,
        "its answers are traced (proofs.circuit)": config.proofs.circuit == "spot",
        "it makes fingerprints (engine.fingerprints)": config.engine.fingerprints,
    }
    return ", ".join(why for why, holds in reasons.items() if holds)


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
    running: Running, parts: _Parts, chain: MarketClient, listener: socket.socket, applying: Applying
) -> None:
    node, settler, desk, attester = parts
    config, source = running.config, running.source
    app = host_app(node, max_connections=config.api.max_connections, rules=_rules(config), desk=desk, attester=attester)
    reloader = Reloader(config, source.read, applying)
    node.in_force = reloader.part
    settle_garbage_collector()
    async with control_socket(Control(node, reloader.reload)) as control, asyncio.TaskGroup() as tasks:
        background = [
            tasks.create_task(chain.reconcile()),
            tasks.create_task(node.run()),
            tasks.create_task(settler.run()),
            tasks.create_task(_watchtower(node, settler, chain).run()),
            *([tasks.create_task(desk.run())] if desk is not None else []),
            *([tasks.create_task(reloader.follow(source.file, source.again))] if source.file is not None else []),
        ]
        running.on_ready(node, url_of(listener), control)
        await serve(app, listener, max_message_bytes=config.api.max_message_bytes, stop=running.stop, drain=parts.drain)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await settler.finish(FINISH_SECONDS)
