"""The `spot` circuit worked by ezkl, inside the prover process as `ezkl_bind`, whose rules about errors hold here too.

Knows vectors and products; what they mean, and which of them a proof must be about, is `fabstir.protocol.spot`. The compiled
circuit differs from build to build in the order of its bytes (not in what it says), so it is compiled at the start, in milliseconds;
that it is the pinned circuit shows in the proving key made from it.
"""

from __future__ import annotations

import json
from pathlib import Path

import ezkl

from fabstir.domain.errors import FabstirError, error
from fabstir.ports.prover import ProofStatement
from fabstir.proofs.bind import FIELD, public_words
from fabstir.proofs.circuit import Circuit
from fabstir.proofs.ezkl_calls import big_endian, felt, translated
from fabstir.proofs.keys import proving_key
from fabstir.protocol.spot import COLUMNS, ROWS, SpotVector, dot
from fabstir.protocol.spot_proof import HALO2_BYTES


class EzklSpot:
    """Commits, proves and verifies. Scratch files go to `work`, which belongs to this process alone; each call overwrites them."""

    def __init__(self, circuit: Circuit, cache: Path, work: Path) -> None:
        self._circuit = circuit
        self._cache = cache
        names = ("spot-inputs", "spot-witness", "spot-proof", "spot-compiled")
        self._inputs, self._witness, self._proof, self._compiled = (str(work / name) for name in names)
        self._settings, self._vk, self._srs = (circuit.file(n) for n in ("settings.json", "vk.key", "kzg.srs"))
        with translated("prover_unavailable"):
            ezkl.compile_circuit(circuit.file("spot.onnx"), self._compiled, self._settings)

    def commit(self, vector: SpotVector) -> bytes:
        """The KZG point of one tensor: x and y, big-endian."""
        with translated("proof_failed"):
            (point,) = ezkl.kzg_commit(_tensor(vector), self._vk, self._settings, self._srs)
            return big_endian(point.x) + big_endian(point.y)

    def prove(
        self, statement: ProofStatement, hidden: SpotVector, rows: tuple[SpotVector, ...]
    ) -> tuple[tuple[int, ...], bytes]:
        """(products, halo2 proof), the proof verified."""
        if len(rows) != ROWS:
            raise error("proof_failed", detail=f"{len(rows)} rows instead of {ROWS}")
        key = proving_key(self._circuit, self._cache, self._make_keys)
        dots = tuple(dot(_padded(hidden), _padded(row)) for row in rows)
        with translated("proof_failed"):
            tensors = [[felt(n) for n in public_words(statement)], _tensor(hidden), *map(_tensor, rows)]
            Path(self._inputs).write_text(json.dumps({"input_data": tensors}))
            ezkl.gen_witness(self._inputs, self._compiled, self._witness)
            made = ezkl.prove(self._witness, self._compiled, str(key), self._proof, self._srs)
            halo2 = bytes.fromhex(made["proof"].removeprefix("0x"))
        if not self.verify(statement, dots, halo2):
            raise error("proof_failed", detail="the proof just made does not verify")
        return dots, halo2

    def verify(self, statement: ProofStatement, dots: tuple[int, ...], halo2: bytes) -> bool:
        """Whether the generated contract would accept. Says nothing about the points in the proof: that is `spot_proof.judge`."""
        if len(halo2) != HALO2_BYTES or len(dots) != ROWS:
            return False
        instances = [felt(n) for n in public_words(statement)] + [felt(n % FIELD) for n in dots]
        try:
            with translated("proof_invalid"):
                Path(self._proof).write_text(json.dumps({"instances": [instances], "proof": list(halo2)}))
                return bool(ezkl.verify(self._proof, self._settings, self._vk, self._srs))
        except FabstirError as problem:
            if problem.code != "proof_invalid":
                raise
            self._circuit.check_present()  # a verdict about the proof, not about our own files
            return False

    def _make_keys(self, folder: Path) -> None:
        with translated("prover_unavailable"):
            ezkl.setup(self._compiled, str(folder / "vk.key"), str(folder / "pk.key"), self._srs)


def _padded(vector: SpotVector) -> list[int]:
    if len(vector.values) > COLUMNS:
        raise error("proof_failed", detail=f"a vector of {len(vector.values)} values; the circuit takes {COLUMNS}")
    return [*vector.values, *[0] * (COLUMNS - len(vector.values))]


def _tensor(vector: SpotVector) -> list[str]:
    salt = int.from_bytes(vector.salt, "big")
    return [felt(value % FIELD) for value in _padded(vector)] + [felt(salt)]
