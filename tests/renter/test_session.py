"""What a person sees of a session: text, counts, cancel, budget, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.renter.world import MODEL, counting, eventually, world_of

from fabstir.domain.errors import FabstirError
from fabstir.protocol.messages import ChatMessage
from fabstir.renter import Stage


async def first(answer: AsyncIterator[str]) -> str:
    return await anext(answer)


async def test_a_question_is_answered_piece_by_piece_and_paid_for() -> None:
    """One job, one conversation; every token is acknowledged when the answer is over."""
    async with world_of(200_000) as world, world.market() as market, market.session("scripted") as session:
        pieces = [piece async for piece in session.prompt("count 100", max_tokens=300)]
        assert "".join(pieces) == counting(100)
        assert len(pieces) == 100
        [ledger] = world.hosts[0].ledgers
        assert session.last is not None
        assert (session.last.finish_reason, session.last.completion_tokens) == ("stop", 101)
        assert ledger.served == ledger.acknowledged == 101
        assert session.last.host == world.hosts[0].key.address


async def test_the_conversation_is_kept_and_told_to_the_host_once() -> None:
    """Three turns on one connection: the host gets each message once."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        for question in ("one", "two", "three"):
            assert "".join([piece async for piece in session.prompt(question)]) == f"You said: {question}"
        assert [message.content for message in session.conversation][-2:] == ["three", "You said: three"]
        assert len(world.hosts[0].engine.requests[-1].messages) == 5
        assert sum(b"session_resume" in message for message in world.hosts[0].sent) == 0


async def test_leaving_the_loop_cancels_the_answer_and_pays_for_what_came() -> None:
    """The engine stops, the tokens that were delivered are acknowledged, the next question goes to the same host."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        host, seen = world.hosts[0], []
        async for piece in session.prompt("count 3000", max_tokens=3000):
            seen.append(piece)
            if len(seen) == 50:
                break
        assert "".join([piece async for piece in session.prompt("and now?")]) == "You said: and now?"
        [ledger] = host.ledgers
        await eventually(lambda: host.engine.cancelled == 1)
        assert 50 < ledger.acknowledged == ledger.served < 50 + 64 + 64 + 5
        assert host.dialled == 1
        assert session.conversation[1].content.startswith("".join(seen))


async def test_a_cancelled_answer_is_reported() -> None:
    """With what came until then."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        answer = session.prompt("count 3000", max_tokens=3000)
        assert await anext(answer) == "1"
        await answer.aclose()
        assert session.last is not None
        assert session.last.finish_reason == "cancelled"
        [ledger] = world.hosts[0].ledgers
        assert session.last.completion_tokens == ledger.acknowledged == ledger.served >= 1


async def test_a_new_question_ends_the_answer_that_streams() -> None:
    """Whoever still listens to the old answer is told."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        old = session.prompt("count 3000", max_tokens=3000)
        assert await anext(old) == "1"
        assert "".join([piece async for piece in session.prompt("new")]) == "You said: new"
        with pytest.raises(FabstirError, match="cancelled"):
            await anext(old)


async def test_a_question_may_be_asked_while_another_task_waits_for_an_answer() -> None:
    """The waiting task is told; nothing hangs."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        gate = world.hosts[0].engine.gate(3)

        async def listen() -> list[str]:
            return [piece async for piece in session.prompt("count 3000", max_tokens=3000)]

        listener = asyncio.create_task(listen())
        await gate.reached.wait()
        newer = asyncio.create_task(first(session.prompt("new")))
        await asyncio.sleep(0)
        gate.open.set()
        assert await newer == "You"
        with pytest.raises(FabstirError, match="cancelled"):
            await listener


async def test_a_cancelled_task_leaves_the_session_usable() -> None:
    """Cancelled while it waits for the first token: the host is told, the next question is answered."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        gate = world.hosts[0].engine.gate(0)
        waiting = asyncio.create_task(first(session.prompt("count 10")))
        await gate.reached.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert "".join([piece async for piece in session.prompt("again")]) == "You said: again"
        await eventually(lambda: world.hosts[0].engine.cancelled == 1)
        assert [message.content for message in session.conversation] == ["again", "You said: again"]


async def test_an_answer_without_text_does_not_part_the_two_sides() -> None:
    """A turn that brought nothing to read is in nobody's history, and the next one is paid for as usual."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        world.hosts[0].engine._answers["hm"] = []
        assert [piece async for piece in session.prompt("hm")] == []
        assert session.last is not None and session.last.completion_tokens == 1
        assert "".join([piece async for piece in session.prompt("hello")]) == "You said: hello"
        [ledger] = world.hosts[0].ledgers
        assert ledger.served == ledger.acknowledged == 5
        assert [m.content for m in world.hosts[0].engine.requests[-1].messages] == ["hello"]


async def test_a_cancel_that_crosses_the_end_of_the_answer_harms_nobody() -> None:
    """The host refuses such a cancel; the refusal is not taken for one of the next question."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        answer = session.prompt("count 3")
        assert await anext(answer) == "1"
        for _ in range(50):
            await asyncio.sleep(0)  # the host ends the answer; we have not read that yet
        await answer.aclose()
        await session.rebase(())
        assert "".join([piece async for piece in session.prompt("next")]) == "You said: next"
        [ledger] = world.hosts[0].ledgers
        assert ledger.served == ledger.acknowledged == 4 + 4
        assert world.hosts[0].dialled == 1


async def test_a_question_that_no_host_would_take_is_refused_and_costs_nothing() -> None:
    """The engine's word reaches the person; no other host is tried; the session goes on."""
    async with world_of(200_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        with pytest.raises(FabstirError, match="context_too_long"):
            await anext(session.prompt("word " * 5000))
        assert "".join([piece async for piece in session.prompt("short")]) == "You said: short"
        assert sum(len(host.ledgers) for host in world.hosts) == 1


async def test_a_session_begins_with_a_context() -> None:
    """Such as a system message: the host sees it before the first question."""
    context = (ChatMessage("system", "be brief"),)
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL, context=context) as session:
        assert "".join([piece async for piece in session.prompt("hi")]) == "You said: hi"
        assert world.hosts[0].engine.requests[0].messages[0].content == "be brief"


async def test_another_conversation_can_take_the_place_of_this_one() -> None:
    """`rebase`: the host hears of it with the next question, on the same connection and under the same job."""
    async with world_of(200_000) as world, world.market() as market, market.session(MODEL) as session:
        assert "".join([piece async for piece in session.prompt("one")]) == "You said: one"
        await session.rebase((ChatMessage("user", "a"), ChatMessage("assistant", "b")))
        assert "".join([piece async for piece in session.prompt("c")]) == "You said: c"
        assert [m.content for m in world.hosts[0].engine.requests[-1].messages] == ["a", "b", "c"]
        assert world.hosts[0].dialled == 1 and len(world.hosts[0].ledgers) == 1


async def test_leaving_tells_the_host_and_the_rest_comes_back() -> None:
    """The host signs the end, closes, and `settled` sees refund and cost add up to the deposit."""
    async with world_of(200_000) as world, world.market() as market:
        async with market.session(MODEL, budget=400_000) as session:
            assert "".join([piece async for piece in session.prompt("count 99")]) == counting(99)
        [job] = session.jobs
        assert job.ledger.released is not None and job.ledger.released.tokens == 100
        [before] = await session.settlements()
        assert (before.stage, before.deposit) == (Stage.OPEN, 100_000)
        world.close_by_host(world.hosts[0])
        [after] = await session.settled(0)
        assert (after.stage, after.owed, after.refund) == (Stage.SETTLED, 20, 99_980)
        assert session.budget_left == 400_000 - 20
        assert market.unsettled == ()


async def test_waiting_for_a_settlement_has_an_end() -> None:
    """After the given time the state is reported as it is."""
    async with world_of(200_000) as world, world.market() as market:
        async with market.session(MODEL) as session:
            assert await anext(session.prompt("hi")) == "You"
        waiting = asyncio.create_task(session.settled(30))
        await world.clock.advance(31)
        [settlement] = await waiting
        assert settlement.stage is Stage.OPEN


async def test_a_closed_session_answers_nothing() -> None:
    """And closing it twice is once."""
    async with world_of(200_000) as world, world.market() as market:
        async with market.session(MODEL) as session:
            pass
        await session.close()
        with pytest.raises(FabstirError, match="message_out_of_order"):
            await anext(session.prompt("hi"))
        assert world.hosts[0].dialled == 0


async def test_the_deposits_of_a_session_stay_within_its_budget() -> None:
    """A host that asks for more than the budget is not taken, and nothing is deposited."""
    async with world_of(200_000, min_deposit=50_000) as world, world.market() as market:
        async with market.session(MODEL, budget=49_999) as session:
            with pytest.raises(FabstirError, match="no_host.*asks a deposit of 50000"):
                await anext(session.prompt("hi"))
        async with market.session(MODEL, budget=50_000) as session:
            assert await anext(session.prompt("hi")) == "You"
            assert session.budget_left == 0
        assert sum(world.chain.state.held.values()) == 50_000


async def test_a_deposit_that_runs_out_is_topped_up_under_the_same_job() -> None:
    """The person sees one answer; when the budget is gone the answer ends and says why. One job, one host, one refund."""
    price = 1_000_000_000  # 1000 base units for each token
    async with world_of(price) as world, world.market() as market:
        async with market.session(MODEL, budget=40_000) as session:
            pieces = [piece async for piece in session.prompt("count 100", max_tokens=300)]
            assert "".join(pieces) == counting(40)
            assert session.last is not None
            assert (session.last.finish_reason, session.last.completion_tokens) == ("deposit", 40)
            assert [(job.ledger.signed, job.ledger.deposit) for job in session.jobs] == [(40, 40_000)]
            assert [key for key in world.chain.mined if key.startswith("topup:")] != []
            with pytest.raises(FabstirError, match="budget_exceeded"):
                await anext(session.prompt("more"))
        assert sum(world.chain.state.held.values()) == 40_000


async def test_without_top_ups_an_exhausted_deposit_goes_on_under_a_new_job_within_the_budget() -> None:
    """As before top-ups, for who wants it so (`RenterSettings.top_up`)."""
    price = 1_000_000_000  # 1000 base units for each token
    async with world_of(price) as world, world.market(top_up=False) as market:
        async with market.session(MODEL, budget=40_000) as session:
            pieces = [piece async for piece in session.prompt("count 100", max_tokens=300)]
            assert "".join(pieces) == counting(40)
            assert session.last is not None
            assert (session.last.finish_reason, session.last.completion_tokens) == ("deposit", 40)
            assert [job.ledger.signed for job in session.jobs] == [10, 10, 10, 10]
            with pytest.raises(FabstirError, match="budget_exceeded"):
                await anext(session.prompt("more"))
        assert sum(world.chain.state.held.values()) == 40_000
