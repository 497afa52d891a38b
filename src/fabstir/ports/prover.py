"""Commitments and proofs about token records, behind one interface for every circuit and back end.

The host commits each checkpoint as it closes, long before any challenge is known; at redemption one checkpoint is
challenged and one proof is made. What a proof shows and does not show: docs/explanation/proofs.md.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from fabstir.domain.ids import Hash32
from fabstir.protocol.commitments import CHECKPOINT_TOKENS

__all__ = ["CHECKPOINT_TOKENS", "Commitment", "ProofBundle", "ProofStatement", "Prover"]


class Commitment(msgspec.Struct, frozen=True):
    """A checkpoint's records, committed. `digest` is what the Merkle-sum tree holds: for ezkl, keccak-256 of the KZG point of the
    record vector (64 bytes, big-endian x and y) and the records' sum modulo the field (32 bytes, big-endian)."""

    digest: Hash32
    opening: bytes
    """What the back end needs to recognise it again (for ezkl: point and sum, 96 bytes; for merkle: the digest). Not secret."""
    weaker: str = ""
    """Why it was made for `Prover.weaker` alone; empty where `Prover` itself proves it."""


class ProofStatement(msgspec.Struct, frozen=True):
    """Everything public about one proof. The contract computes the same two words from its own storage."""

    statement: Hash32
    """`fabstir.protocol.commitments.statement_hash`."""
    seed: Hash32
    """The challenge: keccak-256 of a block hash that nobody knew at commitment, and of the statement's commitment."""
    commitment: Hash32
    """Digest of the challenged checkpoint."""
    words: bytes = b""
    """`fabstir.protocol.commitments.statement_words`, which `statement` is the hash of: for circuits that speak of the model."""


class ProofBundle(msgspec.Struct, frozen=True):
    """What goes on chain."""

    circuit_id: Hash32
    proof: bytes
    """As the circuit's adapter contract decodes it."""


class Prover(Protocol):
    """One circuit of one back end. A back end that opens records finds what they were hashed from by itself
    (`fabstir.protocol.held_records`): nobody else needs it."""

    @property
    def circuit_id(self) -> Hash32:
        """The pin under which `ProofSystem` knows the verifier: SHA-256 of the verification key, or of the circuit's versioned name where
        there is no key."""
        ...

    @property
    def circuit(self) -> str:
        """Back end and circuit, as offer and health tell it: `ezkl/bind`, `merkle/sample`."""
        ...

    @property
    def weaker(self) -> Prover | None:
        """Another circuit over the same commitments, which needs nothing but the records and shows less: for where `prove` says
        `preimages_missing`. None: there is none. It needs no start of its own."""
        ...

    async def start(self) -> None:
        """Build or load the keys (once, under a lock) and start the process, where there are any. Raises LocalFault."""
        ...

    async def stop(self) -> None:
        """Idempotent."""
        ...

    async def commit(self, records: tuple[bytes, ...]) -> Commitment:
        """Commit 1 to CHECKPOINT_TOKENS record digests (32 bytes each; deterministic). Raises LocalFault (`prover_unavailable`)."""
        ...

    async def provable(self, commitment: Hash32, records: tuple[bytes, ...]) -> bool:
        """Whether this prover or its weaker one can still prove the checkpoint of `records` that was committed so. Raises LocalFault
        (`prover_unavailable`)."""
        ...

    async def prove(self, statement: ProofStatement, records: tuple[bytes, ...]) -> ProofBundle:
        """Prove. Raises LocalFault (`prover_unavailable`, `preimages_missing`, `proof_failed`), also where `records` do not match
        `statement.commitment`."""
        ...

    async def verify(self, statement: ProofStatement, bundle: ProofBundle) -> bool:
        """Check without the chain."""
        ...

    async def health(self) -> str:
        """`ok`, or what is wrong. Never raises."""
        ...
