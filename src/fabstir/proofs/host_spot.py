"""`HostSpot`: the `Prover` of a host that proves with `spot`: traces what was served as its checkpoint closes, commits the traces, and
opens the one that a challenge draws.

Decides what may be committed as traces: records that `SamplingRule` will take, of answers that this process gave and traced in time.
Everything else is committed with `bind` (`weaker`), and the commitment says why. Tracing never has more than a share of the time, so that
a host that serves faster than it traces settles no later. Whether the traces agree with the registered head is not looked at here: where
they do not, there is no proof. What `spot` shows and does not show: docs/explanation/proofs.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Hash32
from fabstir.ports.clock import Clock
from fabstir.ports.prover import Commitment, ProofBundle, ProofStatement
from fabstir.ports.tracer import Tracer
from fabstir.proofs import bind
from fabstir.proofs.known import KnownCommitments
from fabstir.proofs.process import EzklProver
from fabstir.proofs.spot_prover import Head, SpotProver
from fabstir.protocol import spot, spot_proof
from fabstir.protocol.head_tree import POINT
from fabstir.protocol.held_records import HeldAnswer, HeldRecords, HeldTrace
from fabstir.protocol.sampling import drawn_within_bounds, read_record
from fabstir.protocol.spot import SpotVector, TokenTrace
from fabstir.protocol.transcript import RECORD_TAG

DEADLINE_SECONDS: Final = 60.0
"""For the traces of one checkpoint; 256 tokens take 3 CPU-seconds and a prefill."""
WINDOW_SECONDS: Final = 60.0
SHARE: Final = 0.5
"""Of the last WINDOW_SECONDS that traces may have taken; who comes then is committed with `bind`, at once."""


class HostSpot:
    """Owns the processes of both circuits and of the tracer. Memory: what `held` holds."""

    def __init__(
        self, prover: EzklProver, spot_prover: SpotProver, tracer: Tracer, head: Head, held: HeldRecords, clock: Clock
    ) -> None:
        """`prover` works both circuits; `head` is the registered one of the model that is served; `held` holds words."""
        self._prover: Final = prover
        self._spot: Final = spot_prover
        self._tracer: Final = tracer
        self._head: Final = head
        self._held: Final = held
        self._clock: Final = clock
        self._known: Final = KnownCommitments()
        """Commitments to traces that this process made."""
        self._traced: Final[deque[tuple[float, float]]] = deque()
        """(end, seconds) of what was traced within the window."""

    def __repr__(self) -> str:
        return f"<HostSpot [{self.circuit_id.hex()[:8]}] {self._prover!r} {self._tracer!r}>"

    @property
    def circuit_id(self) -> Hash32:
        return self._spot.circuit_id

    @property
    def circuit(self) -> str:
        return "ezkl/spot"

    @property
    def weaker(self) -> EzklProver:
        """`bind`: for checkpoints that were committed without traces."""
        return self._prover

    async def start(self) -> None:
        """Start the processes. Raises LocalFault."""
        await self._prover.start()
        await self._tracer.start()

    async def stop(self) -> None:
        """Idempotent."""
        await self._tracer.stop()
        await self._prover.stop()

    async def health(self) -> str:
        return await self._prover.health()

    # -- commitments -----------------------------------------------------------------------------------------------------

    async def commit(self, records: tuple[bytes, ...]) -> Commitment:
        """As `Prover.commit`; by the weaker circuit where there are no traces, which `Commitment.weaker` then says."""
        bind.record_values(records)
        try:
            await asyncio.to_thread(self._require_provable, records)
            await self._trace(records)
        except FabstirError as fault:
            made = await self._prover.commit(records)
            return Commitment(made.digest, made.opening, weaker=f"{fault.code}: {fault.detail}")
        digest = await asyncio.to_thread(self._committed, records)
        if digest is None:
            made = await self._prover.commit(records)
            return Commitment(made.digest, made.opening, weaker="the traces do not fit into memory")
        self._known.add(digest)
        return Commitment(digest, opening=digest)

    async def provable(self, commitment: Hash32, records: tuple[bytes, ...]) -> bool:
        """As `Prover.provable`."""
        held = commitment in self._known and all(self._held.trace_of(digest) is not None for digest in records)
        return held or await self._prover.provable(commitment, records)

    def _require_provable(self, records: tuple[bytes, ...]) -> None:
        """Raises LocalFault (`preimages_missing`, `proof_failed`) where no proof could follow, whatever is drawn."""
        for place, digest in enumerate(records):
            preimage = self._held.find(digest)
            if preimage is None or self._held.answer_of(digest) is None:
                raise error("preimages_missing", f"record {place} of the checkpoint was not served by this process")
            opened = preimage.removeprefix(RECORD_TAG)
            record = read_record(opened)
            if not drawn_within_bounds(record, record.sampler):
                raise error("proof_failed", f"record {place} of the checkpoint is outside its sampler's bounds")
            try:
                spot.checked_rows(opened, Hash32(bytes(32)))
            except ValueError as fault:
                raise error("proof_failed", f"record {place} of the checkpoint: {fault}") from fault

    async def _trace(self, records: tuple[bytes, ...]) -> None:
        """Hold the traces of all records. Raises FabstirError where that is not possible or takes too long."""
        wanted = [digest for digest in records if self._held.trace_of(digest) is None]
        if not wanted:
            return
        began = self._clock.monotonic()
        if self._spent(began) >= SHARE * WINDOW_SECONDS:
            raise error("prover_unavailable", f"traces took {SHARE:.0%} of the last {WINDOW_SECONDS:g} s")
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                for answer, places in self._by_answer(wanted):
                    await self._trace_answer(answer, places)
        except TimeoutError as late:
            raise error("prover_unavailable", f"no traces within {DEADLINE_SECONDS:g} s") from late
        finally:
            ended = self._clock.monotonic()
            self._traced.append((ended, ended - began))

    def _spent(self, now: float) -> float:
        while self._traced and self._traced[0][0] < now - WINDOW_SECONDS:
            self._traced.popleft()
        return sum(seconds for _, seconds in self._traced)

    def _by_answer(self, digests: Sequence[bytes]) -> list[tuple[HeldAnswer, list[int]]]:
        """The answers that these belong to, in order, and their places there."""
        found: list[tuple[HeldAnswer, list[int]]] = []
        for digest in digests:
            of = self._held.answer_of(digest)
            if of is None:
                raise error("preimages_missing", "a record was dropped meanwhile")
            if not found or found[-1][0] is not of[0]:
                found.append((of[0], []))
            found[-1][1].append(of[1])
        return found

    async def _trace_answer(self, answer: HeldAnswer, places: list[int]) -> None:
        first, digests = places[0], answer.digests[: places[-1] + 1]
        preimages = [self._held.find(digest) for digest in digests]
        opened = tuple(preimage.removeprefix(RECORD_TAG) for preimage in preimages if preimage is not None)
        if len(opened) != len(digests):
            raise error("preimages_missing", "the beginning of an answer is not held any more")
        traced = await self._tracer.trace(answer.messages, answer.prefix, opened, first)
        salts = [spot.hidden_salt(answer.salt, read_record(record).index) for record in opened[first:]]
        states = [spot.unpacked(hidden) for hidden in traced.hidden]
        points = await self._spot.points([SpotVector(*pair) for pair in zip(states, salts, strict=True)])
        for place, digest in enumerate(digests[first:]):
            point = points[place * POINT : (place + 1) * POINT]
            self._held.keep_trace(digest, HeldTrace(traced.hidden[place], traced.denominators[place], point))

    # -- proofs ----------------------------------------------------------------------------------------------------------

    async def prove(self, statement: ProofStatement, records: tuple[bytes, ...]) -> ProofBundle:
        """As `Prover.prove`: `preimages_missing` also where the checkpoint was committed with `bind`; `proof_failed` where the head does
        not make of a state what the record says."""
        if await asyncio.to_thread(self._committed, records) != statement.commitment:
            raise error("preimages_missing", "of this checkpoint there are no traces")
        drawn = spot_proof.position_of(statement.words, statement.seed)
        traces = [self._token(digest, whole=place == drawn) for place, digest in enumerate(records)]
        points = b"".join(trace.point for digest in records if (trace := self._held.trace_of(digest)) is not None)
        held = [trace for trace in traces if trace is not None]
        return await self._spot.prove(statement, statement.words, held, points, self._head)

    async def verify(self, statement: ProofStatement, bundle: ProofBundle) -> bool:
        """What the chain would say."""
        return await self._spot.verify(statement, bundle, self._head.commitment)

    def _token(self, digest: bytes, *, whole: bool = False) -> TokenTrace | None:
        """What is committed of one record; its state only where it is wanted `whole`."""
        trace, preimage, of = self._held.trace_of(digest), self._held.find(digest), self._held.answer_of(digest)
        if trace is None or preimage is None or of is None:
            return None
        record = preimage.removeprefix(RECORD_TAG)
        hidden = spot.unpacked(trace.hidden) if whole else ()
        salt = spot.hidden_salt(of[0].salt, read_record(record).index) if whole else b""
        return TokenTrace(hidden, trace.denominator, record, salt)

    def _committed(self, records: tuple[bytes, ...]) -> Hash32 | None:
        """The commitment to the traces of these; None where not all of them are held."""
        tokens = [token for digest in records if (token := self._token(digest)) is not None]
        points = [trace.point for digest in records if (trace := self._held.trace_of(digest)) is not None]
        if len(tokens) != len(records):
            return None
        try:
            return spot.commit(tokens, b"".join(points))
        except ValueError:  # records that do not follow each other
            return None
