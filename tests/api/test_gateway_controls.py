"""Tools, JSON, samplers and thoughts through the stock clients of both vendors; what the model writes is scripted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from tests.api.gateways import Gateway, gateway_of
from tests.api.test_gateway_openapi import published

from fabstir.engines.llama import LlamaEngine
from fabstir.engines.model_file import default_model
from fabstir.protocol.controls import CONTROLS
from fabstir.testing.engine import ScriptedEngine

CALLS = [
    "Let me look.\n<tool_call>\n",
    '{"name": "weather", "arg',
    'uments": {"city": "Os',
    'lo"}}\n</tool_call>\n<tool_call>{"name": "clock", "arguments": {}}</tool_call>',
]
ANSWERS = {
    "Rain?": CALLS,
    "Must call": ['{"name": "weather", "arguments": {"city": "Oslo"}}'],
    "Think": ["<think>", "Hm, ", "hm.</think>\n\n", "Yes."],
}
PARAMETERS: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
CHAT_TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "clock"}},
]
FLAT_TOOLS: Any = [{"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}]
BLOCK_TOOLS: Any = [{"name": "weather", "input_schema": PARAMETERS}]
RAIN: Any = [{"role": "user", "content": "Rain?"}]
THINK: Any = [{"role": "user", "content": "Think"}]


@contextlib.asynccontextmanager
async def gateway_that_calls() -> AsyncIterator[Gateway]:
    async with gateway_of() as gateway:
        engine = ScriptedEngine(ANSWERS).offering(*CONTROLS, "reasoning", "adapter:poet")
        await gateway.world.host(200_000, engine)
        yield gateway


def asked(gateway: Gateway) -> Any:
    return gateway.world.hosts[0].engine.requests[-1]


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_completions_call_tools(stream: bool) -> None:
    """Words, then two calls with their arguments as they come, `tool_calls` as the reason; the results lead on."""
    answer: Any
    async with gateway_that_calls() as gateway, gateway.client() as client:
        if stream:
            async with client.chat.completions.stream(model="scripted", messages=RAIN, tools=CHAT_TOOLS) as chunks:
                deltas = [event async for event in chunks if event.type == "tool_calls.function.arguments.delta"]
                answer = await chunks.get_final_completion()
            assert [delta.arguments_delta for delta in deltas if delta.index == 0 and delta.arguments_delta] == [
                '{"city": "Os',
                'lo"}',
            ]
        else:
            answer = await client.chat.completions.create(model="scripted", messages=RAIN, tools=CHAT_TOOLS)
        (choice,) = answer.choices
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me look.")
        calls: Any = choice.message.tool_calls
        assert [(call.function.name, call.function.arguments) for call in calls] == [
            ("weather", '{"city": "Oslo"}'),
            ("clock", "{}"),
        ]
        assert len({call.id for call in calls}) == 2
        results: Any = [
            {"role": "tool", "tool_call_id": call.id, "content": f"{call.function.name}: yes"} for call in calls
        ]
        said: Any = [*RAIN, choice.message.model_dump(exclude_none=True), *results]
        last = await client.chat.completions.create(model="scripted", messages=said, tools=CHAT_TOOLS)
        assert last.choices[0].finish_reason == "stop"
        roles = [message.role for message in asked(gateway).messages]
        assert roles == ["system", "user", "assistant", "user"], "the engine is given text alone"
        assert asked(gateway).messages[-1].content.count("<tool_response>") == 2


async def test_a_required_call_is_asked_for_by_schema() -> None:
    """And read from bare JSON; a call of one tool is an object."""
    async with gateway_that_calls() as gateway, gateway.client() as client:
        answer = await client.chat.completions.create(
            model="scripted",
            messages=[{"role": "user", "content": "Must call"}],
            tools=CHAT_TOOLS,
            tool_choice={"type": "function", "function": {"name": "weather"}},
        )
        message: Any = answer.choices[0].message
        assert message.content is None and message.tool_calls[0].function.arguments == '{"city": "Oslo"}'
        assert json.loads(asked(gateway).json_schema)["properties"]["name"] == {"const": "weather"}


@pytest.mark.parametrize("stream", [False, True])
async def test_responses_call_tools(stream: bool) -> None:
    """A message and a function call, each an item with its events; its output leads on from the kept response."""
    async with gateway_that_calls() as gateway, gateway.client() as client:
        if stream:
            async with client.responses.stream(model="scripted", input="Rain?", tools=FLAT_TOOLS) as events:
                kinds = [event.type async for event in events]
                answer: Any = await events.get_final_response()
            assert kinds.count("response.function_call_arguments.delta") == 3
            assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 3
        else:
            answer = await client.responses.create(model="scripted", input="Rain?", tools=FLAT_TOOLS)
        said, call, other = answer.output
        assert (said.type, said.content[0].text) == ("message", "Let me look.")
        assert (call.type, call.name, call.arguments, call.status) == (
            "function_call",
            "weather",
            '{"city": "Oslo"}',
            "completed",
        )
        await client.responses.create(
            model="scripted",
            previous_response_id=answer.id,
            tools=FLAT_TOOLS,
            input=[{"type": "function_call_output", "call_id": one.call_id, "output": "yes"} for one in (call, other)],
        )
        messages = asked(gateway).messages
        assert [message.role for message in messages] == ["system", "user", "assistant", "user"]
        assert messages[2].content.count("<tool_call>") == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_messages_use_tools(stream: bool) -> None:
    """Text and `tool_use` blocks, input as JSON deltas, `tool_use` as the reason; `tool_result` blocks lead on."""
    async with gateway_that_calls() as gateway, gateway.anthropic() as client:
        given: Any = {"model": "scripted", "max_tokens": 300, "messages": RAIN, "tools": BLOCK_TOOLS}
        if stream:
            async with client.messages.stream(**given) as events:
                kinds = [event.type async for event in events]
                answer = await events.get_final_message()
            assert kinds.count("input_json") == 3 and kinds.count("content_block_stop") == 3
        else:
            answer = await client.messages.create(**given)
        assert answer.stop_reason == "tool_use"
        said, call, _other = answer.content
        assert said.type == "text" and said.text == "Let me look."
        assert call.type == "tool_use" and (call.name, call.input) == ("weather", {"city": "Oslo"})
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "yes"}]}
            for block in answer.content
            if block.type == "tool_use"
        ]
        given["messages"] = [
            *RAIN,
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": results},
        ]
        await client.messages.create(**given, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
        assert [message.role for message in asked(gateway).messages] == ["system", "user", "assistant", "user"]
        assert asked(gateway).stop == ("</tool_call>",)


async def test_thoughts_are_told_apart() -> None:
    """In each dialect's form; Anthropic's only where they are asked for."""
    async with gateway_that_calls() as gateway, gateway.client() as client, gateway.anthropic() as other:
        chat: Any = (await client.chat.completions.create(model="scripted", messages=THINK)).choices[0].message
        assert (chat.reasoning_content, chat.content) == ("Hm, hm.", "Yes.")
        response: Any = await client.responses.create(model="scripted", input="Think")
        assert (response.output[0].content[0].text, response.output_text) == ("Hm, hm.", "Yes.")
        given: Any = {"model": "scripted", "max_tokens": 99, "messages": THINK}
        hidden = await other.messages.create(**given)
        assert [block.type for block in hidden.content] == ["text"]
        async with other.messages.stream(**given, thinking={"type": "enabled", "budget_tokens": 1024}) as events:
            shown: Any = await events.get_final_message()
        assert [block.type for block in shown.content] == ["thinking", "text"]
        assert shown.content[0].thinking == "Hm, hm."


async def test_every_parameter_reaches_the_engine() -> None:
    """In the engine's words; schemas in their order."""
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    async with gateway_that_calls() as gateway, gateway.client() as client, gateway.anthropic() as other:
        form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
        await client.chat.completions.create(
            model="scripted",
            messages=[{"role": "user", "content": "hi"}],
            presence_penalty=0.5,
            frequency_penalty=-0.5,
            logit_bias={"7": -100},
            response_format=form,
            extra_body={"top_k": 9, "min_p": 0.1, "repetition_penalty": 1.5, "adapter": "poet"},
        )
        request = asked(gateway)
        assert (request.presence_penalty, request.frequency_penalty, request.repeat_penalty) == (0.5, -0.5, 1.5)
        assert (request.top_k, request.min_p, request.adapter) == (9, 0.1, "poet")
        assert request.logit_bias == ((7, -100.0),)
        assert request.json_schema == '{"type":"object","properties":{"b":{},"a":{}}}'
        await client.responses.create(model="scripted", input="hi", text={"format": {"type": "json_object"}})
        assert asked(gateway).json_schema == '{"type":"object"}'
        await other.messages.create(
            model="scripted", max_tokens=9, extra_body={"top_k": 5}, messages=[{"role": "user", "content": "hi"}]
        )
        assert asked(gateway).top_k == 5


async def test_what_nobody_offers_is_said_by_its_code() -> None:
    """Before anything is paid; the models say what can be asked."""
    async with gateway_of() as gateway, gateway.client() as client:
        await gateway.world.host(200_000, ScriptedEngine().offering("top_k"))
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="scripted", messages=RAIN, tools=CHAT_TOOLS)
        assert caught.value.code == "control_unsupported" and not gateway.world.chain.state.jobs
        _, models = await gateway.get("/v1/models")
        assert models["data"][0]["controls"] == ["top_k"]


async def test_answers_with_calls_and_thoughts_match_the_document() -> None:
    """Requests, answers and each event."""
    bodies: list[tuple[str, dict[str, Any]]] = []
    for messages, tools in ((RAIN, CHAT_TOOLS), (THINK, [])):
        bodies.append(("/v1/chat/completions", {"model": "scripted", "messages": messages, "tools": tools}))
    bodies += [
        ("/v1/responses", {"model": "scripted", "input": text, "tools": FLAT_TOOLS}) for text in ("Rain?", "Think")
    ]
    thinking = {"type": "enabled", "budget_tokens": 9}
    for messages in (RAIN, THINK):
        body = {"model": "scripted", "max_tokens": 99, "messages": messages, "tools": BLOCK_TOOLS, "thinking": thinking}
        bodies.append(("/v1/messages", body))
    async with gateway_that_calls() as gateway:
        found = await published(gateway)
        for path, body in bodies:
            found.check(body, found.request(path))
            content = found.answer("post", path, 200)
            status, whole = await gateway.post(body, path)
            assert status == 200
            found.check(whole, content["application/json"]["schema"])
            _, streamed, _ = await gateway.send({**body, "stream": True}, path)
            events = [line.removeprefix(b"data: ") for line in streamed.splitlines() if line.startswith(b"data: ")]
            for event in events:
                if event != b"[DONE]":
                    found.check(json.loads(event), {"anyOf": content["text/event-stream"]["x-event-schema"]["oneOf"]})


@pytest.mark.real
async def test_the_real_engine_through_the_whole_market() -> None:
    """llama.cpp makes the call that is required, JSON of the schema and the plain answer, each paid token by token under one job."""
    llama: Any = LlamaEngine(default_model(), context_size=1024, parallel=2, threads=1)
    city = {
        "type": "object",
        "properties": {"city": {"enum": ["Lima"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    person = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    async with gateway_of() as gateway, gateway.client() as client:
        host = await gateway.world.host(200_000, llama)
        try:
            given: Any = {"model": "tiny-chat", "temperature": 0, "max_tokens": 60}
            tool: Any = {"type": "function", "function": {"name": "weather", "parameters": city}}
            question: Any = [{"role": "user", "content": "What is the capital of Peru?"}]
            called: Any = await client.chat.completions.create(
                **given,
                messages=question,
                tools=[tool],
                tool_choice="required",
                parallel_tool_calls=False,
                logprobs=True,
            )
            (call,) = called.choices[0].message.tool_calls
            assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Lima"})
            assert called.choices[0].finish_reason == "tool_calls"
            assert len(called.choices[0].logprobs.content) == called.usage.completion_tokens
            answer: Any = await client.responses.create(
                model="tiny-chat",
                input="Give me JSON for Lena, age 42.",
                temperature=0,
                text={"format": {"type": "json_schema", "name": "person", "schema": person, "strict": True}},
            )
            assert json.loads(answer.output_text) == {"name": "Lena", "age": 42}
            plain = await client.chat.completions.create(**given, messages=question)
            assert plain.choices[0].message.content == "The capital of Peru is Lima."
            with pytest.raises(openai.BadRequestError, match="control_invalid"):
                await client.chat.completions.create(**given, messages=question, extra_body={"grammar": "root ::= (("})
            [ledger] = host.ledgers
            paid = called.usage.completion_tokens + answer.usage.output_tokens + plain.usage.completion_tokens
            assert ledger.acknowledged == paid
        finally:
            await llama.stop()
