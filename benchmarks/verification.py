"""Claim: re-execution tells a cheating host from an honest one, at a rate of false accusations of 1 in 10,000, within a
few hundred tokens.

Real answers of the tiny chat model, eight at a time, against eight cheats. For each: the area under the curve (how
often a cheat's score is above an honest one's) for windows of 256 tokens, and the smallest number of tokens at which 99
of 100 windows are accused with the thresholds of the tolerance that ships. Honest answers are others than those of the
calibration. The peer is what one would do without this: compare the mean difference of the sampled tokens'
log-probabilities alone, with the best threshold that the honest windows of this run allow. Cost is CPU time of
re-execution over that of generation, on a model of 32 million random parameters.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
from common import main
from msgspec.structs import replace
from random_model import write_random_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.engines.cheats import asked_as, with_more_tokens, with_replaced_tokens, with_system_prompt, with_true_claims
from tests.engines.model_variants import Kind, write_variant

from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model, file_sha256
from fabstir.engines.reexecution.examine import examine, job
from fabstir.engines.reexecution.prompts import calibration_request
from fabstir.engines.reexecution.reexecutor import Reexecutor
from fabstir.engines.reexecution.sampling import make_answers, with_fingerprints
from fabstir.engines.reexecution.tolerances import tolerance_for
from fabstir.ports.engine import ChatMessage, GenerationRequest, TokenBatch
from fabstir.protocol.audit import Answer, Sums, Tolerance, accused, gates, sums
from fabstir.protocol.audit_calibration import draw

MODEL = default_model()
WINDOW = 256
LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
FRESH = 1_000_000
"""Numbers of questions from here on: seeds that no calibration used."""
REPLACED = 0.02
PADDED = 0.02
NOISE = 0.3
COSTLY = 256
"""Tokens of the answers whose cost is measured."""
THREADS = 1


async def _answers(folder: Path, count: int) -> dict[str, list[Answer]]:
    """Every kind of answer, honest ones first; all are handed in as answers of the tiny chat model."""
    requests = [calibration_request(FRESH + number) for number in range(count)]
    variants = {"q8_0": (Kind.Q8_0, 0.0), "q4_0": (Kind.Q4_0, 0.0), "damaged": (Kind.F16, NOISE)}
    for name, (kind, noise) in variants.items():
        write_variant(folder / name, kind, noise=noise)
    write_random_model(folder / "random", dim=128, layers=2, heads=4, kv=2, ff=352)
    chance = np.random.Generator(np.random.PCG64(1))
    honest = await make_answers(MODEL, requests, threads=THREADS)
    made = {name: await make_answers(folder / name, requests, threads=THREADS) for name in (*variants, "random")}
    pirate = [with_system_prompt(answer, "You are a pirate.").request for answer in honest]
    other = await make_answers(MODEL, pirate, threads=THREADS)
    forged = {
        "replaced_2pc": with_replaced_tokens(honest, REPLACED, chance),
        "padded_2pc": with_more_tokens(honest, PADDED, chance),
        "damaged_prefilled": made["damaged"],
        "q4_0_prefilled": made["q4_0"],
    }
    claimed = await with_true_claims(MODEL, [answer for given in forged.values() for answer in given], threads=THREADS)
    return {
        "honest": honest,
        "q8_0": made["q8_0"],
        "q4_0": made["q4_0"],
        "other_model": made["random"],
        "system_prompt": asked_as(other, honest),
        **_split(claimed, forged),
    }


T = TypeVar("T")


def _split(together: Sequence[T], like: dict[str, list[Answer]]) -> dict[str, list[T]]:
    """What belongs to each kind, in its order: processes are started once for all kinds."""
    rest = iter(together)
    return {name: [next(rest) for _ in given] for name, given in like.items()}


async def _sums(answers: dict[str, list[Answer]], tolerance: Tolerance) -> dict[str, list[Sums]]:
    """Of every kind, answer by answer."""
    every = [answer for given in answers.values() for answer in given]
    found = [sums(one, tolerance) for one in (await examine(MODEL, every, threads=THREADS)).answers]
    return _split(found, answers)


def _score(total: Sums, tolerance: Tolerance) -> float:
    """The largest measurement in parts of its threshold."""
    if total.wrong:
        return float("inf")
    return max(gate.value / max(gate.threshold, 0.5 / WINDOW) for gate in gates(total, tolerance))


def _area(honest: Sequence[float], cheat: Sequence[float]) -> float:
    """Area under the curve: the chance that a cheat's score is above an honest one's, ties counted half."""
    mine = np.sort(np.array(honest))
    theirs = np.array(cheat)
    below, upto = np.searchsorted(mine, theirs, "left"), np.searchsorted(mine, theirs, "right")
    return float((below + upto).mean() / 2 / len(mine))


def _tokens_needed(parts: Sequence[Sums], tolerance: Tolerance, windows: int, chance: np.random.Generator) -> int:
    """The smallest of LENGTHS at which 99 of 100 windows are accused; 0 where none is."""
    for length in LENGTHS:
        if sum(accused(total, tolerance) for total in draw(parts, length, windows, chance)) >= 0.99 * windows:
            return length
    return 0


def _peer_tokens(parts: dict[str, list[Sums]], name: str, windows: int, chance: np.random.Generator) -> int:
    """The same for the mean difference alone, with the largest mean of the honest windows as its threshold."""
    for length in LENGTHS:
        honest = max(one.difference / one.tokens for one in draw(parts["honest"], length, 10 * windows, chance))
        caught = sum(one.difference / one.tokens > honest for one in draw(parts[name], length, windows, chance))
        if caught >= 0.99 * windows:
            return length
    return 0


async def _cost(folder: Path) -> dict[str, float]:
    """CPU milliseconds of each token: generated alone, eight at a time, and re-executed, with the loading left out."""
    model = folder / "costly"
    write_random_model(model)
    request = GenerationRequest(
        messages=(ChatMessage("user", "Tell me a story."),), max_tokens=COSTLY, temperature=1.0, ignore_eos=True
    )
    engine = LlamaEngine(model, context_size=1024, parallel=8, threads=THREADS)
    await engine.start()
    server = psutil.Process(engine.child.pid)

    async def answer(seed: int) -> Answer:
        items = [item async for item in engine.generate(replace(request, seed=seed)) if isinstance(item, TokenBatch)]
        records = tuple(record for item in items for record in item.records)
        return Answer(request=request, records=records, text="".join(item.text for item in items))

    try:
        began = _cpu(server)
        one = await answer(1)
        alone = (_cpu(server) - began) / len(one.records)
        began = _cpu(server)
        eight = await asyncio.gather(*(answer(seed) for seed in range(8)))
        together = (_cpu(server) - began) / sum(len(made.records) for made in eight)
        prompt = await engine.prompt_ids(request.messages)
    finally:
        await engine.stop()
    async with Reexecutor(model, threads=THREADS) as reexecutor:
        await reexecutor.prefill(job(prompt, one))
        again = (await reexecutor.prefill(job(prompt, one))).cpu_seconds / len(one.records)
    return {"alone": alone * 1e3, "together": together * 1e3, "again": again * 1e3}


def _cpu(process: psutil.Process) -> float:
    """User and system seconds so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def _fingerprints(honest: Sequence[Answer], folder: Path) -> dict[str, float]:
    """Mean distance of fingerprints, made token by token, of honest answers and of the coarser weights' states for the same tokens."""
    distances = {}
    for name, model in (("honest", MODEL), ("q8_0", folder / "q8_0"), ("q4_0", folder / "q4_0")):
        marked = await with_fingerprints(model, honest, threads=THREADS)
        found = (await examine(MODEL, marked, threads=THREADS)).answers
        distances[name] = float(np.mean([distance for one in found for distance in one.distances]))
    return distances


async def _run(quick: bool) -> dict[str, Any]:
    tolerance = tolerance_for(file_sha256(MODEL))
    windows, chance = (200 if quick else 2000), np.random.Generator(np.random.PCG64(2))
    with tempfile.TemporaryDirectory(prefix="fabstir-bench-") as name:
        folder = Path(name)
        answers = await _answers(folder, 60 if quick else 800)
        marks = await _fingerprints(answers["honest"][: 16 if quick else 200], folder)
        parts = await _sums(answers, tolerance)
        cost = await _cost(folder)
    scored = {
        kind: [_score(total, tolerance) for total in draw(found, WINDOW, windows, chance)]
        for kind, found in parts.items()
    }
    accusations = sum(accused(total, tolerance) for total in draw(parts["honest"], WINDOW, 10 * windows, chance))
    cheats = [kind for kind in parts if kind != "honest"]
    needed = {kind: _tokens_needed(parts[kind], tolerance, windows, chance) for kind in cheats}
    peers = {kind: _peer_tokens(parts, kind, windows, chance) for kind in cheats}
    return {
        "claim": "Tokens until Q4_0 weights behind an F16 model are found out in 99 of 100 cases, with 1 in 10,000 honest hosts accused",
        "ours": needed["q4_0"],
        "peer": peers["q4_0"],
        "ratio": round(needed["q4_0"] / peers["q4_0"], 3) if peers["q4_0"] else 0.0,
        "unit": "tokens",
        "n": sum(one.tokens for one in parts["honest"]),
        "honest_windows": 10 * windows,
        "honest_accused": accusations,
        "window_tokens": WINDOW,
        **{f"auc_{kind}": round(_area(scored["honest"], scored[kind]), 4) for kind in cheats},
        **{f"tokens_{kind}": needed[kind] for kind in cheats},
        **{f"peer_tokens_{kind}": peers[kind] for kind in cheats},
        **{f"mean_nats_{kind}": float(f"{_mean(found):.3g}") for kind, found in parts.items()},
        **{f"fingerprint_distance_{kind}": round(value, 5) for kind, value in marks.items()},
        "generate_alone_ms_token": round(cost["alone"], 3),
        "generate_8_ms_token": round(cost["together"], 3),
        "reexecute_ms_token": round(cost["again"], 3),
        "cost_of_alone": round(cost["again"] / cost["alone"], 3),
        "cost_of_8": round(cost["again"] / cost["together"], 3),
    }


def _mean(parts: Sequence[Sums]) -> float:
    """The mean difference of the alternatives, cut as the tolerance says."""
    return sum(one.apart for one in parts) / sum(one.named for one in parts)


def measure(quick: bool) -> dict[str, Any]:
    """All of it."""
    began = time.perf_counter()
    found = asyncio.run(_run(quick))
    return {
        **found,
        "cpus": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "wall_s": round(time.perf_counter() - began, 1),
    }


if __name__ == "__main__":
    main(measure, __doc__ or "")
