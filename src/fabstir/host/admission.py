"""Asks the chain and remembers nonces, so that `fabstir.protocol.admission` can decide.

One read of the chain for each session, one use of each authorisation. Never serves and never writes: what it returns is
the first event of the job's log, for `JobBook.admit`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, JobId, SessionId, from_hex
from fabstir.ports.chain import MarketChain
from fabstir.ports.clock import Clock
from fabstir.protocol.admission import AUTH_WINDOW_SECONDS, check, check_auth, check_terms
from fabstir.protocol.host_log import HostLedger, JobAdmitted
from fabstir.protocol.messages import SessionInit, SessionResume, job_of
from fabstir.protocol.offer import Offer

Hello = SessionInit | SessionResume

NONCES_KEPT: Final = 65_536
"""About 270 new sessions a second for the two windows that a nonce is remembered."""


class NonceCache:
    """Nonces of authorisations that are still valid, each good for one use.

    Memory: NONCES_KEPT entries; when full, new ones are refused rather than old ones forgotten.
    """

    def __init__(self, limit: int = NONCES_KEPT) -> None:
        self._limit = limit
        self._used: set[tuple[JobId, Hash32]] = set()
        self._expiry: list[tuple[float, tuple[JobId, Hash32]]] = []

    def __repr__(self) -> str:
        return f"<NonceCache {len(self._used)} of {self._limit}>"

    def use(self, job: JobId, nonce: Hash32, expires_at: float, now: float) -> None:
        """Raises Refused (`session_unauthorized`) where it was used before, (`capacity`) where too many are remembered."""
        while self._expiry and self._expiry[0][0] < now:
            self._used.discard(heapq.heappop(self._expiry)[1])
        entry = (job, nonce)
        if entry in self._used:
            raise error("session_unauthorized", "this nonce was used before")
        if len(self._used) >= self._limit:
            raise error("capacity", f"{self._limit} authorisations in four minutes")
        self._used.add(entry)
        heapq.heappush(self._expiry, (expires_at, entry))


class Admission:
    """From `session_init` or `session_resume` to a job that may be served."""

    def __init__(self, chain: MarketChain, offer: Callable[[], Offer], clock: Clock) -> None:
        """`offer`: what is offered now."""
        self._chain = chain
        self._offer = offer
        self._clock = clock
        self._nonces = NonceCache()

    def identify(self, hello: Hello) -> JobId:
        """Who asks for what, by signatures alone. Raises Refused (`job_terms_mismatch`, `session_unauthorized`)."""
        job, terms = job_of(hello.job_id), hello.terms.terms()
        check_terms(terms, job)
        session = SessionId(hello.session_id)
        check_auth(self._offer().market, job, session, hello.auth, terms.signer, self._clock.now())
        return job

    def use_nonce(self, hello: Hello) -> None:
        """The authorisation is used up by this. Raises Refused (`session_unauthorized`, `capacity`)."""
        nonce = Hash32(from_hex(hello.auth.nonce, 32))
        self._nonces.use(job_of(hello.job_id), nonce, hello.auth.issued_at + AUTH_WINDOW_SECONDS, self._clock.now())

    async def examine(self, hello: Hello, known: HostLedger | None) -> JobAdmitted:
        """Check an identified job against the chain. Raises Refused (`job_*`, `deposit_exhausted`), ChainFault (`chain_unreachable`)."""
        job, terms = job_of(hello.job_id), hello.terms.terms()
        if self._chain.condition().sending == "key_in_use":
            raise error("capacity", "this host cannot collect what it would earn")
        state = await self._chain.job(job)
        now, offer = self._clock.now(), self._offer()
        check(terms, job, state, offer, now, known.acknowledged if known else None, hello.rung)
        self.use_nonce(hello)  # only now: nonces of jobs that do not exist must not fill the cache
        return JobAdmitted(terms, state.deposit, offer.market, now, offer.name_of(terms.model_id), hello.rung)
