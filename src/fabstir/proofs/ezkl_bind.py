"""The `bind` circuit worked by ezkl: the only module that calls it, and only ever inside the prover process.

ezkl holds the GIL while it proves, throws Rust panics as BaseException, reads its keys from disk on every call and
talks on stderr; all of that ends here. Every call either returns or raises one of our errors. What the circuit shows:
docs/explanation/proofs.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import ezkl

from fabstir.domain.errors import FabstirError, error
from fabstir.ports.prover import ProofStatement
from fabstir.proofs import bind
from fabstir.proofs.circuit import Circuit
from fabstir.proofs.ezkl_calls import big_endian, felt, translated
from fabstir.proofs.keys import proving_key


class EzklBind:
    """Commits, proves and verifies. Scratch files go to `work`, which belongs to this process alone; each call overwrites them."""

    def __init__(self, circuit: Circuit, cache: Path, work: Path) -> None:
        self._circuit = circuit
        self._cache = cache
        self._inputs, self._witness, self._proof = (str(work / name) for name in ("inputs", "witness", "proof"))
        self._settings, self._vk, self._srs = (circuit.file(n) for n in ("settings.json", "vk.key", "kzg.srs"))

    def prepare(self) -> Path:
        """The proving key, made if need be. Cheap (a hash of 1.7 MB), so it is asked before every proof: caches get emptied."""
        return proving_key(self._circuit, self._cache, self._make_keys)

    def commit(self, records: tuple[bytes, ...]) -> bytes:
        """The opening: point of the record vector and checksum."""
        values = bind.record_values(records)
        with translated("proof_failed"):
            (point,) = ezkl.kzg_commit([felt(value) for value in values], self._vk, self._settings, self._srs)
            return bind.opening(big_endian(point.x) + big_endian(point.y), bind.checksum(values))

    def prove(self, statement: ProofStatement, records: tuple[bytes, ...]) -> bytes:
        """A proof that has been checked: it verifies, and it speaks of `statement.commitment`."""
        values = bind.record_values(records)
        if bind.digest(self.commit(records)) != statement.commitment:
            raise error("proof_failed", detail="the records do not match the commitment")
        key = self.prepare()
        with translated("proof_failed"):
            self._write(
                self._inputs,
                {"input_data": [[felt(n) for n in bind.public_words(statement)], [felt(n) for n in values]]},
            )
            ezkl.gen_witness(self._inputs, self._circuit.file("circuit.ezkl"), self._witness)
            made = ezkl.prove(self._witness, self._circuit.file("circuit.ezkl"), str(key), self._proof, self._srs)
            proof = bind.encode_proof(bind.checksum(values), bytes.fromhex(made["proof"].removeprefix("0x")))
        if not self.verify(statement, proof):
            raise error("proof_failed", detail="the proof just made does not verify")
        return proof

    def verify(self, statement: ProofStatement, proof: bytes) -> bool:
        """Whether the adapter contract would say true. Whatever is wrong with `proof` gives False."""
        decoded = bind.decode_proof(proof)
        if decoded is None:
            return False
        total, halo2 = decoded
        if bind.digest(bind.opening_of_proof(halo2, total)) != statement.commitment:
            return False
        instances = [felt(n) for n in (*bind.public_words(statement), total)]
        try:
            with translated("proof_invalid"):
                self._write(self._proof, {"instances": [instances], "proof": list(halo2)})
                return bool(ezkl.verify(self._proof, self._settings, self._vk, self._srs))
        except FabstirError as problem:
            if problem.code != "proof_invalid":
                raise
            self._circuit.check_present()  # a verdict about the proof, not about our own files
            return False

    def _make_keys(self, folder: Path) -> None:
        with translated("prover_unavailable"):
            ezkl.setup(self._circuit.file("circuit.ezkl"), str(folder / "vk.key"), str(folder / "pk.key"), self._srs)

    @staticmethod
    def _write(path: str, content: object) -> None:
        Path(path).write_text(json.dumps(content))
