"""A prover that makes each proof once: the proof of a statement that was proven before is the same bytes, also after a restart.

ezkl blinds its proofs, so that two of one statement differ. Whoever asks again (a transaction that was not sent, a process that died
between proving and sending) gets what is on the disk, once it was verified again; a file that is damaged is made anew. A proof is named by
the hash of everything that it is about. Holds proofs alone: of `sample` these show the tokens that its transaction makes public anyway.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Final

import structlog

from fabstir.domain.ids import Hash32
from fabstir.ports.prover import Commitment, ProofBundle, ProofStatement, Prover

MOST: Final = 4_096
"""Proofs that are kept; the oldest go. At 2 to 8 kB each that is at most 32 MB."""

log = structlog.get_logger("fabstir.proofs")


class StoredProver:
    """The port `Prover` over another one. Memory: nothing."""

    def __init__(self, prover: Prover, folder: Path) -> None:
        self._prover = prover
        self._folder = folder
        self._weaker = StoredProver(prover.weaker, folder) if prover.weaker is not None else None

    def __repr__(self) -> str:
        return f"<StoredProver {self._prover!r}>"

    @property
    def circuit_id(self) -> Hash32:
        """See the port."""
        return self._prover.circuit_id

    @property
    def circuit(self) -> str:
        """See the port."""
        return self._prover.circuit

    @property
    def weaker(self) -> Prover | None:
        """See the port; its proofs are kept, too."""
        return self._weaker

    async def start(self) -> None:
        """See the port."""
        await self._prover.start()

    async def stop(self) -> None:
        """See the port."""
        await self._prover.stop()

    async def commit(self, records: tuple[bytes, ...]) -> Commitment:
        """See the port."""
        return await self._prover.commit(records)

    async def provable(self, commitment: Hash32, records: tuple[bytes, ...]) -> bool:
        """See the port."""
        return await self._prover.provable(commitment, records)

    async def prove(self, statement: ProofStatement, records: tuple[bytes, ...]) -> ProofBundle:
        """The proof that was made before, verified again, or a new one. See the port."""
        file = self._folder / name_of(self.circuit_id, statement)
        kept = await asyncio.to_thread(_read, file)
        if kept:
            bundle = ProofBundle(self.circuit_id, kept)
            if await self.verify(statement, bundle):
                return bundle
            log.warning("stored_proof_damaged", circuit=self.circuit)
        bundle = await self._prover.prove(statement, records)
        try:
            await asyncio.to_thread(_write, file, bundle.proof)
        except OSError as fault:
            log.warning("proof_not_stored", circuit=self.circuit, reason=str(fault.strerror))
        return bundle

    async def verify(self, statement: ProofStatement, bundle: ProofBundle) -> bool:
        """See the port."""
        return await self._prover.verify(statement, bundle)

    async def health(self) -> str:
        """See the port."""
        return await self._prover.health()


def name_of(circuit: Hash32, statement: ProofStatement) -> str:
    """The file of a statement's proof: another circuit, statement, seed or commitment is another file."""
    parts = (circuit, statement.statement, statement.seed, statement.commitment)
    return sha256(b"fabstir/stored-proof/1" + b"".join(parts)).hexdigest()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _write(file: Path, proof: bytes) -> None:
    """Whole or not at all: what a crash leaves is no file, or a file that does not verify."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_suffix(".new")
    fresh.write_bytes(proof)
    fresh.replace(file)
    kept = sorted((one for one in file.parent.iterdir() if not one.suffix), key=lambda one: one.stat().st_mtime)
    for old in kept[:-MOST]:
        old.unlink(missing_ok=True)
