"""A prover for tests of other parts: deterministic, in memory, and worth nothing as a proof.

It keeps the promises of `fabstir.ports.prover.Prover` that callers build on (records of one checkpoint, a commitment
that a proof must match, a verdict that depends on every public word), so that a caller's mistake fails here as it fails
with ezkl. Its `circuit_id` reads as ASCII that it is a test double; no `ProofSystem` on any chain knows it.
Specification: `fabstir.ports.prover`.
"""

from __future__ import annotations

import hmac
from typing import Final

from eth_utils.crypto import keccak

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.ports.prover import CHECKPOINT_TOKENS, Commitment, ProofBundle, ProofStatement

CIRCUIT_ID: Final = Hash32(b"TEST DOUBLE HashProver no proof!")
WEAKER_CIRCUIT_ID: Final = Hash32(b"TEST DOUBLE weaker HashProver!!!")


class HashProver:
    """Hashes where a real prover proves. Holds no records, so its memory is constant.

    Set `unavailable` to see what a caller does while the prover process is down, `forgetful` to see what it does where nothing can be
    opened any more. With `own` its commitments are its own, as those of `spot`: what it forgot it commits for the weaker one.
    """

    def __init__(self, circuit_id: Hash32 = CIRCUIT_ID, weaker: HashProver | None = None, *, own: bytes = b"") -> None:
        self.unavailable = False
        self.forgetful = False
        self._circuit_id = circuit_id
        self._weaker = weaker
        self._own = own
        self._running = False

    def __repr__(self) -> str:
        return f"<HashProver [test double, {'running' if self._running else 'stopped'}]>"

    @property
    def circuit_id(self) -> Hash32:
        return self._circuit_id

    @property
    def circuit(self) -> str:
        return "test/hash"

    @property
    def weaker(self) -> HashProver | None:
        return self._weaker

    async def start(self) -> None:
        self._running = True
        if self._weaker is not None:
            self._weaker._running = True

    async def stop(self) -> None:
        self._running = False
        if self._weaker is not None:
            self._weaker._running = False

    async def commit(self, records: tuple[bytes, ...]) -> Commitment:
        self._check_available()
        if self._own and self.forgetful and self._weaker is not None:
            made = await self._weaker.commit(records)
            return Commitment(made.digest, made.opening, weaker="forgotten by the test")
        return _commit(records, self._own)

    async def provable(self, commitment: Hash32, records: tuple[bytes, ...]) -> bool:
        self._check_available()
        if self._own and self._weaker is not None and await self._weaker.provable(commitment, records):
            return True
        return not (self._own and self.forgetful) and _commit(records, self._own).digest == commitment

    async def prove(self, statement: ProofStatement, records: tuple[bytes, ...]) -> ProofBundle:
        self._check_available()
        if self._own and (self.forgetful or _commit(records, self._own).digest != statement.commitment):
            raise error("preimages_missing", detail="forgotten by the test, or committed for the weaker circuit")
        if _commit(records, self._own).digest != statement.commitment:
            raise error("proof_failed", detail="the records do not match the commitment")
        if self.forgetful:
            raise error("preimages_missing", detail="forgotten by the test")
        return ProofBundle(self.circuit_id, _tag(statement))

    async def verify(self, statement: ProofStatement, bundle: ProofBundle) -> bool:
        self._check_available()
        return bundle.circuit_id == self.circuit_id and hmac.compare_digest(bundle.proof, _tag(statement))

    async def health(self) -> str:
        if self.unavailable:
            return "made unavailable by the test"
        return "ok" if self._running else "not started"

    def _check_available(self) -> None:
        if self.unavailable or not self._running:
            raise error("prover_unavailable", detail="test double made unavailable" if self._running else "not started")


def _commit(records: tuple[bytes, ...], own: bytes = b"") -> Commitment:
    if not 1 <= len(records) <= CHECKPOINT_TOKENS or any(len(record) != 32 for record in records):
        raise ValueError(f"a checkpoint is 1 to {CHECKPOINT_TOKENS} digests of 32 bytes")
    digest = keccak(own + b"".join(records))
    return Commitment(Hash32(digest), opening=digest)


def _tag(statement: ProofStatement) -> bytes:
    return keccak(b"HashProver" + statement.statement + statement.seed + statement.commitment)
