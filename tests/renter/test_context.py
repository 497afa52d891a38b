"""What of a conversation a renter brings to its hosts: windows, summaries that are paid for, and turns that fit the question."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tests.renter.world import MODEL, World, world_of

from fabstir.domain.errors import FabstirError
from fabstir.protocol.context.plan import ContextRequest
from fabstir.protocol.messages import ChatMessage
from fabstir.renter.access import Wish
from fabstir.renter.session import Session
from fabstir.renter.session_context import SUMMARISE, Compacted, Compacting, ContextEvent, SessionContext
from fabstir.testing.engine import ScriptedEngine
from fabstir.testing.vectors import WordEmbedder

SUMMARY = "Kofi likes red boats."
LONG = "tell " * 20


def small() -> ScriptedEngine:
    """A context of 160 tokens: three turns of 28 and a short answer, not four."""
    return ScriptedEngine({SUMMARISE: [*SUMMARY.split(" ")]}, context_size=160)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with world_of() as world:
        await world.host(engine=small())
        yield world


def settings(**fields: Any) -> dict[str, Any]:
    return {"context": ContextRequest(**fields)}


async def asked(session: Session, content: str, most: int = 4) -> str:
    return "".join([piece async for piece in session.prompt(content, max_tokens=most)])


async def test_nothing_is_left_out_unasked(world: World) -> None:
    """The error has the figures, the host is not blamed, and the conversation stands."""
    async with world.market() as market, market.session(MODEL) as session:
        for _ in range(5):
            await asked(session, LONG)
        with pytest.raises(FabstirError, match="context_too_long.*strategy refuse"):
            await asked(session, LONG)
        assert (len(session.conversation), world.hosts[0].dialled) == (10, 1)


async def test_the_oldest_turns_are_left_out_and_the_report_says_which(world: World) -> None:
    """Every answer's plan covers the whole conversation; the person's conversation stays whole."""
    async with world.market(**settings(strategy="truncate")) as market, market.session(MODEL) as session:
        for turn in range(8):
            await asked(session, LONG)
            assert session.last is not None and session.last.plan is not None
            assert session.last.plan.messages == 2 * turn
        assert session.last is not None and session.last.plan is not None
        dropped, tokens = session.last.plan.count("dropped")
        assert dropped >= 6 and tokens >= 3 * 28
        assert len(session.conversation) == 16
        assert len(world.hosts[0].engine.requests[-1].messages) == 15 - dropped


async def test_a_summary_is_made_paid_for_and_goes_along(world: World) -> None:
    """The host sums up the older half as an answer of its own; the watcher sees it grow; another host gets it too."""
    seen: list[ContextEvent] = []
    other = await world.host(210_000, engine=small())
    async with world.market(**settings(strategy="summarise")) as market, market.session(MODEL) as session:
        session.context.watch = seen.append
        answers = [await asked(session, f"{LONG}{turn}") for turn in range(7)]
        assert len(session.conversation) == 14 and len(answers) == 7
        assert session.last is not None and session.last.plan is not None
        report = session.last
        compacted = [event for event in seen if isinstance(event, Compacted)]
        assert compacted and compacted[-1].tokens == 5 and any(isinstance(event, Compacting) for event in seen)
        context, summarised = session.context.brought(session.conversation)
        assert summarised >= 4 and context[0].content == SUMMARISE and context[1].content == "".join(SUMMARY.split(" "))
        [ledger] = world.hosts[0].ledgers
        assert ledger.acknowledged == ledger.served == 7 * 4 + sum(event.tokens for event in compacted)
        await world.hosts[0].kill()
        await asked(session, "and now?")
        assert other.engine.requests[-1].messages[0].content == SUMMARISE
        assert session.plan is not None and session.plan.summarised == summarised
        assert report.plan is not None and report.plan.count("dropped") == (0, 0)


async def test_a_summary_is_forgotten_with_its_conversation(world: World) -> None:
    """Another conversation has none; the same one again, longer, still has it."""
    context = SessionContext(ContextRequest(strategy="summarise"))
    talk = tuple(ChatMessage(role, role[0] + str(n)) for n in range(4) for role in ("user", "assistant"))
    assert context.compaction_sizes(talk) == (4, 2)
    context.compacted(talk, 4, "short")
    brought, stands_for = context.brought((*talk, ChatMessage("user", "more")))
    assert ([message.content for message in brought], stands_for) == (
        [SUMMARISE, "short", *["u2", "a2", "u3", "a3", "more"]],
        4,
    )
    assert context.compaction_sizes(talk) == (4,)
    context.compacted(talk, 4, "shorter")
    assert context.brought(talk)[1] == 6
    assert context.brought(talk[2:]) == (talk[2:], 0)


async def test_turns_that_fit_the_question_come_along(world: World) -> None:
    """Ranked on the renter's machine, each text embedded once; the host is told their places alone."""
    embedder = WordEmbedder()
    async with world.market(**settings(strategy="retrieve")) as market:
        market.embedding(embedder)
        async with market.session(MODEL) as session:
            await asked(session, "my boat is red and its name is Luna " + "so " * 10)
            for turn in range(8):
                await asked(session, f"{LONG}{turn}")
            await asked(session, "what is the name of my red boat")
            assert session.last is not None and session.last.plan is not None
            assert session.last.plan.count("retrieved")[0] >= 2
            request = world.hosts[0].engine.requests[-1]
            assert request.messages[0].content.startswith("my boat is red")
            texts = [text for batch in embedder.batches for text in batch]
            assert len(texts) == len(set(texts))


async def test_retrieval_needs_an_embedder(world: World) -> None:
    """It is refused by name, before anything is paid."""
    async with world.market(**settings(strategy="retrieve")) as market:
        with pytest.raises(FabstirError, match="embedder_unavailable"):
            await market.start_session(MODEL)


async def test_a_host_that_leaves_out_what_it_was_not_allowed_to(world: World) -> None:
    """Its answer is not believed and it is left."""
    host = world.hosts[0]

    def tamper(message: Any) -> Any:
        plan = getattr(message, "plan", None)
        return (
            message if plan is None else msgspec.structs.replace(message, plan=msgspec.structs.replace(plan, spans=()))
        )

    async with world.market() as market, market.session(MODEL) as session:
        await asked(session, "one")
        host.tamper = tamper
        with pytest.raises(FabstirError, match="hosts_exhausted.*context_plan_invalid"):
            await asked(session, "two")


async def test_a_host_that_forgot_is_told_again(world: World) -> None:
    """It is not blamed: the same connection goes on, with the conversation brought anew."""
    await world.host(210_000)
    async with world.market() as market, market.session(MODEL) as session:
        await asked(session, "one two")
        [actor] = world.hosts[0].node._running.reception.actors()  # type: ignore[union-attr]
        actor.forget()
        assert await asked(session, "three", 9) == "You said: three"
        assert len(world.hosts[0].engine.requests[-1].messages) == 3
        assert (world.hosts[0].dialled, world.hosts[1].dialled) == (1, 0)


async def test_whoever_checks_an_answer_computes_it_from_what_the_model_was_given(world: World) -> None:
    """What is kept of an answer with turns left out is what its engine saw: a verifier's engine gets the same, to the message, and the
    transcript leads to what both signed."""
    verifier = await world.host(210_000, engine=ScriptedEngine(context_size=160, scores=True), scores=True)
    async with world.market(**settings(strategy="truncate")) as market, market.session(MODEL) as session:
        for turn in range(6):
            await asked(session, f"{LONG}{turn}")
        link = session._access.link
        assert link is not None and link.last_turn is not None
        kept = link.last_turn
        seen = world.hosts[0].engine.requests[-1].messages
        assert kept.messages == seen and len(seen) < 11 and kept.plan is not None and kept.plan.count("dropped")[0]
        async with market.session(MODEL) as checking:
            checking._access._wish = Wish(scoring=True)
            again = await checking.score(kept.messages, tuple(record.token for record in kept.records))
        assert verifier.engine.requests[-1].messages == seen
        assert [record.logprob for record in again.records] == [record.logprob for record in kept.records]


async def test_what_is_wrong_with_the_words_is_no_fault_of_the_host(world: World) -> None:
    """One host says so, and the renter hears it: no other one is asked and paid for the same words, and the session goes on."""
    await world.host(210_000)
    async with world.market() as market, market.session(MODEL) as session:
        with pytest.raises(FabstirError, match=r"context_invalid.*U\+0007"):
            await asked(session, "a bell \a rings")
        assert await asked(session, "one", 9) == "You said: one"
        assert ([host.dialled for host in world.hosts], len(session.jobs)) == ([1, 0], 1)


async def test_a_history_that_no_host_takes_is_named_as_such(world: World) -> None:
    """What every host says of the words is what the renter hears, not that all hosts failed."""
    await world.host(210_000)
    history = (ChatMessage("user", "a bell \a rings"), ChatMessage("assistant", "yes"))
    async with world.market() as market, market.session(MODEL, context=history) as session:
        with pytest.raises(FabstirError) as fault:
            await asked(session, "one")
    assert (fault.value.code, fault.value.retryable) == ("context_invalid", False)
