"""A host behind its real server on loopback, and a renter behind a real WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

from tests.host.world import Renter, World, eventually, some_terms
from websockets.asyncio.client import ClientConnection, connect

from fabstir.api.app import host_app
from fabstir.api.host_guard import ApiRules
from fabstir.api.server import listen, serve, url_of
from fabstir.domain.errors import CATALOGUE
from fabstir.domain.terms import Terms
from fabstir.host.attestation import Attester
from fabstir.host.session_actor import SessionActor
from fabstir.protocol.host_log import HostLedger, decode_event
from fabstir.protocol.messages import Error


class SocketWire:
    """A WebSocket as the renter's wire."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, message: bytes | str) -> None:
        await self.socket.send(message)

    async def receive(self) -> bytes | str:
        return await self.socket.recv()


class Served:
    """A running host with its API."""

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.url = url
        self.stop = asyncio.Event()
        self.running: asyncio.Task[None]
        self._sockets: list[ClientConnection] = []

    @property
    def ws_url(self) -> str:
        return self.url.replace("http", "ws") + "/v1/ws"

    async def socket(self, **options: Any) -> ClientConnection:
        """An open WebSocket, without a word said."""
        socket = await connect(self.ws_url, **options)
        self._sockets.append(socket)
        return socket

    async def stranger(self, terms: Terms | None = None, **options: Any) -> Renter:
        """A connected renter whose session does not stand yet."""
        return Renter(SocketWire(await self.socket(**options)), terms or self.world.chain.open(some_terms()))

    async def renter(self, terms: Terms | None = None) -> Renter:
        """A renter with a session that stands."""
        renter = await self.stranger(terms)
        await renter.open()
        return renter

    async def get(self, path: str, method: str = "GET") -> tuple[int, Any]:
        """Status and JSON body."""
        return await asyncio.to_thread(_get, self.url + path, method)

    async def sound(self, renter: Renter | None = None) -> HostLedger | None:
        """After whatever a test did: the host is healthy, memory equals disk, nobody owes more than W, and a new renter is served."""
        node, journal = self.world.node, self.world.journal
        ledger = node.book.get(renter.job) if renter else None
        if renter and ledger:
            assert 0 <= ledger.exposed <= ledger.terms.exposure
            written = [decode_event(data) for data in await journal.read("job:" + renter.job.hex())]
            replayed = HostLedger.replay(written)
            same = ("served", "acknowledged", "head", "message_index", "in_turn", "finished")
            assert [getattr(replayed, name) for name in same] == [getattr(ledger, name) for name in same]
        assert (await node.health()).status == "ok"
        fresh = await self.renter()
        assert await fresh.chat("still there?") == "You said: still there?"
        await eventually(lambda: self.world.ledger(fresh).exposed == 0)
        await self.close(fresh)
        return ledger

    async def close(self, renter: Renter) -> None:
        """The renter's connection ends, and the host has noticed."""
        assert isinstance(renter.wire, SocketWire)
        await renter.wire.socket.close()
        await eventually(lambda: not self.connected(renter))

    def connected(self, renter: Renter) -> bool:
        """The host has a session at work for the renter's job."""
        return renter.job in self.world.jobs_at_work()

    async def actor(self, renter: Renter) -> SessionActor:
        """The actor that serves the renter."""
        return next(actor for actor in self.world.actors() if actor.core.ledger.job == renter.job)

    async def ended(self) -> None:
        """The server has returned by itself."""
        await asyncio.wait_for(asyncio.shield(self.running), 30)

    async def disconnect(self) -> None:
        """Every socket that the test opened."""
        for socket in self._sockets:
            await socket.close()


def named(fault: Error, code: str) -> None:
    """The one shape, as the catalogue has it."""
    row = CATALOGUE[code]
    assert (fault.code, fault.message, fault.retryable, fault.next_step) == (
        code,
        row.summary,
        row.retryable,
        row.next_step,
    ), fault


@contextlib.asynccontextmanager
async def serving(
    world: World,
    *,
    max_connections: int = 1024,
    attester: Attester | None = None,
    rules: ApiRules = ApiRules(),  # noqa: B008 - frozen
) -> AsyncIterator[Served]:
    """`world` behind a server until the test ends."""
    async with world.running():
        listener = listen("127.0.0.1", 0)
        served = Served(world, url_of(listener))
        app = host_app(world.node, max_connections=max_connections, attester=attester, rules=rules)
        running = served.running = asyncio.create_task(
            serve(
                app,
                listener,
                max_message_bytes=world.settings.max_message_bytes,
                stop=served.stop,
                drain=world.node.drain,
            )
        )
        try:
            await eventually(lambda: _answers(served))
            yield served
        finally:
            await served.disconnect()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _answers(served: Served) -> bool:
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        return (await served.get("/v1/offer"))[0] == 200
    return False


def _get(url: str, method: str) -> tuple[int, Any]:
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            status, body, kind = answer.status, answer.read(), answer.headers["content-type"]
    except urllib.error.HTTPError as refused:
        status, body, kind = refused.code, refused.read(), refused.headers["content-type"]
        refused.close()
    return status, json.loads(body) if kind.startswith("application/json") else body.decode()
