"""What the gateway refuses: by name, by size, by sender; in OpenAI's shape."""

from __future__ import annotations

import io
from typing import Any

import openai
import pytest
from tests.api.gateways import HELLO, gateway_of

from fabstir.api.gateway import MAX_BODY_BYTES

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f"}}
CALL: dict[str, Any] = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}

# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "any"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"typical_p": 0.5}, "typical_p"),
        ({"messages": [{"role": "function", "content": "x"}, *HELLO]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages[0].name"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "z": 1}]}]},
            "messages[0].content[0].z",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_parameter_that_is_not_served_is_named(change: dict[str, Any], param: str) -> None:
    """400 in OpenAI's shape; nothing is bought."""
    async with gateway_of(200_000) as gateway:
        status, body = await gateway.post({"model": "scripted", "messages": HELLO, **change})
        assert (status, body["error"]["type"]) == (400, "invalid_request_error")
        assert (body["error"]["code"], body["error"]["param"]) == ("request_unsupported", param)
        assert body["error"]["message"].startswith("request_unsupported: ")
        assert gateway.world.chain.state.jobs == {}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop[0]"),
        ({"stream": "yes"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "g"}}, "tools": [TOOL]}, "tool_choice"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"logit_bias": {"one": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_value_that_is_wrong_is_named(change: dict[str, Any], param: str) -> None:
    """As one that is not served is."""
    async with gateway_of(200_000) as gateway:
        status, body = await gateway.post({"model": "scripted", "messages": HELLO, **change})
        assert (status, body["error"]["type"]) == (400, "invalid_request_error")
        assert (body["error"]["code"], body["error"]["param"]) == ("request_invalid", param)
        assert body["error"]["message"].startswith("request_invalid: ")
        assert gateway.world.chain.state.jobs == {}


async def test_neutral_values_are_taken() -> None:
    """What clients send by default changes nothing and is not refused."""
    neutral = {
        "n": 1,
        "tools": [],
        "logprobs": False,
        "presence_penalty": 0.0,
        "response_format": {"type": "text"},
        "stop": None,
        "store": False,
        "parallel_tool_calls": True,
        "metadata": {"a": "b"},
    }
    async with gateway_of(200_000) as gateway:
        status, body = await gateway.post({"model": "scripted", "messages": HELLO, **neutral})
        assert (status, body["choices"][0]["message"]["content"]) == (200, "You said: hello")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
async def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    """With a sentence, not with a broken connection."""
    async with gateway_of(200_000) as gateway:
        status, answer = await gateway.post(body)
        assert (status, answer["error"]["code"]) == (400, "request_invalid")


async def test_a_body_that_is_too_large_is_refused() -> None:
    """Before it is read."""
    async with gateway_of(200_000) as gateway:
        status, answer = await gateway.post(io.BytesIO(b"[" * (MAX_BODY_BYTES + 1)))
        assert (status, answer["error"]["type"]) == (413, "invalid_request_error")


async def test_what_a_web_page_could_send_is_refused() -> None:
    """A page can make the owner's browser send plain text anywhere, or JSON to a name of its own that leads here; both would spend
    the owner's money.
    """
    async with gateway_of(200_000) as gateway:
        request = {"model": "scripted", "messages": HELLO}
        assert (await gateway.post(request, content_type="text/plain"))[0] == 415
        assert (await gateway.post(request, host="evil.example"))[0] == 403
        assert (await gateway.post(request, host="127.0.0.1.evil.example"))[0] == 403
        assert [(await gateway.post(request, host=host))[0] for host in ("[", "[::1", "a:b:c", "[::1]evil")] == [
            403
        ] * 4
        assert (await gateway.get("/v1/models", host="evil.example"))[0] == 403
        assert (await gateway.post(request, host="localhost:1"))[0] == 200
        assert (await gateway.post(request, host="[::1]:1"))[0] == 200
        assert len(gateway.world.chain.state.jobs) == 1


async def test_with_a_key_only_who_has_it_is_answered() -> None:
    """As the stock client sends it."""
    async with gateway_of(200_000, api_key="correct") as gateway:
        messages: Any = HELLO
        async with gateway.client("correct") as client:
            answer = await client.chat.completions.create(model="scripted", messages=messages)
            assert answer.choices[0].message.content == "You said: hello"
        async with gateway.client("wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="scripted", messages=messages)
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()
        assert (await gateway.get("/health"))[0] == 200
