"""One row for each back end and circuit: what `benchmarks/proof.py` measures beside its claim, all in one run on one machine.

Seconds are medians, CPU-seconds means, over the same rounds. Memory is what a proof needs beside what is there before it: the resident
size of the prover process for ezkl, the peak of Python's own allocations for the Merkle circuits, which run in the host's process. Gas is
that of a whole `submitProof` on anvil, with a path of one checkpoint, measured as in `settlement_gas.py`. `spot` is measured by
`spot.py`, on a vocabulary that no test model has, so its gas is that of the adapter alone.
"""

from __future__ import annotations

import math
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, Final

from settlement_sides import HOST, RENTER, TREASURY, Chain, Measurement, Ours
from settlement_steps import ProvenJob

from fabstir.chain.anvil import find_anvil
from fabstir.chain.bindings import TestUSDC
from fabstir.chain.deploy import Operator
from fabstir.chain.devnet import DEV_KEYS, Devnet
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.ids import Hash32
from fabstir.domain.money import BaseUnits
from fabstir.ops import paths
from fabstir.ops.clock import SystemClock
from fabstir.ports.prover import CHECKPOINT_TOKENS, ProofStatement, Prover
from fabstir.proofs.circuit import load_circuit
from fabstir.proofs.merkle import MerkleProver
from fabstir.protocol.held_records import HeldRecords
from fabstir.protocol.transcript import Sampler, TokenRecord, record_preimage

CHANCES: Final = (0.5, 0.2, 0.1, 0.05, 0.02)
TOP: Final = tuple((1_000 + n, round(math.log(chance) * 1e6)) for n, chance in enumerate(CHANCES))
"""Five listed tokens, the default of `engine.top_logprobs`."""
PREIMAGES: Final = tuple(
    record_preimage(Hash32(b"\x5a" * 32), n, TokenRecord(*TOP[n % 3], TOP), Sampler(800, 950_000))
    for n in range(CHECKPOINT_TOKENS)
)
RECORDS: Final = tuple(sha256(preimage).digest() for preimage in PREIMAGES)
Row = dict[str, Any]


def held() -> HeldRecords:
    """The records' preimages, as a host has them that serves."""
    kept = HeldRecords()
    for digest, preimage in zip(RECORDS, PREIMAGES, strict=True):
        kept.keep(digest, preimage)
    return kept


def merkle_provers() -> dict[str, Prover]:
    """By back end and circuit."""
    return {"merkle/bind": MerkleProver("bind"), "merkle/sample": MerkleProver("sample", held())}


async def measured(call: Callable[[], Awaitable[object]], rounds: int) -> tuple[float, float]:
    """Median wall seconds and mean CPU-seconds of this process."""
    walls, cpu = list[float](), time.process_time()
    for _ in range(rounds):
        began = time.perf_counter()
        await call()
        walls.append(time.perf_counter() - began)
    return statistics.median(walls), (time.process_time() - cpu) / rounds


async def merkle_row(prover: Prover, rounds: int) -> Row:
    """Of a prover in this process."""
    statement = ProofStatement(Hash32(b"\xff" * 32), Hash32(b"\xfe" * 32), (await prover.commit(RECORDS)).digest)
    bundle = await prover.prove(statement, RECORDS)
    prove, prove_cpu = await measured(lambda: prover.prove(statement, RECORDS), rounds)
    verify, verify_cpu = await measured(lambda: prover.verify(statement, bundle), rounds)
    commit, _ = await measured(lambda: prover.commit(RECORDS), rounds)
    tracemalloc.start()
    await prover.prove(statement, RECORDS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "prove_s": round(prove, 5),
        "prove_cpu_s": round(prove_cpu, 5),
        "verify_s": round(verify, 5),
        "verify_cpu_s": round(verify_cpu, 5),
        "commit_s": round(commit, 5),
        "memory_mb": round(peak / 1e6, 2),
        "key_bytes": 0,
        "proof_bytes": len(bundle.proof),
    }


def spot_row(found: Row) -> Row:
    """Of what `benchmarks/spot.py` measured; gas is that of a transaction to the adapter, which is most of `submitProof`."""
    return {
        "prove_s": round(found["prove_wall_s"], 5),
        "prove_cpu_s": round(found["prove_cpu_s"], 5),
        "verify_s": round(found["verify_wall_s"], 5),
        "commit_cpu_s": round(found["commit_cpu_s_per_vector"] * CHECKPOINT_TOKENS, 5),
        "trace_cpu_s": round(found["trace_cpu_s_per_token"] * CHECKPOINT_TOKENS, 5),
        "memory_mb": round(found["memory_mib"] * 1.048576, 1),
        "key_bytes": found["proving_key_bytes"],
        "proof_bytes": found["proof_bytes"],
        "adapter_gas": found["gas"],
    }


async def submit_gas(provers: dict[str, Prover]) -> dict[str, int]:
    """Gas of `submitProof` in USDC for each prover; they are started already."""
    async with Devnet(await find_anvil(paths.cache_dir())) as net:
        rpc = JsonRpc([net.url], SystemClock())
        try:
            operator = Operator(rpc, DEV_KEYS[0])
            info = await operator.deploy(load_circuit().circuit_id, treasury=TREASURY.address)
            chain, spent = Chain(rpc, info), dict[str, int]()
            for account in (RENTER, HOST):
                await operator.mint(info, account.address, BaseUnits(10**15))
            await chain.send(RENTER, info.usdc, TestUSDC.encode_approve(info.market, 2**256 - 1))
            for name, prover in provers.items():
                run = Measurement(chain, Ours(info.market))
                job = ProvenJob(run, prover, info.usdc, "usdc", RECORDS)
                await job.serve()
                await job.prove()
                spent[name] = run.medians()["submit_proof"]
            return spent
        finally:
            await rpc.close()
