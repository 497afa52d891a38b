"""The stock `openai` package against the gateway, over a real socket, with nothing but a base URL; hosts and chain in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from tests.api.gateways import gateway_of
from tests.renter.world import MODEL, OTHER_MODEL, counting, eventually

from fabstir.domain.ids import to_hex
from fabstir.testing.engine import ScriptedEngine, token_id, token_record, words

# -- answers ---------------------------------------------------------------------------------------------------------------


async def test_an_answer_in_one_piece() -> None:
    """Text, finish reason, usage by the host's count, and the tokens are paid for."""
    async with gateway_of(200_000) as gateway:
        answer = await gateway.ask("count 100", max_tokens=300, temperature=0)
        assert answer.choices[0].message.content == counting(100)
        assert answer.choices[0].message.role == "assistant"
        assert (answer.choices[0].finish_reason, answer.object, answer.model) == ("stop", "chat.completion", "scripted")
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (6, 101, 107)
        [ledger] = gateway.world.hosts[0].ledgers
        assert ledger.acknowledged == 101


async def test_an_answer_as_a_stream() -> None:
    """Each token as it comes; usage at the end where it is asked for; the first chunk names the role."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        stream = await client.chat.completions.create(
            model="scripted",
            messages=[{"role": "user", "content": "count 50"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[0].choices[0].delta.role == "assistant"
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == counting(50)
        assert len(chunks) >= 50
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].choices == [] and chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 51
        assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_without_usage_has_none() -> None:
    """Clients that did not ask for it may not expect a chunk without a choice."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        stream = await client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        chunks = [chunk async for chunk in stream]
        assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_parameters_reach_the_host() -> None:
    """With OpenAI's defaults where nothing is said."""
    async with gateway_of(200_000) as gateway:
        await gateway.ask("one")
        await gateway.ask(
            "two", max_completion_tokens=7, temperature=0.25, top_p=0.5, seed=-1, stop=["x", "y"], user="me", n=1
        )
        plain, full = gateway.world.hosts[0].engine.requests
        assert (plain.max_tokens, plain.temperature, plain.top_p, plain.seed, plain.stop) == (4096, 1.0, 1.0, None, ())
        assert (full.max_tokens, full.temperature, full.top_p) == (7, 0.25, 0.5)
        assert (full.seed, full.stop) == (2**32 - 1, ("x", "y"))


async def test_the_limit_of_tokens_is_a_length() -> None:
    """In OpenAI's words."""
    async with gateway_of(200_000) as gateway:
        answer = await gateway.ask("count 100", max_tokens=10)
        assert answer.choices[0].message.content == counting(10)
        assert answer.choices[0].finish_reason == "length"


async def test_a_host_that_dies_is_not_noticed() -> None:
    """The client sees one stream, whole; both hosts are paid for their part."""
    async with gateway_of(100_000, 200_000) as gateway, gateway.client() as client:
        first, second = gateway.world.hosts
        gate, text = first.engine.gate(40), ""
        stream = await client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "count 200"}], max_tokens=500, stream=True
        )
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if text == counting(40):
                await first.kill()
                gate.open.set()
        assert text == counting(200)
        assert second.ledgers[0].acknowledged == 161


# -- conversations -----------------------------------------------------------------------------------------------------


async def test_a_conversation_that_goes_on_is_not_told_again() -> None:
    """Same job, same connection, and the host is sent the new question only."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        host, messages = gateway.world.hosts[0], list[Any]()
        for turn in range(3):
            messages.append({"role": "user", "content": f"turn {turn}"})
            answer = await client.chat.completions.create(model="scripted", messages=messages)
            messages.append({"role": "assistant", "content": answer.choices[0].message.content})
        assert [m.content for m in host.engine.requests[-1].messages] == [m["content"] for m in messages[:-1]]
        assert (host.dialled, len(host.ledgers)) == (1, 1)
        assert sum(b'"type":"session_resume"' in message for message in host.sent) == 0


async def test_another_conversation_takes_the_place_of_the_last_one() -> None:
    """On the same job; nothing of the other conversation reaches the host."""
    async with gateway_of(200_000) as gateway:
        await gateway.ask("secret of the first")
        async with gateway.client() as client:
            await client.chat.completions.create(
                model="scripted",
                messages=[
                    {"role": "developer", "content": "be brief"},
                    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                    {"role": "assistant", "content": "c"},
                    {"role": "user", "content": "d"},
                ],
            )
        host = gateway.world.hosts[0]
        last = [(message.role, message.content) for message in host.engine.requests[-1].messages]
        assert last == [("system", "be brief"), ("user", "ab"), ("assistant", "c"), ("user", "d")]
        assert len(host.ledgers) == 1


async def test_requests_at_the_same_time_have_jobs_of_their_own() -> None:
    """Up to the limit, and the budget has room for each; one more waits for the first to end. Afterwards the jobs are used again."""
    async with gateway_of(200_000, limit=6) as gateway:
        host = gateway.world.hosts[0]
        gates = [host.engine.gate(1) for _ in range(6)]
        asked = [asyncio.create_task(gateway.ask("count 3")) for _ in range(7)]
        for gate in gates:
            await gate.reached.wait()
        assert gateway.pool.busy == 6 and len(host.engine.requests) == 6
        for gate in gates:
            gate.open.set()
        answers = await asyncio.gather(*asked)
        assert [answer.choices[0].message.content for answer in answers] == [counting(3)] * 7
        assert len(host.ledgers) == 6
        assert (gateway.pool.busy, gateway.pool.idle) == (0, 6)


async def test_each_conversation_goes_on_where_it_is_held() -> None:
    """Two that alternate have a session each; neither is ever told again."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        host = gateway.world.hosts[0]
        gates = [host.engine.gate(1), host.engine.gate(1)]
        first = [asyncio.create_task(gateway.ask(f"count {n}")) for n in (3, 4)]
        for gate in gates:
            await gate.reached.wait()
        for gate in gates:
            gate.open.set()
        await asyncio.gather(*first)
        for n in (3, 4):
            messages: Any = [
                {"role": "user", "content": f"count {n}"},
                {"role": "assistant", "content": counting(n)},
                {"role": "user", "content": "and?"},
            ]
            await client.chat.completions.create(model="scripted", messages=messages)
            assert [m.content for m in host.engine.requests[-1].messages] == [m["content"] for m in messages]
        assert sum(b'"type":"session_resume"' in message for message in host.sent) == 0


async def test_a_session_of_another_model_makes_room() -> None:
    """The limit holds over all models; the host of the one that is ended settles."""
    async with gateway_of(200_000, limit=1) as gateway:
        first = gateway.world.hosts[0]
        await gateway.world.host(200_000, ScriptedEngine(name="other"), model_id=OTHER_MODEL)
        await gateway.ask("hi")
        async with gateway.client() as client:
            answer = await client.chat.completions.create(model="other", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content == "You said: hi"
        assert gateway.pool.idle == 1
        assert first.ledgers[0].finished == "ended by the renter"


async def test_a_client_that_goes_away_is_not_answered_any_further() -> None:
    """In the middle of a stream: the engine stops, what was delivered is paid for, the session serves the next request."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        host = gateway.world.hosts[0]
        stream = await client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "count 3000"}], max_tokens=3000, stream=True
        )
        await anext(aiter(stream))
        await stream.close()
        await eventually(lambda: host.engine.cancelled == 1 and gateway.pool.idle == 1)
        assert (await gateway.ask("hi")).choices[0].message.content == "You said: hi"
        [ledger] = host.ledgers
        assert ledger.acknowledged == ledger.served < 3000


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_before_the_first_token_costs_nothing(stream: bool) -> None:
    """Whether it asked for a stream or not."""
    async with gateway_of(200_000) as gateway:
        host = gateway.world.hosts[0]
        gate = host.engine.gate(0)
        asking = asyncio.create_task(gateway.ask("count 100", stream=stream))
        await gate.reached.wait()
        asking.cancel()
        await eventually(lambda: host.engine.cancelled == 1 and gateway.pool.idle == 1)
        assert host.ledgers[0].served == 0


# -- money -------------------------------------------------------------------------------------------------------------


async def test_all_requests_together_stay_within_the_budget() -> None:
    """What cannot be deposited any more is `insufficient_quota`; once a job is settled, its rest is there again."""
    price = 1_000_000_000  # 1000 base units for each token
    async with gateway_of(price, budget=40_000) as gateway:
        answer = await gateway.ask("count 100")
        assert answer.choices[0].message.content == counting(40)
        assert answer.choices[0].finish_reason == "length"
        with pytest.raises(openai.APIStatusError) as caught:
            await gateway.ask("more")
        assert (caught.value.status_code, caught.value.code, caught.value.type) == (
            402,
            "budget_exceeded",
            "insufficient_quota",
        )


async def test_what_a_settled_job_did_not_cost_is_there_again() -> None:
    """The gateway looks before it says that there is nothing left."""
    async with gateway_of(200_000, 200_000, budget=20_000, min_deposit=15_000) as gateway:
        first = min(gateway.world.hosts, key=lambda host: host.key.address)
        await gateway.ask("hi")
        first.engine.fail_next(0)
        with pytest.raises(openai.APIStatusError, match="budget_exceeded"):
            await gateway.ask("hi")
        gateway.world.close_by_host(first)
        first.engine.fail_next(0)
        assert (await gateway.ask("hi")).choices[0].message.content == "You said: hi"


async def test_the_hosts_are_told_when_the_gateway_ends() -> None:
    """Every job is released, so that the rest comes back."""
    async with gateway_of(200_000) as gateway:
        await gateway.ask("hi")
        host = gateway.world.hosts[0]
        await gateway.pool.close()
        assert host.ledgers[0].finished == "ended by the renter"
        with pytest.raises(openai.APIStatusError, match="draining"):
            await gateway.ask("hi")


# -- what fails --------------------------------------------------------------------------------------------------------


async def test_a_model_that_nobody_offers_is_not_found() -> None:
    """The stock client's own exception, with the names that there are."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        with pytest.raises(openai.NotFoundError, match="'gpt-9'; there is scripted"):
            await client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "hi"}])


async def test_a_failure_before_the_first_token_is_a_status() -> None:
    """For a stream too; the code is ours, and whether to retry is said."""
    async with gateway_of(200_000) as gateway:
        for stream in (False, True):
            gateway.world.hosts[0].engine.fail_next(0, "engine_gone")
            with pytest.raises(openai.InternalServerError) as caught:
                await gateway.ask("hi", stream=stream)
            assert (caught.value.status_code, caught.value.code) == (502, "hosts_exhausted")
            assert "engine_gone" in caught.value.message
            assert caught.value.response.headers["x-should-retry"] == "true"


async def test_a_failure_in_the_middle_of_a_stream_is_an_event() -> None:
    """The stock client raises it; what came before was delivered."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        gateway.world.hosts[0].engine.fail_next(20)
        text = ""
        stream = await client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "count 100"}], stream=True
        )
        with pytest.raises(openai.APIError) as caught:
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
        assert text == counting(20)
        assert caught.value.code == "hosts_exhausted"


async def test_a_prompt_beyond_the_context_is_the_clients_fault() -> None:
    """400, and no other host is asked."""
    async with gateway_of(200_000) as gateway:
        with pytest.raises(openai.BadRequestError) as caught:
            await gateway.ask("word " * 5000)
        assert caught.value.code == "context_too_long"


# -- views -------------------------------------------------------------------------------------------------------------


async def test_the_models_are_those_of_the_market() -> None:
    """With the cheapest price and how many serve it; a name that stands for two models gives way to the ids."""
    async with gateway_of(300_000, 200_000) as gateway, gateway.client() as client:
        [model] = (await client.models.list()).data
        assert (model.id, model.object) == ("scripted", "model")
        _, body = await gateway.get("/v1/models")
        assert body["data"][0] | {"model_id": to_hex(MODEL), "price_per_mtok": "200000", "hosts": 2} == body["data"][0]
        assert (await client.models.retrieve("scripted")).id == "scripted"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("gpt-9")
        await gateway.world.host(100_000, ScriptedEngine(name="scripted"), model_id=OTHER_MODEL)
        await gateway.world.clock.advance(30)
        assert {model.id for model in (await client.models.list()).data} == {to_hex(MODEL), to_hex(OTHER_MODEL)}
        with pytest.raises(openai.BadRequestError, match=to_hex(OTHER_MODEL)):
            await client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "hi"}])
        answer = await client.chat.completions.create(
            model=to_hex(OTHER_MODEL), messages=[{"role": "user", "content": "hi"}]
        )
        assert answer.choices[0].message.content == "You said: hi"


async def test_health_tells_the_truth() -> None:
    """Budget and sessions; 503 with the reason where nothing can be answered."""
    async with gateway_of(200_000) as gateway:
        await gateway.ask("hi")
        status, body = await gateway.get("/health")
        assert (status, body["status"], body["models"], body["hosts"]) == (200, "ok", 1, 1)
        assert (body["busy"], body["idle"], body["budget"], body["budget_left"]) == (0, 1, "1000000", "857143")
        assert body["block"] > 0
        gateway.world.hosts[0].up = False
        await gateway.world.clock.advance(30)
        status, body = await gateway.get("/health")
        assert (status, body["status"], body["hosts"]) == (503, "no_host", 0)


async def test_a_path_that_does_not_exist_is_told_in_the_same_shape() -> None:
    """Clients can read it."""
    async with gateway_of() as gateway:
        status, body = await gateway.get("/v1/images/generations")
        assert (status, body["error"]["code"]) == (404, "request_invalid")


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_are_those_of_the_signed_records(stream: bool) -> None:
    """One for each token that was paid for, the one without text included; as many alternatives as were asked for."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        messages: Any = [{"role": "user", "content": "count 3"}]
        answer: Any = await client.chat.completions.create(
            model="scripted", messages=messages, logprobs=True, top_logprobs=2, stream=stream
        )
        if stream:
            choices = [chunk.choices[0] async for chunk in answer]
            told = [one for choice in choices if choice.logprobs for one in choice.logprobs.content]
        else:
            told = answer.choices[0].logprobs.content
        wanted = [token_record(token_id(piece), 4) for piece in words("1 2 3")]
        assert [one.token for one in told[:3]] == [f"token_id:{record.token}" for record in wanted]
        assert [one.logprob for one in told[:3]] == [record.logprob / 1e6 for record in wanted]
        assert [len(one.top_logprobs) for one in told[:3]] == [2, 2, 2]
        assert len(told) == 4


async def test_the_context_of_an_answer_is_told() -> None:
    """A header says how many messages the model was given and left out, whole or streamed; it counts and quotes nothing."""
    talk = [{"role": role, "content": f"{role} {turn}"} for turn in range(2) for role in ("user", "assistant")]
    async with gateway_of(200_000) as gateway:
        for stream in (False, True):
            body = {"model": "scripted", "messages": [*talk, {"role": "user", "content": "hi"}], "stream": stream}
            _, _, headers = await gateway.send(body, "/v1/chat/completions")
            assert headers["x-fabstir-context"] == "kept=4; tokens=29"
