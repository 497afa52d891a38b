"""A reorganisation of 1 to 20 blocks at each stage of a job: what it takes out of the chain happens again, once, and is paid once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.chain.support import (
    CIRCUIT_ID,
    HOST,
    OPERATOR,
    QUICK,
    RENTER,
    SESSION_KEY,
    TARGET,
    Chain,
    Make,
    coins,
    mine_until,
    nonce,
    terms_for,
)

from fabstir.chain.account import HORIZON
from fabstir.chain.devnet import DEV_KEYS, DevnetControl
from fabstir.chain.follower import Followed, LogFollower
from fabstir.chain.market import MarketClient
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import to_hex
from fabstir.domain.money import BaseUnits, Tokens, cost
from fabstir.domain.terms import Terms
from fabstir.ops.clock import SystemClock
from fabstir.ports.chain import ClaimArgs, ProofArgs, SumNodeArgs, TxResult
from fabstir.protocol.commitments import (
    Checkpoint,
    challenge_seed,
    challenged_position,
    commitment_root,
    open_path,
    tree_root,
)
from fabstir.protocol.signing import Market, job_id, keccak
from fabstir.testing.journal import MemoryJournal, SimulatedCrash

pytestmark = pytest.mark.real

DEPOSIT = BaseUnits(10_000)
CHECKPOINTS = (Checkpoint(keccak(b"1"), Tokens(256)), Checkpoint(keccak(b"2"), Tokens(256)))
HEAD = keccak(b"head")
TREE = tree_root(CHECKPOINTS)
ROOT = commitment_root(TREE.hash, HEAD)
STAGES = ["JobOpened", "ProofCommitted", "ProofAccepted", "VoucherRedeemed", "JobClosed"]


@pytest.fixture
async def renter(chain: Chain, clock: SystemClock) -> AsyncIterator[MarketClient]:
    """Opens the job."""
    client = await MarketClient.connect([chain.url], DEV_KEYS[1], chain.info, MemoryJournal(), clock, QUICK)
    yield client
    await client.close()


@pytest.fixture
async def host(chain: Chain, clock: SystemClock) -> AsyncIterator[MarketClient]:
    """Collects."""
    client = await MarketClient.connect([chain.url], DEV_KEYS[2], chain.info, MemoryJournal(), clock, QUICK)
    yield client
    await client.close()


@pytest.fixture
async def blocks(control: DevnetControl) -> DevnetControl:
    """A block for each transaction, and none between two questions of a test."""
    await control.hold_blocks()
    await control.automine()
    return control


class Shaken:
    """Takes each transaction out of the chain again, `depth` blocks deep, and waits until it is back."""

    def __init__(self, rpc: JsonRpc, control: DevnetControl, follower: LogFollower[Any], depth: int) -> None:
        self._rpc, self._control, self._follower, self._depth = rpc, control, follower, depth
        self.events: Counter[str] = Counter()
        """What was handed out and not taken back."""
        self.removed = 0

    async def happens(self, result: Awaitable[TxResult]) -> TxResult:
        """Once, then orphaned, then once more: the same transaction in another block."""
        sent = await result
        await self._control.mine(self._depth - 1)
        await self.follow()
        first = await self._block_of(sent)
        await self._control.reorg(self._depth)
        while (again := await self._block_of(sent)) is None or again == first:
            pass
        await self.follow()
        return sent

    async def follow(self) -> None:
        """Take up what the chain says now."""
        async for batch in self._follower.step():
            self._take(batch)

    def _take(self, batch: list[Followed[Any]]) -> None:
        for log in batch:
            self.events[type(log.event).__name__] += -1 if log.removed else 1
            self.removed += log.removed

    async def _block_of(self, sent: TxResult) -> str | None:
        receipt = await self._rpc.request("eth_getTransactionReceipt", to_hex(sent.hash))
        return None if receipt is None else str(receipt["blockHash"])


def _claim(chain: Chain, terms: Terms, tokens: int) -> ClaimArgs:
    amount, transcript = cost(Tokens(tokens), terms.price), keccak(b"transcript")
    market = Market(chain.info.chain_id, chain.info.market)
    digest = market.voucher_digest(job_id(terms), amount, Tokens(tokens), transcript)
    signature = SESSION_KEY.sign(digest)
    return ClaimArgs(terms=terms, amount=amount, tokens=Tokens(tokens), transcript=transcript, signature=signature)


async def _answer(host: MarketClient, control: DevnetControl, rpc: JsonRpc, terms: Terms) -> tuple[str, ProofArgs]:
    """The proof that the chain asks for now, and the key of its intent as the settler names it."""
    seed_block = (await host.job(job_id(terms))).pending_block + 2
    await mine_until(control, rpc, seed_block)
    block_hash = await host.block_hash(seed_block)
    assert block_hash is not None
    path = open_path(CHECKPOINTS, challenged_position(challenge_seed(block_hash, job_id(terms), ROOT), TREE.tokens))
    proof = ProofArgs(
        circuit_id=CIRCUIT_ID,
        tree_root=TREE.hash,
        head=HEAD,
        tokens=TREE.tokens,
        checkpoint_tokens=path.checkpoint.tokens,
        commitment=path.checkpoint.commitment,
        path=tuple(SumNodeArgs(node.hash, node.tokens, node.left) for node in path.siblings),
        proof=b"anything",
    )
    return f"prove:{seed_block}:{block_hash[:8].hex()}", proof


@pytest.mark.parametrize("depth", range(1, 21))
async def test_a_job_whose_every_step_is_orphaned_is_paid_once(
    chain: Chain, renter: MarketClient, host: MarketClient, blocks: DevnetControl, rpc: JsonRpc, depth: int
) -> None:
    """Open, commit, proof, redeem and close are each taken back and come again under the same nonce; who follows the logs sees each
    once in the end; renter, host and treasury have exactly what 512 tokens cost."""
    terms = terms_for(chain, await renter.timestamp())
    before = await renter.balance(chain.info.usdc, RENTER.address)
    nonces = [await nonce(rpc, account.address) for account in (RENTER, HOST)]
    await renter.approve("approve", terms.token, DEPOSIT)
    shaken = Shaken(rpc, blocks, host.follow(await host.block_number() + 1), depth)
    await shaken.happens(renter.open("open", terms, DEPOSIT))
    await shaken.happens(host.commit_proof("commit", terms, TREE.tokens, ROOT))
    key, proof = await _answer(host, blocks, rpc, terms)
    await shaken.happens(host.submit_proof(key, terms, proof))
    await shaken.happens(host.redeem("redeem", (_claim(chain, terms, 300),)))
    await shaken.happens(host.close_by_host("close", _claim(chain, terms, 512)))
    assert [shaken.events[stage] for stage in STAGES] == [1, 1, 1, 2, 1]
    assert shaken.removed >= len(STAGES)
    assert [await nonce(rpc, account.address) for account in (RENTER, HOST)] == [nonces[0] + 2, nonces[1] + 4]
    owed = cost(Tokens(512), terms.price)
    assert await renter.balance(chain.info.usdc, RENTER.address) == before - owed
    earned = [await host.earnings(chain.info.usdc, account.address) for account in (HOST, OPERATOR)]
    assert sum(earned) == owed == await host.balance(chain.info.usdc, chain.info.market)


async def test_a_proof_whose_challenge_is_gone_is_made_again(
    chain: Chain, renter: MarketClient, host: MarketClient, blocks: DevnetControl, rpc: JsonRpc
) -> None:
    """One reorganisation takes commitment and proof: the commitment comes again, the old proof fails against the new challenge, the
    new one passes."""
    terms = terms_for(chain, await renter.timestamp())
    await renter.approve("approve", terms.token, DEPOSIT)
    await renter.open("open", terms, DEPOSIT)
    committed = await host.commit_proof("commit", terms, TREE.tokens, ROOT)
    key, proof = await _answer(host, blocks, rpc, terms)
    proven = await host.submit_proof(key, terms, proof)
    await blocks.reorg(proven.block - committed.block + 1)
    while await rpc.request("eth_getTransactionReceipt", to_hex(proven.hash)) is None:
        pass
    with pytest.raises(ChainFault, match="chain_reverted"):
        await host.submit_proof(key, terms, proof)
    assert (await host.job(job_id(terms))).proven == 0
    await host.submit_proof(*_with_terms(await _answer(host, blocks, rpc, terms), terms))
    assert (await host.job(job_id(terms))).proven == TREE.tokens


def _with_terms(answer: tuple[str, ProofArgs], terms: Terms) -> tuple[str, Terms, ProofArgs]:
    return answer[0], terms, answer[1]


async def test_a_crash_after_the_block_and_a_reorganisation_before_the_restart(
    rpc: JsonRpc, blocks: DevnetControl, make: Make
) -> None:
    """The result was stored, the process died, the block went: the next process notices and sends the same transaction."""
    store = MemoryJournal()
    outbox = make(store)
    sent = await outbox.send("pay", TARGET, b"", 7)
    await outbox.close()
    await blocks.reorg(1)
    assert await coins(rpc, TARGET) == 0
    again = make(store.reopen())
    await again.reconcile()
    result = await again.send("pay", TARGET, b"", 7)
    assert (result.hash, await coins(rpc, TARGET)) == (sent.hash, 7)


async def test_who_asks_again_after_a_reorganisation_gets_no_old_answer(
    rpc: JsonRpc, blocks: DevnetControl, make: Make
) -> None:
    """Before the watch has looked: the answer of `send` is one that the chain shows."""
    outbox = make(MemoryJournal(), settings=replace(QUICK, watch_every=3600.0))
    await outbox.send("pay", TARGET, b"", 7)
    await blocks.mine(3)
    await blocks.reorg(4)
    result = await outbox.send("pay", TARGET, b"", 7)
    receipt = await rpc.request("eth_getTransactionReceipt", to_hex(result.hash))
    assert (quantity(receipt["blockNumber"]), await coins(rpc, TARGET)) == (result.block, 7)


async def test_a_dead_process_in_the_middle_of_sending_again(rpc: JsonRpc, blocks: DevnetControl, make: Make) -> None:
    """Killed when it had noted the orphan and not yet pushed it: the one after it sends it, once."""

    def die(number: int, phase: str) -> None:
        if number >= 1 and phase == "after":
            raise SimulatedCrash(f"write {number}")

    store = MemoryJournal()
    outbox = make(store)
    await outbox.send("pay", TARGET, b"", 7)
    await outbox.close()
    await blocks.reorg(1)
    dying = make(store.reopen(die))
    with pytest.raises(SimulatedCrash):
        await dying.send("pay", TARGET, b"", 7)
    await dying.close()
    assert await coins(rpc, TARGET) == 0
    await make(store.reopen()).reconcile()
    while await coins(rpc, TARGET) == 0:
        pass
    assert await coins(rpc, TARGET) == 7


async def test_a_buried_transaction_is_final(rpc: JsonRpc, blocks: DevnetControl, make: Make) -> None:
    """Deeper than any reorganisation it is written down as mined, and no longer watched."""
    store = MemoryJournal()
    outbox = make(store)
    await outbox.send("pay", TARGET, b"", 7)
    assert [entry.status for entry in await store.unfinished()] == ["signed"]
    await blocks.mine(HORIZON + 1)
    while await store.unfinished():
        await rpc.request("eth_blockNumber")
    entry = await store.get("pay")
    assert entry is not None and (entry.status, entry.error) == ("mined", "")


async def test_twenty_transactions_over_one_reorganisation(rpc: JsonRpc, blocks: DevnetControl, make: Make) -> None:
    """All of them orphaned at once: each comes again on its own nonce, and new ones queue behind them."""
    first = await nonce(rpc, RENTER.address)
    outbox = make(MemoryJournal())
    results = await asyncio.gather(*(outbox.send(f"pay {n}", TARGET, b"", n) for n in range(1, 21)))
    head = quantity(await rpc.request("eth_blockNumber"))
    await blocks.reorg(head - min(result.block for result in results) + 1)
    assert await coins(rpc, TARGET) == 0
    await asyncio.gather(*(outbox.send(f"pay {n}", TARGET, b"", n) for n in range(1, 26)))
    assert (await coins(rpc, TARGET), await nonce(rpc, RENTER.address)) == (sum(range(1, 26)), first + 25)
