"""A host at work: brings its parts up, shows how they are, and goes down without losing a token.

It decides what must work before renters are let in. Everything that it starts it owns: the background tasks end with
`run`, the sessions with `drain` or with their connections, engine and prover with `stop`. Who is let in: `reception`;
what was served: `jobs`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog
from nacl.signing import SigningKey as NodeSecret

import fabstir
from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import JobId, ModelId
from fabstir.host.admission import Admission
from fabstir.host.entrance import Entrance
from fabstir.host.fingerprinting import Fingerprinting
from fabstir.host.health import (
    ClaimsPart,
    HostHealth,
    MachinePart,
    NetworkPart,
    Part,
    Probe,
    PromptsPart,
    SessionsPart,
    engine_part,
    overall,
)
from fabstir.host.jobs import JobBook
from fabstir.host.memory import MemoryWatch
from fabstir.host.reception import Reception
from fabstir.host.reconnect_tokens import ReconnectTokens
from fabstir.host.registration import Registration
from fabstir.host.relay import Relay
from fabstir.host.services import Services
from fabstir.host.settings import HostSettings
from fabstir.host.shelf import ModelPart, Shelf
from fabstir.ops.metrics import Metrics
from fabstir.ports.chain import MarketChain
from fabstir.ports.clock import Clock
from fabstir.ports.engine import Engine
from fabstir.ports.fingerprints import Fingerprinter
from fabstir.ports.journal import Journal
from fabstir.ports.machine import Machine
from fabstir.ports.prover import Prover
from fabstir.ports.spans import Spans
from fabstir.ports.transport import Transport
from fabstir.protocol.effects import RequestSettlement, Store
from fabstir.protocol.host_log import HostLedger
from fabstir.protocol.host_session import ChainClosing, HostSession
from fabstir.protocol.node_key import NodeKey
from fabstir.protocol.offer import Offer
from fabstir.protocol.signed_offer import WireSignedOffer, sign_offer
from fabstir.protocol.signing import SigningKey

log = structlog.get_logger()

Engines = Mapping[ModelId, Mapping[str, Engine]]


class _Running:
    """What exists once the parts are up."""

    def __init__(
        self, reception: Reception, registration: Registration | None, relay: Relay, node_key: NodeKey
    ) -> None:
        self.node_key: Final = node_key
        self.relay: Final = relay
        self.reception: Final = reception
        self.registration: Final = registration


class HostNode:
    """One host: one key, its models, one journal. Memory: the book and the reception."""

    def __init__(
        self,
        *,
        engines: Engines,
        chain: MarketChain,
        prover: Prover,
        journal: Journal,
        clock: Clock,
        keys: tuple[SigningKey, NodeSecret],
        settings: HostSettings,
        metrics: Metrics,
    ) -> None:
        """`engines`: those of each model of the settings, by name; `keys`: the account's and the node's."""
        self.settings = settings
        self.metrics: Final = metrics
        self.book: Final = JobBook(journal)
        self.on_settlement_request: Callable[[JobId], None] = _ignore
        """Called when something of a job can be settled; must not block. The settler puts itself here."""
        self.prompts: Callable[[], PromptsPart] = _off
        """How the desk of prompt jobs is; the desk puts itself here."""
        self.claims: Callable[[], ClaimsPart] = _unsettled
        """What is still to be collected; the settler puts itself here."""
        self.spans: Spans | None = None
        """Where prompts are traced; whoever made it puts it here, and closes it."""
        self.machine: Machine | None = None
        """What the node runs on; the composition root puts it here."""
        self.in_force: Callable[[], Part] = lambda: Part(status="off")
        """How the file of settings is; whoever follows it puts itself here."""
        self.p2p: Callable[[], NetworkPart] = lambda: NetworkPart(status="off")
        """How the network of peers is; the announcer puts itself here."""
        self.proven_weaker: Callable[[], int] = lambda: 0
        """Jobs that were proven by the weaker circuit or committed for it; the settler puts itself here."""
        self.fingerprinter: Fingerprinter | None = None
        """Makes fingerprints where `settings.fingerprints`, while the engine works; whoever made it puts it here."""
        self.shelf: Final = Shelf(engines, clock, settings.line, settings.drain_timeout)
        self.tokens: Final = ReconnectTokens(clock)
        """For renters that come back."""
        self._chain = chain
        self._prover = prover
        self.clock: Final = clock
        self._key, self._identity = keys
        self._probe = Probe(self.shelf, chain, prover, clock)
        self._offer: Offer | None = None
        self._started_at = clock.monotonic()
        self.started_on: Final = int(clock.now())
        """Unix seconds."""
        self._running: _Running | None = None

    def __repr__(self) -> str:
        return f"<HostNode {self._running.reception if self._running else 'not started'!r} {self.book!r}>"

    # -- life --------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the journal, load the model and the proving keys. Raises LocalFault; then `stop` must still be called."""
        if self._key.address != self._chain.account:
            raise error("config_invalid", "the host's key is not the account that the chain client signs with")
        if self.settings.fingerprints and self.fingerprinter is None:
            raise error("config_invalid", "fingerprints are offered where nothing makes them")
        await self.book.restore()
        await self._start_parts()
        self.shelf.on_change = self._make_offer
        self._make_offer()
        fingerprinting = Fingerprinting(self.fingerprinter) if self.fingerprinter is not None else None
        services = Services(self.shelf, self._chain, self.book, self.clock, self.metrics, fingerprinting, self.spans)
        admission = Admission(self._chain, lambda: self.offer, self.clock, self.tokens)
        reception = Reception(admission, services, self.settings, self._core, self._request_settlement)
        relay = Relay(self._chain, lambda: self.offer, self.clock, self.settings.relay_per_hour)
        node_key = NodeKey(self._identity, self._key, self.offer.market)
        self._running = _Running(reception, self._make_registration(), relay, node_key)
        names = [model.name for model in self.offer.models]
        log.info("host_started", model_name=names, host_address=self._key.address, count=len(self.book.ledgers()))

    async def run(self) -> None:
        """The background work, until cancelled: registration, and an eye on connections that keep us waiting."""
        running = self._require_running()
        async with asyncio.TaskGroup() as tasks:
            if running.registration is not None:
                tasks.create_task(running.registration.keep())
            tasks.create_task(running.reception.watch())
            tasks.create_task(self._memory(running.reception).run())

    def _memory(self, reception: Reception) -> MemoryWatch:
        def available() -> int:
            return self.machine.look().memory_available if self.machine is not None else sys.maxsize

        return MemoryWatch(reception.actors, available, lambda: self.settings.memory, self.clock, self.metrics)

    def adopt(self, settings: HostSettings) -> None:
        """Go by other settings from now on, all at once. Sessions at work keep what their terms say; what the registry holds follows."""
        running = self._require_running()
        self.settings = running.reception.settings = settings
        running.relay.per_hour = settings.relay_per_hour
        self.shelf.adjust(settings.line)
        self._make_offer()
        if running.registration is not None:
            running.registration.want(settings.registered(self._chain.info.usdc))

    async def drain(self) -> None:
        """Let nobody in, let running answers end and be acknowledged; whoever takes longer than `drain_timeout` is cut off."""
        if self._running is not None:
            log.info("host_draining", sessions=len(self._running.reception))
            await self._running.reception.drain()

    async def stop(self) -> None:
        """Cut off whoever is still there and free engine and prover. Idempotent."""
        if self._running is not None:
            self._running.reception.drop_all()
        await asyncio.gather(self.shelf.stop(), self._prover.stop())

    # -- what others ask ---------------------------------------------------------------------------------------------------

    @property
    def offer(self) -> Offer:
        """What this host offers. Raises LocalFault (`host_not_running`) before `start`."""
        if self._offer is None:
            raise error("host_not_running", "it has not started yet")
        return self._offer

    @property
    def node_key(self) -> NodeKey:
        """What signs this node's answers. Raises LocalFault (`host_not_running`)."""
        return self._require_running().node_key

    def signed_offer(self) -> WireSignedOffer:
        """The offer as it is published now. Raises as `offer`."""
        return sign_offer(self.offer, self._key, self.node_key, self.clock.now())

    @property
    def relay(self) -> Relay:
        """Sends renters' signed payments. Raises LocalFault (`host_not_running`), Refused (`draining`)."""
        if self._running is not None and self.draining:
            raise error("draining")
        return self._require_running().relay

    @property
    def draining(self) -> bool:
        """Nobody is let in any more."""
        return self._running is None or self._running.reception.draining

    async def connect(self, transport: Transport) -> None:
        """Serve one connection until it ends."""
        running, required, report = self._require_running(), self.settings.require_encryption, self.metrics.failure
        entrance = Entrance(transport, self.offer.market, self._key, required=required, report=report)
        await running.reception.connect(entrance, lambda: entrance.sealed)

    async def health(self) -> HostHealth:
        """The truth about each part."""
        reception = self._require_running().reception
        models, chain, prover = await self._probe.parts()
        engine = engine_part(models)
        prover = msgspec.structs.replace(prover, weaker=self.proven_weaker())
        fault = self.book.fault
        journal = Part(status="down", reason=str(fault)) if fault else Part(status="ok")
        registration, prompts, claims, p2p = self._registration_part(), self.prompts(), self.claims(), self.p2p()
        settings, machine = self.in_force(), await self._look_at_machine()
        sending = self._probe.sending()
        needed: tuple[Part, ...] = (engine, chain, journal, sending) if sending.stopped else (engine, chain, journal)
        for name, part in (("engine", engine), ("chain", chain), ("prover", prover), ("journal", journal)):
            self.metrics.up(name, part.works)
        self.metrics.restarts(engine.restarts)
        self.metrics.models([_counted(model) for model in models])
        return HostHealth(
            status=overall(
                self.draining,
                needed,
                (Part(status=engine.status), settings, machine, prover, registration, sending, prompts, claims, p2p),
            ),
            version=fabstir.__version__,
            uptime_s=int(self.clock.monotonic() - self._started_at),
            engine=engine,
            models=models,
            chain=chain,
            sending=sending,
            journal=journal,
            prover=prover,
            registration=registration,
            settings=settings,
            machine=machine,
            sessions=SessionsPart(open=len(reception), generating=reception.generating, max=self.settings.max_sessions),
            prompts=prompts,
            claims=claims,
            p2p=p2p,
        )

    @property
    def free_places(self) -> int:
        """Sessions that would still be taken."""
        if self._running is None or self.draining:
            return 0
        return max(0, self.settings.max_sessions - len(self._running.reception))

    def idle_for(self, job: JobId) -> float:
        """Seconds since the renter of `job` left, or since this node started; 0 while it is connected."""
        return self._require_running().reception.idle_for(job)

    async def measure(self) -> None:
        """Set the gauges that are derived from the book and from the parts, before they are read. What only the chain knows stands
        as it was last seen while the chain does not answer; `part_up` says so."""
        if self._running is not None and (chain := (await self.health()).chain).works:
            self.metrics.head_block.set(chain.block)
            if (earnings := await self._probe.earnings()) is not None:
                self.metrics.withdrawable.show(earnings)
        self.metrics.sessions_open.set(len(self._running.reception) if self._running else 0)
        self.metrics.unacknowledged_tokens.set(sum(ledger.exposed for ledger in self.book.ledgers()))
        self.metrics.unproven_tokens.set(sum(ledger.unproven for ledger in self.book.ledgers()))
        prompts = self.prompts()
        self.metrics.prompts_queued.set(prompts.queued)
        self.metrics.prompts_working.set(prompts.working)
        self.metrics.prompts_unpaid.show({self._chain.info.usdc: int(prompts.unpaid)})

    async def chain_closing(self, job: JobId, code: str = "job_closed") -> None:
        """The chain shows that `job` closes, is closed or expires: returns when nothing more is served and the log says so."""
        reception = self._require_running().reception
        self.tokens.revoke(job=job)
        while (actor := reception.actor(job)) is not None:
            await actor.chain_closing(code)
            await asyncio.sleep(0)  # let the connection's task take the actor out
        ledger = self.book.get(job)
        if ledger is None:
            return
        core = self._core(ledger)
        async with self.book.exclusive(ledger):
            for effect in core.receive(ChainClosing(code), self.clock.monotonic()):
                if isinstance(effect, Store):
                    await self.book.store(ledger, effect.events)
                elif isinstance(effect, RequestSettlement):
                    self._request_settlement(job)

    # -- inside --------------------------------------------------------------------------------------------------------------

    async def _start_parts(self) -> None:
        try:
            async with asyncio.TaskGroup() as parts:
                parts.create_task(self.shelf.start())
                parts.create_task(self._prover.start())
        except* FabstirError as faults:
            raise faults.exceptions[0] from None

    async def _look_at_machine(self) -> MachinePart:
        if self.machine is None:
            return MachinePart(status="off")
        seen = await asyncio.to_thread(self.machine.look)
        self.metrics.machine(seen)
        return MachinePart.of(seen)

    def _make_registration(self) -> Registration | None:
        settings = self.settings
        if settings.url is None:
            return None
        offers = settings.registered(self._chain.info.usdc)
        key = settings.encryption_key
        return Registration(self._chain, self.clock, settings.url, offers, stake=settings.stake, encryption_key=key)

    def _core(self, ledger: HostLedger) -> HostSession:
        wanted = ledger.terms.model_id
        model = self.shelf.find(wanted)
        info = model.info if model is not None else None
        return HostSession(ledger, self._key, self.settings.session_offer(wanted, info), self.book.held)

    def _make_offer(self) -> None:
        """Anew, since a model came or went. Before all are there nothing is offered."""
        infos = {one.model_id: one.info for one in self.shelf.offered if one.info is not None}
        loaded = {model: (info.name, info.context_size) for model, info in infos.items()}
        controls = {model: info.controls for model, info in infos.items()}
        circuit = (self._prover.circuit, self._prover.circuit_id)
        self._offer = self.settings.offer(self._key.address, self._chain.info, loaded, circuit, controls)

    def _request_settlement(self, job: JobId) -> None:
        self.on_settlement_request(job)

    def _require_running(self) -> _Running:
        if self._running is None:
            raise error("host_not_running", "it has not started yet")
        return self._running

    def _registration_part(self) -> Part:
        registration = self._require_running().registration
        if registration is None:
            return Part(status="off")
        return Part(status="ok") if registration.state == "ok" else Part(status="down", reason=registration.state)


def _counted(model: ModelPart) -> tuple[str, bool, int, int, dict[str, bool]]:
    engines = {engine.name: engine.status == "ok" for engine in model.engines}
    return (model.name or model.model_id, model.serves, model.running, model.waiting, engines)


def _ignore(job: JobId) -> None:
    """Nobody settles here."""


def _off() -> PromptsPart:
    """No desk here."""
    return PromptsPart(status="off")


def _unsettled() -> ClaimsPart:
    """Nobody settles here."""
    return ClaimsPart(status="off")
