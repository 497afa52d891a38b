"""The chain in memory fails as a test asks: lost answers, silence, held blocks, and proofs that are really checked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import msgspec
import pytest
from tests.chain.playing import (
    DEPOSIT,
    HEAD,
    MODEL,
    PRICE,
)
from tests.chain.support import HOST, OTHER, RENTER, Chain, terms_for

from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import Address, Hash32, JobId
from fabstir.domain.money import Tokens
from fabstir.domain.terms import JobState, Terms
from fabstir.ports.chain import NO_KEY, MarketChain, ProofArgs, RegisteredOffer
from fabstir.ports.prover import ProofStatement
from fabstir.protocol.authorization import authorization_digest
from fabstir.protocol.commitments import (
    Checkpoint,
    SumPath,
    challenge_seed,
    commitment_root,
    statement_hash,
    tree_root,
)
from fabstir.protocol.signing import Market, job_id, keccak
from fabstir.testing.chain import INFO, MemoryChain
from fabstir.testing.clock import ManualClock
from fabstir.testing.prover import HashProver


def _small() -> tuple[MemoryChain, MarketChain]:
    chain = MemoryChain()
    chain.approve_model(MODEL)
    chain.give_stake(HOST.address)
    chain.give_stake(OTHER.address)
    return chain, chain.connect(HOST.address)


OFFERS = (RegisteredOffer(MODEL, INFO.usdc, PRICE),)


async def test_a_key_is_one_transaction_also_after_a_restart() -> None:
    """Asked again, by the same account connected anew: the first result, no second block."""
    chain, host = _small()
    first = await host.register_host("register", "http://a", NO_KEY, OFFERS)
    again = await chain.connect(HOST.address).register_host("register", "http://elsewhere", NO_KEY, OFFERS)
    assert again == first
    assert chain.block == first.block
    assert [entry.url for entry in await host.hosts()] == ["http://a"]
    other = await chain.connect(OTHER.address).register_host("register", "http://b", NO_KEY, OFFERS)
    assert other != first


async def test_a_dropped_answer_was_mined_all_the_same() -> None:
    """`transaction_lost`; the effect is there, and asking again gives the result."""
    chain, host = _small()
    chain.lost_answers = 1
    with pytest.raises(ChainFault, match="transaction_lost"):
        await host.register_host("register", "http://a", NO_KEY, OFFERS)
    assert len(await host.hosts()) == 1
    assert (await host.register_host("register", "http://a", NO_KEY, OFFERS)).block == chain.block


async def test_an_unreachable_chain_answers_nothing() -> None:
    """Reads and writes, until it comes back."""
    chain, host = _small()
    chain.unreachable = True
    for ask in (
        host.hosts(),
        host.block_number(),
        host.job(JobId(bytes(32))),
        host.register_host("r", "http://a", NO_KEY, OFFERS),
    ):
        with pytest.raises(ChainFault, match="chain_unreachable"):
            await ask
    chain.unreachable = False
    assert await host.job(JobId(bytes(32))) == JobState()


async def test_held_blocks_let_two_transactions_collide() -> None:
    """Both pass the estimate, one fails in its block, and stays failed under its key."""
    chain, host = _small()
    chain.hold_blocks()
    await _waiting(chain, host.register_host("register", "http://a", NO_KEY, OFFERS), 1)
    chain.mine()
    first = asyncio.create_task(host.unregister_host("leave"))
    second = asyncio.create_task(host.unregister_host("leave too"))
    await asyncio.sleep(0)
    chain.mine()
    await first
    with pytest.raises(ChainFault, match="NotRegistered"):
        await second
    await _waiting(chain, host.register_host("again", "http://a", NO_KEY, OFFERS), 1)
    chain.automine()
    assert len(await host.hosts()) == 1
    with pytest.raises(ChainFault, match="NotRegistered"):
        await host.unregister_host("leave too")


async def _waiting(chain: MemoryChain, move: Awaitable[object], expected: int) -> None:
    task = asyncio.ensure_future(move)
    await asyncio.sleep(0)
    assert f"waiting={expected}" in repr(chain)
    task.add_done_callback(lambda done: done.exception())


async def test_a_caller_that_leaves_does_not_take_its_transaction_along() -> None:
    """Cancelled while it waits for its block; the block has it."""
    chain, host = _small()
    chain.hold_blocks()
    task = asyncio.create_task(host.register_host("register", "http://a", NO_KEY, OFFERS))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    chain.mine()
    assert len(await host.hosts()) == 1


async def test_a_real_proof_is_asked_for() -> None:
    """With a prover behind the circuit, a made-up proof is refused and the right one is not; the supply never changes."""
    prover = HashProver()
    await prover.start()
    clock = ManualClock()
    chain = MemoryChain(clock, prover=prover)
    chain.mint(RENTER.address, 5_000)
    renter, host = chain.connect(RENTER.address), chain.connect(HOST.address)
    terms = terms_for(Chain("", chain.info, MODEL), chain.now(), token=chain.info.usdc)
    await renter.approve("approve", chain.info.usdc, DEPOSIT)
    await renter.open("open", terms, DEPOSIT)
    records = tuple(keccak(bytes([n])) for n in range(100))
    checkpoint = Checkpoint((await prover.commit(records)).digest, Tokens(100))
    tree = tree_root((checkpoint,))
    committed = await host.commit_proof("commit", terms, Tokens(100), commitment_root(tree.hash, HEAD))
    chain.mine(2)
    proof = ProofArgs(
        circuit_id=prover.circuit_id,
        tree_root=tree.hash,
        head=HEAD,
        tokens=Tokens(100),
        checkpoint_tokens=Tokens(100),
        commitment=checkpoint.commitment,
        path=(),
        proof=b"made up",
    )
    with pytest.raises(ChainFault, match="ProofInvalid"):
        await host.submit_proof("lie", terms, proof)
    block_hash = await host.block_hash(committed.block + 2)
    assert block_hash is not None
    bundle = await prover.prove(_statement(chain, terms, proof, block_hash), records)
    await host.submit_proof("prove", terms, msgspec.structs.replace(proof, proof=bundle.proof))
    assert (await host.job(job_id(terms))).proven == 100
    assert chain.supply() == 5_000


def _statement(chain: MemoryChain, terms: Terms, proof: ProofArgs, block_hash: Hash32) -> ProofStatement:
    job, root = job_id(terms), commitment_root(proof.tree_root, proof.head)
    path = SumPath(0, Checkpoint(proof.commitment, proof.checkpoint_tokens), Tokens(0), ())
    market = Market(chain.info.chain_id, chain.info.market)
    statement = statement_hash(market, terms, job, root, proof.tokens, path, proof.circuit_id)
    return ProofStatement(statement, challenge_seed(block_hash, job, root), proof.commitment)


async def test_a_deposit_is_relayed_with_the_renters_signature_only() -> None:
    """EIP-3009: the right signature opens, another one does not, and neither after its time."""
    chain = MemoryChain()
    chain.mint(RENTER.address, 5_000)
    host = chain.connect(HOST.address)
    terms = terms_for(Chain("", chain.info, MODEL), chain.now(), token=chain.info.usdc)
    digest = authorization_digest(
        chain.info.chain_id,
        terms.token,
        RENTER.address,
        chain.info.market,
        DEPOSIT,
        terms.expires_at,
        Hash32(job_id(terms)),
    )
    with pytest.raises(ChainFault, match="SignatureInvalid"):
        await host.open_with_authorization("forged", terms, DEPOSIT, terms.expires_at, OTHER.sign(digest))
    with pytest.raises(ChainFault, match="AuthorizationExpired"):
        await host.open_with_authorization("late", terms, DEPOSIT, chain.now(), RENTER.sign(digest))
    await host.open_with_authorization("open", terms, DEPOSIT, terms.expires_at, RENTER.sign(digest))
    assert await host.balance(chain.info.usdc, RENTER.address) == 4_000
    assert await host.balance(chain.info.usdc, chain.info.market) == DEPOSIT
    assert await host.balance(chain.info.usdc, Address(bytes(20))) == 0
