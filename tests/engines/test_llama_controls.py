"""What the real llama.cpp child does with each control, and what its records say then: always the raw distribution."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from tests.engines.adapters import write_adapter
from tests.engines.asking import ask, collect, failure

from fabstir.engines.llama import LlamaEngine
from fabstir.engines.llama_controls import Adapters, constraint, facts, probe_width, sampler
from fabstir.engines.llama_wire import LoraEntry
from fabstir.engines.model_file import default_model
from fabstir.engines.reexecution.examine import examine
from fabstir.protocol.audit import Answer
from fabstir.protocol.controls import CONTROLS, Tool
from fabstir.protocol.generation import request_of
from fabstir.protocol.messages import ChatMessage, Prompt

CAPITAL = "What is the capital of Peru?"
PERSON = (
    '{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"}},'
    '"required":["name","age"],"additionalProperties":false}'
)
LETTERS = '{"type":"object","properties":{"a":{"enum":["é漢🙂"]}},"required":["a"],"additionalProperties":false}'
WEATHER = Tool(
    name="weather",
    parameters='{"type":"object","properties":{"city":{"enum":["Lima","Oslo"]}},"required":["city"],"additionalProperties":false}',
)


def test_a_body_says_what_is_wanted_and_nothing_else() -> None:
    """Samplers in their order, -100 as never, the own JSON Schema in its order, each adapter on or off."""
    asked = ask(
        "x", min_p=0.1, top_k=7, logit_bias=((1, -100.0), (2, 3.5)), json_schema='{"type":"object","b":1,"a":2}'
    )
    body = sampler(asked)
    assert body["samplers"] == ("penalties", "top_k", "temperature", "min_p", "top_p")
    assert (body["top_k"], body["min_p"], body["logit_bias"]) == (7, 0.1, [[1, False], [2, 3.5]])
    assert list(constraint(asked)["json_schema"]) == ["type", "b", "a", "x-guidance"]
    assert constraint(ask("x")) == {} and probe_width(ask("x", top_k=100)) == 200 < probe_width(asked)
    adapters = Adapters([LoraEntry(0, "/a/pirate.gguf"), LoraEntry(1, "/a/poet.gguf")])
    assert adapters.controls == ("adapter:pirate", "adapter:poet") and repr(adapters) == "<Adapters pirate, poet>"
    assert adapters.scales("poet") == {"lora": [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 1.0}]}
    assert Adapters(()).scales("") == {}


@pytest.mark.parametrize(
    ("template", "opened", "said"),
    [
        ("", "user: Hello\nassistant:", ()),
        ("{% if '<think>' in x %}", "assistant:", ("reasoning",)),
        ("<think>", "assistant:<think>\n", ("reasoning", "reasoning:open")),
    ],
)
def test_how_answers_of_a_model_read(template: str, opened: str, said: tuple[str, ...]) -> None:
    """Whether it thinks first, and whether its template has begun the thought already."""
    assert facts(template, opened) == said


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def adapted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LlamaEngine]:
    """The tiny model with an adapter that turns its words into others."""
    path = tmp_path_factory.mktemp("adapters") / "odd.gguf"
    write_adapter(path)
    engine = LlamaEngine(default_model(), context_size=512, parallel=2, threads=1).adapting((path,))
    await engine.start()
    yield engine
    await engine.stop()


@pytest.mark.real
@pytest.mark.asyncio(loop_scope="session")
async def test_the_form_of_an_answer(llama: LlamaEngine) -> None:
    """A schema and a grammar bind the answer to its end; what cannot be enforced is refused, never read over."""
    assert llama.info.controls == CONTROLS
    json_made = await collect(llama, ask("Give me JSON for Lena, age 42.", json_schema=PERSON))
    assert json.loads(json_made.text) == {"name": "Lena", "age": 42} and json_made.end.finish_reason == "stop"
    assert (await collect(llama, ask(CAPITAL, grammar='root ::= "no" | "yes"'))).text in ("no", "yes")
    call = request_of(
        Prompt(
            session_id="s", message_index=0, content=CAPITAL, tools=(WEATHER,), tool_choice="required", tool="weather"
        ),
        (ChatMessage("user", CAPITAL),),
    )
    called = json.loads((await collect(llama, call)).text)
    assert called["name"] == "weather" and called["arguments"]["city"] in ("Lima", "Oslo")
    for bad in ({"json_schema": '{"type":"none"}'}, {"json_schema": '{"$ref":"#/x"}'}, {"grammar": "root ::= (("}):
        assert (await failure(llama, ask(CAPITAL, **bad))).code == "control_invalid", bad
    assert (await failure(llama, ask(CAPITAL, grammar="%llguidance {}\nstart: /a/"))).code == "control_invalid"
    assert (await failure(llama, ask(CAPITAL, adapter="nobody"))).code == "control_unsupported"


@pytest.mark.real
@pytest.mark.asyncio(loop_scope="session")
async def test_letters_of_several_tokens_within_a_form(llama: LlamaEngine) -> None:
    """The server leaves their ids out; they are found without breaking the stream, so that the form holds to the end."""
    made = await collect(llama, ask(CAPITAL, json_schema=LETTERS))
    assert json.loads(made.text) == {"a": "é漢🙂"}
    assert len(made.records) > len(made.text), "each byte of the three letters has a record"


@pytest.mark.real
@pytest.mark.asyncio(loop_scope="session")
async def test_records_of_a_shaped_answer_are_of_the_raw_distribution(llama: LlamaEngine) -> None:
    """Re-execution agrees with every log-probability of answers under a schema, a ban and penalties, and accuses none of its draw; the
    same claimed to be drawn plainly is found out."""
    plain = await collect(llama, ask(CAPITAL))
    requests = (
        ask(CAPITAL, json_schema=LETTERS),
        ask(CAPITAL, logit_bias=((plain.ids[0], -100.0),)),
        ask("Tell me a story.", max_tokens=40, repeat_penalty=1.5, frequency_penalty=1.0),
    )
    answers = []
    for request in requests:
        made = await collect(llama, request)
        answers.append(Answer(request=request, records=tuple(made.records), text=made.text))
    assert answers[1].records[0].token != plain.ids[0] == answers[1].records[0].top[0][0]
    lie = msgspec.structs.replace(answers[1], request=ask(CAPITAL))
    examined = await examine(default_model(), [*answers, lie], threads=1)
    tokens = [token for one in examined.answers[:3] for token in one.tokens]
    assert max(token.difference for token in tokens) < 0.05
    assert not any(token.shortfall or token.surprise for token in tokens)
    assert not any(one.findings for one in examined.answers)
    assert any(token.shortfall for token in examined.answers[3].tokens)


@pytest.mark.real
@pytest.mark.asyncio(loop_scope="session")
async def test_an_adapter_is_laid_over_one_answer_alone(adapted: LlamaEngine) -> None:
    """The model says something else with it, and the same as ever before and after; the host lists it by its file's name."""
    assert "adapter:odd" in adapted.info.controls
    before = await collect(adapted, ask(CAPITAL))
    other = await collect(adapted, ask(CAPITAL, adapter="odd", max_tokens=20))
    after = await collect(adapted, ask(CAPITAL))
    assert before.text == after.text == "The capital of Peru is Lima." != other.text
    assert before.records[0].logprob == after.records[0].logprob != other.records[0].logprob


@pytest.mark.asyncio
async def test_adapters_are_looked_at_before_anything_starts(tmp_path: Path) -> None:
    """Two of one name, more or longer names than an offer holds, and a file that is none."""
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "x.gguf", tmp_path / "a" / "x.gguf"):
        write_adapter(path)
    (tmp_path / "y.gguf").write_bytes(b"no")
    for paths, code in (
        ((tmp_path / "x.gguf", tmp_path / "a" / "x.gguf"), "config_invalid"),
        ((tmp_path / "y.gguf",), "model_invalid"),
        ((tmp_path / f"{'n' * 65}.gguf",), "config_invalid"),
        (tuple(tmp_path / f"{n}.gguf" for n in range(33)), "config_invalid"),
    ):
        with pytest.raises(Exception, match=code):
            await LlamaEngine(default_model()).adapting(paths).start()
