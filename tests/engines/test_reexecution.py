"""Re-execution with the real C library: the ids and the probabilities of generation, over again; and every cheat found by them."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from msgspec.structs import replace
from tests.engines.asking import ask, collect
from tests.engines.bigram import Bigram
from tests.engines.cheats import (
    asked_as,
    with_more_tokens,
    with_replaced_tokens,
    with_system_prompt,
    with_true_claims,
)
from tests.engines.model_variants import Kind, write_variant

from fabstir.domain.errors import FabstirError, LocalFault
from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model, file_sha256
from fabstir.engines.reexecution import capi
from fabstir.engines.reexecution.examine import claimed_sampler, examine
from fabstir.engines.reexecution.frames import Prefill
from fabstir.engines.reexecution.prompts import calibration_request
from fabstir.engines.reexecution.reexecutor import Reexecutor, prompt_ids
from fabstir.engines.reexecution.sampling import make_answers, with_fingerprints
from fabstir.engines.reexecution.tolerances import tolerance_for
from fabstir.ports.engine import ChatMessage, GenerationRequest, TokenRecord
from fabstir.protocol.audit import Answer, Tolerance, Verdict, judge

MODEL = default_model()
SESSION: Any = pytest.mark.asyncio(loop_scope="session")
FRESH = 2_000_000
"""Questions with seeds that neither the calibration nor the benchmark uses."""
pytestmark = [pytest.mark.real, SESSION]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def reexecutor() -> AsyncIterator[Reexecutor]:
    """The tiny model, loaded once."""
    async with Reexecutor(MODEL, threads=1) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def honest() -> list[Answer]:
    """Forty answers, made eight at a time."""
    return await make_answers(MODEL, [calibration_request(FRESH + number) for number in range(40)], threads=1)


@pytest.fixture(scope="session")
def tolerance() -> Tolerance:
    """The one that ships."""
    return tolerance_for(file_sha256(MODEL))


async def verdict(answers: list[Answer], tolerance: Tolerance) -> Verdict:
    """On answers that are handed in as the tiny model's."""
    return judge((await examine(MODEL, answers, threads=1)).answers, tolerance)


def failed(found: Verdict) -> set[str]:
    """The questions that accuse."""
    return {gate.name for gate in found.gates if not gate.passed}


# -- what is computed ----------------------------------------------------------------------------------------------------


async def test_the_prompt_has_the_ids_that_generation_began_from(llama: LlamaEngine) -> None:
    """As many as the engine counted, and the same probabilities after them: several turns, a system prompt, a begun answer."""
    messages = (
        ChatMessage("system", "You are a polite assistant."),
        ChatMessage("user", "My name is Kofi."),
        ChatMessage("assistant", "Nice to meet you, Kofi. Thank you for asking!"),
        ChatMessage("user", "What is my name?"),
    )
    request = GenerationRequest(messages=messages, prefix="Your", max_tokens=40, temperature=0.0)
    answer = await collect(llama, request)
    (ids,) = await prompt_ids(MODEL, [(messages, "Your")], threads=1)
    assert ids == await llama.prompt_ids(messages, "Your")
    assert len(ids) == answer.end.prompt_tokens
    records = tuple(answer.records)
    (evidence,) = (
        await examine(MODEL, [Answer(request=request, records=records, text=answer.text)], threads=1)
    ).answers
    assert evidence.findings == ()
    assert max(token.difference for token in evidence.tokens) < 0.01
    assert all(token.is_best and token.shortfall == 0 for token in evidence.tokens)


async def test_probabilities_are_those_of_a_model_that_is_known_in_closed_form(bigram: Bigram, tmp_path: Path) -> None:
    """Of every token and every alternative, within the 32-bit floats of the file."""
    path = tmp_path / "bigram.gguf"
    bigram.write(path)
    tokens = tuple(bigram.ids[piece] for piece in (b"It", b" costs", b" ", b"."))
    newline = bigram.ids[b"\n"]
    async with Reexecutor(path, threads=1) as running:
        sampler = claimed_sampler(ask("", temperature=1.0, top_p=1.0))
        read = await running.prefill(Prefill((newline,), tokens, ((tokens[1],), (), (), ()), sampler))
    before = (newline, *tokens)
    expected = [bigram.log_p[last, token] for last, token in zip(before, tokens, strict=False)]
    assert [position.logprob / 1e6 for position in read.positions] == pytest.approx(expected, abs=2e-4)
    assert read.positions[0].asked[0] / 1e6 == pytest.approx(bigram.log_p[newline, tokens[1]], abs=2e-4)
    # After the space two tokens are equally likely.
    assert [position.best for position in read.positions[:3]] == [
        int(bigram.log_p[last].argmax()) for last in before[:3]
    ]
    assert b"".join(read.pieces) == b"It costs ."


async def test_a_long_answer_is_read_in_steps_that_change_nothing(reexecutor: Reexecutor, honest: list[Answer]) -> None:
    """Token by token or 32 at once: the same within rounding."""
    longest = max(honest, key=lambda answer: len(answer.records))
    (prompt,) = await prompt_ids(MODEL, [(longest.request.messages, "")], threads=1)
    tokens = tuple(record.token for record in longest.records)
    assert len(tokens) > 64
    one, many = [
        await reexecutor.prefill(
            Prefill(prompt, tokens, tuple(() for _ in tokens), claimed_sampler(longest.request), step=step)
        )
        for step in (1, 32)
    ]
    apart = [abs(x.logprob - y.logprob) for x, y in zip(one.positions, many.positions, strict=True)]
    assert max(apart) < 20_000
    assert (one.pieces, one.ends) == (many.pieces, many.ends)


async def test_what_the_model_cannot_read_is_refused(reexecutor: Reexecutor) -> None:
    """Tokens beyond the vocabulary and conversations beyond the context never reach the native code."""
    sampler = claimed_sampler(ask(""))
    for prompt, answer, code in [
        ((1,), (768,), "token_unknown"),
        ((2**32 - 1,), (1,), "token_unknown"),
        ((1,) * 2048, (1,), "context_too_long"),
    ]:
        with pytest.raises(FabstirError) as refused:
            await reexecutor.prefill(Prefill(prompt, answer, ((),), sampler))
        assert refused.value.code == code
    assert (await reexecutor.describe()).vocabulary == 768


async def test_a_worker_that_dies_is_started_again() -> None:
    """The job ends with `engine_gone`, the next one works."""
    async with Reexecutor(MODEL, threads=1) as running:
        job = Prefill((1,), (2,), ((),), claimed_sampler(ask("")))
        before = await running.prefill(job)
        os.kill(running.child.pid, signal.SIGKILL)
        with pytest.raises(FabstirError) as gone:
            while True:
                await running.prefill(job)
        assert gone.value.code == "engine_gone"
        await running.child.restarted(1)
        assert (await running.prefill(job)).positions == before.positions


@pytest.mark.parametrize("content", [b"GGUF", b"", b"not a model" * 100])
async def test_a_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    """By name, with no process left."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(LocalFault) as refused:
        async with Reexecutor(path, threads=1):
            pass
    assert refused.value.code == "model_invalid"


async def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    """Its header is whole, its weights are not."""
    path = tmp_path / "cut.gguf"
    path.write_bytes(MODEL.read_bytes()[:1_000_000])
    with pytest.raises(LocalFault) as refused:
        async with Reexecutor(path, threads=1):
            pass
    assert refused.value.code == "model_invalid"


async def test_another_layout_of_a_struct_is_refused() -> None:
    """A field that is not where it should be would be read and written silently."""
    params = capi.library().llama_context_default_params()
    capi.require_layout("llama_context_params", params, capi.KNOWN_CONTEXT)
    shifted = capi.ContextParams()
    ctypes.memmove(ctypes.addressof(shifted) + 8, ctypes.addressof(params), ctypes.sizeof(params) - 8)
    with pytest.raises(LocalFault, match="another layout of llama_context_params") as refused:
        capi.require_layout("llama_context_params", shifted, capi.KNOWN_CONTEXT)
    assert refused.value.code == "reexecution_unsupported"


# -- what is concluded ---------------------------------------------------------------------------------------------------


async def test_honest_answers_are_consistent(honest: list[Answer], tolerance: Tolerance) -> None:
    """Made in a batch of eight, some greedy and some not."""
    found = await verdict(honest, tolerance)
    assert (found.outcome, failed(found), found.findings) == ("consistent", set(), ())


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0])
async def test_coarser_weights_are_found(kind: Any, honest: list[Answer], tolerance: Tolerance, tmp_path: Path) -> None:
    """Served with their own, honest probabilities."""
    path = tmp_path / "coarser.gguf"
    write_variant(path, kind)
    cheat = await make_answers(path, [answer.request for answer in honest], threads=1)
    found = await verdict(cheat, tolerance)
    assert found.outcome == "inconsistent" and "alternatives" in failed(found)


async def test_another_system_prompt_is_found(honest: list[Answer], tolerance: Tolerance) -> None:
    """The right model, asked something else."""
    changed = [with_system_prompt(answer, "You are a pirate.").request for answer in honest]
    cheat = asked_as(await make_answers(MODEL, changed, threads=1), honest)
    assert "probability" in failed(await verdict(cheat, tolerance))


async def test_a_lesser_model_whose_tokens_the_right_one_claims_is_found(
    honest: list[Answer], tolerance: Tolerance, tmp_path: Path
) -> None:
    """Every claimed number is true; only the choice of tokens is not the claimed sampler's."""
    path = tmp_path / "damaged.gguf"
    write_variant(path, Kind.F16, noise=0.3)
    theirs = await make_answers(path, [answer.request for answer in honest], threads=1)
    cheat = await with_true_claims(MODEL, theirs, threads=1)
    found = await verdict(cheat, tolerance)
    assert failed(found) & {"support", "surprise"}
    assert not failed(found) & {"probability", "alternatives"}


async def test_replaced_and_padded_tokens_are_found(honest: list[Answer], tolerance: Tolerance) -> None:
    """With true claims and a text that fits: what cannot be drawn gives it away."""
    chance = np.random.Generator(np.random.PCG64(1))
    for cheat in (with_replaced_tokens(honest, 0.05, chance), with_more_tokens(honest, 0.05, chance)):
        found = await verdict(await with_true_claims(MODEL, cheat, threads=1), tolerance)
        assert "support" in failed(found)


async def test_tokens_that_the_text_does_not_show_are_found(honest: list[Answer], tolerance: Tolerance) -> None:
    """A count that is higher than what was said."""
    more = [replace(answer, records=(*answer.records, *answer.records)) for answer in honest]
    found = await verdict(more, tolerance)
    assert "the tokens do not spell the text" in found.findings


async def test_invented_probabilities_are_found(honest: list[Answer], tolerance: Tolerance) -> None:
    """A host that says of everything that it was sure."""
    sure = [
        replace(answer, records=tuple(TokenRecord(record.token, -1000) for record in answer.records))
        for answer in honest
    ]
    assert "probability" in failed(await verdict(sure, tolerance))


async def test_fingerprints_tell_the_weights_apart(honest: list[Answer], tolerance: Tolerance, tmp_path: Path) -> None:
    """Those of the right model, made token by token, pass; those of coarser weights for the same tokens do not."""
    path = tmp_path / "coarser.gguf"
    write_variant(path, Kind.Q4_0)
    for maker, passes in ((MODEL, True), (path, False)):
        found = await verdict(await with_fingerprints(maker, honest, threads=1), tolerance)
        assert ("fingerprint" not in failed(found)) == passes
        assert "fingerprint" in {gate.name for gate in found.gates}
