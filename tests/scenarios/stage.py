"""One job on real contracts in an EVM in this process, and everybody who may try to move its money. Each call goes to the settlement model
too, which must agree (`tests.contracts.market`)."""

from __future__ import annotations

from typing import Final

from fabstir.chain.bindings import Claim, JobMarketplace, TestUSDC
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens, cost
from fabstir.domain.terms import JobState, ProofPolicy, Terms
from fabstir.protocol import settlement
from fabstir.protocol.commitments import Checkpoint, commitment_root, tree_root
from fabstir.protocol.signing import SigningKey, job_id, keccak, recover
from tests.contracts.evm import Evm
from tests.contracts.market import TREASURY, TwinMarket, abi_terms

RENTER, SIGNER, HOST, STRANGER = (SigningKey(bytes([n]) * 32) for n in (1, 5, 7, 9))
HEAD: Final = keccak(b"head")
PRICE: Final = PricePerMTok(1_234_567)
"""Odd on purpose: every amount is rounded."""
EXPOSURE: Final = Tokens(64)


class Stage:
    """The calls give the name of the contract's error, or None where they went through."""

    def __init__(self, policy: ProofPolicy, deposit: int, native: bool = False) -> None:
        self.twin = TwinMarket((RENTER,))
        self.token = ZERO_ADDRESS if native else self.twin.usdc
        self.terms = Terms(
            renter=RENTER.address, signer=SIGNER.address, host=HOST.address, token=self.token, price=PRICE,
            expires_at=self.evm.time + 86_400, challenge=900, exposure=EXPOSURE, policy=policy, model_id=ModelId(bytes(32)),
            salt=Hash32(bytes(32)),
        )  # fmt: skip
        self.id, self.abi = job_id(self.terms), abi_terms(self.terms)
        self.deposit = deposit
        self.checkpoints: tuple[Checkpoint, ...] = ()
        self.committed_at = 0
        self.had = self.balance(RENTER.address)
        assert self.open() is None

    @property
    def evm(self) -> Evm:
        return self.twin.evm

    @property
    def state(self) -> JobState:
        return self.twin.model.jobs[self.id].state

    def cost(self, tokens: int) -> BaseUnits:
        return cost(Tokens(tokens), PRICE)

    def balance(self, account: Address) -> int:
        if self.token == ZERO_ADDRESS:
            return self.evm.balance(account)
        return TestUSDC.decode_balance_of(self.evm.view(self.token, TestUSDC.encode_balance_of(account)))

    # -- calls --------------------------------------------------------------------------------------------------------

    def open(self) -> str | None:
        call = settlement.Open(RENTER.address, self.terms, BaseUnits(self.deposit))
        value = self.deposit if self.token == ZERO_ADDRESS else 0
        return self.twin.both(call, RENTER.address, JobMarketplace.encode_open(self.abi, self.deposit), value)

    def commit(self, tokens: int, by: SigningKey = HOST) -> str | None:
        """Checkpoints of 256 and a rest."""
        sizes = [256] * (tokens // 256) + [tokens % 256] * (tokens % 256 > 0)
        checkpoints = tuple(Checkpoint(keccak(b"checkpoint%d" % n), Tokens(size)) for n, size in enumerate(sizes))
        root = commitment_root(tree_root(checkpoints).hash, HEAD)
        call = settlement.CommitProof(by.address, self.id, Tokens(tokens), root)
        told = self.twin.both(call, by.address, JobMarketplace.encode_commit_proof(self.abi, tokens, root))
        if told is None:
            self.checkpoints, self.committed_at = checkpoints, self.evm.block
        return told

    def submit(self, by: SigningKey = STRANGER, valid: bool = True) -> str | None:
        """The answer to the challenge; anyone may bring it."""
        proof = self.twin.proof(self.terms, self.id, self.checkpoints, HEAD, self.committed_at)
        if not valid:
            proof = proof._replace(proof=keccak(proof.proof))
        root = commitment_root(Hash32(proof.tree_root), HEAD)
        call = settlement.SubmitProof(self.id, Tokens(proof.tokens), root, valid)
        return self.twin.both(call, by.address, JobMarketplace.encode_submit_proof(self.abi, proof))

    def voucher(self, tokens: int, key: SigningKey | None = SIGNER) -> tuple[Claim, Address | None]:
        claim = self.twin.claim(self.terms, self.id, self.cost(tokens), tokens, key)
        digest = self.twin.domain.voucher_digest(self.id, self.cost(tokens), Tokens(tokens), Hash32(claim.transcript))
        return claim, recover(digest, claim.sig)

    def redeem(self, tokens: int, by: SigningKey = HOST, key: SigningKey = SIGNER) -> str | None:
        claim, signer = self.voucher(tokens, key)
        call = settlement.Redeem(by.address, self.id, self.cost(tokens), Tokens(tokens), signer)
        return self.twin.both(call, by.address, JobMarketplace.encode_redeem([claim]))

    def claim_proven(self, by: SigningKey = HOST) -> str | None:
        call = settlement.ClaimProven(by.address, self.id)
        return self.twin.both(call, by.address, JobMarketplace.encode_claim_proven(self.abi))

    def close_by_host(self, tokens: int | None = None, by: SigningKey = HOST) -> str | None:
        """With a last voucher, or with none."""
        claim, signer = self.voucher(tokens or 0, SIGNER if tokens is not None else None)
        last = None
        if tokens is not None:
            last = settlement.Redeem(by.address, self.id, self.cost(tokens), Tokens(tokens), signer)
        call = settlement.CloseByHost(by.address, self.id, last)
        return self.twin.both(call, by.address, JobMarketplace.encode_close_by_host(claim))

    def close_cooperative(
        self, tokens: int, by: SigningKey = RENTER, consent: SigningKey = HOST, key: SigningKey | None = None
    ) -> str | None:
        """With the host's Close signature, and the renter's voucher where somebody else sends it."""
        claim, signer = self.voucher(tokens, key)
        host_sig = consent.sign(self.twin.domain.close_digest(self.id, self.cost(tokens), Tokens(tokens)))
        call = settlement.CloseCooperative(
            by.address, self.id, self.cost(tokens), Tokens(tokens), consent.address, signer
        )
        return self.twin.both(call, by.address, JobMarketplace.encode_close_cooperative(claim, host_sig))

    def request_close(self, by: SigningKey = RENTER) -> str | None:
        call = settlement.RequestClose(by.address, self.id)
        return self.twin.both(call, by.address, JobMarketplace.encode_request_close(self.abi))

    def finalize(self, by: SigningKey = STRANGER) -> str | None:
        call = settlement.Finalize(by.address, self.id)
        return self.twin.both(call, by.address, JobMarketplace.encode_finalize(self.abi))

    def withdraw(self, who: Address) -> str | None:
        call = settlement.Withdraw(who, self.token)
        return self.twin.both(call, who, JobMarketplace.encode_withdraw(self.token, who))

    # -- time -----------------------------------------------------------------------------------------------------------

    def until_block(self, block: int) -> None:
        self.evm.mine(block - self.evm.block, 2 * (block - self.evm.block))

    def until_time(self, time: int) -> None:
        self.evm.mine(1, time - self.evm.time)

    def everything_is_refused(self) -> None:
        """A closed job takes no call any more, and cannot be opened again."""
        tokens = max(self.state.signed, self.state.proven) + 1
        told = [
            self.commit(tokens), self.redeem(tokens), self.claim_proven(), self.close_by_host(), self.close_by_host(tokens),
            self.close_cooperative(tokens), self.request_close(), self.finalize(),
        ]  # fmt: skip
        if self.checkpoints:
            told.append(self.submit())
        assert set(told) == {"NotOpen"}
        assert self.open() == ("JobExists" if self.evm.time < self.terms.expires_at else "BadTerms")

    def check_payout(self, owed: int, credits: list[int]) -> None:
        """After the close, to the last unit: the renter has the rest of its deposit, host and treasury withdraw the owed amount less and
        with the fee of each credit, and nothing stays behind."""
        self.twin.check()
        assert (self.state.closed, self.state.owed) == (True, owed)
        assert self.balance(RENTER.address) == self.had - owed
        fee = sum(delta * 500 // 10_000 for delta in credits)
        assert sum(credits) == owed
        assert self.balance(self.twin.address) == owed
        for who, amount in ((HOST.address, owed - fee), (TREASURY, fee)):
            before = self.balance(who)
            assert self.withdraw(who) == (None if amount else "NothingToClaim")
            assert self.balance(who) == before + amount
        assert self.balance(self.twin.address) == 0
        assert self.withdraw(HOST.address) == "NothingToClaim"
