"""What the circuit `spot` costs: four rows of 896 weights against a hidden state, proven in the process of the host, judged in an EVM.

`measure` is what `benchmarks/proof.py` takes, with tracing (`spot_trace.py`); alone: `python benchmarks/spot.py [--rounds N] [--json]`.
CPU-seconds are those of the prover process, of tracing those of the process that traces. Gas is that of a transaction to the adapter
alone, as an EVM counts it (pyrevm).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psutil
import pyrevm
import spot_trace

from fabstir.chain import artifacts
from fabstir.chain.bindings import EzklSpotVerifier, Halo2SpotVerifier, Head, ModelRegistry
from fabstir.domain.ids import Hash32, address
from fabstir.ports.prover import ProofStatement
from fabstir.proofs.circuit import SPOT_V1
from fabstir.proofs.process import EzklProver
from fabstir.proofs.spot_prover import SpotProver
from fabstir.protocol import head_tree, spot
from fabstir.protocol.model_identity import HeadCommitment, ModelIdentity
from fabstir.protocol.padded_tree import PaddedTree
from fabstir.protocol.signing import keccak
from fabstir.protocol.spot import SpotVector, TokenTrace
from fabstir.protocol.transcript import RECORD_TAG, Sampler, TokenRecord, record_preimage

ROUNDS: Final = 10
TOKENS: Final = 256
VOCABULARY: Final = 151_936
"""Of Qwen2.5: how long the paths of rows are. The rows beside the listed ones are stand-ins; a path costs the same."""
LISTED: Final = 20
SENDER: Final = "0x" + "11" * 20


class Rows:
    """A head whose listed rows are committed and whose other leaves are stand-ins."""

    def __init__(self, points: bytes, rows: list[tuple[int, ...]], scale: int) -> None:
        leaves = [head_tree.leaf(row, points[64 * row : 64 * row + 64]) for row in range(len(rows))]
        stand_ins = b"".join(keccak(row.to_bytes(32, "big")) for row in range(len(rows), VOCABULARY))
        self._rows, self._tree = rows, PaddedTree(b"".join(leaves) + stand_ins)
        self.commitment: Final[HeadCommitment] = head_tree.commitment(self._tree, spot.COLUMNS, scale)

    def row(self, token: int) -> tuple[int, ...]:
        """Quantised weights."""
        return self._rows[token]

    def path(self, token: int) -> bytes:
        """Siblings in the tree."""
        return self._tree.path(token)


def _weights() -> tuple[list[tuple[int, ...]], int]:
    draw = random.Random(1)
    rows = [[draw.gauss(0, 0.02) for _ in range(spot.COLUMNS)] for _ in range(LISTED)]
    scale = head_tree.scale_for(max(abs(weight) for row in rows for weight in row))
    return [head_tree.quantised(row, scale) for row in rows], scale


def _trace(index: int, rows: list[tuple[int, ...]], scale: int) -> TokenTrace:
    """What an honest host has of a token, whose listed tokens hold nearly all of the probability."""
    draw = random.Random(index)
    hidden = spot.quantised([draw.gauss(0, 2) for _ in range(spot.COLUMNS)])
    logits = [spot.dot(hidden, row) * 1_000_000 >> (scale + spot.HIDDEN_SCALE) for row in rows]
    denominator = max(logits) + 3_100_000
    top = tuple(sorted(((token, logit - denominator) for token, logit in enumerate(logits)), key=lambda t: -t[1]))
    record = TokenRecord(top[0][0], top[0][1], top)
    salt = Hash32(bytes(32))
    preimage = record_preimage(salt, index, record, Sampler(0, 1_000_000))
    return TokenTrace(hidden, denominator, preimage[len(RECORD_TAG) :], spot.hidden_salt(salt, index))


class Contracts:
    """The adapter and what it stands on, in an EVM of this process."""

    def __init__(self, head: HeadCommitment) -> None:
        self._evm: Any = pyrevm.EVM(gas_limit=60_000_000)
        self._evm.set_balance(SENDER, 10**20)
        registry = self._deploy(ModelRegistry.deploy_data(address(SENDER)))
        self._adapter = self._deploy(
            EzklSpotVerifier.deploy_data(self._deploy(Halo2SpotVerifier.deploy_data()), registry)
        )
        model = ModelIdentity(repository="org/model", file="model.gguf", sha256=Hash32(b"\1" * 32))
        known, names = Head(head.root, head.rows, head.width, head.scale), (model.repository, model.file, model.sha256)
        self._call(registry, ModelRegistry.encode_propose(*names, model.tokenizer, model.template, known))
        self._call(registry, ModelRegistry.encode_approve(model.model_id, known))
        self.model: Final = model.model_id

    def gas(self, statement: ProofStatement, proof: bytes) -> int:
        """Of one verification. Raises where the answer is no."""
        data = EzklSpotVerifier.encode_verify(statement.statement, statement.seed, statement.commitment, proof)
        if int.from_bytes(self._call(self._adapter, data), "big") != 1:
            raise RuntimeError("the contract refuses an honest proof")
        return int(self._evm.result.gas_used)

    def _deploy(self, code: bytes) -> Any:
        return bytes.fromhex(self._evm.deploy(SENDER, code)[2:])

    def _call(self, to: bytes, data: bytes) -> bytes:
        return bytes(self._evm.message_call(SENDER, "0x" + to.hex(), calldata=data))


async def measure(rounds: int = ROUNDS) -> dict[str, Any]:
    """Everything, by name; seconds are medians."""
    with tempfile.TemporaryDirectory(prefix="spot-") as folder:
        engine = EzklProver(chain_id=31337, cache=Path(folder))
        await engine.start()
        try:
            return await _measure(engine, Path(folder), rounds) | await spot_trace.measure(rounds)
        finally:
            await engine.stop()


async def _measure(engine: EzklProver, folder: Path, rounds: int) -> dict[str, Any]:
    prover = SpotProver(engine, chain_id=31337)
    process = psutil.Process(engine.pid)
    rows, scale = _weights()
    head = Rows(await prover.points([SpotVector(row) for row in rows]), rows, scale)
    contracts = Contracts(head.commitment)
    traces = [_trace(index, rows, scale) for index in range(TOKENS)]
    began = _cpu(process)
    points = await prover.points([trace.vector for trace in traces])
    committing = (_cpu(process) - began) / TOKENS
    words = _words(contracts.model)
    commitment = spot.commit(traces, points)
    keys = await _timed(process, prover, _statement(words, 0, commitment), words, (traces, points, head))
    made = [
        await _timed(process, prover, _statement(words, number, commitment), words, (traces, points, head))
        for number in range(1, rounds + 1)
    ]
    statement, proof = _statement(words, rounds, commitment), made[-1][2]
    verified = time.perf_counter()
    if not await prover.verify(statement, proof, head.commitment):
        raise RuntimeError("the verifier refuses an honest proof")
    verified = time.perf_counter() - verified
    return {
        "rows": spot.ROWS,
        "columns": spot.COLUMNS,
        "rounds": rounds,
        "prove_wall_s": statistics.median(wall for wall, _, _ in made),
        "prove_cpu_s": statistics.median(cpu for _, cpu, _ in made),
        "first_prove_with_keys_cpu_s": keys[1],
        "verify_wall_s": verified,
        "commit_cpu_s_per_vector": committing,
        "memory_mib": process.memory_info().rss / 2**20,
        "proof_bytes": len(proof.proof),
        "proving_key_bytes": (folder / "circuits" / prover.circuit_id.hex() / "pk.key").stat().st_size,
        "packaged_bytes": sum(file.stat().st_size for file in SPOT_V1.iterdir()),
        "gas": contracts.gas(statement, proof.proof),
        "verifier_bytes": len(artifacts.load("Halo2SpotVerifier").deployed_bytecode),
        "adapter_bytes": len(artifacts.load("EzklSpotVerifier").deployed_bytecode),
        "load": os.getloadavg()[0],
    }


async def _timed(
    process: psutil.Process, prover: SpotProver, statement: ProofStatement, words: bytes, held: tuple[Any, Any, Any]
) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), _cpu(process)
    bundle = await prover.prove(statement, words, *held)
    return time.perf_counter() - wall, _cpu(process) - cpu, bundle


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _words(model: bytes) -> bytes:
    counts = [n.to_bytes(32, "big") for n in (TOKENS, 0, TOKENS)]
    whose = [bytes(32), bytes(32), keccak(b"job"), bytes(32), model, keccak(b"root")]
    return b"".join([*whose, *counts, bytes(32)])


def _statement(words: bytes, number: int, commitment: Hash32) -> ProofStatement:
    return ProofStatement(keccak(words), keccak(b"seed %d" % number), commitment)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = asyncio.run(measure(options.rounds))
    print(json.dumps(found) if options.json else "\n".join(f"{name:30} {value}" for name, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
