"""Prompt jobs of a renter, with a real desk on the other side, on a chain in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.host.prompt_world import HOST, MODEL, MONEY, PRICE, RENTER, PromptWorld

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address, Hash32
from fabstir.domain.money import PricePerMTok, cost, fee_of
from fabstir.domain.prompts import Cid, PromptId
from fabstir.domain.terms import ProofPolicy
from fabstir.ports.blobs import BlobStore
from fabstir.protocol.prompt_order import OrderRules
from fabstir.protocol.prompt_order_log import OrderStage
from fabstir.protocol.prompt_wire import WireProgress, WireVoucher
from fabstir.protocol.signing import SigningKey
from fabstir.renter.prompt_case import OrderServices
from fabstir.renter.prompts import Order, PromptOptions, Prompts
from fabstir.renter.settings import RenterSettings
from fabstir.storage.blobs import DirectoryBlobs
from fabstir.testing.journal import MemoryJournal, SimulatedCrash, WriteHook, crash_at

SECRET = b"\x51" * 32
QUESTION = "count 40"
PRICED = cost(41, PRICE)  # type: ignore[arg-type]
SIGNING = PromptOptions(policy=ProofPolicy.FALLBACK, execute_seconds=1_800, temperature=0.0)
PROVING = PromptOptions(execute_seconds=1_800, temperature=0.0)


class DeskContents:
    """`Contents` straight to the desk of the world's host; down where it is down."""

    def __init__(self, world: PromptWorld) -> None:
        self.world = world
        self.up = True
        self.spoil = False
        """Hands out a result with one byte changed."""

    def _check(self) -> None:
        if not self.up:
            raise error("host_unreachable", "made unreachable by the test")

    async def upload(self, url: str, cid: Cid, content: bytes) -> None:
        self._check()
        await self.world.desk.upload(cid, content)

    async def download(self, url: str, cid: Cid) -> bytes:
        self._check()
        content = await self.world.desk.download(cid)
        return content[:-1] + bytes([content[-1] ^ 1]) if self.spoil else content

    async def voucher(self, url: str, prompt: PromptId, voucher: WireVoucher) -> None:
        self._check()
        await self.world.desk.voucher(prompt, *voucher.values())

    async def progress(self, url: str, prompt: PromptId, node: Hash32) -> WireProgress:
        self._check()
        return WireProgress.of(self.world.desk.tracking.status(prompt), self.world.desk.tracking.position)


class RenterWorld:
    """The renter's side: one process after another over the same disk."""

    def __init__(self, world: PromptWorld, root: Path) -> None:
        self.world = world
        self.contents = DeskContents(world)
        self.journal = MemoryJournal()
        self.blobs: BlobStore = DirectoryBlobs(root / "renter", world.clock, quota=1 << 20, max_age=1e9)
        self.prompts: Prompts

    async def start(self, hook: WriteHook | None = None, *, wallet: SigningKey | None = None) -> Prompts:
        """The next process."""
        self.journal = self.journal.reopen(hook)
        services = OrderServices(
            chain=self.world.renter,
            journal=self.journal,
            blobs=self.blobs,
            contents=self.contents,
            clock=self.world.clock,
            secret=SECRET,
            settings=RenterSettings(authorize=wallet is not None),
            wallet=wallet,
        )
        self.prompts = Prompts(services)
        await self.prompts.restore()
        return self.prompts

    async def post(self, options: PromptOptions = PROVING, **changes: Any) -> Order:
        fields: dict[str, Any] = {"max_tokens": 100, "max_price": PRICE, "deadline": 7_200, "hosts": None}
        return await self.prompts.post(MODEL, QUESTION, options=options, **(fields | changes))

    async def until(self, order: Order, *stages: OrderStage, stride: float = 1.0) -> None:
        """Advance, and let time pass, until it is there."""

        async def there() -> bool:
            await order._case.advance()
            return order._case.ledger.stage in stages

        await self.world.until(there, stride=stride)


@pytest.fixture
async def world(tmp_path: Path) -> RenterWorld:
    world = PromptWorld(tmp_path)
    await world.register()
    renter = RenterWorld(world, tmp_path)
    await renter.start()
    return renter


async def test_ask_and_sign(world: RenterWorld) -> None:
    """Under `fallback` the renter checks the result, signs for it, and everything is over at once: it paid what the answer costs."""
    async with world.world.life():
        order = await world.post(SIGNING)
        await world.until(order, OrderStage.DELIVERED)
        result = await order.result()
        assert (result.text.split()[-1], result.tokens, result.price, result.host) == ("40", 41, PRICED, HOST.address)
        await world.until(order, OrderStage.ENDED)
        assert order._case.ledger.ended == "settled"
    assert await world.world.money() == (MONEY - PRICED, PRICED - fee_of(PRICED), PRICED)


async def test_ask_without_signing(world: RenterWorld) -> None:
    """Under `required` the renter signs nothing; the host is paid by its proof once the window has passed."""
    async with world.world.life():
        order = await world.post()
        await world.until(order, OrderStage.ACCEPTED)
        assert (await order.result()).text.split()[-1] == "40"
        await world.until(order, OrderStage.ENDED, stride=20)
    assert await world.world.money() == (MONEY - PRICED, PRICED - fee_of(PRICED), PRICED)


async def test_a_signed_transfer_pays_the_escrow(world: RenterWorld) -> None:
    """With the wallet's key the escrow is one signed transfer (EIP-3009) and no allowance stands open."""
    await world.start(wallet=RENTER)
    async with world.world.life():
        order = await world.post(SIGNING)
        await world.until(order, OrderStage.DELIVERED)
        assert world.world.chain.ledger.allowances == {}


async def test_a_renter_that_dies_at_any_write(tmp_path: Path) -> None:
    """Killed at every journal write: the next process finds every order whose money may have moved, and gets its result; each costs
    what one answer costs."""
    for write in range(1, 40):
        world = PromptWorld(tmp_path / str(write))
        await world.register()
        renter = RenterWorld(world, tmp_path / str(write))
        async with world.life():
            await renter.start(crash_at(write, "after" if write % 2 else "before"))
            died = False
            try:
                await renter.until(await renter.post(SIGNING), OrderStage.ENDED)
            except SimulatedCrash:
                died = True
            await renter.start()
            for order in renter.prompts.orders:
                await renter.until(order, OrderStage.ENDED)
                assert (await order.result_now()).text.split()[-1] == "40"
            answered = len(renter.prompts.orders)
            assert await world.money() == (
                MONEY - answered * PRICED,
                answered * (PRICED - fee_of(PRICED)),
                answered * PRICED,
            )
        if not died:
            break
    assert 6 < write < 39


async def test_a_result_that_was_changed_is_not_taken(world: RenterWorld) -> None:
    """What does not have the CID on chain counts as not delivered: it is asked for again, and nothing is signed meanwhile."""
    async with world.world.life():
        world.contents.spoil = True
        order = await world.post(SIGNING)
        await world.until(order, OrderStage.ANSWERED)
        for _ in range(3):
            assert (await order.status()).waits_for == "the result cannot be fetched: seal_invalid"
        with pytest.raises(FabstirError, match="prompt_pending"):
            await order.result_now()
        world.contents.spoil = False
        await world.until(order, OrderStage.ENDED)


async def test_a_result_can_be_fetched_after_the_end(world: RenterWorld) -> None:
    """The renter was away until the host was paid by its proof: the result is still there, and still checked."""
    async with world.world.life():
        order = await world.post()
        world.contents.up = False
        await world.until(order, OrderStage.ANSWERED)
        await world.world.until(lambda: world.world.settled(order.id), stride=20)
        order._case._rules = OrderRules(dispute_margin=-1e9)  # it does not object either
        await world.until(order, OrderStage.ENDED)
        with pytest.raises(FabstirError, match="host_unreachable"):
            await order.result()
        world.contents.up = True
        assert (await order.result()).text.split()[-1] == "40"


async def test_cancel_and_refund(world: RenterWorld) -> None:
    """While nobody works the money comes back at once; after the deadline in any case; before it a refund is refused."""
    async with world.world.life():
        pass  # the desk is there for uploads, and works on nothing
    first = await world.post()
    assert (await first.cancel()).ended == "cancelled"
    second = await world.post(deadline=3_600)
    with pytest.raises(FabstirError, match="prompt_pending"):
        await second.refund()
    await world.world.clock.advance(3_601)
    assert (await second.refund()).ended == "refunded"
    with pytest.raises(FabstirError, match="prompt_ended"):
        await second.result()
    assert await world.world.money() == (MONEY, 0, 0)


async def test_hosts_that_fit(world: RenterWorld) -> None:
    """Nobody below the price, or nobody of those that were named: `no_host`. Nobody who takes the prompt: `hosts_exhausted`. No money
    moves."""
    async with world.world.life():
        for changes in ({"max_price": PricePerMTok(1)}, {"hosts": [Address(bytes(20))]}):
            with pytest.raises(FabstirError, match="no_host"):
                await world.post(**changes)
        world.contents.up = False
        with pytest.raises(FabstirError, match="hosts_exhausted"):
            await world.post()
        with pytest.raises(FabstirError, match="request_invalid"):
            await world.post(max_tokens=5_000)
    assert (await world.world.money())[0] == MONEY and world.prompts.orders == ()


async def test_each_change_once(world: RenterWorld) -> None:
    """Whoever watches sees the order posted, claimed and answered, and then the stream ends."""
    async with world.world.life():
        order = await world.post(hosts=[HOST.address])
        seen: list[str] = []

        async def watch() -> None:
            async for status in order.events():
                seen.append(f"{status.stage}/{status.board}")

        watching = asyncio.create_task(watch())
        await world.world.until(watching.done)
        await watching
    assert seen[-1].startswith("accepted/") and len(set(seen)) >= 3
