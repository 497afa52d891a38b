"""A conversation outlives its hosts, and no token is paid twice."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from tests.renter.world import MODEL, USDC, Host, counting, paid, world_of

from fabstir.domain.errors import FabstirError
from fabstir.domain.money import PricePerMTok
from fabstir.domain.terms import JobState
from fabstir.protocol.messages import ChatMessage, Error, FromHost, Response, StreamChunk
from fabstir.protocol.offer import Offer, TokenPrice
from fabstir.renter import Session


async def gather(answer: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in answer])


async def ask_and(session: Session, host: Host, after: int, what: Callable[[], Awaitable[None]]) -> str:
    """The answer to `count 200`; when `host` has delivered `after` pieces of it, `what()` happens."""
    pieces, gate = [], host.engine.gate(after)
    async for piece in session.prompt("count 200", max_tokens=500, temperature=0.0):
        pieces.append(piece)
        if len(pieces) == after:
            await what()
            gate.open.set()
    return "".join(pieces)


def delivered(session: Session) -> int:
    assert session.last is not None
    return session.last.completion_tokens


@pytest.mark.parametrize("after", [1, 31, 32, 33, 64, 100, 199, 200])
async def test_a_host_that_dies_is_replaced_in_the_middle_of_an_answer(after: int) -> None:
    """The person reads exactly the uninterrupted answer; both jobs together cost what was delivered, within W."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        first, second = world.hosts
        assert await ask_and(session, first, after, first.kill) == counting(200)
        assert session.last is not None
        assert session.last.hosts == (first.key.address, second.key.address)
        assert delivered(session) == 201
        assert [job.core.received for job in session.jobs] == [after, 201 - after]
        signed = sum(job.ledger.signed for job in session.jobs)
        assert 201 - 64 <= paid(*first.ledgers, *second.ledgers) <= signed <= 201


async def test_the_conversation_goes_on_at_the_next_host() -> None:
    """It gets the whole history, the interrupted answer included."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        first, second = world.hosts
        assert await gather(session.prompt("hello")) == "You said: hello"
        assert await ask_and(session, first, 50, first.kill) == counting(200)
        assert await gather(session.prompt("bye")) == "You said: bye"
        contents = [message.content for message in second.engine.requests[-1].messages]
        assert contents == ["hello", "You said: hello", "count 200", counting(200), "bye"]
        assert second.dialled == 1


@pytest.mark.parametrize("after", [1, 40, 64, 150, 200])
async def test_a_connection_that_breaks_is_made_again_to_the_same_host(after: int) -> None:
    """Under the same job: no new deposit, and every token is paid once."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        host = world.hosts[0]

        async def cut() -> None:
            host.cut()

        assert await ask_and(session, host, after, cut) == counting(200)
        assert (host.dialled, world.hosts[1].dialled) == (2, 0)
        [job] = session.jobs
        assert job.ledger.signed == host.ledgers[0].acknowledged == host.ledgers[0].served == 201 == delivered(session)


async def test_a_connection_that_breaks_between_two_answers_is_made_again() -> None:
    """The next question finds that out, and is answered by the same host under the same job."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        assert await gather(session.prompt("one")) == "You said: one"
        world.hosts[0].cut()
        assert await gather(session.prompt("two")) == "You said: two"
        assert len(session.jobs) == 1
        assert len(world.hosts[0].engine.requests[-1].messages) == 3


async def test_a_host_that_restarts_is_used_again() -> None:
    """Its journal has the position; tokens that it forgot are not billed, those that were signed for stay."""
    async with world_of(100_000) as world, world.market() as market, market.session(MODEL) as session:
        host = world.hosts[0]

        async def restart() -> None:
            await host.kill()
            await host.restart()

        assert await ask_and(session, host, 50, restart) == counting(200)
        [job], [ledger] = session.jobs, host.ledgers
        assert job.ledger.signed == ledger.acknowledged == ledger.served
        assert 201 - 64 <= ledger.served <= 201


async def test_a_connection_that_breaks_twice_in_one_answer_is_a_failed_host() -> None:
    """It gets one more chance, then the next host takes over."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        host, pieces = world.hosts[0], []
        async for piece in session.prompt("count 200", max_tokens=500):
            pieces.append(piece)
            if len(pieces) in (20, 40):
                host.cut()
        assert "".join(pieces) == counting(200)
        assert (host.dialled, world.hosts[1].dialled) == (2, 1)


async def test_an_engine_that_fails_sends_the_renter_to_the_next_host() -> None:
    """A named error of the host; what it delivered is acknowledged to the last token."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        first, second = world.hosts
        first.engine.fail_next(70, "engine_gone")
        assert await gather(session.prompt("count 200", max_tokens=500)) == counting(200)
        before, after = first.ledgers[0], second.ledgers[0]
        assert before.acknowledged == before.served > 0 and after.acknowledged == after.served
        assert before.acknowledged + after.acknowledged == 201 == delivered(session)


async def test_a_host_that_was_left_is_told_of_the_end() -> None:
    """It signs the end too, so that both deposits can come back."""
    async with world_of(100_000, 200_000) as world, world.market() as market:
        async with market.session(MODEL) as session:
            world.hosts[0].engine.fail_next(10)
            assert await gather(session.prompt("count 20")) == counting(20)
        assert [job.ledger.released is not None for job in session.jobs] == [True, True]
        assert all(ledger.finished for host in world.hosts for ledger in host.ledgers)


async def test_a_draining_host_is_left_without_a_word_lost() -> None:
    """It refuses the next question; another host answers it."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        assert await gather(session.prompt("one")) == "You said: one"
        draining = asyncio.create_task(world.hosts[0].node.drain())
        assert await gather(session.prompt("two")) == "You said: two"
        await draining
        assert world.hosts[1].ledgers[0].acknowledged > 0


async def test_a_host_that_cannot_be_reached_costs_nothing() -> None:
    """It is called before anything is deposited; afterwards others come first."""
    async with world_of(100_000, 200_000) as world, world.market() as market:
        first = world.hosts[0]
        await market.hosts()
        first.up = False
        async with market.session(MODEL) as session:
            assert await gather(session.prompt("hi")) == "You said: hi"
            assert [job.host for job in session.jobs] == [world.hosts[1].key.address]
        first.up = True
        async with market.session(MODEL) as session:
            assert await gather(session.prompt("hi")) == "You said: hi"
            assert first.dialled == 1
        await world.clock.advance(2)
        async with market.session(MODEL) as session:
            assert await gather(session.prompt("hi")) == "You said: hi"
            assert first.dialled == 2


async def test_when_every_host_fails_each_one_is_quoted() -> None:
    """The error says what everyone said; what was delivered is in the report; the session can be used once a host is back."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        first, second = world.hosts
        first.engine.fail_next(10, "engine_gone")
        second.engine.fail_next(10, "engine_failed")
        pieces = []
        with pytest.raises(FabstirError) as caught:
            async for piece in session.prompt("count 200", max_tokens=500):
                pieces.append(piece)
        assert caught.value.code == "hosts_exhausted"
        for host, code in ((first, "engine_gone"), (second, "engine_failed")):
            assert f"0x{host.key.address.hex()[:8]} said {code}" in caught.value.detail
        assert "".join(pieces) == counting(20)
        assert session.last is not None
        assert (session.last.finish_reason, session.last.completion_tokens) == ("hosts_exhausted", 20)
        assert await gather(session.prompt("better?")) == "You said: better?"
        assert len(session.jobs) == 2


async def test_nobody_serves_the_model() -> None:
    """`no_host` gives the reason for each one that was looked at."""
    async with world_of(100_000) as world, world.market(max_price=99_999) as market:
        async with market.session(MODEL) as session:
            with pytest.raises(FabstirError, match="no_host.*asks 100000, at most 99999"):
                await gather(session.prompt("hi"))
        with pytest.raises(FabstirError, match="model_unavailable.*'unheard-of'; there is scripted"):
            await market.start_session("unheard-of")


@pytest.mark.parametrize(("limit", "reason"), [(120, "length"), (201, "stop")])
async def test_the_limit_of_tokens_holds_over_all_hosts(limit: int, reason: str) -> None:
    """What the first host delivered counts."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        world.hosts[0].engine.fail_next(70)
        text = await gather(session.prompt("count 200", max_tokens=limit))
        assert text == counting(min(limit, 200))
        assert session.last is not None
        assert (session.last.finish_reason, session.last.completion_tokens) == (reason, limit)
        assert session.last.prompt_tokens == 6


async def test_an_answer_that_breaks_after_its_last_token_is_over() -> None:
    """Nothing is asked of another host, nor of the same one again."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        host = world.hosts[0]

        def before_the_end(message: FromHost) -> FromHost | None:
            if not isinstance(message, Response):
                return message
            host.cut()
            return None

        host.tamper = before_the_end
        assert await gather(session.prompt("count 200", max_tokens=50)) == counting(50)
        assert session.last is not None and session.last.finish_reason == "length"
        assert (host.dialled, world.hosts[1].dialled) == (1, 0)


async def test_a_host_whose_endpoint_is_behind_is_asked_again() -> None:
    """`job_unknown` right after the deposit: it needs a moment, not another host."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        real, answers = world.chain.job, iter([True, True])

        def behind(job: object) -> object:
            return JobState() if next(answers, False) else real(job)

        world.chain.job = behind
        asking = asyncio.create_task(gather(session.prompt("hi")))
        while not asking.done():
            await world.clock.advance(0.1)
        assert await asking == "You said: hi"
        assert (world.hosts[0].dialled, world.hosts[1].dialled) == (3, 0)


async def test_a_job_that_the_host_closed_is_replaced_by_a_new_one_with_the_same_host() -> None:
    """The host is well; only the job is not."""
    async with world_of(100_000) as world, world.market() as market, market.session(MODEL) as session:
        host = world.hosts[0]
        assert await gather(session.prompt("one")) == "You said: one"
        await host.node.chain_closing(session.jobs[0].id)
        assert await gather(session.prompt("two")) == "You said: two"
        assert len(session.jobs) == 2 and session.jobs[1].host == host.key.address


async def test_a_silent_host_is_given_up() -> None:
    """The connection stands, no word comes: after `answer_patience` the next host is asked."""
    async with (
        world_of(100_000, 200_000) as world,
        world.market(answer_patience=60.0) as market,
        market.session(MODEL) as session,
    ):
        first = world.hosts[0].engine.gate(5)
        asking = asyncio.create_task(gather(session.prompt("count 20")))
        await first.reached.wait()
        world.hosts[0].engine.gate(0)  # it hangs again when it is asked once more
        await world.clock.advance(59)
        assert world.hosts[0].dialled == 1
        while not asking.done():
            await world.clock.advance(1)
        assert await asking == counting(20)
        assert (world.hosts[0].dialled, world.hosts[1].dialled) == (2, 1)


async def test_a_host_that_never_greets_is_given_up() -> None:
    """It takes the connection and says nothing."""
    async with world_of(100_000, 200_000) as world, world.market() as market, market.session(MODEL) as session:
        world.hosts[0].tamper = lambda message: None
        asking = asyncio.create_task(gather(session.prompt("hi")))
        while not asking.done():
            await world.clock.advance(1)
        assert await asking == "You said: hi"
        world.hosts[0].up = False


async def test_a_reader_that_pauses_stops_the_meter_and_goes_on_later() -> None:
    """The host waits at W, gives up with `ack_timeout`; the same host goes on when the reader does."""
    async with world_of(100_000) as world, world.market() as market, market.session(MODEL) as session:
        host, pieces = world.hosts[0], []
        async for piece in session.prompt("count 500", max_tokens=600):
            pieces.append(piece)
            if len(pieces) == 100:
                for _ in range(40):
                    await world.clock.advance(1)
                assert host.ledgers[0].exposed <= 64
        assert "".join(pieces) == counting(500)
        assert delivered(session) == host.ledgers[0].acknowledged == 501


async def test_an_error_of_an_unknown_code_is_a_failed_host() -> None:
    """A newer host's word is kept in the story."""
    async with world_of(100_000) as world, world.market() as market, market.session(MODEL) as session:
        sent: list[FromHost] = []

        def newer(message: FromHost) -> FromHost:
            if isinstance(message, StreamChunk) and not sent:
                sent.append(message)
                return Error(
                    code="from_the_future",
                    category="refused",
                    message="no",
                    retryable=True,
                    detail="flux",
                    message_index=0,
                )
            return message

        world.hosts[0].tamper = newer
        with pytest.raises(FabstirError, match="hosts_exhausted.*flux"):
            await gather(session.prompt("count 20"))


async def test_a_conversation_that_no_host_reads_is_refused_before_anything_is_paid() -> None:
    """Hosts say in their offers how much they read; nobody is blamed for a conversation that is longer."""
    context = (ChatMessage("user", "x" * 20_000), ChatMessage("assistant", "y"))
    async with (
        world_of(100_000, max_message_bytes=16_384) as world,
        world.market() as market,
        market.session(MODEL, context=context) as session,
    ):
        with pytest.raises(FabstirError, match="message_too_large.*the host reads 16384"):
            await gather(session.prompt("hi"))
        assert world.chain.state.jobs == {}
        await world.host(200_000)
        await market.hosts(refresh=True)
        assert await gather(session.prompt("hi")) == "You said: hi"
        with pytest.raises(FabstirError, match="message_too_large"):
            await gather(session.prompt("z" * (1 << 20)))
        assert await gather(session.prompt("hi")) == "You said: hi"
        assert len(world.chain.state.jobs) == 1


async def test_what_was_delivered_before_a_break_is_acknowledged_at_the_end() -> None:
    """Nobody asks any more: the host is called once more, gets its voucher and signs the end."""
    async with world_of(100_000) as world, world.market() as market:
        async with market.session(MODEL) as session:
            host = world.hosts[0]
            gate = host.engine.gate(10)
            async for piece in session.prompt("count 20"):
                if piece == " 10":
                    host.cut()
                    break
        gate.open.set()
        [job], [ledger] = session.jobs, host.ledgers
        assert ledger.acknowledged == ledger.served == job.ledger.signed == 10
        assert job.ledger.released is not None and job.ledger.released.tokens == 10


async def test_a_host_that_raised_its_price_is_not_paid_the_old_one() -> None:
    """It would refuse the job, and the deposit would be locked: the offer is asked for again before anything is paid."""
    async with world_of(100_000, 200_000) as world, world.market() as market:
        await market.hosts()
        await world.clock.advance(10)
        real, first = world.fetch, world.hosts[0]

        async def dearer(url: str) -> Offer:
            offer = await real(url)
            models = tuple(
                msgspec.structs.replace(model, prices=(TokenPrice(USDC, PricePerMTok(300_000)),))
                for model in offer.models
            )
            return msgspec.structs.replace(offer, models=models) if url == first.url else offer

        world.fetch = dearer  # type: ignore[method-assign]
        async with market.session(MODEL) as session:
            assert await gather(session.prompt("hi")) == "You said: hi"
            assert [job.host for job in session.jobs] == [world.hosts[1].key.address]
        assert first.dialled == 0


async def test_a_host_whose_offer_changes_all_the_time_is_left() -> None:
    """It could keep a renter busy for ever."""
    async with world_of(100_000, 200_000) as world, world.market() as market:
        await market.hosts()
        await world.clock.advance(10)
        real, first, prices = world.fetch, world.hosts[0], itertools.count(1)

        async def restless(url: str) -> Offer:
            offer = await real(url)
            price = (TokenPrice(USDC, PricePerMTok(next(prices))),)
            models = tuple(msgspec.structs.replace(model, prices=price) for model in offer.models)
            return msgspec.structs.replace(offer, models=models) if url == first.url else offer

        world.fetch = restless  # type: ignore[method-assign]
        async with market.session(MODEL) as session:
            assert await gather(session.prompt("hi")) == "You said: hi"
            assert [job.host for job in session.jobs] == [world.hosts[1].key.address]
