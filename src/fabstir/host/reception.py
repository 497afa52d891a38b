"""Where connections arrive: from a first message to an actor at work, one for each job.

It decides who finds room (drain, capacity, one connection for each job, a journal that can be written) and cuts off who
keeps us waiting; whether a job fits is decided by `fabstir.protocol.admission`, and what a session may do by its core.
Errors before a session leave the connection open: a job that is not mined yet may be asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import structlog

from fabstir.domain.errors import FabstirError, Interrupted, error
from fabstir.domain.ids import JobId, SessionId
from fabstir.host.admission import Admission, Hello
from fabstir.host.link import Link
from fabstir.host.services import Services
from fabstir.host.session_actor import SessionActor
from fabstir.host.settings import HostSettings
from fabstir.ports.transport import Transport
from fabstir.protocol.host_log import HostLedger
from fabstir.protocol.host_session import HostSession, SessionState
from fabstir.protocol.messages import Error, Ping, Pong, SessionInit, SessionReady, SessionResume

MAX_ATTEMPTS: Final = 16
"""Messages that a connection without a session may send; then it is closed with `rate_limited`."""

log = structlog.get_logger()


class Reception:
    """All connections of one host.

    Memory: one actor for each of at most `max_sessions` sessions, one link for each connection without a session.
    """

    def __init__(
        self,
        admission: Admission,
        services: Services,
        settings: HostSettings,
        core_of: Callable[[HostLedger], HostSession],
        request_settlement: Callable[[JobId], None],
    ) -> None:
        self._admission = admission
        self._services = services
        self.settings = settings
        self._core_of = core_of
        self._request_settlement = request_settlement
        self._sessions: dict[JobId, SessionActor | None] = {}
        """None: the place is taken, the session is being admitted."""
        self._guests: dict[Link, float] = {}
        """Connections without a session -> when they must have one."""
        self._opened_at = self._now()
        self._left_at: dict[JobId, float] = {}
        """Open jobs whose renter was here and left."""
        self.draining = False

    def __repr__(self) -> str:
        return f"<Reception {len(self)} sessions of {self.settings.max_sessions}, {len(self._guests)} guests>"

    def __len__(self) -> int:
        """Sessions, those that are being admitted included."""
        return len(self._sessions)

    @property
    def generating(self) -> int:
        """Sessions in which an answer is being generated or waits for an acknowledgement."""
        working = (SessionState.PREPARING, SessionState.GENERATING, SessionState.BLOCKED)
        return sum(actor.core.state in working for actor in self.actors())

    def actors(self) -> Iterator[SessionActor]:
        """Sessions at work."""
        return (actor for actor in tuple(self._sessions.values()) if actor is not None)

    def actor(self, job: JobId) -> SessionActor | None:
        """The session of `job`, if it is at work."""
        return self._sessions.get(job)

    def idle_for(self, job: JobId) -> float:
        """Seconds since the renter of `job` left, or since the start; 0 while it is connected."""
        return 0.0 if job in self._sessions else self._now() - self._left_at.get(job, self._opened_at)

    # -- a connection --------------------------------------------------------------------------------------------------------

    async def connect(self, transport: Transport, sealed: Callable[[], bool] = lambda: False) -> None:
        """Serve one connection until it ends. `sealed`: whether it is an encrypted channel by now."""
        link = Link(transport, self._services.clock, sealed)
        self._guests[link] = self._now() + self.settings.hello_timeout
        try:
            for _ in range(MAX_ATTEMPTS):
                try:
                    await self._welcome(link)
                except Interrupted:
                    return
                except FabstirError as fault:
                    self._services.metrics.failure(fault.code)
                    await link.send(Error.of(fault))
                if link.gone:
                    return
            self._services.metrics.failure("rate_limited")
            await link.send(Error.of(error("rate_limited", f"{MAX_ATTEMPTS} messages and no session")))
            await link.close("rate_limited")
        finally:
            self._guests.pop(link, None)
            if not link.gone:  # a fault of our own, or the server gives up on us
                link.drop("node_failed")

    async def _welcome(self, link: Link) -> None:
        """Take one message of a connection without a session. Raises Interrupted where the connection is gone."""
        message = await link.receive()
        match message:
            case Ping():
                await link.send(Pong(id=message.id))
            case SessionInit() | SessionResume():
                try:
                    await self._serve(message, link)
                except FabstirError as fault:
                    log.info("session_refused", code=fault.code)
                    self._services.metrics.failure(fault.code)
                    await link.send(Error.of(fault, message.session_id))
            case _:
                raise error("message_out_of_order", "session_init or session_resume comes first")

    async def _serve(self, hello: Hello, link: Link) -> None:
        """Admit and serve. Raises what admission raises."""
        job, book = self._admission.identify(hello, sealed=link.sealed()), self._services.book
        self._require_room(job)
        if (model := self._services.shelf.find(hello.terms.terms().model_id)) is not None:
            model.require()  # one that is not loaded is no `job_foreign`: it may come back
        if book.fault is not None:
            await book.recover()
        signed = hello.auth is not None
        admitted = await self._admission.examine(hello, book.get(job)) if signed else None
        self._require_room(job)  # again: the chain took its time
        self._sessions[job] = None
        try:
            if admitted is None:
                ledger = self._admission.recognise(hello, book.get(job))
            else:
                ledger = await book.admit(admitted)
            if self.draining:
                raise error("draining")
            actor = self._sessions[job] = self._actor(ledger, link)
            due = self._guests.pop(link)
            self._give_tokens(link, ledger)
            await actor.run(hello)
            if actor.core.state is SessionState.FINISHED and self._admission.tokens is not None:
                self._admission.tokens.revoke(job=job)
            self._guests[link] = due
        finally:
            del self._sessions[job]
            self._left_at[job] = self._now()

    def _actor(self, ledger: HostLedger, link: Link) -> SessionActor:
        job = ledger.job
        return SessionActor(
            self._core_of(ledger),
            link,
            self._services,
            reauthorise=lambda hello: self._reauthorise(hello, job, sealed=link.sealed()),
            request_settlement=lambda _reason: self._request_settlement(job),
            ack_grace=self.settings.ack_grace,
            prompts_per_minute=self.settings.prompts_per_minute,
        )

    def _give_tokens(self, link: Link, ledger: HostLedger) -> None:
        """One with each `session_ready` that nobody else can read."""
        tokens, terms, job = self._admission.tokens, ledger.terms, ledger.job
        if tokens is None or not link.sealed():
            return

        def with_token(ready: SessionReady) -> SessionReady:
            subject = self._admission.subject(terms, job, SessionId(ready.session_id))
            return msgspec.structs.replace(ready, token=tokens.issue(subject))

        link.greet = with_token

    def _reauthorise(self, hello: Hello, job: JobId, *, sealed: bool) -> None:
        """A second `session_resume` on a connection: the same job, authorised anew."""
        if self._admission.identify(hello, sealed=sealed) != job:
            raise error("message_out_of_order", "one job for each connection")
        self._admission.use_nonce(hello)

    def _require_room(self, job: JobId) -> None:
        if self.draining:
            raise error("draining")
        if job in self._sessions:
            raise error("session_in_use")
        if len(self) >= self.settings.max_sessions:
            raise error("capacity", f"{len(self)} sessions of {self.settings.max_sessions}")

    # -- patience ------------------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Cut off clients that take nothing, and connections that never become a session. Until cancelled."""
        while True:
            settings = self.settings
            await self._services.clock.sleep(min(settings.write_timeout, settings.hello_timeout) / 4)
            now = self._now()
            self._left_at = {job: at for job, at in self._left_at.items() if self._services.book.get(job)}
            for link in [*self._guests, *(actor.link for actor in self.actors())]:
                if link.stalled(now) >= settings.write_timeout:
                    link.drop("client_too_slow")
            for link in [link for link, due in self._guests.items() if now >= due]:
                link.drop("session_unauthorized")

    async def drain(self) -> None:
        """Let nobody in, let running answers end and be acknowledged; after `drain_timeout` what still runs is handed over to other hosts,
        and whoever has not left `ack_grace` later is cut off."""
        self.draining = True
        leaving = [asyncio.ensure_future(actor.drain()) for actor in self.actors()]
        if not leaving:
            return
        everyone = asyncio.gather(*leaving)
        await self._wait(everyone, self.settings.drain_timeout)
        late = [actor for actor in self.actors() if actor.core.hands_off]
        if late and not everyone.done():
            hurried = asyncio.gather(*(actor.hurry() for actor in late))
            await self._wait(everyone, self.settings.ack_grace)
            hurried.cancel()
        for actor in self.actors():
            actor.link.drop("draining")
        await everyone

    async def _wait(self, what: asyncio.Future[Any], seconds: float) -> None:
        timer = asyncio.ensure_future(self._services.clock.sleep(seconds))
        try:
            await asyncio.wait((what, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()

    def drop_all(self) -> None:
        """Cut every connection off."""
        self.draining = True
        for link in [*self._guests, *(actor.link for actor in self.actors())]:
            link.drop("draining")

    def _now(self) -> float:
        return self._services.clock.monotonic()
