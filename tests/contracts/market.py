"""The market on an EVM beside its model: each call goes to both, which must agree on the outcome, on the error's name and on all money.

Signatures, ids, Merkle-sum paths, statements and openings are made by `fabstir.protocol`, so that they are checked against Solidity
on the way. Decides nothing about what is called: `tests.contracts.market_rules` and `dispute_rules` do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from fabstir.chain.bindings import (
    Claim,
    EpochProofs,
    HostStake,
    JobMarketplace,
    JobView,
    Proof,
    ProofSystem,
    SumNode,
    TestUSDC,
)
from fabstir.chain.bindings import Terms as AbiTerms
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import ClaimStage, JobState, Terms
from fabstir.protocol import commitments, settlement
from fabstir.protocol.authorization import authorization_digest
from fabstir.protocol.commitments import Checkpoint
from fabstir.protocol.settlement import Account, Call, MarketState, Reverted
from fabstir.protocol.settlement_state import add
from fabstir.protocol.signing import Market, SigningKey, keccak
from fabstir.testing.prover import CIRCUIT_ID
from tests.contracts.evm import CHAIN_ID, DEPLOYER, CallReverted, Evm, creation_code_of

TREASURY: Final = Address(b"\x7e" * 20)
RICH: Final = 10**30
UNPROVEN: Final = frozenset({"PathMalformed", "PathMismatch", "WrongCheckpoint", "ProofInvalid"})
"""The contract says more closely than the model why a proof does not hold."""
STAKE_MINIMUM, SLASH, COMPENSATION = 200, 100, 40
BONDED: Final = (ClaimStage.DISPUTED, ClaimStage.ANSWERED)


def abi_terms(terms: Terms) -> AbiTerms:
    """As the bindings take them."""
    return AbiTerms(
        terms.renter, terms.signer, terms.host, terms.token, terms.arbiter, terms.price, terms.bond, terms.expires_at,
        terms.challenge, terms.exposure, terms.policy, terms.model_id, terms.salt,
    )  # fmt: skip


class TwinMarket:
    """Contracts and model, always in the same state."""

    def __init__(self, accounts: Iterable[Address], market_code: bytes | None = None) -> None:
        """`accounts`: everybody who acts, each rich. `market_code` replaces the checked-in creation code (without arguments): a
        mutant under test."""
        self.evm = Evm()
        self.usdc = self.evm.deploy(TestUSDC.deploy_data())
        self.proofs = self.evm.deploy(ProofSystem.deploy_data(DEPLOYER))
        amounts = (STAKE_MINIMUM, SLASH, COMPENSATION)
        self.stakes = self.evm.deploy(HostStake.deploy_data(DEPLOYER, self.usdc, TREASURY, *amounts))
        verifier = self.evm.deploy(creation_code_of("HashVerifier"))
        self.evm.call(DEPLOYER, self.proofs, ProofSystem.encode_register(CIRCUIT_ID, verifier))
        self.epochs = self.evm.deploy(EpochProofs.deploy_data(self.proofs))
        code = JobMarketplace.deploy_data(TREASURY, self.proofs, self.stakes, self.epochs)
        if market_code is not None:
            code = market_code + code[-128:]
        self.address = self.evm.deploy(code)
        self.evm.call(DEPLOYER, self.stakes, HostStake.encode_announce(self.address))
        self.domain = Market(CHAIN_ID, self.address)
        self.tokens = (ZERO_ADDRESS, self.usdc)
        self.model = MarketState(treasury=TREASURY, slash=SLASH, compensation=COMPENSATION)
        self.slashed = 0
        self.changed = True
        self.wealth: dict[tuple[Address, Address], int] = {(TREASURY, token): 0 for token in self.tokens}
        """What each account must have outside of the contracts."""
        for account in accounts:
            self._enrich(account)

    def _enrich(self, account: Address) -> None:
        self.evm.fund(account, RICH)
        self.evm.call(DEPLOYER, self.usdc, TestUSDC.encode_mint(account, RICH))
        for spender in (self.address, self.stakes):
            self.evm.call(account, self.usdc, TestUSDC.encode_approve(spender, 2**256 - 1))
        self.wealth |= {(account, token): RICH for token in self.tokens}

    def stake(self, host: Address, amount: int) -> None:
        """Add to a host's stake, from its own money."""
        self.evm.call(host, self.stakes, HostStake.encode_stake(amount))
        self.wealth[host, self.usdc] -= amount
        self.model = msgspec.structs.replace(self.model, stakes=add(self.model.stakes, host, amount))
        self.changed = True

    # -- calls

    def both(
        self, call: Call, sender: Address, data: bytes, value: int = 0, payer: Address | None = None, besides: str = ""
    ) -> str | None:
        """Make the call on both; None where it went through, else the error's name.

        `payer`: whose money it is, where not the sender's. `besides`: the error of something that the model does not know, which must
        come where the model itself has nothing against the call.
        """
        try:
            state, expected = settlement.apply(self.model, call, self.evm.time, self.evm.block), None
        except Reverted as refusal:
            state, expected = self.model, refusal.name
        if expected is None and besides:
            state, expected = self.model, besides
        try:
            self.evm.call(sender, self.address, data, value)
            got = None
        except CallReverted as refusal:
            got = refusal.revert.name
        told = "ProofInvalid" if got in UNPROVEN else got
        assert told == expected, f"{type(call).__name__}: the contract says {got}, the model {expected}"
        if expected is None:
            self._move(call, state, payer or sender)
            self.model, self.changed = state, True
        return expected

    def _move(self, call: Call, after: MarketState, payer: Address) -> None:
        """Who has how much after the call: what the model holds more, and did not pay out, the payer has less."""
        before = self.model
        for token in self.tokens:
            inflow = after.held.get(token, 0) - before.held.get(token, 0)
            for (account, paid_in), total in after.repaid.items():
                if paid_in == token:
                    paid = total - before.repaid.get((account, token), 0)
                    self.wealth[account, token] += paid
                    inflow += paid
            if isinstance(call, settlement.Withdraw) and call.token == token:
                drawn = before.earnings[call.sender, token]
                self.wealth[call.sender, token] += drawn
                inflow += drawn
            self.wealth[payer, token] -= inflow
        for renter, total in after.compensated.items():
            self.wealth[renter, self.usdc] += total - before.compensated.get(renter, 0)
        self.slashed += sum(before.stakes.values()) - sum(after.stakes.values())

    # -- what must be the same

    def check(self) -> None:
        """Every job, every balance, every claim and every stake is the same in both. A call that reverted has changed none."""
        if not self.changed:
            return
        self.changed = False
        for job, known in self.model.jobs.items():
            self._check_job(self.job(job), known.state)
        for token in self.tokens:
            held, earned = self.balance(token, self.address), 0
            for (account, owned), wealth in self.wealth.items():
                if owned == token:
                    earnings = self.earnings(account, token)
                    assert earnings == self.model.earnings.get((account, token), 0), "the earnings differ"
                    assert self.balance(token, account) == wealth, "somebody was paid another sum, or another one was"
                    earned += earnings
            assert held == self.model.held.get(token, 0) == self._claims(token) + earned, "the market's money differs"
        self._check_stakes()

    @staticmethod
    def _check_job(real: JobView, state: JobState) -> None:
        assert (real.deposit, real.owed, real.proven) == (state.deposit, state.owed, state.proven)
        assert (real.closed, real.closing_at) == (state.closed, state.closing_at)
        assert (real.signed, real.pending_block) == (state.signed, state.pending_block)
        assert (real.held, real.held_tokens) == (state.held, state.held_tokens), "the claims differ"
        assert (real.held_until, real.stage) == (state.held_until, state.stage), "the stages differ"
        assert real.held <= real.owed <= real.deposit

    def _claims(self, token: Address) -> int:
        """What jobs have a right to: rests of open ones, claims that are held, bonds of disputes that run."""

        def of(account: Account) -> int:
            state = account.state
            rest = 0 if state.closed else state.deposit - state.owed
            return rest + state.held + (account.terms.bond if state.stage in BONDED else 0)

        return sum(of(account) for account in self.model.jobs.values() if account.terms.token == token)

    def _check_stakes(self) -> None:
        data = HostStake.encode_owed(TREASURY)
        treasury = HostStake.decode_owed(self.evm.view(self.stakes, data))
        assert treasury == self.slashed - sum(self.model.compensated.values()), "the treasury's part differs"
        for host, stake in self.model.stakes.items():
            real = HostStake.decode_stake_of(self.evm.view(self.stakes, HostStake.encode_stake_of(host)))
            assert (real.staked, real.locked_until) == (stake, self.model.locked.get(host, 0)), "the stakes differ"
        held = self.balance(self.usdc, self.stakes)
        assert held == sum(self.model.stakes.values()) + treasury, "stakes are not conserved"

    def job(self, job: JobId) -> JobView:
        """As the contract keeps it."""
        return JobMarketplace.decode_jobs(self.evm.view(self.address, JobMarketplace.encode_jobs(job)))

    def balance(self, token: Address, account: Address) -> int:
        """What an account has."""
        if token == ZERO_ADDRESS:
            return self.evm.balance(account)
        return TestUSDC.decode_balance_of(self.evm.view(token, TestUSDC.encode_balance_of(account)))

    def earnings(self, account: Address, token: Address) -> int:
        """What `withdraw` would pay."""
        data = JobMarketplace.encode_earnings(account, token)
        return JobMarketplace.decode_earnings(self.evm.view(self.address, data))

    # -- what is signed and proven

    def claim(
        self, terms: Terms, job: JobId, amount: int, tokens: int, transcript: Hash32, key: SigningKey | None
    ) -> Claim:
        """A voucher signed by `key`, or without a signature."""
        digest = self.domain.voucher_digest(job, BaseUnits(amount), Tokens(tokens), transcript)
        return Claim(abi_terms(terms), amount, tokens, transcript, key.sign(digest) if key else b"")

    def authorized(self, key: SigningKey, renter: Address, amount: int, before: int, nonce: Hash32) -> bytes:
        """A transfer of test USDC to the market, signed by `key` for `renter`."""
        digest = authorization_digest(CHAIN_ID, self.usdc, renter, self.address, BaseUnits(amount), before, nonce)
        return key.sign(digest)

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
