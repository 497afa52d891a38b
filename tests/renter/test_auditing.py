"""Answers that other hosts check: scored, paid, compared, remembered; whoever lies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.renter.test_failover import gather
from tests.renter.world import MODEL, eventually, world_of

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Address
from fabstir.domain.money import Tokens
from fabstir.protocol.audit import LEAST_TOKENS, Outcome, Tolerance
from fabstir.protocol.audit_by_host import AuditNoted, convicted, outvoted, scored_evidence
from fabstir.protocol.audit_statistics import Spread
from fabstir.protocol.transcript import TokenRecord
from fabstir.protocol.transcript_file import SessionTranscript
from fabstir.renter.keeping import Keeper
from fabstir.renter.market import Market
from fabstir.testing.engine import ScriptedEngine

EXACT = Spread(bound=1.0, mean=1e-4, variance=1e-6, effect=1.0, count=100_000, answers=1_000)
TOLERANCE = Tolerance(
    model="scripted",
    weights="00" * 32,
    quantisation="none",
    built_with="the tests",
    command="none",
    probability=EXACT,
    alternatives=EXACT,
    outside=1e-6,
)
LONG = f"count {LEAST_TOKENS + 50}"


class _Lying(ScriptedEngine):
    """Says of every token that it is hardly possible."""

    async def _score(self, request: Any) -> Any:
        async for item in super()._score(request):
            if hasattr(item, "records"):
                low = tuple(TokenRecord(record.token, -9_000_000, ()) for record in item.records)
                yield msgspec.structs.replace(item, records=low)
            else:
                yield item


class _Boasting(ScriptedEngine):
    """Generates, and claims other probabilities than it has."""

    async def generate(self, request: Any) -> Any:
        async for item in super().generate(request):
            if hasattr(item, "records") and not request.score:
                yield lying_batch(item)
            else:
                yield item


def lying_batch(batch: Any) -> Any:
    records = tuple(TokenRecord(record.token, record.logprob - 2_000_000, record.top) for record in batch.records)
    return msgspec.structs.replace(batch, records=records)


async def a_session(market: Market, folder: Path, question: str = LONG) -> SessionTranscript:
    """With the cheapest host of the market."""
    keeper = Keeper(folder, words=True)
    market.keeping(keeper)
    async with market.session(MODEL) as session:
        await gather(session.prompt(question))
        [job] = session.jobs
    return keeper.transcript(job.ledger)


def scorers(count: int) -> list[ScriptedEngine]:
    return [ScriptedEngine(scores=True) for _ in range(count)]


async def test_an_honest_answer_is_checked_by_another_host(tmp_path: Path) -> None:
    """Every token is scored, the verifier is paid for them, and it is not the host itself that says so."""
    async with world_of() as world:
        host = await world.host(200_000)
        verifier = await world.host(300_000, ScriptedEngine(scores=True), scores=True)
        async with world.market() as market:
            transcript = await a_session(market, tmp_path)
            report = await market.auditor.audit(transcript, TOLERANCE)
            [audit] = report.audits
            assert (audit.verifier, audit.verdict.outcome) == (verifier.key.address, "consistent")
            assert (report.host, report.suspect) == (host.key.address, "nobody")
            assert audit.verdict.tokens == len(transcript.turns[0].records) == verifier.ledgers[0].acknowledged
            [noted] = market.audits.of(host.key.address)
            assert (noted.verifier, noted.outcome, noted.tokens) == (audit.verifier, "consistent", audit.verdict.tokens)


async def test_a_host_that_lies_is_outvoted_and_not_taken_again(tmp_path: Path) -> None:
    """Also by a renter that starts anew."""
    async with world_of() as world:
        liar = await world.host(200_000, _Boasting())
        for engine in scorers(2):
            await world.host(300_000, engine, scores=True)
        async with world.market() as market:
            transcript = await a_session(market, tmp_path)
            report = await market.auditor.audit(transcript, TOLERANCE)
            assert report.suspect == "host"
            assert {audit.verdict.outcome for audit in report.audits} == {"inconsistent"}
            assert len({audit.verifier for audit in report.audits}) == 2
        async with world.market(world.journal) as again, again.session(MODEL) as session:
            assert again.audits.convicted == {liar.key.address}
            await session.connect()
            assert session.jobs[0].host != liar.key.address


async def test_a_verifier_that_lies_is_outvoted_by_the_second(tmp_path: Path) -> None:
    """The host stays in the market."""
    async with world_of() as world:
        host = await world.host(200_000)
        await world.host(300_000, _Lying(scores=True), scores=True)
        await world.host(400_000, ScriptedEngine(scores=True), scores=True)
        async with world.market() as market:
            report = await market.auditor.audit(await a_session(market, tmp_path), TOLERANCE)
            assert report.suspect == "verifier"
            assert [audit.verdict.outcome for audit in report.audits] == ["inconsistent", "consistent"]
            assert market.audits.convicted == frozenset()
            assert len(market.audits.of(host.key.address)) == 2


async def test_one_verifier_alone_convicts_nobody(tmp_path: Path) -> None:
    """There is no second one: either of the two may be wrong."""
    async with world_of() as world:
        await world.host(200_000, _Boasting())
        await world.host(300_000, ScriptedEngine(scores=True), scores=True)
        async with world.market() as market:
            report = await market.auditor.audit(await a_session(market, tmp_path), TOLERANCE)
            assert report.suspect == "either" and len(report.audits) == 1
            assert market.audits.convicted == frozenset()


async def test_nobody_scores(tmp_path: Path) -> None:
    """`no_host`, with the reason; nothing is paid."""
    async with world_of(200_000, 300_000) as world, world.market() as market:
        transcript = await a_session(market, tmp_path)
        with pytest.raises(FabstirError, match="no_host.*does not score"):
            await market.auditor.audit(transcript, TOLERANCE)
        assert len(world.chain.state.jobs) == 1


async def test_a_host_that_says_it_scores_and_does_not(tmp_path: Path) -> None:
    """Refused by name; the money comes back."""
    async with world_of() as world:
        await world.host(200_000)
        await world.host(300_000, ScriptedEngine(), scores=True)
        async with world.market() as market:
            with pytest.raises(FabstirError, match="engine_refused"):
                await market.auditor.audit(await a_session(market, tmp_path), TOLERANCE)


async def test_a_budget_that_does_not_reach(tmp_path: Path) -> None:
    """Told, and no verdict is made of half an answer."""
    async with world_of() as world:
        host = await world.host(200_000)
        await world.host(20_000_000, ScriptedEngine(scores=True), scores=True, min_deposit=1)
        async with world.market() as market:
            transcript = await a_session(market, tmp_path)
            with pytest.raises(FabstirError, match="deposit_exhausted|budget_exceeded"):
                await market.auditor.audit(transcript, TOLERANCE, budget=1_000)  # type: ignore[arg-type]
            assert market.audits.of(host.key.address) == ()


async def test_a_verifier_that_fails_in_the_middle_gives_no_verdict(tmp_path: Path) -> None:
    """What two of them said is not put together as one's."""
    async with world_of() as world:
        host = await world.host(200_000)
        first = await world.host(300_000, ScriptedEngine(scores=True), scores=True)
        await world.host(400_000, ScriptedEngine(scores=True), scores=True)
        keeper = Keeper(tmp_path, words=True)
        async with world.market() as market:
            market.keeping(keeper)
            async with market.session(MODEL) as session:
                for question in (LONG, LONG):
                    await gather(session.prompt(question))
                transcript = keeper.transcript(session.jobs[0].ledger)

            async def dies() -> None:
                await eventually(lambda: any(ledger.acknowledged > LEAST_TOKENS for ledger in first.ledgers))
                first.up = False
                first.cut()

            dying = asyncio.create_task(dies())
            with pytest.raises(FabstirError):
                await market.auditor.audit(transcript, TOLERANCE)
            await dying
        assert market.audits.of(host.key.address) == ()


async def test_a_short_answer_is_no_evidence(tmp_path: Path) -> None:
    """Said so, and it counts for nobody."""
    async with world_of() as world:
        host = await world.host(200_000)
        await world.host(300_000, ScriptedEngine(scores=True), scores=True)
        async with world.market() as market:
            report = await market.auditor.audit(await a_session(market, tmp_path, "hi"), TOLERANCE)
            assert report.audits[0].verdict.outcome == "not enough evidence" and report.suspect == "nobody"
            assert [noted.outcome for noted in market.audits.of(host.key.address)] == ["not enough evidence"]


# -- by chance -------------------------------------------------------------------------------------------------------------


async def tolerance_of(model: object) -> Tolerance:
    return TOLERANCE


async def test_a_share_of_the_answers_is_checked_without_being_asked() -> None:
    """Answers are gathered until they are evidence; the renter's end waits for the verdict; the liar is found."""
    async with world_of() as world:
        liar = await world.host(200_000, _Boasting())
        for engine in scorers(2):
            await world.host(300_000, engine, scores=True)
        async with world.market() as market:
            market.auditing(tolerance_of, 1.0)
            async with market.session(MODEL) as session:
                for _ in range(3):
                    await gather(session.prompt("count 80"))
        assert {audit.outcome for audit in market.audits.of(liar.key.address)} == {"inconsistent"}
        assert market.audits.convicted == {liar.key.address}


async def test_a_share_of_nothing_costs_nothing() -> None:
    """The default."""
    async with world_of() as world:
        host = await world.host(200_000)
        await world.host(300_000, ScriptedEngine(scores=True), scores=True)
        async with world.market() as market:
            market.auditing(tolerance_of, 0.0)
            async with market.session(MODEL) as session:
                await gather(session.prompt(LONG))
        assert market.audits.of(host.key.address) == () and len(world.chain.state.jobs) == 1


async def test_a_check_that_fails_stops_nothing() -> None:
    """Nobody scores here: the answer is there all the same, and the log says why it was not checked."""
    async with world_of(200_000) as world, world.market() as market:
        market.auditing(tolerance_of, 1.0)
        async with market.session(MODEL) as session:
            assert (await gather(session.prompt(LONG))).endswith(str(LEAST_TOKENS + 50))


# -- the rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "who"),
    [
        ("consistent", None, "nobody"),
        ("not enough evidence", None, "nobody"),
        ("inconsistent", None, "either"),
        ("inconsistent", "not enough evidence", "either"),
        ("inconsistent", "consistent", "verifier"),
        ("inconsistent", "inconsistent", "host"),
    ],
)
def test_who_is_wrong(first: Outcome, second: Outcome | None, who: str) -> None:
    """Two against one decide; silence decides nothing."""
    assert outvoted(first, second) == who


def noted(outcome: Outcome, verifier: int) -> AuditNoted:
    return AuditNoted(
        host=Address(bytes(20)),
        model=MODEL,
        verifier=Address(bytes([verifier]) * 20),
        outcome=outcome,
        tokens=Tokens(300),
        at=0.0,
    )


def test_two_verifiers_convict_and_others_may_clear() -> None:
    """One verifier that repeats itself is one; more for than against, and the host is taken again."""
    assert not convicted([noted("inconsistent", 1)] * 5)
    assert convicted([noted("inconsistent", 1), noted("inconsistent", 2), noted("consistent", 3)])
    assert not convicted([noted("inconsistent", n) for n in (1, 2)] + [noted("consistent", n) for n in (3, 4, 5)])


def test_a_greedy_answer_must_be_the_likeliest() -> None:
    """Of a drawn one nothing is said; of another token than was claimed, nothing at all."""
    claimed = [TokenRecord(7, -100, ((7, -100), (8, -200)))]
    scored = [TokenRecord(7, -150, ((8, -50), (9, -900)))]
    greedy = scored_evidence(claimed, scored, greedy=True).tokens[0]
    drawn = scored_evidence(claimed, scored, greedy=False).tokens[0]
    assert (greedy.shortfall, drawn.shortfall) == (100, 0)
    assert (greedy.is_best, greedy.difference, greedy.alternatives) == (False, 50 / 1e6, (-150,))
    with pytest.raises(ValueError, match="other tokens"):
        scored_evidence(claimed, [TokenRecord(8, -150, ())], greedy=True)
