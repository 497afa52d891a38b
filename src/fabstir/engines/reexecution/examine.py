"""From answers to evidence: every answer through the weights once more, one after the other.

Prompts are asked for first, from llama.cpp's own server, which then ends; so the weights are in memory once. What the
evidence means is `fabstir.protocol.audit`'s to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fabstir.engines.llama_controls import TOP_K
from fabstir.engines.reexecution.frames import Prefill, Prefilled
from fabstir.engines.reexecution.reexecutor import Reexecutor, prompt_ids
from fabstir.ports.engine import GenerationRequest
from fabstir.protocol import controls
from fabstir.protocol.audit import Answer, AnswerEvidence, findings, token_evidence
from fabstir.protocol.audit_sampler import ClaimedSampler


class Examined(NamedTuple):
    """What came of it."""

    answers: list[AnswerEvidence]
    description: str
    """Of the weights, in llama.cpp's words."""
    cpu_seconds: float
    """Of re-execution alone, without loading."""


async def examine(
    model: Path,
    answers: Sequence[Answer],
    *,
    top_k: int = TOP_K,
    threads: int | None = None,
    gpu_layers: int = 0,
) -> Examined:
    """The evidence of each answer; `top_k`: how many candidates the host's sampler has, 0 for all.

    Raises as `Reexecutor.prefill`, and LocalFault where the model cannot be loaded.
    """
    prompts = await prompt_ids(
        model, [(answer.request.messages, answer.request.prefix) for answer in answers], threads=threads
    )
    found, cpu = [], 0.0
    async with Reexecutor(model, threads=threads, gpu_layers=gpu_layers) as reexecutor:
        description = (await reexecutor.describe()).description
        for prompt, answer in zip(prompts, answers, strict=True):
            read = await reexecutor.prefill(job(prompt, answer, top_k))
            cpu += read.cpu_seconds
            found.append(evidence(answer, read))
    return Examined(found, description, cpu)


def job(prompt: tuple[int, ...], answer: Answer, top_k: int = TOP_K) -> Prefill:
    """What the worker is asked about an answer."""
    return Prefill(
        prompt,
        tuple(record.token for record in answer.records),
        tuple(tuple(token for token, _ in record.top) for record in answer.records),
        claimed_sampler(answer.request, top_k),
        compare=answer.fingerprints,
    )


def claimed_sampler(request: GenerationRequest, top_k: int = TOP_K) -> ClaimedSampler:
    """How an engine draws for this request."""
    return ClaimedSampler(
        request.temperature, request.top_p, request.top_k or top_k, request.min_p, controls.shaped(request)
    )


def evidence(answer: Answer, read: Prefilled) -> AnswerEvidence:
    """What was claimed about an answer, beside what was read."""
    return AnswerEvidence(
        tokens=tuple(map(token_evidence, answer.records, read.positions)),
        distances=read.distances,
        findings=findings(
            pieces=read.pieces,
            ends=read.ends,
            text=answer.text,
            stop=answer.request.stop,
            max_tokens=answer.request.max_tokens,
            goes_on=answer.request.ignore_eos,
        ),
    )
