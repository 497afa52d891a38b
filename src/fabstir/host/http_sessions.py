"""The sessions of renters that speak HTTP: begun by the usual authorisation, then asked for by a token.

A token stands for one session of one job: it is drawn by chance, kept as its hash in memory alone, and ends with the session.
A session that nobody asks anything of for IDLE_SECONDS is let go, and its job can be resumed. Who is let in at all decides
`reception`, as for every connection.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final, Protocol

import structlog

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import JobId, SessionId
from fabstir.host.http_session import HttpSession, SessionView
from fabstir.host.node import HostNode
from fabstir.ports.transport import Transport
from fabstir.protocol.messages import SessionInit, SessionReady, SessionResume, job_of

IDLE_SECONDS: Final = 300.0
"""Between two requests of one session."""
LOOKS: Final = 10
"""At a session within IDLE_SECONDS, whether it is idle."""
Connect = Callable[[Transport], Awaitable[None]]

log = structlog.get_logger()


class SessionTokens(Protocol):
    """What a renter shows instead of a signature, once its session stands."""

    def issue(self, job: JobId, session: SessionId) -> str:
        """A token for this session; those before it are worth nothing."""
        ...

    def find(self, token: str) -> JobId | None:
        """The job that `token` stands for."""
        ...

    def revoke(self, job: JobId) -> None:
        """The session is over."""
        ...


class DrawnTokens:
    """`SessionTokens` drawn by chance. Memory: two hashes for each session; a restart forgets all."""

    def __init__(self) -> None:
        self._jobs: dict[bytes, JobId] = {}
        self._tokens: dict[JobId, bytes] = {}

    def __repr__(self) -> str:
        return f"<DrawnTokens {len(self._jobs)}>"

    def issue(self, job: JobId, session: SessionId) -> str:
        """256 bits."""
        self.revoke(job)
        token = secrets.token_urlsafe(32)
        digest = sha256(token.encode()).digest()
        self._jobs[digest], self._tokens[job] = job, digest
        return token

    def find(self, token: str) -> JobId | None:
        """By its hash, so that the time that it takes says nothing."""
        return self._jobs.get(sha256(token.encode()).digest())

    def revoke(self, job: JobId) -> None:
        """Of `job`, if there is one."""
        if (digest := self._tokens.pop(job, None)) is not None:
            del self._jobs[digest]


class HttpSessions:
    """Those of one host. Memory: `max_sessions` of them at most."""

    def __init__(self, node: HostNode, tokens: SessionTokens | None = None) -> None:
        self._node = node
        self._tokens: SessionTokens = tokens or DrawnTokens()
        self._open: dict[JobId, HttpSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<HttpSessions {len(self._open)}>"

    async def open(self, hello: SessionInit | SessionResume) -> tuple[str, HttpSession, SessionReady]:
        """Begin or go on, and a token for it. A session of the same job that stands gets another conversation and another token.
        Raises what admission raises."""
        job = job_of(hello.job_id)
        session = self._open.get(job)
        if session is not None and session.transport.gone is None:
            ready = await session.greet(hello)
        else:
            session = self._connect(job)
            try:
                ready = await session.greet(hello)
            except BaseException:
                session.transport.abort()
                raise
            self._open[job] = session  # only now: whoever cannot sign for a job is in nobody's way
        return self._tokens.issue(job, SessionId(ready.session_id)), session, ready

    def find(self, token: str) -> HttpSession:
        """Raises Refused (`session_unauthorized`) for a token that stands for none."""
        job = self._tokens.find(token)
        session = self._open.get(job) if job is not None else None
        if session is None or session.transport.gone is not None:
            raise error(
                "session_unauthorized", "the token stands for no session; begin or resume one with POST /v1/sessions"
            )
        session.used_at = self._node.clock.monotonic()
        return session

    def view(self, session: HttpSession) -> SessionView:
        """Where it stands, by the job's log."""
        ledger = self._node.book.get(session.job)
        if ledger is None:
            raise error("job_closed")
        return SessionView(
            ready=session.ready,
            answering=session.answering,
            message_index=ledger.message_index,
            tokens_served=ledger.served,
            tokens_acknowledged=ledger.acknowledged,
            receipt=session.receipt,
            payment_required=session.payment,
        )

    # -- inside ------------------------------------------------------------------------------------------------------------

    def _connect(self, job: JobId) -> HttpSession:
        if self._node.draining:
            raise error("draining")
        most = self._node.settings.max_sessions
        if len(self._tasks) >= most:
            raise error("capacity", f"{len(self._tasks)} sessions of {most}")
        session = HttpSession(job, self._node.clock.monotonic())
        task = asyncio.create_task(self._serve(session), name="http session")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return session

    async def _serve(self, session: HttpSession) -> None:
        """Until the connection is over."""
        watching = asyncio.create_task(self._watch(session))
        try:
            await self._node.connect(session.transport)
        except FabstirError as fault:
            log.info("session_refused", code=fault.code)
        finally:
            watching.cancel()
            await session.transport.close("ended")
            if self._open.get(session.job) is session:
                del self._open[session.job]
                self._tokens.revoke(session.job)

    async def _watch(self, session: HttpSession) -> None:
        """Let go of a session that nobody uses."""
        clock = self._node.clock
        while True:
            await clock.sleep(IDLE_SECONDS / LOOKS)
            if session.busy:
                session.used_at = clock.monotonic()
            elif clock.monotonic() - session.used_at >= IDLE_SECONDS:
                session.transport.abort()
                return
