"""`Libp2pNetwork`: the `Network` of `fabstir.ports.network` over libp2p, worked in a process of its own.

Decides what a crash means: the process is started again, with pauses that grow, and what was published is published again; who waits for
an answer gets `p2p_unavailable`. Never imports libp2p, which strangers may crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from importlib import metadata
from typing import Final

import msgspec
import structlog

from fabstir.domain.errors import FabstirError, LocalFault, error
from fabstir.p2p.child import Child, ChildGone
from fabstir.p2p.frames import Done, Failed, Find, Found, Publish, Report, Setup, Standing
from fabstir.p2p.identity import NodeIdentity
from fabstir.ports.network import NetworkCondition

log = structlog.get_logger()

VERSION: Final = "0.8.1"
FIND_SECONDS: Final = 60.0
WAITING: Final = 64
"""Requests without an answer yet; more are refused."""
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""A process that lived for so long was well; the next pause is a short one again."""


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the node takes part."""

    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    announce: tuple[str, ...] = ()
    bootstrap: tuple[str, ...] = ()
    server: bool = True
    max_connections: int = 256
    per_address: int = 64


class Libp2pNetwork:
    """Memory: what is published, WAITING requests, and the process: 90 MB."""

    def __init__(self, identity: NodeIdentity, settings: NetworkSettings) -> None:
        self._node = identity.public
        self._setup = Setup(
            seed=identity.seed,
            listen=settings.listen,
            announce=settings.announce,
            bootstrap=settings.bootstrap,
            server=settings.server,
            max_connections=settings.max_connections,
            per_address=settings.per_address,
        )
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Report]] = {}
        self._published: tuple[bytes, tuple[bytes, ...]] | None = None
        self._child: Child | None = None
        self._standing = Standing(0, 0, 0, 0.0)
        self._supervisor: asyncio.Task[None] | None = None
        self._trouble = "not started"
        self._restarts = 0
        self._pause = FIRST_PAUSE_SECONDS

    def __repr__(self) -> str:
        return f"<Libp2pNetwork {self._node.hex()[:8]} {self.condition().status}, {self._restarts} restarts>"

    @property
    def node(self) -> bytes:
        return self._node

    @property
    def pid(self) -> int | None:
        """Process id, while there is one."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Idempotent. Raises LocalFault (`p2p_missing`, `p2p_unavailable`)."""
        if self._supervisor is None:
            _require_pinned()
            self._child = await self._spawn()
            self._supervisor = asyncio.create_task(self._supervise(self._child))

    async def stop(self) -> None:
        """End the process; whoever waits gets `p2p_unavailable`. Idempotent."""
        supervisor, self._supervisor, self._trouble = self._supervisor, None, "stopped"
        if supervisor is None:
            return
        supervisor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await supervisor
        self._fail_waiting()
        if self._child:
            child, self._child = self._child, None
            await child.end()

    async def publish(self, announcement: bytes, keys: tuple[bytes, ...]) -> None:
        self._published = (announcement, keys)
        await self._ask(Publish(next(self._numbers), announcement, keys))

    async def find(self, keys: tuple[bytes, ...]) -> tuple[bytes, ...]:
        answer = await self._ask(Find(next(self._numbers), keys))
        if not isinstance(answer, Found):
            raise error("p2p_unavailable", f"{type(answer).__name__} instead of Found")
        return answer.announcements

    def condition(self) -> NetworkCondition:
        ready = self._child.ready if self._child else None
        standing = self._standing if self._child else Standing(0, 0, 0, 0.0)
        return NetworkCondition(
            status=self._status(standing),
            reason=self._trouble,
            peers=standing.peers,
            known=standing.known,
            restarts=self._restarts,
            addresses=ready.addresses if ready else (),
            providing=standing.providing,
            announced_at=standing.announced_at,
        )

    def _status(self, standing: Standing) -> str:
        if self._supervisor is None or self._supervisor.done():  # done: a fault of ours, which the log has
            return "stopped"
        if self._child is None:
            return "restarting"
        return "ok" if standing.peers else "alone"

    # -- asking ------------------------------------------------------------------------------------------------------------

    async def _ask(self, request: Publish | Find) -> Report:
        if self._child is None:
            raise error("p2p_unavailable", self._trouble)
        if len(self._waiting) >= WAITING:
            raise error("p2p_unavailable", f"{WAITING} requests wait already")
        answer: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        self._waiting[request.number] = answer
        try:
            self._child.send(request)
            async with asyncio.timeout(FIND_SECONDS):
                report = await answer
        except TimeoutError as silent:
            raise error("p2p_unavailable", f"no answer within {FIND_SECONDS:g} s") from silent
        finally:
            self._waiting.pop(request.number, None)
        if isinstance(report, Failed):
            raise error(report.code, report.detail)
        return report

    # -- the supervisor: the only one who reads from the process -----------------------------------------------------------

    async def _supervise(self, child: Child) -> None:
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._read(child)
            except ChildGone as gone:
                if asyncio.get_running_loop().time() - began >= STEADY_SECONDS:
                    self._pause = FIRST_PAUSE_SECONDS
                self._child = None
                self._trouble = f"the process ended ({await child.end()}; {gone})"
                self._fail_waiting()
                log.warning("p2p_gone", detail=self._trouble, restarts=self._restarts)
            child = await self._again()

    async def _read(self, child: Child) -> None:
        """Raises ChildGone: the only end."""
        while True:
            report = await child.receive()
            if isinstance(report, Standing):
                self._standing = report
            elif isinstance(report, Done | Found | Failed):
                answer = self._waiting.get(report.number)
                if answer is not None and not answer.done():
                    answer.set_result(report)

    async def _again(self) -> Child:
        while True:
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
            self._restarts += 1
            try:
                self._child = await self._spawn()
            except LocalFault as problem:
                self._trouble = f"cannot be restarted: {problem}"
                log.error("p2p_start_failed", code=problem.code, reason=problem.detail, retry_in_s=self._pause)
                continue
            if self._published is not None:
                self._child.send(Publish(0, *self._published))
            return self._child

    async def _spawn(self) -> Child:
        child = await Child.spawn(self._setup)
        if child.ready.node != self._node:
            await child.end(grace=0)
            raise error("p2p_unavailable", "the process has another identity")
        self._standing, self._trouble = Standing(0, 0, 0, 0.0), ""
        log.info("p2p_started", pid=child.pid, restarts=self._restarts)
        return child

    def _fail_waiting(self) -> None:
        problem: FabstirError = error("p2p_unavailable", self._trouble)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(problem)


def _require_pinned() -> None:
    """The hardenings are of one version; another one may have other defects."""
    try:
        found = metadata.version("libp2p")
    except metadata.PackageNotFoundError as missing:
        raise error("p2p_missing", "no libp2p") from missing
    if found != VERSION:
        raise error("p2p_missing", f"libp2p {found}, wanted {VERSION}")
