"""The Messages dialect with the stock `anthropic` package, over a real socket: the same market as chat completions."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from tests.api.gateways import HELLO, gateway_of
from tests.renter.world import counting

STREAMED = [
    "message_start",
    "content_block_start",
    *["content_block_delta"] * 5,
    "content_block_stop",
    "message_delta",
    "message_stop",
]
QUESTION: Any = [{"role": "user", "content": "count 5"}]


async def test_a_message() -> None:
    """Text, stop reason, usage by the host's count; the parameters reach the host."""
    async with gateway_of(200_000) as gateway, gateway.anthropic() as client:
        answer = await client.messages.create(
            model="scripted",
            max_tokens=300,
            messages=QUESTION,
            system=[
                {"type": "text", "text": "be"},
                {"type": "text", "text": "brief", "cache_control": {"type": "ephemeral"}},
            ],
            stop_sequences=["x"],
            extra_body={"temperature": 0.5},
        )
        assert [block.text for block in answer.content if block.type == "text"] == [counting(5)]
        assert (answer.stop_reason, answer.role, answer.model) == ("end_turn", "assistant", "scripted")
        assert answer.usage.output_tokens == 6 and answer.usage.input_tokens > 0
        [asked] = gateway.world.hosts[0].engine.requests
        assert [(one.role, one.content) for one in asked.messages] == [("system", "be\n\nbrief"), ("user", "count 5")]
        assert (asked.max_tokens, asked.temperature, asked.stop) == (300, 0.5, ("x",))


async def test_a_stream_has_every_event_in_its_place() -> None:
    """In Anthropic's order; the usage comes with message_delta, when the host has told it."""
    async with gateway_of(200_000) as gateway, gateway.anthropic() as client:
        stream = await client.messages.create(model="scripted", max_tokens=300, messages=QUESTION, stream=True)
        events: list[Any] = [event async for event in stream]
        assert [event.type for event in events] == STREAMED
        assert "".join(event.delta.text for event in events if event.type == "content_block_delta") == counting(5)
        assert (events[-2].delta.stop_reason, events[-2].usage.output_tokens) == ("end_turn", 6)


async def test_the_stock_client_s_own_stream_helper_works() -> None:
    """It accumulates the message by itself."""
    async with gateway_of(200_000) as gateway, gateway.anthropic() as client:
        async with client.messages.stream(model="scripted", max_tokens=3, messages=QUESTION) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        assert (text, final.stop_reason, final.usage.output_tokens) == (counting(3), "max_tokens", 3)
        assert final.usage.input_tokens > 0


async def test_tokens_are_counted_by_a_host() -> None:
    """The same number as an answer then costs to read; it costs one generated token."""
    async with gateway_of(200_000) as gateway, gateway.anthropic() as client:
        counted = await client.messages.count_tokens(model="scripted", messages=QUESTION, system="be brief")
        [ledger] = gateway.world.hosts[0].ledgers
        assert ledger.acknowledged == 1
        answer = await client.messages.create(model="scripted", max_tokens=300, messages=QUESTION, system="be brief")
        assert counted.input_tokens == answer.usage.input_tokens > 0


async def test_a_conversation_is_shared_with_the_other_dialects() -> None:
    """What was asked in OpenAI's dialect is gone on with in Anthropic's, on the same job and without telling it again."""
    async with gateway_of(200_000) as gateway, gateway.anthropic() as client:
        first = await gateway.ask("hello")
        messages: Any = [
            *HELLO,
            {"role": "assistant", "content": [{"type": "text", "text": first.choices[0].message.content}]},
            {"role": "user", "content": "and?"},
        ]
        await client.messages.create(model="scripted", max_tokens=9, messages=messages)
        host = gateway.world.hosts[0]
        assert len(host.ledgers) == 1
        assert sum(b'"type":"session_resume"' in message for message in host.sent) == 0


async def test_errors_have_anthropic_s_shape() -> None:
    """The stock client's own exceptions, with our code and the request's id."""
    async with gateway_of(200_000) as gateway, gateway.anthropic() as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.messages.create(model="gpt-9", max_tokens=9, messages=QUESTION)
        body: Any = caught.value.body
        assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
        assert body["error"]["code"] == "model_unavailable"
        assert body["request_id"] == caught.value.response.headers["request-id"] == caught.value.request_id


async def test_a_failure_in_the_middle_is_an_event() -> None:
    """The stock client raises it; what came before was delivered."""
    async with gateway_of(200_000) as gateway, gateway.anthropic() as client:
        gateway.world.hosts[0].engine.fail_next(2)
        text = ""
        stream = await client.messages.create(model="scripted", max_tokens=300, messages=QUESTION, stream=True)
        with pytest.raises(anthropic.APIError, match="hosts_exhausted"):
            async for event in stream:
                text += event.delta.text if event.type == "content_block_delta" else ""  # type: ignore[union-attr]
        assert text == counting(2)


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type", "request_unsupported"),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "request_invalid"),
        ({"tool_choice": {"type": "tool", "name": "g"}, "tools": [{"name": "f"}]}, "tool_choice", "request_invalid"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type", "request_invalid"),
        ({"top_k": 0}, "top_k", "request_invalid"),
        ({"output_config": {"effort": "low"}}, "output_config", "request_unsupported"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages[0].content[0].type",
            "request_unsupported",
        ),
        ({"messages": [{"role": "system", "content": "x"}, *HELLO]}, "messages[0].role", "request_unsupported"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "so"}]}, "messages", "request_invalid"),
        ({"max_tokens": 0}, "max_tokens", "request_invalid"),
        ({"max_tokens": None}, "max_tokens", "request_invalid"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_parameter_that_is_not_served_is_named(change: dict[str, Any], param: str, code: str) -> None:
    """400 in Anthropic's shape; nothing is bought."""
    async with gateway_of(200_000) as gateway:
        body = {"model": "scripted", "max_tokens": 9, "messages": HELLO, **change}
        status, answer = await gateway.post(body, "/v1/messages")
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
        assert (answer["error"]["code"], answer["error"]["param"]) == (code, param)
        assert gateway.world.chain.state.jobs == {}
