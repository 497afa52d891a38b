"""The real engine keeps the port's contract: every token recorded, text complete, cancel and limits exact, requests independent."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, cast

import pytest
from tests.engines.asking import Collected, ask, collect, failure, first_batches
from tests.engines.conftest import PARALLEL

from fabstir.engines.llama import LlamaEngine
from fabstir.engines.llama_wire import Slot
from fabstir.engines.model_file import default_model
from fabstir.ports.engine import ChatMessage

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="session")]

END_OF_TURN = 2
PERU = "The capital of Peru is Lima."


async def busy(engine: LlamaEngine) -> int:
    """How many slots the server computes."""
    slots = await cast("Any", engine)._running.server.look("/slots", list[Slot])
    return sum(slot.is_processing for slot in slots)


async def until_idle(engine: LlamaEngine) -> None:
    """Return when no slot is computed."""
    async with asyncio.timeout(30):
        while await busy(engine):  # noqa: ASYNC110  the server tells nobody
            await asyncio.sleep(0)


async def test_info_describes_the_file(llama: LlamaEngine) -> None:
    """Name from the metadata, digest of the bytes, context of one request."""
    digest = hashlib.sha256(default_model().read_bytes()).digest()
    assert (llama.info.name, llama.info.context_size, llama.info.parallel) == ("tiny-chat", 2048, PARALLEL)
    assert llama.info.sha256 == digest
    assert (await llama.health()).status == "ok"


async def test_a_known_answer_with_every_token(llama: LlamaEngine) -> None:
    """Text, reason and the end-of-turn token are what the model says; each greedy token is its own first alternative."""
    answer = await collect(llama, ask("What is the capital of Peru?"))
    assert (answer.text, answer.end.finish_reason) == (PERU, "stop")
    assert answer.ids[-1] == END_OF_TURN
    assert END_OF_TURN not in answer.ids[:-1]
    for record in answer.records:
        assert len(record.top) == 4
        assert record.top[0] == (record.token, record.logprob)
        assert [logprob for _, logprob in record.top] == sorted((logprob for _, logprob in record.top), reverse=True)
        assert record.logprob <= 0


async def test_the_conversation_is_used(llama: LlamaEngine) -> None:
    """History and system prompt reach the model through its own template."""
    history = (
        ChatMessage("user", "My name is Kofi."),
        ChatMessage("assistant", "Nice to meet you, Kofi."),
        ChatMessage("user", "What is my name?"),
    )
    assert (await collect(llama, ask("", messages=history))).text == "Your name is Kofi."
    pirate = (ChatMessage("system", "You are a pirate."), ChatMessage("user", "What is the capital of Peru?"))
    assert (await collect(llama, ask("", messages=pirate))).text == "Arr! " + PERU


async def test_count_tokens_is_what_the_engine_evaluates(llama: LlamaEngine) -> None:
    """The count before a request equals the prompt tokens after it."""
    request = ask("Count from 3 to 9.")
    assert await llama.count_tokens(request.messages) == (await collect(llama, request)).end.prompt_tokens


async def test_a_second_request_finds_its_prefix(llama: LlamaEngine) -> None:
    """Of the same session: the same prompt again is not evaluated again."""
    request = ask("Please repeat: window garden music paper silver", cache="one")
    await collect(llama, request)
    again = (await collect(llama, request)).end
    assert again.cached_tokens >= again.prompt_tokens - 1


@pytest.mark.parametrize("limit", [1, 2, 7, 50])
async def test_the_limit_is_exact(llama: LlamaEngine, limit: int) -> None:
    """Exactly `max_tokens` records where nothing else ends the answer."""
    answer = await collect(llama, ask("Tell me a story.", max_tokens=limit, ignore_eos=True, temperature=0.8))
    assert (len(answer.records), answer.end.finish_reason) == (limit, "length")


async def test_the_context_ends_an_answer(llama: LlamaEngine) -> None:
    """Prompt and answer together fill the context, and the reason is `length`."""
    answer = await collect(llama, ask("Tell me a story.", max_tokens=5000, ignore_eos=True))
    assert answer.end.finish_reason == "length"
    assert llama.info.context_size - 1 <= answer.end.prompt_tokens + len(answer.records) <= llama.info.context_size


@pytest.mark.parametrize(
    ("stop", "text"),
    [("of Peru", "The capital "), ("u is Li", "The capital of Per"), (".", PERU[:-1]), ("T", ""), ("Lima.!", PERU)],
)
async def test_stop_sequences_span_tokens(llama: LlamaEngine, stop: str, text: str) -> None:
    """Nothing of the sequence is shown; the tokens that made it are recorded; one that only begins is shown in full."""
    answer = await collect(llama, ask("What is the capital of Peru?", stop=(stop,)))
    whole = await collect(llama, ask("What is the capital of Peru?"))
    assert (answer.text, answer.end.finish_reason) == (text, "stop")
    assert answer.ids == whole.ids[: len(answer.ids)]
    await until_idle(llama)


@pytest.mark.parametrize(
    "question",
    ["What is the capital of Peru?", "Count from 3 to 9.", "JSON: Lena, 42", "Spell river.", "Tell me a story."],
)
async def test_an_answer_goes_on_after_every_prefix(llama: LlamaEngine, question: str) -> None:
    """Wherever the first host died between two tokens, the second one says the same rest."""
    whole = await collect(llama, ask(question))
    prefix = ""
    for batch in whole.batches:
        prefix += batch.text
        rest = await collect(llama, ask(question, prefix=prefix))
        assert prefix + rest.text == whole.text
        assert rest.ids[-1] == END_OF_TURN


async def test_eight_at_once_say_what_one_says(llama: LlamaEngine) -> None:
    """Continuous batching mixes no requests up."""
    names = ("Kofi", "Mei", "Omar", "Lena", "Ivan", "Zoe", "Raj", "Nina", "Hugo", "Aiko", "Leo", "Sofia")
    requests = [
        ask("", messages=(ChatMessage("user", f"My name is {name}."), ChatMessage("assistant", f"Nice to meet you, {name}."),
                          ChatMessage("user", "What is my name?")))
        for name in names
    ]  # fmt: skip
    answers = await asyncio.gather(*(collect(llama, request) for request in requests))
    assert [answer.text for answer in answers] == [f"Your name is {name}." for name in names]


async def test_cancel_frees_the_slot(llama: LlamaEngine) -> None:
    """Closing the iterator stops the computation, not only the reading."""
    await until_idle(llama)
    batches = await first_batches(llama, ask("Tell me a story.", max_tokens=2000, ignore_eos=True), 3)
    assert len(batches) == 3
    await until_idle(llama)


async def test_a_cancelled_task_frees_the_slot(llama: LlamaEngine) -> None:
    """The same where the reader's task is cancelled."""
    await until_idle(llama)
    started = asyncio.Event()

    async def read() -> None:
        async for _ in llama.generate(ask("Tell me a story.", max_tokens=2000, ignore_eos=True)):
            started.set()

    reader = asyncio.create_task(read())
    await started.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await until_idle(llama)


async def test_a_waiting_request_can_be_cancelled(llama: LlamaEngine) -> None:
    """Requests beyond `parallel` wait; one that goes away takes no place, and the others all finish."""
    requests = [ask("Tell me a story.", max_tokens=60, ignore_eos=True) for _ in range(3 * PARALLEL)]
    tasks = [asyncio.create_task(collect(llama, request)) for request in requests]
    await asyncio.sleep(0)
    for task in tasks[PARALLEL::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(item, Collected) for item in done[:PARALLEL])
    assert sum(isinstance(item, asyncio.CancelledError) for item in done) == PARALLEL
    assert (await collect(llama, ask("What is the capital of Peru?"))).text == PERU


async def test_a_long_prompt_is_refused_and_nobody_else_suffers(llama: LlamaEngine) -> None:
    """The error says what was measured and what fits; a stream that runs meanwhile is complete."""
    story = asyncio.create_task(collect(llama, ask("Tell me a story.", max_tokens=400, ignore_eos=True)))
    fault = await failure(llama, ask("river stone lamp " * 2000))
    assert fault.code == "context_too_long"
    assert "context 2048" in fault.detail
    assert any(int(word) > 6000 for word in fault.detail.split() if word.isdigit())
    assert len((await story).records) == 400


@pytest.mark.parametrize("limit", [0, -1])
async def test_an_answer_of_no_tokens_is_refused(llama: LlamaEngine, limit: int) -> None:
    """It would be unlimited at the server."""
    assert (await failure(llama, ask("Hello", max_tokens=limit))).code == "engine_refused"


async def test_seeded_answers_repeat_one_at_a_time(llama: LlamaEngine) -> None:
    """A seed fixes the answer where the engine has nothing else to do."""
    request = ask("Tell me a story.", temperature=0.8, seed=11)
    assert (await collect(llama, request)).ids == (await collect(llama, request)).ids
