"""A whole job with a real proof of each circuit: the prover proves, the deployed verifier checks, and a lie is refused."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from tests.chain.support import HOST, RENTER, SESSION_KEY, Chain, mine_until, terms_for
from tests.protocol.recording import digests_of, preimages_of

from fabstir.chain.deploy import Operator
from fabstir.chain.devnet import DEV_KEYS, DevnetControl
from fabstir.chain.market import SUBMIT_PROOF_GAS, MarketClient
from fabstir.chain.rpc import JsonRpc
from fabstir.domain.errors import ChainFault
from fabstir.domain.ids import Hash32
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import Terms
from fabstir.host.proving import siblings_of
from fabstir.ops import paths
from fabstir.ops.clock import SystemClock
from fabstir.ports.chain import ClaimArgs, ProofArgs
from fabstir.ports.prover import ProofStatement, Prover
from fabstir.proofs.circuit import load_circuit
from fabstir.proofs.merkle import MerkleProver
from fabstir.proofs.process import EzklProver
from fabstir.protocol.commitments import (
    Checkpoint,
    challenge_seed,
    challenged_position,
    commitment_root,
    open_path,
    statement_hash,
    tree_root,
)
from fabstir.protocol.epochs import EpochSession, covering_path, epoch_seed, epoch_words, place_all
from fabstir.protocol.held_records import HeldRecords
from fabstir.protocol.matrix import RIGHTS, Call
from fabstir.protocol.model_identity import ModelIdentity
from fabstir.protocol.signing import Market, job_id, keccak
from fabstir.testing.journal import MemoryJournal

pytestmark = pytest.mark.real

SIZES = (256, 256, 30)
TOKENS = Tokens(sum(SIZES))
DEPOSIT = BaseUnits(1_000)
HEAD = Hash32(hashlib.sha256(b"head").digest())


@pytest.fixture(params=["ezkl/bind", "merkle/bind", "merkle/sample"])
async def prover(request: pytest.FixtureRequest) -> AsyncIterator[Prover]:
    """Each back end with each of its circuits."""
    prover: Prover
    if request.param == "ezkl/bind":
        prover = EzklProver(chain_id=31337, cache=paths.cache_dir())
    else:
        held = HeldRecords()
        for number, size in enumerate(SIZES):
            for digest, preimage in zip(_records(number, size), _preimages(number, size), strict=True):
                held.keep(digest, preimage)
        prover = MerkleProver("sample" if request.param == "merkle/sample" else "bind", held)
    await prover.start()
    yield prover
    await prover.stop()


@pytest.fixture
async def proven_chain(chain: Chain, rpc: JsonRpc) -> Chain:
    """The contracts once more, with the real circuits registered."""
    operator = Operator(rpc, DEV_KEYS[0])
    info = await operator.deploy(load_circuit().circuit_id)
    model = await operator.approve_model(
        info, ModelIdentity(repository="fabstir/tests", file="model.gguf", sha256=HEAD)
    )
    await operator.mint(info, RENTER.address, DEPOSIT)
    return Chain(chain.url, info, model)


@functools.cache
def _preimages(number: int, size: int) -> tuple[bytes, ...]:
    return tuple(preimages_of(size, first=sum(SIZES[:number])))


def _records(number: int, size: int) -> tuple[bytes, ...]:
    return tuple(digests_of(_preimages(number, size)))


async def _answer(prover: Prover, host: MarketClient, terms: Terms, checkpoints: tuple[Checkpoint, ...]) -> ProofArgs:
    """The proof for the challenge of the pending commitment."""
    tree, job = tree_root(checkpoints), job_id(terms)
    root = commitment_root(tree.hash, HEAD)
    block_hash = await host.block_hash((await host.job(job)).pending_block + 2)
    assert block_hash is not None
    seed = challenge_seed(block_hash, job, root)
    path = open_path(checkpoints, challenged_position(seed, TOKENS))
    market = Market(host.info.chain_id, host.info.market)
    statement = statement_hash(market, terms, job, root, TOKENS, path, prover.circuit_id)
    public = ProofStatement(statement, seed, path.checkpoint.commitment)
    bundle = await prover.prove(public, _records(path.index, path.checkpoint.tokens))
    return ProofArgs(
        circuit_id=bundle.circuit_id,
        tree_root=tree.hash,
        head=HEAD,
        tokens=TOKENS,
        checkpoint_tokens=path.checkpoint.tokens,
        commitment=path.checkpoint.commitment,
        path=siblings_of(path.siblings),
        proof=bundle.proof,
    )


async def test_a_job_is_paid_on_a_real_proof(
    proven_chain: Chain, control: DevnetControl, rpc: JsonRpc, prover: Prover
) -> None:
    """Three checkpoints, one challenged: the proof is accepted, one changed byte is not, and only then the voucher pays."""
    chain, clock = proven_chain, SystemClock()
    renter = await MarketClient.connect([chain.url], DEV_KEYS[1], chain.info, MemoryJournal(), clock)
    host = await MarketClient.connect([chain.url], DEV_KEYS[2], chain.info, MemoryJournal(), clock)
    terms = terms_for(chain, await renter.timestamp())
    await renter.approve("approve", chain.info.usdc, DEPOSIT)
    await renter.open("open", terms, DEPOSIT)
    digests = [(await prover.commit(_records(number, size))).digest for number, size in enumerate(SIZES)]
    checkpoints = tuple(Checkpoint(digest, Tokens(size)) for digest, size in zip(digests, SIZES, strict=True))
    root = commitment_root(tree_root(checkpoints).hash, HEAD)
    committed = await host.commit_proof("commit", terms, TOKENS, root)
    await mine_until(control, rpc, committed.block + 2)

    proof = await _answer(prover, host, terms, checkpoints)
    changed = proof.proof[:-40] + bytes([proof.proof[-40] ^ 1]) + proof.proof[-39:]
    with pytest.raises(ChainFault, match="ProofInvalid"):
        await host.submit_proof("lie", terms, replace(proof, proof=changed))
    accepted = await host.submit_proof("prove", terms, proof)
    assert (await host.job(job_id(terms))).proven == TOKENS
    assert accepted.gas_used < SUBMIT_PROOF_GAS
    named = next(right.gas for right in RIGHTS if right.call is Call.SUBMIT_PROOF)
    assert (0.7 * named if isinstance(prover, EzklProver) else 0) <= accepted.gas_used <= named

    amount = BaseUnits(TOKENS * terms.price // 1_000_000)
    digest = Market(chain.info.chain_id, chain.info.market).voucher_digest(job_id(terms), amount, TOKENS, HEAD)
    claim = ClaimArgs(terms=terms, amount=amount, tokens=TOKENS, transcript=HEAD, signature=SESSION_KEY.sign(digest))
    await host.close_by_host("close", claim)
    await host.withdraw("withdraw", chain.info.usdc, HOST.address)
    assert await host.balance(chain.info.usdc, HOST.address) == amount - amount * 5 // 100
    assert await host.balance(chain.info.usdc, RENTER.address) == DEPOSIT - amount
    for client in (renter, host):
        await client.close()


async def test_an_epoch_is_proven_by_a_real_proof(
    proven_chain: Chain, control: DevnetControl, rpc: JsonRpc, prover: Prover
) -> None:
    """Its voucher is redeemed by it, one changed byte is refused, and it takes the gas that the table of rights names."""
    chain, clock, info = proven_chain, SystemClock(), proven_chain.info
    renter = await MarketClient.connect([chain.url], DEV_KEYS[1], info, MemoryJournal(), clock)
    host = await MarketClient.connect([chain.url], DEV_KEYS[2], info, MemoryJournal(), clock)
    terms = terms_for(chain, await renter.timestamp())
    await renter.approve("approve", info.usdc, DEPOSIT)
    await renter.open("open", terms, DEPOSIT)
    digests = [(await prover.commit(_records(number, size))).digest for number, size in enumerate(SIZES)]
    checkpoints = tuple(Checkpoint(digest, Tokens(size)) for digest, size in zip(digests, SIZES, strict=True))
    tree = tree_root(checkpoints)
    (place,) = place_all([EpochSession(job_id(terms), tree.hash, HEAD, TOKENS)])
    committed = await host.commit_epoch("commit", place.root, place.total)
    await mine_until(control, rpc, committed.block + 2)
    block_hash = await host.block_hash((await host.epoch(HOST.address)).pending_block + 2)
    assert block_hash is not None
    seed = epoch_seed(info.chain_id, info.epochs, HOST.address, place.root, block_hash)
    path = open_path(checkpoints, challenged_position(seed, TOKENS))
    words = epoch_words(info.chain_id, info.epochs, terms, place, path, prover.circuit_id)
    statement = ProofStatement(keccak(words), seed, path.checkpoint.commitment, words)
    bundle = await prover.prove(statement, _records(path.index, path.checkpoint.tokens))
    proof = ProofArgs(
        circuit_id=bundle.circuit_id,
        tree_root=tree.hash,
        head=HEAD,
        tokens=TOKENS,
        checkpoint_tokens=path.checkpoint.tokens,
        commitment=path.checkpoint.commitment,
        path=siblings_of(path.siblings),
        proof=bundle.proof,
    )
    changed = proof.proof[:-40] + bytes([proof.proof[-40] ^ 1]) + proof.proof[-39:]
    with pytest.raises(ChainFault, match="ProofInvalid"):
        await host.prove_epoch("lie", terms, (), replace(proof, proof=changed))
    accepted = await host.prove_epoch("prove", terms, (), proof)
    assert await host.proven_epoch(HOST.address, place.root) == TOKENS
    named = next(right.gas for right in RIGHTS if right.call is Call.PROVE_EPOCH)
    assert (0.7 * named if isinstance(prover, EzklProver) else 0) <= accepted.gas_used <= named
    amount = BaseUnits(TOKENS * terms.price // 1_000_000)
    digest = Market(info.chain_id, info.market).voucher_digest(job_id(terms), amount, TOKENS, HEAD)
    claim = ClaimArgs(terms=terms, amount=amount, tokens=TOKENS, transcript=HEAD, signature=SESSION_KEY.sign(digest))
    await host.redeem_by_epoch("redeem", (claim,), (tree.hash,), place.root, covering_path([place]))
    state = await host.job(job_id(terms))
    assert (state.signed, state.proven, state.owed) == (TOKENS, TOKENS, amount)
    for client in (renter, host):
        await client.close()
