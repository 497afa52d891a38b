"""Makes the proofs of one host: by its circuit, or by the weaker one where what the circuit opens is gone.

A statement names the circuit that it is proven by, so it is made here, for the circuit at hand. The circuit is changed for one reason only,
`preimages_missing`, and never in silence: whoever commits for the weaker one, or submits a proof by it, says so, and it is logged and
counted for each job. Submits nothing. What the circuits show: docs/explanation/proofs.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32, JobId
from fabstir.ops.metrics import Metrics
from fabstir.ports.chain import ProofArgs, SumNodeArgs
from fabstir.ports.clock import Clock
from fabstir.ports.prover import ProofBundle, ProofStatement, Prover
from fabstir.protocol.commitments import SumNode, SumPath
from fabstir.protocol.epochs import EpochSession
from fabstir.protocol.host_log import CommitmentMade, HostLedger
from fabstir.protocol.signing import keccak

log = structlog.get_logger("fabstir.settler")

WordsOf = Callable[[Hash32], bytes]
"""What the statement for the circuit with this id is the hash of."""


class Proving:
    """Of one host. Memory: the ids of open jobs that were committed for, or proven by, the weaker circuit."""

    def __init__(self, prover: Prover, clock: Clock) -> None:
        self._prover: Final = prover
        self._clock = clock
        self._weaker: set[JobId] = set()
        self.weaker = 0
        """Jobs that were committed for the weaker circuit, at least in part, or proven by it."""

    def __repr__(self) -> str:
        return f"<Proving by {self._prover.circuit}, {self.weaker} jobs by a weaker circuit>"

    async def prove(
        self,
        ledger: HostLedger,
        committed: CommitmentMade | EpochSession,
        path: SumPath,
        seed: Hash32,
        words_of: WordsOf,
    ) -> tuple[ProofArgs, float]:
        """The challenged checkpoint at the end of `path`, proven, and the seconds that it took. Raises as `Prover.prove`."""
        records = ledger.records_between(path.tokens_before, path.checkpoint.tokens)
        began = self._clock.monotonic()

        def by(prover: Prover) -> ProofStatement:
            words = words_of(prover.circuit_id)
            return ProofStatement(keccak(words), seed, path.checkpoint.commitment, words)

        bundle = await prove_by(self._prover, by, records)
        seconds = self._clock.monotonic() - began
        proof = ProofArgs(
            circuit_id=bundle.circuit_id,
            tree_root=committed.tree_root,
            head=committed.head,
            tokens=committed.tokens,
            checkpoint_tokens=path.checkpoint.tokens,
            commitment=path.checkpoint.commitment,
            path=siblings_of(path.siblings),
            proof=bundle.proof,
        )
        return proof, seconds

    def accepted(self, proof: ProofArgs, job: JobId, metrics: Metrics) -> None:
        """The contract took `proof` for `job`; a job that is proven twice counts once."""
        weaker = self._prover.weaker
        if weaker is not None and proof.circuit_id == weaker.circuit_id:
            self._count(weaker, job, "the challenged checkpoint cannot be opened", metrics)

    def committed_weaker(self, job: JobId, reason: str, metrics: Metrics) -> None:
        """A checkpoint of `job` was committed for the weaker circuit."""
        if self._prover.weaker is not None:
            self._count(self._prover.weaker, job, reason, metrics)

    def _count(self, weaker: Prover, job: JobId, reason: str, metrics: Metrics) -> None:
        if job in self._weaker:
            return
        self._weaker.add(job)
        self.weaker += 1
        metrics.weaker_proofs.inc()
        log.warning("proof_weaker", job_id=job, circuit=weaker.circuit, reason=reason)

    def keep(self, jobs: set[JobId]) -> None:
        """Forget every job that is not in `jobs`."""
        self._weaker &= jobs


async def prove_by(
    prover: Prover, statement_of: Callable[[Prover], ProofStatement], records: tuple[bytes, ...]
) -> ProofBundle:
    """By `prover`, or by its weaker circuit where what it opens is gone. Raises as `Prover.prove`."""
    try:
        return await prover.prove(statement_of(prover), records)
    except FabstirError as fault:
        if fault.code != "preimages_missing" or prover.weaker is None:
            raise
        return await prover.weaker.prove(statement_of(prover.weaker), records)


def siblings_of(nodes: tuple[SumNode, ...]) -> tuple[SumNodeArgs, ...]:
    """A path, ready for the contract."""
    return tuple(SumNodeArgs(node.hash, node.tokens, node.left) for node in nodes)
