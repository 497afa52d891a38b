"""Prompt jobs at the host: from the board to the money, whoever dies."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from tests.host.prompt_world import HOST, MONEY, PRICE, SESSION, PromptWorld

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32
from fabstir.domain.money import BaseUnits, Tokens, cost, fee_of
from fabstir.domain.prompts import PromptState
from fabstir.domain.terms import ClaimStage, ProofPolicy
from fabstir.ops.config import LogSection
from fabstir.ops.logging import configure
from fabstir.protocol.prompt_log import ClaimSent, ExecutionStarted, HandedOver, ResultStored, Stage
from fabstir.protocol.sealed import SealingKey, cid
from fabstir.protocol.signing import Market
from fabstir.testing.journal import SimulatedCrash, crash_at

QUESTION = "count 40"
TOKENS = Tokens(41)
"""The end-of-turn token included."""
PRICED = cost(TOKENS, PRICE)


@pytest.fixture
async def world(tmp_path: Path) -> PromptWorld:
    world = PromptWorld(tmp_path)
    await world.register()
    return world


async def test_an_answer_is_paid_without_a_signature(world: PromptWorld) -> None:
    """Under policy `required` nobody signs anything: the claim is held for its window, then the host has what the answer costs, and
    the renter the rest of its escrow."""
    async with world.life():
        prompt, terms = await world.ask(QUESTION)
        await world.until(lambda: world.ledger(prompt).stage is Stage.SETTLING if world.events(prompt) else False)
        result = await world.result(prompt, terms, QUESTION)
        assert (result.text.split()[-1], result.finish_reason, len(result.records)) == ("40", "stop", TOKENS)
        done = await world.renter.completion(prompt, 0)
        assert done is not None

        async def held() -> bool:
            return (await world.renter.job(done.job)).stage is ClaimStage.CLAIMED

        await world.until(held)
        assert (await world.money())[1] == 0
        await world.until(lambda: world.settled(prompt), stride=20)
    assert await world.money() == (MONEY - PRICED, PRICED - fee_of(PRICED), PRICED)


async def test_a_voucher_pays_at_once(world: PromptWorld) -> None:
    """Under policy `fallback` the renter's signature over the answer is enough: no claim, no window. A wrong one changes nothing."""
    async with world.life():
        prompt, _ = await world.ask(QUESTION, policy=ProofPolicy.FALLBACK)
        await world.until(lambda: world.ledger(prompt).stage is Stage.SETTLING if world.events(prompt) else False)
        ledger = world.ledger(prompt)
        assert ledger.head is not None and ledger.completed is not None
        job = ledger.completed.completion.job
        market = Market(world.renter.info.chain_id, world.renter.info.market)
        signature = SESSION.sign(market.voucher_digest(job, PRICED, TOKENS, ledger.head))
        wrong = (
            (Tokens(TOKENS - 1), PRICED, ledger.head, signature),
            (TOKENS, BaseUnits(PRICED + 1), ledger.head, signature),
            (TOKENS, PRICED, Hash32(bytes(32)), signature),
            (TOKENS, PRICED, ledger.head, HOST.sign(market.voucher_digest(job, PRICED, TOKENS, ledger.head))),
        )
        for tokens, amount, head, signed in wrong:
            with pytest.raises(FabstirError, match="voucher_invalid"):
                await world.desk.voucher(prompt, tokens, amount, head, signed)
        for _ in range(2):
            await world.desk.voucher(prompt, TOKENS, PRICED, ledger.head, signature)
        await world.until(lambda: world.settled(prompt))
        assert (await world.renter.job(job)).signed == TOKENS
    assert world.outcomes() == {"completed": 1}
    value = world.metrics.registry.get_sample_value
    assert value("fabstir_acknowledged_tokens_total") == value("fabstir_generation_tokens_total") == TOKENS
    assert value("fabstir_prompt_tokens_total") == 4 + len(QUESTION.split())
    assert await world.money() == (MONEY - PRICED, PRICED - fee_of(PRICED), PRICED)


async def test_a_voucher_that_comes_too_early_is_not_lost(world: PromptWorld) -> None:
    """Before the answer is handed over the renter is told to come again: `job_closed` would let it believe that all is paid."""
    async with world.life():
        world.engine.gate(45)
        prompt, _ = await world.ask("count 90")
        await world.until(lambda: bool(world.events(prompt)) and world.ledger(prompt).stage is Stage.RUNNING)
        with pytest.raises(FabstirError, match="prompt_pending") as told:
            await world.desk.voucher(prompt, TOKENS, PRICED, bytes(32), bytes(65))
        assert told.value.retryable


async def test_a_voucher_is_waited_for_and_not_for_ever(world: PromptWorld) -> None:
    """Under `fallback` the host commits to nothing for five minutes; then it proves and claims, and is paid all the same."""
    async with world.life():
        prompt, _ = await world.ask(QUESTION, policy=ProofPolicy.FALLBACK)
        await world.until(lambda: bool(world.events(prompt)) and world.ledger(prompt).stage is Stage.SETTLING)
        done = await world.renter.completion(prompt, 0)
        assert done is not None
        for _ in range(14):
            await world.clock.advance(20)
            world.chain.mine()
        assert (await world.renter.job(done.job)).pending_block == 0
        await world.until(lambda: world.settled(prompt), stride=20)
    assert await world.money() == (MONEY - PRICED, PRICED - fee_of(PRICED), PRICED)


@pytest.mark.timeout(600)
async def test_a_host_that_dies_at_any_write(tmp_path: Path) -> None:
    """Killed at every journal write in turn, before and after it: the answer is there, nothing is executed again once it is stored,
    there is one claim, and the money is that of the run that nobody disturbed."""
    write, killed = 0, True
    while killed:
        write += 1
        killed = await _die_at(tmp_path / str(write), write)
    assert write > 12, f"a whole job takes more writes than {write}"


async def _die_at(root: Path, write: int) -> bool:
    """One life that dies there, and the next; False where the first one ended before."""
    world = PromptWorld(root)
    await world.register()
    async with world.life(crash_at(write, "after" if write % 2 else "before")) as died:
        prompt, terms = await world.ask(QUESTION)

        async def over() -> bool:
            return bool(died) or await world.settled(prompt)

        await world.until(over, stride=5)
        killed = bool(died)
    async with world.life():
        await world.until(lambda: world.settled(prompt), stride=5)
        assert (await world.result(prompt, terms, QUESTION)).text.split()[-1] == "40"
    kinds = [type(event) for event in world.events(prompt)]
    assert ExecutionStarted not in kinds[kinds.index(ResultStored) :]
    assert kinds.count(HandedOver) == 1
    assert [event.name for event in world.chain.ledger.board.events].count("PromptClaimed") == 1
    assert await world.money() == (MONEY - PRICED, PRICED - fee_of(PRICED), PRICED), write
    return killed


async def test_nothing_that_was_said_is_on_the_disk_or_in_the_log(tmp_path: Path) -> None:
    """Neither the question nor the answer is in any file of the host, in its journal or in a line that it wrote, at level debug."""
    said = io.StringIO()
    configure(LogSection(level="debug", format="json"), said)
    world = PromptWorld(tmp_path)
    await world.register()
    secret = "zanzibar quetzal"
    async with world.life():
        prompt, terms = await world.ask(secret)
        await world.until(lambda: world.settled(prompt), stride=20)
        assert "quetzal" in (await world.result(prompt, terms, secret)).text
    written = _everything_in(tmp_path) + [data for events in world.journal._disk.events.values() for data in events]
    assert len(written) > 5 and "prompt_stage" in said.getvalue()
    for text in (*written, said.getvalue().encode()):
        assert b"quetzal" not in text and b"zanzibar" not in text


def _everything_in(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in root.rglob("*") if path.is_file()]


async def test_what_cannot_be_opened_is_not_claimed(world: PromptWorld) -> None:
    """A prompt that is sealed for somebody else, or too long for the model, costs no gas: no claim is sent."""
    async with world.life():
        foreign, sealed = world.seal(QUESTION, to=SealingKey(b"\x44" * 32))
        await world.desk.upload(cid(sealed), sealed)
        prompt = await world.post(foreign)
        long, _ = await world.ask("word " * 4_050)
        fine, _ = await world.ask(QUESTION)
        await world.until(lambda: world.ledger(fine).stage is Stage.SETTLING if world.events(fine) else False)
        assert world.events(prompt) == world.events(long) == []
    names = [event.name for event in world.chain.ledger.board.events]
    assert names.count("PromptClaimed") == 1


async def test_a_job_waits_for_its_prompt(world: PromptWorld) -> None:
    """A job whose prompt is not here is not claimed; once it is uploaded it is."""
    async with world.life():
        terms, sealed = world.seal(QUESTION)
        prompt = await world.post(terms)
        for _ in range(30):
            await world.clock.advance(2)
        assert world.desk.part().queued == 0 and world.events(prompt) == []
        with pytest.raises(FabstirError, match="blob_mismatch"):
            await world.desk.upload(terms.prompt_cid, sealed + b"x")
        with pytest.raises(FabstirError, match="seal_invalid"):
            await world.desk.upload(terms.prompt_cid, b"in the clear")
        await world.desk.upload(terms.prompt_cid, sealed)
        await world.until(lambda: world.ledger(prompt).stage is Stage.SETTLING if world.events(prompt) else False)


async def test_what_fails_here_is_given_back(world: PromptWorld) -> None:
    """An engine that refuses the request: the claim is released at once, so that another host can take it."""
    async with world.life():
        await world.until(lambda: world.desk.state == "ok")
        world.engine.fail_next(3, "engine_refused")
        prompt, _ = await world.ask(QUESTION)

        async def free() -> bool:
            status = await world.renter.prompt(prompt)
            return bool(world.events(prompt)) and status.state is PromptState.POSTED

        await world.until(free)
        await world.until(lambda: world.ledger(prompt).stage is Stage.ENDED)
        assert world.ledger(prompt).fault == "engine_refused"
        assert world.desk.part().working == 0
    assert world.outcomes() == {"released": 1}


async def test_a_host_that_goes_down_gives_its_claims_back(world: PromptWorld) -> None:
    """It claims nothing more, waits for what it can finish, and releases the rest, so that nobody waits for its claims to lapse."""
    gate = world.engine.gate(45)
    async with world.life():
        prompt, _ = await world.ask("count 90")
        await world.until(gate.reached.is_set)
        draining = asyncio.create_task(world.desk.drain())
        later = await world.post(world.seal(QUESTION)[0])
        await world.until(draining.done)
        assert (await world.renter.prompt(prompt)).state is PromptState.POSTED
        assert world.ledger(prompt).fault == "draining" and world.events(later) == []


async def test_a_claim_that_ran_out_is_not_completed(world: PromptWorld) -> None:
    """The host was away until its claim lapsed: it does not answer any more on that claim, and the renter's money is whole."""
    gate = world.engine.gate(45)  # beyond the answer with which the speed is measured
    async with world.life():
        prompt, terms = await world.ask("count 90")
        await world.until(gate.reached.is_set)
    await world.clock.advance(7_300)
    async with world.life():
        await world.until(lambda: world.ledger(prompt).stage is Stage.ENDED)
        await world.renter.refund_prompt("refund", terms)
    assert await world.money() == (MONEY, 0, 0)
    assert world.outcomes() == {"lost": 1, "expired": 1}


async def test_a_claim_that_was_overtaken_unseen_is_sent_anew(world: PromptWorld) -> None:
    """The host died between sending a claim and seeing it mined; it ran out, and the renter kept the job for this host."""

    def dies(key: str, phase: str) -> None:
        if phase == "after" and ":claim:" in key:
            raise SimulatedCrash(key)

    world.chain.on_transaction = dies
    async with world.life() as died:
        prompt, terms = await world.ask(QUESTION, execute_seconds=600)
        await world.until(lambda: bool(died))
    assert (await world.renter.prompt(prompt)).state is PromptState.CLAIMED
    world.chain.on_transaction = lambda key, phase: None
    await world.clock.advance(700)
    await world.renter.assign_prompts("assign", ((terms, HOST.address),))
    async with world.life():
        await world.until(lambda: world.ledger(prompt).stage is Stage.SETTLING)
    assert [type(event) for event in world.events(prompt)].count(ClaimSent) == 2
    assert world.outcomes() == {"lost": 1, "completed": 1}


async def test_progress_is_told_in_order(world: PromptWorld) -> None:
    """A reader gets each stage once, in order, up to the last; one that comes later gets where it stands."""
    async with world.life():
        prompt, _ = await world.ask(QUESTION)
        await world.until(lambda: bool(world.events(prompt)) and world.ledger(prompt).stage is Stage.SETTLING)
        late = [step.change async for step in world.desk.tracking.follow(prompt, None)]
        assert [change.stage for change in late if change] == ["settling"]
        early = world.desk.tracking.position
        steps = world.desk.tracking.follow(prompt, type(early)(early.epoch, 0))
        told = [step.change.stage async for step in steps if step.change]
        assert told == [
            "claiming", "claimed", "running", "made", "stored", "completing", "completed", "settling"
        ]  # fmt: skip
        with pytest.raises(FabstirError, match="prompt_unknown"):
            world.desk.tracking.follow(type(prompt)(bytes(32)), None)
