"""From a real answer to a proof: tokens of the engine, hidden states of the re-execution, rows of the file, and how far they are apart."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from fabstir.domain.ids import Hash32, ModelId
from fabstir.engines.model_file import default_model
from fabstir.engines.reexecution.prompts import calibration_request
from fabstir.engines.reexecution.reexecutor import prompt_ids
from fabstir.engines.reexecution.sampling import make_answers
from fabstir.models.head import HeadRows, commit_head
from fabstir.ports.prover import ProofStatement
from fabstir.proofs.process import EzklProver
from fabstir.proofs.spot_prover import SpotProver
from fabstir.protocol import spot
from fabstir.protocol.sampling import read_record
from fabstir.protocol.signing import keccak
from fabstir.protocol.spot import TokenTrace
from fabstir.protocol.transcript import RECORD_TAG, Sampler, TokenRecord, record_preimage

pytestmark = pytest.mark.real

SALT = Hash32(b"\x5a" * 32)

WORKER = """
import json, sys, msgspec
from fabstir.domain.ids import Hash32
from fabstir.engines.reexecution.traces import traces
from fabstir.engines.reexecution.weights import Weights
asked = json.load(sys.stdin)
weights = Weights(asked["model"], threads=1, gpu_layers=0)
records = [bytes.fromhex(record) for record in asked["records"]]
made = list(traces(weights, asked["prompt"], records, Hash32(bytes.fromhex(asked["salt"]))))
sys.stdout.buffer.write(msgspec.msgpack.encode(made))
"""
"""Native code that may abort: in a process of its own, here as in the product."""


async def _traced() -> list[TokenTrace]:
    model = default_model()
    request = calibration_request(3)
    (answer,) = await make_answers(model, [request], threads=1)
    (prompt,) = await prompt_ids(model, [(answer.request.messages, answer.request.prefix)], threads=1)
    sampler = Sampler.of(request.temperature, request.top_p)
    records = [_preimage(index, record, sampler) for index, record in enumerate(answer.records)]
    asked = {"model": str(model), "prompt": prompt, "records": [r.hex() for r in records], "salt": SALT.hex()}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", WORKER],
        input=json.dumps(asked).encode(),
        capture_output=True,
        check=True,
    )
    return msgspec.msgpack.decode(done.stdout, type=list[TokenTrace])


def _preimage(index: int, record: TokenRecord, sampler: Sampler) -> bytes:
    return record_preimage(SALT, index, record, sampler)[len(RECORD_TAG) :]


async def test_a_real_answer_is_proven(tmp_path: Path) -> None:
    """Every listed logit of every token is what the file's own rows make of the state, within a twentieth of the tolerance; and one of
    them is proven."""
    traced = await _traced()
    rows = HeadRows(default_model())
    weights = [vector.values for vector in rows.read(0, rows.count)]
    worst = max(_worst(trace, weights, rows.scale) for trace in traced)
    assert len(traced) > 3 and worst < spot.TOLERANCE / 20
    bind = EzklProver(chain_id=31337, cache=tmp_path)
    await bind.start()
    try:
        prover = SpotProver(bind, chain_id=31337)
        head = await commit_head(rows, tmp_path / "points", prover.points)
        points = await prover.points([trace.vector for trace in traced])
        counts = [n.to_bytes(32, "big") for n in (len(traced), 0, len(traced))]
        model = ModelId(keccak(b"tiny"))
        words = b"".join([bytes(128), model, bytes(32), *counts, bytes(32)])
        statement = ProofStatement(keccak(words), keccak(b"seed"), spot.commit(traced, points))
        bundle = await prover.prove(statement, words, traced, points, head)
        assert await prover.verify(statement, bundle, head.commitment)
    finally:
        await bind.stop()


def _worst(trace: TokenTrace, weights: list[tuple[int, ...]], scale: int) -> float:
    """Micro-nats."""
    listed = read_record(trace.record).top
    unit = 1 << (scale + spot.HIDDEN_SCALE)
    rows = [spot.CheckedRow(*pair) for pair in listed]
    errors = [spot.error_of(spot.dot(trace.hidden, weights[row.token]), row, trace.denominator, scale) for row in rows]
    return max(abs(off) for off in errors) / unit
