"""Checking what a host served, from files: a session through the weights once more, and the tolerance that this needs.

Needs no chain and no key. The session's own hashes and signatures are checked first, so that a verdict is about what
the host signed and not about what somebody wrote into a file.
"""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from fabstir.bootstrap.parts import TINY_REPOSITORY
from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, from_hex, to_hex
from fabstir.engines.llama_controls import TOP_K
from fabstir.engines.model_file import default_model, file_sha256, model_name
from fabstir.engines.reexecution.examine import examine
from fabstir.engines.reexecution.prompts import calibration_request
from fabstir.engines.reexecution.sampling import make_answers, with_fingerprints
from fabstir.engines.reexecution.tolerances import tolerance_for
from fabstir.models.identity import identify
from fabstir.ports.engine import GenerationRequest
from fabstir.protocol.audit import Answer, AnswerEvidence, Tolerance, Verdict, judge
from fabstir.protocol.audit_calibration import Origin, fit, with_rival
from fabstir.protocol.transcript_file import CheckedReceipt, SessionTranscript, SpokenTurn, check, read_transcript

SEED: Final = 20_250_101
"""Of the windows that a calibration draws: the same answers give the same file."""
FINGERPRINTED: Final = 200
"""Answers of a calibration that are read token by token too."""


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """A weights file, and as what it is registered."""

    path: Path
    repository: str = ""
    """Empty for the model that ships."""


class SessionReport(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one session, and what it rests on."""

    verdict: Verdict
    tolerance: Tolerance
    weights: Hash32
    receipt: CheckedReceipt | None
    """None where nothing in the file was signed."""
    evidence: tuple[AnswerEvidence, ...]
    """Answer by answer."""
    description: str
    cpu_seconds: float


async def verify_session(
    data: bytes,
    weights: Weights,
    tolerance: Path | None,
    *,
    top_k: int = TOP_K,
    threads: int | None = None,
    gpu_layers: int = 0,
) -> SessionReport:
    """Check the file, run its answers through the weights, judge. `top_k`: of the host's sampler, 0 for none.

    Raises PeerFault (`receipt_invalid`, `token_unknown`), Refused (`weights_differ`, `context_too_long`), LocalFault (`model_invalid`,
    `tolerance_missing`, `tolerance_invalid`, `reexecution_unsupported`).
    """
    session = read_transcript(data)
    receipt = check(session) if session.signed is not None else None
    digest = await asyncio.to_thread(_require_named, session, weights)
    known = tolerance_for(digest, tolerance)
    answers = [_answer(turn) for turn in session.turns if turn.records]
    if adapted := next((answer.request.adapter for answer in answers if answer.request.adapter), None):
        raise error(
            "reexecution_unsupported", f"an answer was given with the adapter {adapted!r}, whose weights are not these"
        )
    examined = await examine(weights.path, answers, top_k=top_k, threads=threads, gpu_layers=gpu_layers)
    return SessionReport(
        verdict=judge(examined.answers, known),
        tolerance=known,
        weights=digest,
        receipt=receipt,
        evidence=tuple(examined.answers),
        description=examined.description,
        cpu_seconds=examined.cpu_seconds,
    )


async def calibrate(
    model: Path, count: int, rival: Path | None = None, *, threads: int | None = None, gpu_layers: int = 0
) -> Tolerance:
    """Make `count` answers with the own engine, run them through the weights again, and keep how they differ; then try the rival.

    Raises LocalFault (`model_invalid`, `tolerance_invalid`, `reexecution_unsupported`).
    """
    requests = [calibration_request(number) for number in range(count)]
    honest = await make_answers(model, requests, threads=threads, gpu_layers=gpu_layers)
    honest[:FINGERPRINTED] = await with_fingerprints(model, honest[:FINGERPRINTED], threads=threads)
    examined = await examine(model, honest, threads=threads, gpu_layers=gpu_layers)
    digest = await asyncio.to_thread(file_sha256, model)
    origin = Origin(
        model=await asyncio.to_thread(model_name, model),
        weights=digest.hex(),
        quantisation=examined.description,
        built_with=f"xllamacpp {version('xllamacpp')}, {sys.platform} {platform.machine()}, {gpu_layers} GPU layers",
        command=_command(model, count, rival),
    )
    chance = np.random.Generator(np.random.PCG64(SEED))
    try:
        tolerance = fit(examined.answers, origin, chance)
    except ValueError as fault:
        raise error("tolerance_invalid", str(fault)) from fault
    if rival is None:
        return tolerance
    return await _tried(tolerance, model, rival, requests, chance, threads)


async def _tried(
    tolerance: Tolerance,
    model: Path,
    rival: Path,
    requests: Sequence[GenerationRequest],
    chance: np.random.Generator,
    threads: int | None,
) -> Tolerance:
    cheats = await examine(model, await make_answers(rival, requests, threads=threads), threads=threads)
    return with_rival(tolerance, rival.name, cheats.answers, chance)


def _command(model: Path, count: int, rival: Path | None) -> str:
    against = f" --rival {rival.name}" if rival else ""
    return f"fabstir verify calibrate --model {model.name} --answers {count}{against}"


def _require_named(session: SessionTranscript, weights: Weights) -> Hash32:
    """That the job's model id is that of this file; its SHA-256. Raises Refused (`weights_differ`), LocalFault (`model_invalid`)."""
    shipped = weights.path.resolve() == default_model().resolve()
    repository = weights.repository or (TINY_REPOSITORY if shipped else "")
    named = identify(weights.path, repository)
    if named.model_id != from_hex(session.terms.model_id, 32):
        raise error(
            "weights_differ",
            f"the job's model is {session.terms.model_id}, {repository or 'no repository'}/{named.file} with "
            f"SHA-256 {named.sha256.hex()} is {to_hex(named.model_id)}",
        )
    return named.sha256


def _answer(turn: SpokenTurn) -> Answer:
    return Answer(
        request=turn.generation,
        records=turn.records,
        text=turn.text,
        fingerprints=turn.fingerprints,
    )
