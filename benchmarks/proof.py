"""Claim: 256 tokens are proven in less than a second. The peer is bare ezkl in a fresh process of the same run.

Ours is `EzklProver.prove` as the host calls it: records checked against the commitment, proving key checked, witness, proof, the proof
verified, two crossings of the socket. The peer makes witness and proof and nothing else. Rounds alternate, so that both see the same
machine. `rows` holds the same figures for every back end and circuit (`proof_rows.py`). Runs alone:
`python benchmarks/proof.py [--quick] [--json]`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import spot
import structlog
from proof_rows import Row, merkle_provers, merkle_row, spot_row, submit_gas

from fabstir.domain.ids import Hash32
from fabstir.ports.prover import CHECKPOINT_TOKENS, ProofStatement
from fabstir.proofs import bind
from fabstir.proofs.circuit import BIND_V1, load_circuit
from fabstir.proofs.process import EzklProver

AIM_SECONDS = 1.0
SPOT_SHARE = 6
"""One round of `spot` for so many of the others: it takes ten times as long."""
RECORDS = tuple(hashlib.sha256(b"record %d" % n).digest() for n in range(CHECKPOINT_TOKENS))

PEER = """
import sys, time, ezkl
work, circuit, key = sys.argv[1:]
def once():
    wall, cpu = time.perf_counter(), time.process_time()
    ezkl.gen_witness(f"{work}/inputs.json", f"{circuit}/circuit.ezkl", f"{work}/witness.json")
    ezkl.prove(f"{work}/witness.json", f"{circuit}/circuit.ezkl", key, f"{work}/proof.json", f"{circuit}/kzg.srs")
    return time.perf_counter() - wall, time.process_time() - cpu
once()
print("up", flush=True)
for line in sys.stdin:
    print(*once(), flush=True)
"""


class Peer:
    """Bare ezkl: a process that proves when it is told to. Warmed up, as ours is."""

    def __init__(self, work: Path, statement: ProofStatement, key: Path) -> None:
        values = [bind.public_words(statement), bind.record_values(RECORDS)]
        inputs = [[value.to_bytes(32, "little").hex() for value in row] for row in values]
        (work / "inputs.json").write_text(json.dumps({"input_data": inputs}))
        self._process = subprocess.Popen(
            [sys.executable, "-c", PEER, str(work), str(BIND_V1), str(key)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"EZKL_REPO_PATH": str(work)},
        )
        self._read()

    def prove(self) -> tuple[float, float]:
        """Wall and CPU seconds of one proof."""
        assert self._process.stdin is not None
        self._process.stdin.write("once\n")
        self._process.stdin.flush()
        wall, cpu = self._read().split()
        return float(wall), float(cpu)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the peer process ended")
        return line


class Worker:
    """CPU and memory of the prover process."""

    def __init__(self, prover: EzklProver) -> None:
        self._process = psutil.Process(prover.pid)

    def cpu(self) -> float:
        """User and system seconds so far."""
        times = self._process.cpu_times()
        return times.user + times.system

    def resident_mb(self) -> float:
        """Resident memory now."""
        return self._process.memory_info().rss / 1e6


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


async def run(rounds: int, root: Path) -> dict[str, Any]:
    """Start twice (cold: with the making of the key; warm), then measure in alternating rounds."""
    prover = EzklProver(chain_id=31337, cache=root)
    cold = await timed(prover.start)
    await prover.stop()
    warm = await timed(prover.start)
    commits = [await timed(lambda: prover.commit(RECORDS)) for _ in range(2 * rounds)]
    statement = ProofStatement(Hash32(b"\xff" * 32), Hash32(b"\xfe" * 32), (await prover.commit(RECORDS)).digest)
    bundle = await prover.prove(statement, RECORDS)
    verifies = [await timed(lambda: prover.verify(statement, bundle)) for _ in range(2 * rounds)]
    (key,) = await asyncio.to_thread(lambda: list(root.rglob("pk.key")))
    peer = await asyncio.to_thread(Peer, root, statement, key)
    worker = Worker(prover)
    ours, theirs, cpu = [], [], 0.0
    for _ in range(rounds):
        before = worker.cpu()
        ours.append(await timed(lambda: prover.prove(statement, RECORDS)))
        cpu += worker.cpu() - before
        theirs.append(await asyncio.to_thread(peer.prove))
    resident = worker.resident_mb()
    await asyncio.to_thread(peer.close)
    before = worker.cpu()
    for _ in range(rounds):
        await prover.verify(statement, bundle)
    verify_cpu = (worker.cpu() - before) / rounds
    wall, bare = statistics.median(ours), statistics.median(wall for wall, _ in theirs)
    row = {
        "prove_s": round(wall, 5),
        "prove_cpu_s": round(cpu / rounds, 5),
        "verify_s": round(statistics.median(verifies), 5),
        "verify_cpu_s": round(verify_cpu, 5),
        "commit_s": round(statistics.median(commits), 5),
        "memory_mb": round(resident, 1),
        "key_bytes": key.stat().st_size,
        "proof_bytes": len(bundle.proof),
    }
    rows = await every_row(prover, row, rounds)
    await prover.stop()
    return {
        "claim": f"{CHECKPOINT_TOKENS} tokens are proven in less than {AIM_SECONDS:g} s",
        "ours": round(wall, 4),
        "peer": round(bare, 4),
        "ratio": round(wall / bare, 3),
        "unit": "s",
        "n": rounds,
        "holds": max(ours) < AIM_SECONDS,
        "prove_worst_s": round(max(ours), 4),
        "prove_cpu_s": round(cpu / rounds, 3),
        "peer_cpu_s": round(statistics.mean(cpu for _, cpu in theirs), 3),
        "verify_ms": round(statistics.median(verifies) * 1e3, 2),
        "commit_ms": round(statistics.median(commits) * 1e3, 2),
        "start_cold_s": round(cold, 3),
        "start_warm_s": round(warm, 3),
        "pk_bytes": key.stat().st_size,
        "vk_bytes": (BIND_V1 / "vk.key").stat().st_size,
        "srs_bytes": (BIND_V1 / "kzg.srs").stat().st_size,
        "proof_bytes": len(bundle.proof),
        "worker_rss_mb": round(resident, 1),
        "ezkl": load_circuit().manifest.ezkl,
        "circuit_id": prover.circuit_id.hex(),
        "cpus": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "rows": rows,
    }


async def every_row(prover: EzklProver, row: Row, rounds: int) -> dict[str, Row]:
    """By back end and circuit; `row` is that of `prover`."""
    merkle = merkle_provers()
    rows = {"ezkl/bind": row} | {name: await merkle_row(other, rounds) for name, other in merkle.items()}
    gas = await submit_gas({"ezkl/bind": prover, **merkle})
    rows = {name: measured | {"submit_proof_gas": gas[name]} for name, measured in rows.items()}
    return rows | {"ezkl/spot": spot_row(await spot.measure(max(2, rounds // SPOT_SHARE)))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a few seconds in all")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # errors only
    with tempfile.TemporaryDirectory(prefix="benchmark-proof-") as name:
        result = asyncio.run(run(10 if options.quick else 60, Path(name)))
    if options.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:16} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
