"""What it costs a host of `spot` to trace an answer: prompt and answer through the weights once more, by the process that re-executes.

Part of `benchmarks/spot.py`. Measured with the packaged model alone: for a larger one the states cost a prefill of prompt and answer, which
the model decides, and the points what they cost here.
"""

from __future__ import annotations

import statistics
from typing import Any, Final

from msgspec.structs import replace

from fabstir.domain.ids import Hash32
from fabstir.engines.model_file import default_model
from fabstir.engines.reexecution.frames import Trace
from fabstir.engines.reexecution.prompts import calibration_request
from fabstir.engines.reexecution.reexecutor import Reexecutor, prompt_ids
from fabstir.engines.reexecution.sampling import make_answers
from fabstir.protocol.commitments import CHECKPOINT_TOKENS
from fabstir.protocol.transcript import RECORD_TAG, Sampler, record_preimage

SALT: Final = Hash32(bytes(32))


async def measure(rounds: int) -> dict[str, Any]:
    """CPU-seconds a token of the process that traces, median over `rounds` of one answer as long as a checkpoint."""
    model = default_model()
    request = replace(calibration_request(4), max_tokens=CHECKPOINT_TOKENS, ignore_eos=True)
    (answer,) = await make_answers(model, [request], threads=1)
    (prompt,) = await prompt_ids(model, [(request.messages, request.prefix)], threads=1)
    sampler = Sampler.of(request.temperature, request.top_p)
    records = tuple(
        record_preimage(SALT, index, record, sampler)[len(RECORD_TAG) :] for index, record in enumerate(answer.records)
    )
    async with Reexecutor(model, threads=1) as reexecutor:
        traced = [await reexecutor.trace(Trace(prompt, records)) for _ in range(rounds)]
    return {
        "traced_tokens": len(records),
        "trace_cpu_s_per_token": statistics.median(one.cpu_seconds for one in traced) / len(records),
    }
