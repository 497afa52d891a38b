"""`EzklProver`: the `Prover` of `fabstir.ports.prover` with the `bind` circuit, worked in a process of its own.

Decides the order of the work (commitments first: a session waits for them), what a crash means (restart with back-off;
the job at work is tried once more, then fails with `prover_unavailable`) and what a silent worker means (killed at the
deadline). Never imports ezkl. What a proof shows and does not show: docs/explanation/proofs.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import structlog

from fabstir.domain.errors import FabstirError, LocalFault, error
from fabstir.domain.ids import Hash32
from fabstir.ports.prover import Commitment, ProofBundle, ProofStatement
from fabstir.proofs import bind
from fabstir.proofs.child import END_SECONDS, Child, ChildGone
from fabstir.proofs.circuit import Circuit, load_circuit
from fabstir.proofs.frames import (
    CommitJob,
    Committed,
    Fault,
    Job,
    Proved,
    ProveJob,
    Reply,
    SpotCommitJob,
    SpotProveJob,
    SpotVerifyJob,
    Verified,
    VerifyJob,
)
from fabstir.proofs.known import KnownCommitments

log = structlog.get_logger()

DEVELOPMENT_CHAIN: Final = 31337
CAPACITY: Final = 32
"""Jobs that wait or work at the same time; further callers wait before they enter. 32 proofs are 5 s of work."""
DEADLINE_SECONDS: Final = 60.0
"""For one job, waiting included. A proof takes 0.15 s; the challenge stays open for 256 blocks (8.5 minutes on Base)."""
ATTEMPTS: Final = 2
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 10.0

_PRIORITY: Final[dict[type[Job], int]] = {
    CommitJob: 0,
    VerifyJob: 1,
    SpotVerifyJob: 1,
    ProveJob: 2,
    SpotProveJob: 2,
    SpotCommitJob: 3,  # in bulk, when nobody waits
}
_NOTICE: Final = -1
"""Priority of the ticket without a job that wakes the dispatcher when the worker is gone."""

R = TypeVar("R", bound=Reply)


@dataclass(order=True)
class _Ticket:
    priority: int
    number: int
    job: Job | None = field(compare=False)
    answer: asyncio.Future[Reply] = field(compare=False)
    attempts: int = field(default=0, compare=False)


class EzklProver:
    """Memory: CAPACITY jobs of at most 10 KiB here, and the worker's 70 MB."""

    def __init__(
        self,
        *,
        chain_id: int,
        cache: Path,
        circuit: Circuit | None = None,
        capacity: int = CAPACITY,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        """`cache`: for proving keys and scratch files; provers may share it. Raises LocalFault (`srs_development_only`,
        `circuit_mismatch`)."""
        self._circuit = circuit or load_circuit()
        if self._circuit.for_development and chain_id != DEVELOPMENT_CHAIN:
            raise error("srs_development_only", detail=f"circuit {self._circuit.manifest.name}, chain id {chain_id}")
        self._cache = cache
        self._known = KnownCommitments()
        self._deadline = deadline_seconds
        self._slots = asyncio.Semaphore(capacity)
        self._queue: asyncio.PriorityQueue[_Ticket] = asyncio.PriorityQueue()  # at most `capacity` live tickets
        self._numbers = itertools.count()
        self._child: Child | None = None
        self._current: _Ticket | None = None
        self._dispatcher: asyncio.Task[None] | None = None
        self._trouble = "not started"
        self._restarts = 0
        self._pause = FIRST_PAUSE_SECONDS

    def __repr__(self) -> str:
        at_work = 0 if self._current is None else 1
        return (
            f"<EzklProver [{self._circuit.manifest.name} {self.circuit_id.hex()[:8]}, {self._trouble or 'ok'} | "
            f"{at_work} at work, {self._queue.qsize()} waiting, {self._restarts} restarts]>"
        )

    @property
    def circuit_id(self) -> Hash32:
        return self._circuit.circuit_id

    @property
    def circuit(self) -> str:
        return "ezkl/bind"

    @property
    def weaker(self) -> None:
        """This circuit needs nothing but the records itself."""

    @property
    def pid(self) -> int | None:
        """Process id of the worker, while there is one."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Build or load the keys and start the process. Idempotent. Raises LocalFault."""
        if self._dispatcher is None:
            await self._spawn()
            self._dispatcher = asyncio.create_task(self._dispatch())

    async def stop(self) -> None:
        """End the process; whoever waits gets `prover_unavailable`. Idempotent."""
        dispatcher, self._dispatcher, self._trouble = self._dispatcher, None, "stopped"
        if dispatcher is None:
            return
        dispatcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await dispatcher
        self._fail_waiting()
        if self._child:
            child, self._child = self._child, None
            await child.end()

    async def commit(self, records: tuple[bytes, ...]) -> Commitment:
        """As `Prover.commit`. Raises ValueError on a wrong number or size of records (a programmer error)."""
        bind.record_values(records)
        opening = (await self.ask(CommitJob(records), Committed)).opening
        made = Commitment(bind.digest(opening), opening)
        self._known.add(made.digest)
        return made

    async def provable(self, commitment: Hash32, records: tuple[bytes, ...]) -> bool:
        """As `Prover.provable`: whether it is a commitment of this circuit."""
        return commitment in self._known or (await self.commit(records)).digest == commitment

    async def prove(self, statement: ProofStatement, records: tuple[bytes, ...]) -> ProofBundle:
        """As `Prover.prove`; the proof was verified before it is returned. Raises ValueError as `commit`."""
        bind.record_values(records)
        if not bind.is_statement(statement):
            raise ValueError("a statement is three words of 32 bytes")
        return ProofBundle(self.circuit_id, (await self.ask(ProveJob(statement, records), Proved)).proof)

    async def verify(self, statement: ProofStatement, bundle: ProofBundle) -> bool:
        """Whether the chain would accept `bundle`; False whatever is wrong with it. Raises LocalFault (`prover_unavailable`)."""
        if (
            not bind.is_statement(statement)
            or bundle.circuit_id != self.circuit_id
            or bind.decode_proof(bundle.proof) is None
        ):
            return False
        return (await self.ask(VerifyJob(statement, bundle.proof), Verified)).valid

    async def health(self) -> str:
        """`ok`, or what is wrong. Never raises."""
        if self._dispatcher and self._dispatcher.done():
            return "the dispatcher ended by itself; see the log"
        return self._trouble or "ok"

    # -- asking ----------------------------------------------------------------------------------------------------------

    async def ask(self, job: Job, kind: type[R]) -> R:
        """One job of any circuit, for `fabstir.proofs.spot_prover`. Raises LocalFault (`prover_unavailable`, what the worker says)."""
        try:
            async with asyncio.timeout(self._deadline), self._slots:
                if self._dispatcher is None:
                    raise error("prover_unavailable", detail=self._trouble)
                answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
                self._queue.put_nowait(_Ticket(_PRIORITY[type(job)], next(self._numbers), job, answer))
                reply = await answer
        except TimeoutError as problem:
            raise error("prover_unavailable", detail=f"no answer within {self._deadline:g} s") from problem
        if isinstance(reply, Fault):
            raise error(reply.code, detail=reply.detail)
        if not isinstance(reply, kind):
            raise error("prover_unavailable", detail=f"{type(reply).__name__} instead of {kind.__name__}")
        return reply

    # -- the dispatcher: the only one who speaks to the worker -----------------------------------------------------------

    async def _dispatch(self) -> None:
        while True:
            child = await self._living_child()
            ticket = await self._queue.get()
            if ticket.job is not None and not ticket.answer.done():
                self._current = ticket
                await self._work(child, ticket, ticket.job)
                self._current = None

    async def _work(self, child: Child, ticket: _Ticket, job: Job) -> None:
        ticket.attempts += 1
        try:
            async with asyncio.timeout(self._deadline):
                reply = await child.exchange(job)
        except (ChildGone, TimeoutError) as problem:
            silent = isinstance(problem, TimeoutError)
            await self._bury(child, f"was silent for {self._deadline:g} s" if silent else "crashed", kill=silent)
            if silent or ticket.attempts >= ATTEMPTS:
                _settle(ticket, Fault("prover_unavailable", self._trouble))
            else:
                self._queue.put_nowait(ticket)  # keeps its number, so it is next among its kind
        else:
            self._pause = FIRST_PAUSE_SECONDS
            _settle(ticket, reply)

    async def _living_child(self) -> Child:
        """The worker, after starting another one where it is gone. A start that fails fails everyone who waits."""
        if self._child and not self._child.alive:
            await self._bury(self._child, "ended", kill=False)
        while self._child is None:
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
            self._restarts += 1
            try:
                await self._spawn()
            except LocalFault as problem:
                self._trouble = f"cannot be restarted: {problem}"
                log.error("prover_start_failed", code=problem.code, reason=problem.detail, retry_in_s=self._pause)
                self._fail_waiting(problem)
        return self._child

    async def _spawn(self) -> None:
        self._child = await Child.spawn(self._circuit, self._cache)
        self._child.when_gone(self._notice)
        self._trouble = ""
        log.info("prover_started", circuit=self.circuit_id.hex(), pid=self._child.pid, restarts=self._restarts)

    def _notice(self) -> None:
        if self._dispatcher is None:
            return
        self._queue.put_nowait(_Ticket(_NOTICE, next(self._numbers), None, asyncio.get_running_loop().create_future()))

    async def _bury(self, child: Child, what: str, *, kill: bool) -> None:
        how = await child.end(grace=0 if kill else END_SECONDS)
        self._child, self._trouble = None, f"restarting: the process {what} ({how})"
        log.warning("prover_gone", reason=what, detail=how, restarts=self._restarts)

    def _fail_waiting(self, problem: FabstirError | None = None) -> None:
        tickets = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
        if self._current:
            tickets.append(self._current)
            self._current = None
        code, detail = (problem.code, problem.detail) if problem else ("prover_unavailable", self._trouble)
        for ticket in tickets:
            _settle(ticket, Fault(code, detail))


def _settle(ticket: _Ticket, reply: Reply) -> None:
    if not ticket.answer.done():  # the caller may have left
        ticket.answer.set_result(reply)
