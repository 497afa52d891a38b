"""API keys of the gateway over a real socket: who is answered, what each key may spend, and that nothing of it is forgotten."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import openai
import pytest
from tests.api.gateways import HELLO, Gateway, gateway_of, serving
from tests.renter.world import OTHER_MODEL, World, counting, eventually, world_of

from fabstir.domain.errors import FabstirError
from fabstir.domain.money import BaseUnits
from fabstir.renter import gateway_keys
from fabstir.renter.gateway_keys import KeyCard, KeyRing, add_key, revoke_key
from fabstir.testing.engine import ScriptedEngine

UNIT = 1_000_000
"""A price of one base unit for each token."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the keys are."""
    return tmp_path / "keys.json"


async def ask(gateway: Gateway, key: str, content: str = "hello", **options: Any) -> Any:
    """One chat completion with `key`."""
    async with gateway.client(key) as client:
        messages: Any = [{"role": "user", "content": content}]
        return await client.chat.completions.create(model="scripted", messages=messages, **options)


def spent(gateway: Gateway, card: KeyCard) -> int:
    """What the gateway has booked."""
    return gateway.pool.market.spending.spent(card)


# -- who is answered -------------------------------------------------------------------------------------------------------


async def test_each_key_of_the_file_is_answered_and_nobody_else(path: Path) -> None:
    """In the headers of both vendors; each dialect refuses in its own shape; `renter.gateway_key` goes on working."""
    _, secret = add_key(path, "alice")
    async with gateway_of(UNIT, api_key="old", keys=KeyRing(path)) as gateway:
        for key in (secret, "old"):
            assert (await ask(gateway, key)).choices[0].message.content == "You said: hello"
        async with gateway.anthropic(secret) as client:
            await client.messages.create(model="scripted", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
        for key in ("wrong", secret[:-1], "é"):
            status, body = await gateway.post({"model": "scripted", "messages": HELLO}, x_api_key=key)
            assert (status, body["error"]["code"]) == (401, "api_key_invalid")
        async with gateway.anthropic("wrong") as client:
            with pytest.raises(anthropic.AuthenticationError, match="api_key_invalid"):
                await client.messages.count_tokens(model="scripted", messages=[{"role": "user", "content": "hi"}])
        assert (await gateway.get("/health"))[0] == 200
        assert (await gateway.get("/openapi.json"))[0] == 200


async def test_a_key_comes_and_goes_while_the_gateway_runs(path: Path) -> None:
    """With the last one gone nobody is answered; a gateway whose file is broken lets nobody in."""
    async with gateway_of(UNIT, keys=KeyRing(path)) as gateway:
        await ask(gateway, "anything")
        _, secret = add_key(path, "alice")
        with pytest.raises(openai.AuthenticationError):
            await ask(gateway, "anything")
        await ask(gateway, secret)
        revoke_key(path, "alice")
        with pytest.raises(openai.AuthenticationError):
            await ask(gateway, secret)
        await asyncio.to_thread(path.write_text, "{")
        with pytest.raises(openai.InternalServerError, match="config_invalid"):
            await ask(gateway, secret)


def test_the_file_has_no_key_and_is_its_owner_s(path: Path) -> None:
    """Mode 0600, hashes only; names are used once; a budget of nothing is one."""
    card, secret = add_key(path, "alice", budget=BaseUnits(0), per_minute=3, models=("scripted",))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in path.read_text() and secret.removeprefix(gateway_keys.PREFIX) not in path.read_text()
    assert KeyRing(path).find(secret) == card and KeyRing(path).find(secret + "x") is None
    assert card.limit == 0
    with pytest.raises(FabstirError, match="there is a key named alice"):
        add_key(path, "alice")
    for name in ("", "a b", "x" * 65, "../x", "é"):
        with pytest.raises(FabstirError, match="request_invalid"):
            add_key(path, name)
    with pytest.raises(FabstirError, match="no key named bob"):
        revoke_key(path, "bob")
    assert revoke_key(path, card.id) == card and KeyRing(path).cards == ()


async def test_a_key_has_the_models_that_it_names(path: Path) -> None:
    """Others are refused before anything is bought, and not listed."""
    _, secret = add_key(path, "alice", models=("other",))
    async with gateway_of(UNIT, keys=KeyRing(path)) as gateway:
        await gateway.world.host(UNIT, ScriptedEngine(name="other"), model_id=OTHER_MODEL)
        async with gateway.client(secret) as client:
            assert [model.id for model in (await client.models.list()).data] == ["other"]
            with pytest.raises(openai.PermissionDeniedError, match="api_key_forbidden"):
                await ask(gateway, secret)
            assert gateway.world.chain.state.jobs == {}
            messages: Any = HELLO
            await client.chat.completions.create(model="other", messages=messages)


async def test_a_key_asks_as_often_as_its_rate_says(path: Path) -> None:
    """Then 429 with the second at which there is room; other keys do not notice."""
    (_, slow), (_, free) = add_key(path, "slow", per_minute=2), add_key(path, "free")
    async with gateway_of(UNIT, keys=KeyRing(path)) as gateway:
        await ask(gateway, slow)
        await gateway.world.clock.advance(20)
        await ask(gateway, slow)
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(gateway, slow)
        assert caught.value.response.headers["retry-after"] == "40"
        assert caught.value.response.headers["x-should-retry"] == "true"
        await ask(gateway, free)
        await gateway.world.clock.advance(40)
        await ask(gateway, slow)


# -- money -----------------------------------------------------------------------------------------------------------------


async def test_a_key_spends_its_budget_and_no_more(path: Path) -> None:
    """To the last token that it pays for; then 402 by name, and nothing is bought. Others go on."""
    card, secret = add_key(path, "alice", budget=BaseUnits(100))
    other, free = add_key(path, "bob")
    async with gateway_of(UNIT, keys=KeyRing(path)) as gateway:
        assert (await ask(gateway, secret, "count 50")).usage.completion_tokens == 51
        assert spent(gateway, card) == 51
        last = await ask(gateway, secret, "count 90")
        assert (last.choices[0].message.content, last.choices[0].finish_reason) == (counting(49), "length")
        assert spent(gateway, card) == 100
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(gateway, secret)
        assert (caught.value.status_code, caught.value.code) == (402, "key_budget_exceeded")
        assert (await ask(gateway, free, "count 9")).usage.completion_tokens == 10
        assert (spent(gateway, card), spent(gateway, other)) == (100, 10)
        [ledger] = gateway.world.hosts[0].ledgers
        assert ledger.acknowledged == 110


async def test_requests_at_the_same_time_share_the_budget(path: Path) -> None:
    """What one may still cost is held; what it did not cost is there again."""
    card, secret = add_key(path, "alice", budget=BaseUnits(100))
    async with gateway_of(UNIT, keys=KeyRing(path)) as gateway:
        gate = gateway.world.hosts[0].engine.gate(1)
        first = asyncio.create_task(ask(gateway, secret, "count 9", max_tokens=70))
        await gate.reached.wait()
        second = await ask(gateway, secret, "count 90", max_tokens=70)
        assert second.usage.completion_tokens == 30
        with pytest.raises(openai.APIStatusError, match="key_budget_exceeded"):
            await ask(gateway, secret)
        gate.open.set()
        await first
        assert spent(gateway, card) == 40
        assert (await ask(gateway, secret, "count 90")).usage.completion_tokens == 60


async def test_an_answer_that_moves_to_a_dearer_host_stays_within_the_budget(path: Path) -> None:
    """What was granted at the first host's price is granted anew at the next one's."""
    card, secret = add_key(path, "alice", budget=BaseUnits(100))
    async with gateway_of(UNIT, 10 * UNIT, keys=KeyRing(path)) as gateway:
        cheap = gateway.world.hosts[0]
        gate = cheap.engine.gate(50)
        asking = asyncio.create_task(ask(gateway, secret, "count 90"))
        await gate.reached.wait()
        await eventually(lambda: len(cheap.sent) > 2)
        await cheap.kill()
        gate.open.set()
        answer = await asking
        assert answer.choices[0].finish_reason == "length"
        assert answer.choices[0].message.content == counting(answer.usage.completion_tokens)
        assert 100 - 10 < spent(gateway, card) <= 100


async def test_who_goes_away_pays_for_what_arrived(path: Path) -> None:
    """Exactly what was signed for."""
    card, secret = add_key(path, "alice", budget=BaseUnits(5_000))
    async with gateway_of(UNIT, keys=KeyRing(path)) as gateway, gateway.client(secret) as client:
        stream = await client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "count 3000"}], max_tokens=3000, stream=True
        )
        await anext(aiter(stream))
        await stream.close()
        await eventually(lambda: gateway.pool.idle == 1)
        [ledger] = gateway.world.hosts[0].ledgers
        assert spent(gateway, card) == ledger.acknowledged < 3000


async def test_spending_survives_a_restart(path: Path) -> None:
    """The next process knows it from the journal alone."""
    card, secret = add_key(path, "alice", budget=BaseUnits(100))
    async with world_of(UNIT) as world:
        async with serving(world, keys=KeyRing(path)) as gateway:
            await ask(gateway, secret, "count 50")
        async with serving(world, keys=KeyRing(path), journal=world.journal.reopen()) as gateway:
            assert spent(gateway, card) == 51
            last = await ask(gateway, secret, "count 90")
            assert last.usage.completion_tokens == 49
            with pytest.raises(openai.APIStatusError, match="key_budget_exceeded"):
                await ask(gateway, secret)


async def test_what_was_signed_before_a_crash_is_booked_after_it(path: Path) -> None:
    """The process died between the last voucher and the booking; who used the job was written down before."""
    card, secret = add_key(path, "alice")
    async with world_of(UNIT) as world:
        async with serving(world, keys=KeyRing(path)) as gateway:
            await ask(gateway, secret, "count 50")
            events = world.journal._disk.events["gateway:spending"]
            del events[-1]  # as though the crash came before it was written
        async with serving(world, keys=KeyRing(path), journal=world.journal.reopen()) as gateway:
            assert spent(gateway, card) == 51


async def test_a_settled_tail_is_booked_to_whom_it_was_served(path: Path) -> None:
    """What the contract paid above what was signed; once, and also where the job was settled by another process."""
    card, secret = add_key(path, "alice")
    async with world_of(UNIT) as world:
        async with serving(world, keys=KeyRing(path)) as gateway:
            await ask(gateway, secret, "count 50")
            await settle_for(gateway, world, 60)
            await gateway.pool.market.spending.book()
            assert spent(gateway, card) == 60
            await gateway.pool.market.spending.book()
            assert spent(gateway, card) == 60
        async with serving(world, keys=KeyRing(path), journal=world.journal.reopen()) as gateway:
            assert spent(gateway, card) == 60


async def settle_for(gateway: Gateway, world: World, owed: int) -> None:
    """The host had a proof for more tokens than were signed for, and the renter sees it."""
    await gateway.pool.close()
    [ledger] = world.hosts[0].ledgers
    [job] = [job for job in gateway.pool.market.unsettled if job.id == ledger.job]
    account = world.chain.state.jobs[job.id]
    settled = msgspec.structs.replace(account.state, closed=True, owed=BaseUnits(owed))
    world.chain.job = lambda _: settled
    await gateway.pool.market.settle()


async def test_the_owner_s_requests_are_nobody_s(path: Path) -> None:
    """On the same job, between those of a key."""
    card, secret = add_key(path, "alice")
    async with gateway_of(UNIT, api_key="mine", keys=KeyRing(path)) as gateway:
        await ask(gateway, "mine", "count 9")
        await ask(gateway, secret, "count 19")
        await ask(gateway, "mine", "count 29")
        assert spent(gateway, card) == 20
        assert len(gateway.world.hosts[0].ledgers) == 1
