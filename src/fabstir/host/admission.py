"""Asks the chain and remembers nonces, so that `fabstir.protocol.admission` can decide.

One read of the chain for each session, one use of each authorisation. Never serves and never writes: what it returns is
the first event of the job's log, for `JobBook.admit`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, JobId, SessionId, from_hex
from fabstir.domain.terms import Terms
from fabstir.host.nonces import NonceCache
from fabstir.host.reconnect_tokens import ReconnectTokens
from fabstir.ports.chain import MarketChain
from fabstir.ports.clock import Clock
from fabstir.protocol.admission import AUTH_WINDOW_SECONDS, check, check_auth, check_terms
from fabstir.protocol.host_log import HostLedger, JobAdmitted
from fabstir.protocol.messages import SessionInit, SessionResume, job_of
from fabstir.protocol.offer import Offer
from fabstir.protocol.session_tokens import Subject

Hello = SessionInit | SessionResume


class Admission:
    """From `session_init` or `session_resume` to a job that may be served."""

    def __init__(
        self, chain: MarketChain, offer: Callable[[], Offer], clock: Clock, tokens: ReconnectTokens | None = None
    ) -> None:
        """`offer`: what is offered now. `tokens`: None where none are given."""
        self.tokens: Final = tokens
        self._chain = chain
        self._offer = offer
        self._clock = clock
        self._nonces = NonceCache()

    def identify(self, hello: Hello, *, sealed: bool = False) -> JobId:
        """Who asks for what, by a signature, or by a token where the connection is `sealed`; that is used up by this. Raises Refused
        (`job_terms_mismatch`, `session_unauthorized`, `session_token_invalid`)."""
        job, terms = job_of(hello.job_id), hello.terms.terms()
        check_terms(terms, job)
        session = SessionId(hello.session_id)
        if hello.auth is not None:
            check_auth(self._offer().market, job, session, hello.auth, terms.signer, self._clock.now())
        elif hello.token is not None:
            self._redeem(hello.token, self.subject(terms, job, session), sealed=sealed)
        else:
            raise error("session_unauthorized", "neither a signature nor a token")
        return job

    def subject(self, terms: Terms, job: JobId, session: SessionId) -> Subject:
        """For whom and what a token is."""
        return Subject(host=terms.host, market=self._offer().market, signer=terms.signer, job=job, session=session)

    def _redeem(self, token: str, subject: Subject, *, sealed: bool) -> None:
        if self.tokens is None or not sealed:
            raise error("session_token_invalid", "tokens are taken in an encrypted channel only")
        if subject.host != self._offer().host:
            raise error("session_token_invalid", "it is of another host or market")
        self.tokens.redeem(token, subject)

    def recognise(self, hello: Hello, known: HostLedger | None) -> HostLedger:
        """The job of somebody who came with a token: the chain was looked at when it was given, and is followed since. Raises Refused
        (`session_token_invalid`, `job_expired`)."""
        if known is None:
            raise error("session_token_invalid", "this host does not serve the job any more")
        left, least = int(known.terms.expires_at - self._clock.now()), self._offer().min_seconds_left
        if left < least:
            raise error("job_expired", f"{left} s left, at least {least} s")
        return known

    def use_nonce(self, hello: Hello) -> None:
        """The authorisation is used up by this. Raises Refused (`session_unauthorized`, `capacity`)."""
        if hello.auth is None:
            return
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
