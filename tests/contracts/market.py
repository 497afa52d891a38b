"""The market on an EVM beside its model: each call goes to both, which must agree on the outcome, on the error's name and on all money.

Signatures, ids, Merkle-sum paths and statements are made by `fabstir.protocol`, so that they are checked against Solidity on the way.
"""

from __future__ import annotations

from typing import Final

from fabstir.chain.bindings import Claim, JobMarketplace, Proof, ProofSystem, SumNode, TestUSDC
from fabstir.chain.bindings import Terms as AbiTerms
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import Terms
from fabstir.protocol import commitments, settlement
from fabstir.protocol.commitments import Checkpoint
from fabstir.protocol.settlement import Call, MarketState, Reverted
from fabstir.protocol.signing import Market, SigningKey, keccak
from fabstir.testing.prover import CIRCUIT_ID
from tests.contracts.evm import CHAIN_ID, DEPLOYER, CallReverted, Evm, creation_code_of

TREASURY: Final = Address(b"\x7e" * 20)
RICH: Final = 10**30
UNPROVEN: Final = frozenset({"PathMalformed", "PathMismatch", "WrongCheckpoint", "ProofInvalid"})
"""The contract says more closely than the model why a proof does not hold."""


def abi_terms(terms: Terms) -> AbiTerms:
    """As the bindings take them."""
    return AbiTerms(
        terms.renter, terms.signer, terms.host, terms.token, terms.price, terms.expires_at,
        terms.challenge, terms.exposure, terms.policy, terms.model_id, terms.salt,
    )  # fmt: skip


class TwinMarket:
    """Contracts and model, always in the same state."""

    def __init__(self, renters: tuple[SigningKey, ...], market_code: bytes | None = None) -> None:
        """`market_code` replaces the checked-in creation code (without arguments): a mutant under test."""
        self.evm = Evm()
        self.usdc = self.evm.deploy(TestUSDC.deploy_data())
        self.proofs = self.evm.deploy(ProofSystem.deploy_data(DEPLOYER))
        verifier = self.evm.deploy(creation_code_of("HashVerifier"))
        self.evm.call(DEPLOYER, self.proofs, ProofSystem.encode_register(CIRCUIT_ID, verifier))
        code = JobMarketplace.deploy_data(TREASURY, self.proofs)
        if market_code is not None:
            code = market_code + code[-64:]
        self.address = self.evm.deploy(code)
        self.domain = Market(CHAIN_ID, self.address)
        self.model = MarketState(treasury=TREASURY)
        self.accounts = {TREASURY}
        self.renters = renters
        for renter in renters:
            self.evm.fund(renter.address, RICH)
            self.evm.call(DEPLOYER, self.usdc, TestUSDC.encode_mint(renter.address, RICH))
            self.evm.call(renter.address, self.usdc, TestUSDC.encode_approve(self.address, 2**256 - 1))

    def both(self, call: Call, sender: Address, data: bytes, value: int = 0) -> str | None:
        """Make the call on both; None where it went through, else the error's name."""
        self.accounts.add(sender)
        if isinstance(call, settlement.Open):
            self.accounts |= {call.terms.renter, call.terms.host}
        try:
            state, expected = settlement.apply(self.model, call, self.evm.time, self.evm.block), None
        except Reverted as refusal:
            state, expected = self.model, refusal.name
        try:
            self.evm.call(sender, self.address, data, value)
            got = None
        except CallReverted as refusal:
            got = refusal.revert.name
        told = "ProofInvalid" if got in UNPROVEN else got
        assert told == expected, f"{type(call).__name__}: the contract says {got}, the model {expected}"
        self.model = state
        return expected

    def check(self) -> None:
        """Every job, every balance and every claim is the same in both."""
        for job, account in self.model.jobs.items():
            real = JobMarketplace.decode_jobs(self.evm.view(self.address, JobMarketplace.encode_jobs(job)))
            state = account.state
            assert (real.deposit, real.owed, real.proven) == (state.deposit, state.owed, state.proven)
            assert (real.closed, real.closing_at) == (state.closed, state.closing_at)
            assert state.closed or (real.signed, real.pending_block) == (state.signed, state.pending_block)
            assert real.owed <= real.deposit
        for token in (ZERO_ADDRESS, self.usdc):
            held = self.held(token)
            open_rest = sum(
                a.state.deposit - a.state.owed
                for a in self.model.jobs.values()
                if a.terms.token == token and not a.state.closed
            )
            claims = sum(self.earnings(account, token) for account in self.accounts)
            assert held == self.model.held.get(token, 0) == open_rest + claims
            for claimant in self.accounts:
                assert self.earnings(claimant, token) == self.model.earnings.get((claimant, token), 0)

    def held(self, token: Address) -> int:
        """What the contract has."""
        if token == ZERO_ADDRESS:
            return self.evm.balance(self.address)
        return TestUSDC.decode_balance_of(self.evm.view(token, TestUSDC.encode_balance_of(self.address)))

    def earnings(self, account: Address, token: Address) -> int:
        """What `withdraw` would pay."""
        data = JobMarketplace.encode_earnings(account, token)
        return JobMarketplace.decode_earnings(self.evm.view(self.address, data))

    def claim(self, terms: Terms, job: JobId, amount: int, tokens: int, key: SigningKey | None) -> Claim:
        """A voucher signed by `key`, or without a signature."""
        transcript = keccak(b"transcript")
        digest = self.domain.voucher_digest(job, BaseUnits(amount), Tokens(tokens), transcript)
        return Claim(abi_terms(terms), amount, tokens, transcript, key.sign(digest) if key else b"")

    def proof(self, terms: Terms, job: JobId, checkpoints: tuple[Checkpoint, ...], head: Hash32, made_at: int) -> Proof:
        """The right answer to the challenge of a commitment made in block `made_at`."""
        tree = commitments.tree_root(checkpoints)
        root = commitments.commitment_root(tree.hash, head)
        seed_hash = self.evm.block_hash(made_at + settlement.SEED_DELAY) or Hash32(bytes(32))
        seed = commitments.challenge_seed(seed_hash, job, root)
        path = commitments.open_path(checkpoints, commitments.challenged_position(seed, tree.tokens))
        statement = commitments.statement_hash(self.domain, terms, job, root, tree.tokens, path, CIRCUIT_ID)
        siblings = [SumNode(node.hash, node.tokens, node.left) for node in path.siblings]
        tag = keccak(b"HashProver" + statement + seed + path.checkpoint.commitment)
        return Proof(
            CIRCUIT_ID, tree.hash, head, tree.tokens, path.checkpoint.tokens, path.checkpoint.commitment, siblings, tag
        )
