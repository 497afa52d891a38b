"""From a real answer to a proof: tokens of the engine, hidden states of the re-execution, rows of the file, and how far they are apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabstir.domain.errors import LocalFault
from fabstir.domain.ids import Hash32, ModelId
from fabstir.engines.model_file import default_model
from fabstir.engines.reexecution.frames import Trace
from fabstir.engines.reexecution.prompts import calibration_request
from fabstir.engines.reexecution.reexecutor import Reexecutor, prompt_ids
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


async def _traced() -> list[TokenTrace]:
    """An answer of the engine, traced by the process that a host runs; the second half again, alone."""
    model = default_model()
    request = calibration_request(3)
    (answer,) = await make_answers(model, [request], threads=1)
    (prompt,) = await prompt_ids(model, [(answer.request.messages, answer.request.prefix)], threads=1)
    sampler = Sampler.of(request.temperature, request.top_p)
    records = tuple(_preimage(index, record, sampler) for index, record in enumerate(answer.records))
    async with Reexecutor(model, threads=1, nice=1) as reexecutor:
        whole = await reexecutor.trace(Trace(prompt, records))
        half = await reexecutor.trace(Trace(prompt, records, first=len(records) // 2))
        with pytest.raises(LocalFault, match="reexecution_unsupported.*at least two tokens"):
            await reexecutor.trace(Trace(prompt[:1], records))
    assert (half.hidden, half.denominators) == (
        whole.hidden[len(records) // 2 :],
        whole.denominators[len(records) // 2 :],
    )
    return [
        TokenTrace(spot.unpacked(hidden), denominator, record, spot.hidden_salt(SALT, index))
        for index, (hidden, denominator, record) in enumerate(
            zip(whole.hidden, whole.denominators, records, strict=True)
        )
    ]


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
