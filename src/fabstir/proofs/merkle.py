"""The Merkle back end behind `fabstir.ports.prover.Prover`: openings of keccak-256 trees, no SNARK, no keys, no reference string.

In this process: a commitment or a proof is a few milliseconds of hashing, against a socket and a supervisor that would cost as much and
could fail; nothing here panics, holds the interpreter for long or reads a disk. The mathematics is `fabstir.protocol.openings`. `sample`
opens what records were hashed from, which only the process that served them knows (`HeldRecords`): after a restart it refuses with
`preimages_missing`, and `bind`, its weaker circuit, proves the same commitments. What the circuits show and what they give away:
docs/explanation/proofs.md.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.ports.prover import Commitment, ProofBundle, ProofStatement
from fabstir.proofs.known import KnownCommitments
from fabstir.protocol import openings
from fabstir.protocol.held_records import HeldRecords
from fabstir.protocol.sampling import drawn_within_bounds, read_record
from fabstir.protocol.transcript import RECORD_TAG

MerkleCircuit = Literal["bind", "sample"]
CIRCUIT_IDS: Final[dict[MerkleCircuit, Hash32]] = {
    "bind": openings.BIND_CIRCUIT,
    "sample": openings.SAMPLE_CIRCUIT,
}


class MerkleProver:
    """Holds no records of its own. Memory: one tree of at most 256 leaves while it proves."""

    def __init__(self, circuit: MerkleCircuit = "bind", held: HeldRecords | None = None) -> None:
        """`held`: where `sample` finds what records were hashed from."""
        self._circuit: Final = circuit
        self._reader: Final = openings.read_sampled if circuit == "sample" else openings.read_bound
        self._held: Final = held if held is not None else HeldRecords(0)
        self._known: Final = KnownCommitments()

    def __repr__(self) -> str:
        return f"<MerkleProver [{self._circuit} {self.circuit_id.hex()[:8]}]>"

    @property
    def circuit_id(self) -> Hash32:
        return CIRCUIT_IDS[self._circuit]

    @property
    def circuit(self) -> str:
        return f"merkle/{self._circuit}"

    @property
    def weaker(self) -> MerkleProver | None:
        return MerkleProver("bind") if self._circuit == "sample" else None

    async def start(self) -> None:
        """Nothing to build and nothing to start."""

    async def stop(self) -> None:
        """Nothing to end."""

    async def commit(self, records: tuple[bytes, ...]) -> Commitment:
        """As `Prover.commit`; the same for both circuits. Raises ValueError on a wrong number or size of records."""
        digest = openings.commit(records)
        self._known.add(digest)
        return Commitment(digest, opening=digest)

    async def provable(self, commitment: Hash32, records: tuple[bytes, ...]) -> bool:
        """As `Prover.provable`: `bind` needs nothing but the records."""
        if commitment not in self._known:
            self._known.add(await asyncio.to_thread(openings.commit, records))
        return commitment in self._known

    async def prove(self, statement: ProofStatement, records: tuple[bytes, ...]) -> ProofBundle:
        """As `Prover.prove`; deterministic, and verified before it is returned. Raises LocalFault (`proof_failed`, and for `sample`
        `preimages_missing`), ValueError as `commit`."""
        if openings.commit(records) != statement.commitment:
            raise error("proof_failed", detail="the records do not match the commitment")
        picked = openings.positions(statement.statement, statement.seed, len(records))
        opened = [self._opened(records[position], position) for position in picked]
        bundle = ProofBundle(self.circuit_id, openings.open_records(records, picked, opened))
        if not await self.verify(statement, bundle):
            raise error(
                "proof_failed", detail="the proof does not verify: the records of this checkpoint are out of order"
            )
        return bundle

    async def verify(self, statement: ProofStatement, bundle: ProofBundle) -> bool:
        """What the chain would say."""
        words = (statement.statement, statement.seed, statement.commitment)
        if bundle.circuit_id != self.circuit_id or any(len(word) != openings.DIGEST for word in words):
            return False
        return openings.verify(*words, bundle.proof, self._reader)

    async def health(self) -> str:
        return "ok"

    def _opened(self, digest: bytes, position: int) -> bytes:
        """One record as the circuit opens it."""
        if self._circuit == "bind":
            return digest
        preimage = self._held.find(digest)
        if preimage is None:
            raise error("preimages_missing", detail=f"record {position} of the challenged checkpoint")
        opened = preimage.removeprefix(RECORD_TAG)
        record = read_record(opened)
        if not drawn_within_bounds(record, record.sampler):
            raise error("proof_failed", detail=f"record {position} of the checkpoint is outside its sampler's bounds")
        return opened
