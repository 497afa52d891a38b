"""The Responses dialect with the stock `openai` package, over a real socket: the same market as chat completions."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from tests.api.gateways import gateway_of
from tests.host.world import eventually
from tests.renter.world import counting

from fabstir.renter.gateway_keys import KeyRing, add_key

STREAMED = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    *["response.output_text.delta"] * 5,
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


async def test_a_question_as_text() -> None:
    """Text, status and usage by the host's count; instructions reach the host before the question."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        answer = await client.responses.create(
            model="scripted", input="count 5", instructions="be brief", metadata={"a": "b"}, temperature=0
        )
        assert (answer.output_text, answer.status, answer.object) == (counting(5), "completed", "response")
        assert answer.usage is not None
        assert (answer.usage.output_tokens, answer.usage.total_tokens) == (6, answer.usage.input_tokens + 6)
        assert (answer.metadata, answer.instructions, answer.error) == ({"a": "b"}, "be brief", None)
        [asked] = gateway.world.hosts[0].engine.requests
        assert [(one.role, one.content) for one in asked.messages] == [("system", "be brief"), ("user", "count 5")]
        assert (asked.max_tokens, asked.temperature, asked.top_p) == (4096, 0.0, 1.0)


async def test_a_conversation_as_items() -> None:
    """As clients send it, with what an earlier response contained."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        first = await client.responses.create(model="scripted", input="count 3")
        items: Any = [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "input_text", "text": "count 3"}]},
            *[item.model_dump() for item in first.output],
            {"type": "message", "role": "user", "content": "and?"},
        ]
        await client.responses.create(model="scripted", input=items)
        said = [(one.role, one.content) for one in gateway.world.hosts[0].engine.requests[-1].messages]
        assert said == [("system", "be brief"), ("user", "count 3"), ("assistant", "1 2 3"), ("user", "and?")]


async def test_a_stream_has_every_event_in_its_place() -> None:
    """Types in OpenAI's order, numbers without a gap, and the last event has the whole response."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        stream: Any = await client.responses.create(model="scripted", input="count 5", stream=True)
        events = [event async for event in stream]
        assert [event.type for event in events] == STREAMED
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == counting(5)
        assert events[-1].response.output_text == counting(5)
        assert events[-1].response.usage.output_tokens == 6
        assert events[0].response.id == events[-1].response.id
        assert (await client.responses.retrieve(events[0].response.id)).output_text == counting(5)


async def test_the_stock_client_s_own_stream_helper_works() -> None:
    """It keeps a snapshot of its own and complains about events out of place."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        async with client.responses.stream(model="scripted", input="count 4") as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_response()
        assert final.output_text == counting(4)


async def test_an_answer_that_is_cut_is_incomplete() -> None:
    """With the reason; streamed or not."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        whole = await client.responses.create(model="scripted", input="count 50", max_output_tokens=16)
        assert (whole.status, whole.output_text) == ("incomplete", counting(16))
        assert whole.incomplete_details is not None and whole.incomplete_details.reason == "max_output_tokens"
        stream: Any = await client.responses.create(
            model="scripted", input="count 50", max_output_tokens=16, stream=True
        )
        events = [event async for event in stream]
        assert events[-1].type == "response.incomplete"


async def test_a_response_is_gone_on_from() -> None:
    """`previous_response_id` brings the conversation without its instructions; the host is asked on the same job."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        first = await client.responses.create(model="scripted", input="count 2", instructions="old")
        second = await client.responses.create(model="scripted", input="and?", previous_response_id=first.id)
        third = await client.responses.create(model="scripted", input="so?", previous_response_id=second.id)
        host = gateway.world.hosts[0]
        said = [(one.role, one.content) for one in host.engine.requests[-1].messages]
        assert said == [
            ("user", "count 2"),
            ("assistant", "1 2"),
            ("user", "and?"),
            ("assistant", "You said: and?"),
            ("user", "so?"),
        ]
        assert (third.previous_response_id, len(host.ledgers)) == (second.id, 1)


async def test_a_response_that_is_not_kept_is_not_found() -> None:
    """With `store: false`, after `delete`, and after an hour."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        unkept = await client.responses.create(model="scripted", input="hi", store=False)
        deleted = await client.responses.create(model="scripted", input="hi")
        await client.responses.delete(deleted.id)
        old = await client.responses.create(model="scripted", input="hi")
        assert (await client.responses.retrieve(old.id)).id == old.id
        await gateway.world.clock.advance(3_600)
        for gone in (unkept, deleted, old):
            with pytest.raises(openai.NotFoundError, match="response_unknown"):
                await client.responses.create(model="scripted", input="x", previous_response_id=gone.id)


async def test_a_response_of_another_key_is_not_found(tmp_path: Any) -> None:
    """What was said with one key is nobody else's."""
    path = tmp_path / "keys.json"
    secrets = [add_key(path, name)[1] for name in ("a", "b")]
    async with (
        gateway_of(200_000, keys=KeyRing(path)) as gateway,
        gateway.client(secrets[0]) as one,
        gateway.client(secrets[1]) as other,
    ):
        kept = await one.responses.create(model="scripted", input="hi")
        with pytest.raises(openai.NotFoundError):
            await other.responses.retrieve(kept.id)
        with pytest.raises(openai.NotFoundError):
            await other.responses.create(model="scripted", input="x", previous_response_id=kept.id)


async def test_logprobs_come_where_they_are_included() -> None:
    """In the deltas and in the whole, as many as there are tokens."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        stream: Any = await client.responses.create(
            model="scripted", input="count 3", stream=True, include=["message.output_text.logprobs"], top_logprobs=1
        )
        events = [event async for event in stream]
        deltas = [one for event in events if event.type == "response.output_text.delta" for one in event.logprobs]
        whole = events[-1].response.output[0].content[0].logprobs
        assert [one.token for one in deltas] == [one.token for one in whole] and len(whole) == 4
        assert all(one.logprob <= 0 for one in whole)


async def test_a_failure_in_the_middle_is_the_last_event() -> None:
    """`response.failed` with our code and what was delivered; it is not kept."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        gateway.world.hosts[0].engine.fail_next(3)
        stream: Any = await client.responses.create(model="scripted", input="count 9", stream=True)
        events = [event async for event in stream]
        last = events[-1]
        assert (last.type, last.response.status, last.response.error.code) == (
            "response.failed",
            "failed",
            "hosts_exhausted",
        )
        assert last.response.output_text == counting(3)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(last.response.id)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"seed": 1}, "seed"),
        ({"input": [{"type": "computer_call", "call_id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_parameter_that_is_not_served_is_named(change: dict[str, Any], param: str) -> None:
    """400 in OpenAI's shape; nothing is bought."""
    async with gateway_of(200_000) as gateway:
        status, body = await gateway.post({"model": "scripted", "input": "hi", **change}, "/v1/responses")
        assert (status, body["error"]["code"]) == (400, "request_unsupported")
        assert body["error"]["param"] in (param, "input[0].role")
        assert gateway.world.chain.state.jobs == {}


# -- in the background -----------------------------------------------------------------------------------------------------


async def _over(client: openai.AsyncOpenAI, name: str) -> Any:
    """The response once it is over."""

    async def over() -> bool:
        return (await client.responses.retrieve(name)).status not in ("queued", "in_progress")

    await eventually(over)
    return await client.responses.retrieve(name)


async def test_a_response_is_made_while_nobody_waits() -> None:
    """Asked, looked at until it is there, gone on from; with an idempotency key it is made once."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        gate = gateway.world.hosts[0].engine.gate(2)
        key = {"Idempotency-Key": "k1"}
        queued = await client.responses.create(model="scripted", input="count 5", background=True, extra_headers=key)
        again = await client.responses.create(model="scripted", input="count 5", background=True, extra_headers=key)
        assert (queued.status, queued.background, again.id) == ("queued", True, queued.id)
        await gate.reached.wait()
        assert (await client.responses.retrieve(queued.id)).status == "in_progress"
        with pytest.raises(openai.BadRequestError, match="no answer, or none yet"):
            await client.responses.create(model="scripted", input="and?", previous_response_id=queued.id)
        gate.open.set()
        answer = await _over(client, queued.id)
        assert (answer.status, answer.output_text) == ("completed", counting(5))
        assert answer.usage is not None and answer.usage.output_tokens == 6
        await client.responses.create(model="scripted", input="and?", previous_response_id=queued.id)
        said = [one.content for one in gateway.world.hosts[0].engine.requests[-1].messages]
        assert said == ["count 5", counting(5), "and?"] and len(gateway.world.hosts[0].engine.requests) == 2


async def test_a_response_in_the_background_is_cancelled() -> None:
    """It goes on no further, and what was delivered is all that is paid for; so it is with one that is deleted."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        engine, queued = gateway.world.hosts[0].engine, None
        for end in (client.responses.cancel, client.responses.delete):
            gate = engine.gate(3)
            queued = await client.responses.create(model="scripted", input="count 500", background=True)
            await gate.reached.wait()
            await end(queued.id)
            gate.open.set()
            await eventually(lambda: gateway.pool.busy == 0)
        [ledger] = gateway.world.hosts[0].ledgers
        assert ledger.served < 20
        assert queued is not None
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(queued.id)


async def test_a_response_in_the_background_that_fails_says_why() -> None:
    """With our code; one that is over stays as it is, and one that is not in the background cannot be cancelled."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        gateway.world.hosts[0].engine.fail_next(0)
        queued = await client.responses.create(model="scripted", input="hi", background=True)
        failed = await _over(client, queued.id)
        assert failed.status == "failed" and str(failed.error.code) == "hosts_exhausted"
        assert (await client.responses.cancel(queued.id)).status == "failed"
        plain = await client.responses.create(model="scripted", input="hi")
        with pytest.raises(openai.BadRequestError, match="request_invalid"):
            await client.responses.cancel(plain.id)
        refused: Any
        for refused in ({"stream": True}, {"store": False}):
            with pytest.raises(openai.BadRequestError, match="background"):
                await client.responses.create(model="scripted", input="hi", background=True, **refused)
