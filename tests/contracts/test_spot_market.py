"""A whole market on `spot`: traces committed, one token drawn by a block, its rows proven, the job paid for as proven."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from fabstir.chain.bindings import (
    EpochProofs,
    EzklSpotVerifier,
    Halo2SpotVerifier,
    Head,
    HostStake,
    JobMarketplace,
    ModelRegistry,
    Proof,
    ProofSystem,
    SumNode,
    TestUSDC,
)
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, ModelId
from fabstir.domain.money import PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.ports.prover import ProofStatement
from fabstir.proofs.process import EzklProver
from fabstir.proofs.spot_prover import SpotProver
from fabstir.protocol import commitments, epochs, spot
from fabstir.protocol.commitments import Checkpoint
from fabstir.protocol.epochs import EpochSession
from fabstir.protocol.model_identity import ModelIdentity
from fabstir.protocol.settlement import SEED_DELAY
from fabstir.protocol.signing import Market, SigningKey, job_id, keccak
from fabstir.protocol.spot import TokenTrace
from tests.contracts.evm import DEPLOYER, CallReverted, Evm
from tests.contracts.market import abi_terms
from tests.proofs.spotting import TinyHead

RENTER, SIGNER, HOST = (SigningKey(bytes([n]) * 32) for n in (1, 5, 7))
HEAD = keccak(b"head")
TREASURY = Address(b"\x7e" * 20)
SIZE = 12


class Session(NamedTuple):
    """A job that was served, with everything that its host committed."""

    terms: Terms
    head: TinyHead
    traces: tuple[tuple[TokenTrace, ...], ...]
    """Of each checkpoint."""
    points: tuple[bytes, ...]
    tree: tuple[Checkpoint, ...]

    @property
    def place(self) -> EpochSession:
        """In an epoch."""
        root = commitments.tree_root(self.tree)
        return EpochSession(job_id(self.terms), root.hash, HEAD, root.tokens)


class SpotMarket:
    """A market with the real verifier, and two models that have heads."""

    def __init__(self, prover: SpotProver, heads: list[TinyHead]) -> None:
        self.prover, self.evm = prover, Evm()
        models = self.evm.deploy(ModelRegistry.deploy_data(DEPLOYER))
        proofs = self.evm.deploy(ProofSystem.deploy_data(DEPLOYER))
        halo2 = self.evm.deploy(Halo2SpotVerifier.deploy_data())
        adapter = self.evm.deploy(EzklSpotVerifier.deploy_data(halo2, models))
        self.evm.call(DEPLOYER, proofs, ProofSystem.encode_register(prover.circuit_id, adapter))
        usdc = self.evm.deploy(TestUSDC.deploy_data())
        stakes = self.evm.deploy(HostStake.deploy_data(DEPLOYER, usdc, TREASURY, 100, 10, 5))
        self.epochs = self.evm.deploy(EpochProofs.deploy_data(proofs))
        self.address = self.evm.deploy(JobMarketplace.deploy_data(TREASURY, proofs, stakes, self.epochs))
        self.evm.fund(RENTER.address, 10**18)
        self.models = [self._approve(models, place, head) for place, head in enumerate(heads)]

    def _approve(self, models: Address, place: int, head: TinyHead) -> ModelId:
        model = ModelIdentity(repository=f"org/{place}", file="m.gguf", sha256=Hash32(bytes([place + 1]) * 32))
        known = Head(head.commitment.root, head.commitment.rows, head.commitment.width, head.commitment.scale)
        names = (model.repository, model.file, model.sha256, model.tokenizer, model.template)
        self.evm.call(DEPLOYER, models, ModelRegistry.encode_propose(*names, known))
        self.evm.call(DEPLOYER, models, ModelRegistry.encode_approve(model.model_id, known))
        return model.model_id

    async def answered(self, model: ModelId, head: TinyHead, salt: int) -> tuple[Terms, Proof]:
        """A job of `model`, served with `head`, and the answer to its challenge."""
        terms = self.opened(model, salt)
        traces = tuple(head.trace(index) for index in range(SIZE))
        points = await self.prover.points([trace.vector for trace in traces])
        checkpoints = (Checkpoint(spot.commit(traces, points), Tokens(SIZE)),)
        tree, job = commitments.tree_root(checkpoints), job_id(terms)
        root = commitments.commitment_root(tree.hash, HEAD)
        self.evm.call(HOST.address, self.address, JobMarketplace.encode_commit_proof(abi_terms(terms), SIZE, root))
        made_at = self.evm.block
        self.evm.mine(SEED_DELAY + 1, 6)
        block_hash = self.evm.block_hash(made_at + SEED_DELAY)
        assert block_hash is not None
        seed = commitments.challenge_seed(block_hash, job, root)
        path = commitments.open_path(checkpoints, commitments.challenged_position(seed, Tokens(SIZE)))
        market, circuit = Market(31337, self.address), self.prover.circuit_id
        words = commitments.statement_words(market, terms, job, root, Tokens(SIZE), path, circuit)
        statement = ProofStatement(keccak(words), seed, path.checkpoint.commitment)
        bundle = await self.prover.prove(statement, words, traces, points, head)
        return terms, Proof(circuit, tree.hash, HEAD, SIZE, SIZE, path.checkpoint.commitment, [], bundle.proof)

    def opened(self, model: ModelId, salt: int) -> Terms:
        """A job in escrow."""
        terms = Terms(
            renter=RENTER.address, signer=SIGNER.address, host=HOST.address, token=ZERO_ADDRESS,
            price=PricePerMTok(10**9), expires_at=self.evm.time + 86_400, challenge=3_600, exposure=Tokens(64),
            policy=ProofPolicy.REQUIRED, model_id=model, salt=Hash32(bytes([salt]) * 32),
        )  # fmt: skip
        self.evm.call(RENTER.address, self.address, JobMarketplace.encode_open(abi_terms(terms), 10**6), 10**6)
        return terms

    async def serve(self, model: ModelId, head: TinyHead, salt: int) -> Session:
        """A job of `model`, served with `head`, in two checkpoints."""
        parts = tuple(tuple(head.trace(index) for index in part) for part in (range(SIZE), range(SIZE, SIZE + 3)))
        points = tuple([await self.prover.points([trace.vector for trace in part]) for part in parts])
        pairs = zip(parts, points, strict=True)
        tree = tuple(Checkpoint(spot.commit(part, own), Tokens(len(part))) for part, own in pairs)
        return Session(self.opened(model, salt), head, parts, points, tree)

    async def answered_epoch(self, served: list[Session]) -> tuple[bytes, Hash32]:
        """Committed together: the call that answers the challenge, and the epoch's root."""
        places = epochs.place_all([session.place for session in served])
        root, total = places[0].root, places[0].total
        self.evm.call(HOST.address, self.epochs, EpochProofs.encode_commit_epoch(root, total))
        made_at = self.evm.block
        self.evm.mine(SEED_DELAY + 1, 6)
        block_hash = self.evm.block_hash(made_at + SEED_DELAY)
        assert block_hash is not None
        seed = epochs.epoch_seed(31337, self.epochs, HOST.address, root, block_hash)
        position = commitments.challenged_position(seed, total)
        place = epochs.drawn(places, position)
        assert place is not None
        drawn, circuit = served[place.index], self.prover.circuit_id
        path = commitments.open_path(drawn.tree, position - place.before)
        words = epochs.epoch_words(31337, self.epochs, drawn.terms, place, path, circuit)
        opened = path.checkpoint
        statement = ProofStatement(keccak(words), seed, opened.commitment, words)
        traces, points = drawn.traces[path.index], drawn.points[path.index]
        made = (await self.prover.prove(statement, words, traces, points, drawn.head)).proof
        tree, tokens = place.session.tree_root, place.session.tokens
        proof = Proof(circuit, tree, HEAD, tokens, opened.tokens, opened.commitment, _abi(path.siblings), made)
        return EpochProofs.encode_prove_epoch(abi_terms(drawn.terms), _abi(place.siblings), proof), root

    def proven_epoch(self, root: Hash32) -> int:
        known = self.evm.view(self.epochs, EpochProofs.encode_proven_tokens(HOST.address, root))
        return EpochProofs.decode_proven_tokens(known)

    def submit(self, terms: Terms, proof: Proof) -> None:
        self.evm.call(DEPLOYER, self.address, JobMarketplace.encode_submit_proof(abi_terms(terms), proof))

    def proven(self, terms: Terms) -> int:
        return int(
            JobMarketplace.decode_jobs(self.evm.view(self.address, JobMarketplace.encode_jobs(job_id(terms)))).proven
        )


@pytest.mark.real
async def test_the_model_of_the_terms_is_the_one_that_counts(tmp_path: Path) -> None:
    """The market accepts the proof of an honest host; of a host that served another registered model under the same terms it refuses it,
    and the same proof serves no second job."""
    bind = EzklProver(chain_id=31337, cache=tmp_path)
    await bind.start()
    try:
        prover = SpotProver(bind, chain_id=31337)
        good, cheap = await TinyHead(1).commit(prover), await TinyHead(2).commit(prover)
        market = SpotMarket(prover, [good, cheap])
        terms, proof = await market.answered(market.models[0], good, 1)
        market.submit(terms, proof)
        assert market.proven(terms) == SIZE
        with pytest.raises(CallReverted, match="NoCommitment"):
            market.submit(terms, proof)
        cheated, forged = await market.answered(market.models[0], cheap, 2)
        with pytest.raises(CallReverted, match="ProofInvalid"):
            market.submit(cheated, forged)
        with pytest.raises(CallReverted, match="ProofInvalid"):
            market.submit(cheated, forged._replace(proof=proof.proof))
        assert market.proven(cheated) == 0
    finally:
        await bind.stop()


@pytest.mark.real
async def test_an_epoch_is_proven_by_one_token_of_all_its_sessions(tmp_path: Path) -> None:
    """The statement of `EpochProofs` has the model where the market's has it, and the drawn token counts through all sessions: a proof of
    an honest host's epoch is taken, that of one that served another model is not."""
    bind = EzklProver(chain_id=31337, cache=tmp_path)
    await bind.start()
    try:
        prover = SpotProver(bind, chain_id=31337)
        good, cheap = await TinyHead(1).commit(prover), await TinyHead(2).commit(prover)
        market = SpotMarket(prover, [good, cheap])
        served = [await market.serve(market.models[0], good, salt) for salt in (11, 12, 13)]
        call, root = await market.answered_epoch(served)
        market.evm.call(DEPLOYER, market.epochs, call)
        assert market.proven_epoch(root) == 3 * (SIZE + 3)
        cheated = [await market.serve(market.models[0], cheap, salt) for salt in (21, 22)]
        call, root = await market.answered_epoch(cheated)
        with pytest.raises(CallReverted, match="ProofInvalid"):
            market.evm.call(DEPLOYER, market.epochs, call)
        assert market.proven_epoch(root) == 0
    finally:
        await bind.stop()


def _abi(siblings: tuple[commitments.SumNode, ...]) -> list[SumNode]:
    return [SumNode(node.hash, node.tokens, node.left) for node in siblings]
