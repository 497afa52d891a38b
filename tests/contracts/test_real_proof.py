"""The whole proof path with nothing replaced: ezkl proves, the market on an EVM asks, checks and pays."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabstir.chain.bindings import (
    Claim,
    EpochProofs,
    EzklBindVerifier,
    Halo2BindVerifier,
    HostStake,
    JobMarketplace,
    Proof,
    ProofSystem,
    SumNode,
    TestUSDC,
)
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens, cost
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.ports.prover import ProofStatement
from fabstir.proofs.process import EzklProver
from fabstir.protocol import commitments
from fabstir.protocol.commitments import Checkpoint
from fabstir.protocol.settlement import SEED_DELAY
from fabstir.protocol.signing import Market, SigningKey, job_id, keccak
from tests.contracts.evm import DEPLOYER, CallReverted, Evm
from tests.contracts.market import abi_terms

RENTER, SIGNER, HOST = (SigningKey(bytes([n]) * 32) for n in (1, 5, 7))
HEAD = keccak(b"head")
TREASURY = Address(b"\x7e" * 20)
SIZES = (256, 256, 40)


class ProvingMarket:
    """A market with the real verifier, one open job, and what its host served."""

    def __init__(self, prover: EzklProver) -> None:
        self.prover = prover
        self.evm = Evm()
        proofs = self.evm.deploy(ProofSystem.deploy_data(DEPLOYER))
        halo2 = self.evm.deploy(Halo2BindVerifier.deploy_data())
        adapter = self.evm.deploy(EzklBindVerifier.deploy_data(halo2))
        self.evm.call(DEPLOYER, proofs, ProofSystem.encode_register(prover.circuit_id, adapter))
        usdc = self.evm.deploy(TestUSDC.deploy_data())
        stakes = self.evm.deploy(HostStake.deploy_data(DEPLOYER, usdc, TREASURY, 100, 10, 5))
        epochs = self.evm.deploy(EpochProofs.deploy_data(proofs))
        self.address = self.evm.deploy(JobMarketplace.deploy_data(TREASURY, proofs, stakes, epochs))
        self.market = Market(31337, self.address)
        self.evm.fund(RENTER.address, 10**18)
        self.records = [tuple(keccak(b"%d/%d" % (n, i)) for i in range(size)) for n, size in enumerate(SIZES)]
        self.checkpoints: tuple[Checkpoint, ...] = ()

    def open(self, salt: int) -> Terms:
        terms = Terms(
            renter=RENTER.address, signer=SIGNER.address, host=HOST.address, token=ZERO_ADDRESS,
            price=PricePerMTok(10**9), expires_at=self.evm.time + 86_400, challenge=3_600, exposure=Tokens(64),
            policy=ProofPolicy.REQUIRED, model_id=ModelId(keccak(b"model")), salt=Hash32(bytes([salt]) * 32),
        )  # fmt: skip
        self.evm.call(RENTER.address, self.address, JobMarketplace.encode_open(abi_terms(terms), 10**6), 10**6)
        return terms

    async def commit(self, terms: Terms) -> int:
        """The block of the commitment; the challenge is known when this returns."""
        digests = [(await self.prover.commit(records)).digest for records in self.records]
        self.checkpoints = tuple(Checkpoint(d, Tokens(n)) for d, n in zip(digests, SIZES, strict=True))
        tree = commitments.tree_root(self.checkpoints)
        root = commitments.commitment_root(tree.hash, HEAD)
        data = JobMarketplace.encode_commit_proof(abi_terms(terms), tree.tokens, root)
        self.evm.call(HOST.address, self.address, data)
        made_at = self.evm.block
        self.evm.mine(SEED_DELAY + 1, 6)
        return made_at

    async def answer(self, terms: Terms, made_at: int) -> Proof:
        job, tree = job_id(terms), commitments.tree_root(self.checkpoints)
        root = commitments.commitment_root(tree.hash, HEAD)
        block_hash = self.evm.block_hash(made_at + SEED_DELAY)
        assert block_hash is not None
        seed = commitments.challenge_seed(block_hash, job, root)
        path = commitments.open_path(self.checkpoints, commitments.challenged_position(seed, tree.tokens))
        circuit = self.prover.circuit_id
        statement = commitments.statement_hash(self.market, terms, job, root, tree.tokens, path, circuit)
        asked = ProofStatement(statement, seed, path.checkpoint.commitment)
        bundle = await self.prover.prove(asked, self.records[path.index])
        siblings = [SumNode(node.hash, node.tokens, node.left) for node in path.siblings]
        own = path.checkpoint
        return Proof(circuit, tree.hash, HEAD, tree.tokens, own.tokens, own.commitment, siblings, bundle.proof)

    def submit(self, terms: Terms, proof: Proof) -> None:
        data = JobMarketplace.encode_submit_proof(abi_terms(terms), proof)
        self.evm.call(DEPLOYER, self.address, data)

    def redeem(self, terms: Terms, tokens: int) -> None:
        job, amount = job_id(terms), cost(Tokens(tokens), terms.price)
        digest = self.market.voucher_digest(job, amount, Tokens(tokens), HEAD)
        claim = Claim(abi_terms(terms), amount, tokens, HEAD, SIGNER.sign(digest))
        self.evm.call(HOST.address, self.address, JobMarketplace.encode_redeem([claim]))

    def owed(self, job: JobId) -> BaseUnits:
        answer = self.evm.view(self.address, JobMarketplace.encode_jobs(job))
        return BaseUnits(JobMarketplace.decode_jobs(answer).owed)


@pytest.mark.real
async def test_served_proven_paid(tmp_path: Path) -> None:
    """Three checkpoints are committed, one is challenged and proven with ezkl, then the voucher is paid; the same proof
    serves neither twice nor for a job of the same host over the same records.
    """
    prover = EzklProver(chain_id=31337, cache=tmp_path)
    await prover.start()
    try:
        market = ProvingMarket(prover)
        terms = market.open(1)
        proof = await market.answer(terms, await market.commit(terms))
        with pytest.raises(CallReverted, match="ProofMissing"):
            market.redeem(terms, 552)
        market.submit(terms, proof)
        market.redeem(terms, 552)
        assert market.owed(job_id(terms)) == 552_000
        with pytest.raises(CallReverted, match="NoCommitment"):
            market.submit(terms, proof)
        twin = market.open(2)
        made_at = await market.commit(twin)
        with pytest.raises(CallReverted, match="ProofInvalid|WrongCheckpoint"):
            market.submit(twin, proof)
        right = await market.answer(twin, made_at)
        with pytest.raises(CallReverted, match="ProofInvalid"):
            market.submit(twin, right._replace(proof=right.proof[:-1] + bytes([right.proof[-1] ^ 1])))
        market.submit(twin, right)
    finally:
        await prover.stop()
