"""The `spot` circuit for whoever holds traces and a model's head: commits checkpoints, proves the token that a challenge draws.

Works through the process, queue and deadlines of an `EzklProver` that was started elsewhere; imports no ezkl. A proof is looked at as
the contract will look at it before it is handed out. What it shows and does not show: docs/explanation/proofs.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.ports.prover import ProofBundle, ProofStatement
from fabstir.proofs.circuit import SPOT_V1, Circuit, load_circuit
from fabstir.proofs.frames import SpotCommitJob, SpotCommitted, SpotProved, SpotProveJob, SpotVerifyJob, Verified
from fabstir.proofs.process import DEVELOPMENT_CHAIN, EzklProver
from fabstir.protocol import spot, spot_proof
from fabstir.protocol.head_tree import POINT
from fabstir.protocol.model_identity import HeadCommitment
from fabstir.protocol.spot import SpotVector, TokenTrace

BATCH: Final = 64
"""Vectors in one job: 0.6 CPU-s, so that a proof never waits longer for them."""


class Head(Protocol):
    """The output head of the model that is served (`fabstir.models.head`)."""

    @property
    def commitment(self) -> HeadCommitment:
        """As it is registered."""
        ...

    def row(self, token: int) -> tuple[int, ...]:
        """Quantised weights."""
        ...

    def path(self, token: int) -> bytes:
        """Siblings in the tree of the rows."""
        ...


class SpotProver:
    """Holds nothing but the circuit's name."""

    def __init__(self, prover: EzklProver, *, chain_id: int, circuit: Circuit | None = None) -> None:
        """Raises LocalFault (`srs_development_only`, `circuit_mismatch`)."""
        self._circuit = circuit or load_circuit(SPOT_V1)
        if self._circuit.for_development and chain_id != DEVELOPMENT_CHAIN:
            raise error("srs_development_only", detail=f"circuit {self._circuit.manifest.name}, chain id {chain_id}")
        self._prover = prover

    @property
    def circuit_id(self) -> Hash32:
        """As `ProofSystem` knows it."""
        return self._circuit.circuit_id

    async def points(self, vectors: Sequence[SpotVector]) -> bytes:
        """64 bytes for each vector; about 10 ms of work each. Raises LocalFault (`prover_unavailable`)."""
        made = bytearray()
        for at in range(0, len(vectors), BATCH):
            job = SpotCommitJob(tuple(vectors[at : at + BATCH]))
            made += (await self._prover.ask(job, SpotCommitted)).points
        return bytes(made)

    async def prove(
        self, statement: ProofStatement, words: bytes, traces: Sequence[TokenTrace], points: bytes, head: Head
    ) -> ProofBundle:
        """The proof for the checkpoint of `traces`, whose `points` were committed. `words`: `commitments.statement_words`.

        Raises LocalFault: `proof_failed` where traces, head or words are not those of the statement, `prover_unavailable`.
        """
        position = spot_proof.position_of(words, statement.seed)
        if not 0 <= position < len(traces):
            raise error("proof_failed", detail="the drawn token is not in this checkpoint")
        drawn = traces[position]
        try:
            rows = spot.checked_rows(drawn.record, statement.seed)
            tree = spot.tree_of(traces, [points[at : at + POINT] for at in range(0, len(points), POINT)])
            weights = tuple(SpotVector(head.row(row.token)) for row in rows)
            paths = b"".join(head.path(row.token) for row in rows)
        except (ValueError, IndexError) as fault:
            raise error("proof_failed", detail=str(fault)) from fault
        made = await self._prover.ask(SpotProveJob(statement, drawn.vector, weights), SpotProved)
        proof = spot_proof.SpotProof(
            words=words,
            first=spot.first_index(traces),
            denominator=drawn.denominator,
            record=drawn.record,
            trace_path=tree.path(position),
            dots=made.dots,
            row_paths=paths,
            halo2=made.halo2,
        )
        refused = spot_proof.judge(*_public(statement), proof, head.commitment)
        if refused:
            raise error("proof_failed", detail=refused)
        return ProofBundle(self.circuit_id, proof.encoded())

    async def verify(self, statement: ProofStatement, bundle: ProofBundle, head: HeadCommitment) -> bool:
        """Whether the chain would accept `bundle`, where `head` is the registered one of the statement's model; False whatever is wrong
        with it. Raises LocalFault (`prover_unavailable`)."""
        proof = spot_proof.decoded(bundle.proof) if bundle.circuit_id == self.circuit_id else None
        if proof is None or spot_proof.judge(*_public(statement), proof, head):
            return False
        return (await self._prover.ask(SpotVerifyJob(statement, proof.dots, proof.halo2), Verified)).valid


def _public(statement: ProofStatement) -> tuple[Hash32, Hash32, Hash32]:
    return statement.statement, statement.seed, statement.commitment
