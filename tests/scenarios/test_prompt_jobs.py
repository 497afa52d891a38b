"""Prompt jobs on real parts: a chain, two hosts as processes with the tiny model, one renter; one host dies with its claim."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from fabstir.bootstrap.renter import renter_market
from fabstir.domain.ids import to_hex
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy
from fabstir.protocol.prompt_log import Stage
from fabstir.renter.market import Market
from fabstir.renter.prompts import Order, PromptOptions
from tests.scenarios.prompt_players import ACCOUNTS, PATIENCE, Players, players, until

QUESTION = "Write about bees."
EXECUTE_SECONDS = 600
OPTIONS = PromptOptions(execute_seconds=EXECUTE_SECONDS, temperature=0.0)
IN_THE_MIDDLE = "7:after"
"""The journal write at which host a dies: prompt seen, claim sent, three of its transaction, claim held, execution started."""
WRITES = ("3:after", "7:after", "9:after", "14:before", "16:before", "18:before")
"""Of the twenty of a job that is paid by a voucher."""
AT_THE_NEXT_JOB = "2:before"
"""The first write of its next life says that another answered the job that it died with; the second would be of a new job."""


async def job_of(market: Market, order: Order) -> JobState:
    answer = order._case.ledger.answer
    assert answer is not None
    return await market._chain.job(answer.job)


def said_in(root: Path, *texts: str) -> list[str]:
    """Files in which one of the texts, or the middle of one, can be read: journals, logs, blobs of everybody."""
    wanted = [text.encode() for text in texts] + [text[len(text) // 3 :][:24].encode() for text in texts]
    files = [path for path in root.rglob("*") if path.is_file()]
    assert len(files) > 10
    return [str(path) for path in files if any(text in path.read_bytes() for text in wanted)]


@pytest.mark.real
@pytest.mark.scenario
async def test_a_host_dies_with_its_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Host a claims and is killed in the middle; its claim lapses; the renter reserves the job for host b, which answers; the result is
    what b committed to; b proves it, its claim is held for the window and then paid. A second job, which nobody answers, is refunded
    after its deadline. Board and market are empty then, and all money is where it belongs, to the last unit."""
    monkeypatch.setenv("FABSTIR_HOST_PROMPT_SLOTS", "1")
    async with players(tmp_path) as stage:
        await stage.settle_in()
        had = await stage.net.usdc_of(stage.account)
        await stage.start_doomed("a", IN_THE_MIDDLE)
        async with renter_market(stage.renter, prompts=True) as market:
            model = (await market.models())[0].model_id
            order = await market.post_prompt(model=model, content=QUESTION, max_tokens=100, options=OPTIONS)
            async with asyncio.timeout(PATIENCE):
                await stage.hosts["a"].ended()
            status = await order.status()
            assert (status.board, status.host) == ("claimed", to_hex(ACCOUNTS["a"]))
            assert (await stage.ledger("a", order.id)).stage is Stage.RUNNING
        await stage.hosts["b"].start()
        async with renter_market(stage.renter, prompts=True) as market:  # another process of the renter
            order = market.order(order.id)
            await stage.net.advance(EXECUTE_SECONDS + 10)
            async with asyncio.timeout(PATIENCE):
                result = await order.result()
            assert (result.host, result.tokens > 10, "bee" in result.text.lower()) == (ACCOUNTS["b"], True, True)
            assert (await order.status()).lapsed == (to_hex(ACCOUNTS["a"]),)

            async def claimed() -> bool:
                return (await job_of(market, order)).stage is ClaimStage.CLAIMED

            await until(claimed)
            assert (await job_of(market, order)).held == result.price
            await stage.net.advance(order.terms.challenge + 1)
            async with asyncio.timeout(PATIENCE):
                assert await order.settled() == "settled"
            await _refunded(stage, market)
        await _told_on_the_command_line(stage, order, result.text)
        await stage.hosts["b"].stop()
        assert said_in(tmp_path, QUESTION, result.text) == []
        ledger = await stage.ledger("b", order.id)
        assert (ledger.stage, ledger.executions, ledger.holds) == (Stage.SETTLING, 1, 1)
        assert await stage.withdraw() == result.price == had - await stage.net.usdc_of(stage.account)
        for place in (stage.net.info.board, stage.net.info.market):
            assert await stage.net.usdc_of(place) == 0


async def _told_on_the_command_line(stage: Players, order: Order, text: str) -> None:
    """`fabstir prompt` finds both jobs again, and reads the answer from where it lies, although no host runs that has it."""
    await asyncio.gather(*(host.stop() for host in stage.hosts.values()))
    listed = (await stage.fabstir("list"))["prompts"]
    assert [(one["ended"], one["prompt"] == to_hex(order.id)) for one in listed] == [
        ("settled", True),
        ("refunded", False),
    ]
    assert (await stage.fabstir("result", to_hex(order.id)[:12]))["answer"] == text
    assert (await stage.fabstir("status", "0x00"))["error"]["code"] == "prompt_unknown"


async def _refunded(stage: Players, market: Market) -> None:
    """A job whose only host dies before it claims."""
    await stage.hosts["b"].stop()
    await stage.start_doomed("a", AT_THE_NEXT_JOB)
    model = (await market.models())[0].model_id
    order = await market.post_prompt(
        model=model, content=QUESTION, max_tokens=100, deadline=1_800, hosts=[ACCOUNTS["a"]], options=OPTIONS
    )
    async with asyncio.timeout(PATIENCE):
        await stage.hosts["a"].ended()
    await stage.net.advance(1_801)
    assert (await order.refund()).ended == "refunded"


@pytest.mark.real
@pytest.mark.scenario
async def test_two_hosts_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six jobs, two hosts at the same time, vouchers instead of proofs: each is answered once and paid at once, nobody waits for a
    window, and the money adds up to the last unit."""
    monkeypatch.setenv("FABSTIR_HOST_PROMPT_SLOTS", "2")
    async with players(tmp_path) as stage:
        await stage.settle_in()
        had = await stage.net.usdc_of(stage.account)
        await asyncio.gather(*(host.start() for host in stage.hosts.values()))
        signing = msgspec.structs.replace(OPTIONS, policy=ProofPolicy.FALLBACK)
        async with renter_market(stage.renter, prompts=True) as market:
            model = (await market.models())[0].model_id
            orders = [
                await market.post_prompt(model=model, content=f"Count to {n}.", max_tokens=80, options=signing)
                for n in range(3, 9)
            ]
            async with asyncio.timeout(PATIENCE):
                results = await asyncio.gather(*(order.result() for order in orders))
                assert {await order.settled() for order in orders} == {"settled"}
        await asyncio.gather(*(host.stop() for host in stage.hosts.values()))
        for order, result in zip(orders, results, strict=True):
            (name,) = [name for name, account in ACCOUNTS.items() if account == result.host]
            assert (await stage.ledger(name, order.id)).executions == 1
        paid = sum(result.price for result in results)
        assert await stage.withdraw() == paid == had - await stage.net.usdc_of(stage.account)


@pytest.mark.real
@pytest.mark.scenario
@pytest.mark.timeout(400)
async def test_a_host_killed_in_every_part_of_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL at a write of each part: the claim, the execution, the store, the completion, the handover, the close. The next process
    goes on: each answer is executed until it is stored, and never again, and costs what it costs."""
    monkeypatch.setenv("FABSTIR_HOST_PROMPT_SLOTS", "1")
    async with players(tmp_path) as stage:
        await stage.settle_in()
        had, paid = await stage.net.usdc_of(stage.account), 0
        signing = msgspec.structs.replace(OPTIONS, policy=ProofPolicy.FALLBACK)
        for fault in WRITES:
            host = stage.hosts["a"]
            await stage.start_doomed("a", fault)
            async with renter_market(stage.renter, prompts=True) as market:
                model = (await market.models())[0].model_id
                order = await market.post_prompt(model=model, content=QUESTION, max_tokens=100, options=signing)
                working = asyncio.create_task(_answered(order))
                async with asyncio.timeout(PATIENCE):
                    await host.ended()
                    await host.start()
                    paid += await working
            await host.stop()
            ledger = await stage.ledger("a", order.id)
            assert (ledger.stage, ledger.holds, ledger.executions <= 2) == (Stage.SETTLING, 1, True), fault
        assert await stage.withdraw() == paid == had - await stage.net.usdc_of(stage.account)


async def _answered(order: Order) -> int:
    result = await order.result()
    assert await order.settled() == "settled"
    return result.price
