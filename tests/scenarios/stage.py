"""One job on real contracts in an EVM in this process, and everybody who may try to move its money. Each call goes to the settlement model
too, which must agree (`tests.contracts.market`). Decides nothing: `tests.scenarios.play` does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fabstir.chain.bindings import Claim, JobMarketplace
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens, cost
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy, Terms
from fabstir.protocol import settlement
from fabstir.protocol.commitments import Checkpoint, commitment_root, tree_root
from fabstir.protocol.host_log import CommitmentMade
from fabstir.protocol.matrix import Call
from fabstir.protocol.opening import refusal_of
from fabstir.protocol.signing import SigningKey, job_id, keccak, recover
from tests.contracts.evm import Evm
from tests.contracts.market import COMPENSATION, SLASH, STAKE_MINIMUM, TREASURY, TwinMarket, abi_terms
from tests.contracts.stream import Stream, abi_opening, spoil

RENTER, SIGNER, HOST, STRANGER, ARBITER, OTHER_HOST = (SigningKey(bytes([n]) * 32) for n in (1, 5, 7, 9, 13, 17))
ACTORS: Final = tuple(key.address for key in (RENTER, SIGNER, HOST, STRANGER, ARBITER, OTHER_HOST))
PRICE: Final = PricePerMTok(1_234_567)
"""Odd on purpose: every amount is rounded."""
EXPOSURE: Final = Tokens(64)
BOND: Final = BaseUnits(77)
CHALLENGE: Final = 900


class Stage:
    """The calls give the name of the contract's error, or None where they went through."""

    def __init__(
        self,
        policy: ProofPolicy,
        deposit: int,
        native: bool = False,
        arbiter: Address = ZERO_ADDRESS,
        stake: int = STAKE_MINIMUM,
    ) -> None:
        self.twin = TwinMarket(ACTORS)
        self.twin.stake(HOST.address, stake)
        self.staked = stake
        self.token = ZERO_ADDRESS if native else self.twin.usdc
        self.policy, self.arbiter, self.deposit = policy, arbiter, deposit
        self.credits: list[int] = []
        """What each call credited."""
        self.made: list[tuple[Call, Address]] = []
        """Calls that went through, and whose they were."""
        self.had = self.balance(RENTER.address)
        self.id = JobId(bytes(32))
        self.begin()

    def begin(self) -> None:
        """The renter opens a job."""
        self.enter(
            Terms(
                renter=RENTER.address, signer=SIGNER.address, host=HOST.address, token=self.token, arbiter=self.arbiter, price=PRICE,
                bond=BOND, expires_at=self.evm.time + 86_400, challenge=CHALLENGE, exposure=EXPOSURE, policy=self.policy,
                model_id=ModelId(bytes(32)), salt=Hash32(bytes(32)),
            )
        )  # fmt: skip
        assert self.open() is None

    def enter(self, terms: Terms) -> None:
        """From now on this is the job."""
        self.terms, self.id, self.abi = terms, job_id(terms), abi_terms(terms)
        self.stream = Stream(self.twin.domain, terms)
        self.checkpoints: tuple[Checkpoint, ...] = ()
        self.committed_at = 0

    @property
    def evm(self) -> Evm:
        return self.twin.evm

    @property
    def state(self) -> JobState:
        account = self.twin.model.jobs.get(self.id)
        return account.state if account else JobState()

    @property
    def credited(self) -> int:
        """Not what a claim holds."""
        return self.state.owed - self.state.held

    def cost(self, tokens: int) -> BaseUnits:
        return cost(Tokens(tokens), PRICE)

    def balance(self, account: Address) -> int:
        return self.twin.balance(self.token, account)

    # -- calls --------------------------------------------------------------------------------------------------------

    def _both(self, call: settlement.Call, by: Address, data: bytes, value: int = 0, besides: str = "") -> str | None:
        before = self.credited
        told = self.twin.both(call, by, data, value, besides=besides)
        if told is None and not isinstance(call, settlement.Open | settlement.Withdraw):
            name = type(call).__name__
            self.made.append((Call(name[0].lower() + name[1:]), by))
            self.credits += [self.credited - before] if self.credited != before else []
        return told

    def open(self) -> str | None:
        call = settlement.Open(RENTER.address, self.terms, BaseUnits(self.deposit))
        return self._both(
            call, RENTER.address, JobMarketplace.encode_open(self.abi, self.deposit), self.value(self.deposit)
        )

    def value(self, amount: int) -> int:
        """What is sent along with a call that pays `amount`."""
        return amount if self.token == ZERO_ADDRESS else 0

    def top_up(self, amount: int, by: SigningKey = RENTER) -> str | None:
        call = settlement.TopUp(self.id, BaseUnits(amount))
        return self._both(call, by.address, JobMarketplace.encode_top_up(self.abi, amount), self.value(amount))

    def commit(self, tokens: int, by: SigningKey = HOST) -> str | None:
        """Checkpoints of 256 and a rest."""
        sizes = [256] * (tokens // 256) + [tokens % 256] * (tokens % 256 > 0)
        checkpoints = tuple(Checkpoint(keccak(b"checkpoint%d" % n), Tokens(size)) for n, size in enumerate(sizes))
        root = commitment_root(tree_root(checkpoints).hash, self.stream.head(tokens))
        call = settlement.CommitProof(by.address, self.id, Tokens(tokens), root)
        told = self._both(call, by.address, JobMarketplace.encode_commit_proof(self.abi, tokens, root))
        if told is None:
            self.checkpoints, self.committed_at = checkpoints, self.evm.block
        return told

    def submit(self, by: SigningKey = HOST, valid: bool = True) -> str | None:
        """The answer to the challenge; anyone may bring it."""
        tree = tree_root(self.checkpoints)
        head = self.stream.head(tree.tokens)
        proof = self.twin.proof(self.terms, self.id, self.checkpoints, head, self.committed_at)
        if not valid:
            proof = proof._replace(proof=keccak(proof.proof))
        call = settlement.SubmitProof(self.id, tree.tokens, commitment_root(tree.hash, head), valid)
        told = self._both(call, by.address, JobMarketplace.encode_submit_proof(self.abi, proof))
        if told is None:
            self.stream.proven = CommitmentMade(tree.tokens, tree.hash, head, len(self.checkpoints))
        return told

    def voucher(self, tokens: int, key: SigningKey | None = SIGNER) -> tuple[Claim, Address | None]:
        head = self.stream.head(tokens)
        claim = self.twin.claim(self.terms, self.id, self.cost(tokens), tokens, head, key)
        return claim, recover(
            self.twin.domain.voucher_digest(self.id, self.cost(tokens), Tokens(tokens), head), claim.sig
        )

    def redeem(self, tokens: int, by: SigningKey = HOST, key: SigningKey = SIGNER) -> str | None:
        claim, signer = self.voucher(tokens, key)
        call = settlement.Redeem(by.address, self.id, self.cost(tokens), Tokens(tokens), signer)
        told = self._both(call, by.address, JobMarketplace.encode_redeem([claim]))
        if told is None:
            self.stream.redeemed(claim)
        return told

    # -- claims -------------------------------------------------------------------------------------------------------

    def claim_proven(self, by: SigningKey = HOST) -> str | None:
        call = settlement.ClaimProven(by.address, self.id)
        return self._both(call, by.address, JobMarketplace.encode_claim_proven(self.abi))

    def dispute(self, by: SigningKey = RENTER, short: int = 0) -> str | None:
        """`short`: so much less native coin than the bond comes along."""
        call, besides = settlement.Dispute(by.address, self.id), "BadValue" if short else ""
        value = self.value(BOND) - short
        return self._both(call, by.address, JobMarketplace.encode_dispute(self.abi), value, besides)

    def contradict(self, tokens: int, by: SigningKey = STRANGER, key: SigningKey = HOST) -> str | None:
        """With a `Close` over so many tokens."""
        amount = self.cost(tokens)
        sig = key.sign(self.twin.domain.close_digest(self.id, amount, Tokens(tokens)))
        call = settlement.Contradict(self.id, Tokens(tokens), key.address)
        return self._both(call, by.address, JobMarketplace.encode_contradict(self.abi, amount, tokens, sig))

    def answer(self, by: SigningKey = HOST, flaw: str = "") -> str | None:
        """With the records of what was served, or with one thing wrong in them."""
        known = self.state.signed in self.stream.ledger.vouchers  # not where both closed together at another count
        opening = spoil(self.stream.opening(self.state.signed if known else Tokens(0)), flaw)
        refusal = refusal_of(self.twin.domain, self.terms, self.state.signed, opening)
        call = settlement.AnswerDispute(by.address, self.id, refusal)
        return self._both(call, by.address, JobMarketplace.encode_answer_dispute(self.abi, abi_opening(opening)))

    def rule(self, for_host: bool, by: SigningKey = ARBITER) -> str | None:
        call = settlement.Rule(by.address, self.id, for_host)
        return self._both(call, by.address, JobMarketplace.encode_rule(self.abi, for_host))

    def settle_claim(self, by: SigningKey = STRANGER) -> str | None:
        return self._both(settlement.SettleClaim(self.id), by.address, JobMarketplace.encode_settle_claim(self.abi))

    # -- the end ------------------------------------------------------------------------------------------------------

    def close_by_host(self, tokens: int | None = None, by: SigningKey = HOST) -> str | None:
        """With a last voucher, or with none."""
        claim, signer = self.voucher(tokens or 0, SIGNER if tokens is not None else None)
        last = None
        if tokens is not None:
            last = settlement.Redeem(by.address, self.id, self.cost(tokens), Tokens(tokens), signer)
        call = settlement.CloseByHost(by.address, self.id, last)
        return self._both(call, by.address, JobMarketplace.encode_close_by_host(claim))

    def close_cooperative(
        self, tokens: int, by: SigningKey = RENTER, consent: SigningKey = HOST, key: SigningKey | None = None
    ) -> str | None:
        """With the host's Close signature, and the renter's voucher where somebody else sends it."""
        claim, signer = self.voucher(tokens, key)
        host_sig = consent.sign(self.twin.domain.close_digest(self.id, self.cost(tokens), Tokens(tokens)))
        call = settlement.CloseCooperative(
            by.address, self.id, self.cost(tokens), Tokens(tokens), consent.address, signer
        )
        return self._both(call, by.address, JobMarketplace.encode_close_cooperative(claim, host_sig))

    def request_close(self, by: SigningKey = RENTER) -> str | None:
        call = settlement.RequestClose(by.address, self.id)
        return self._both(call, by.address, JobMarketplace.encode_request_close(self.abi))

    def finalize(self, by: SigningKey = STRANGER) -> str | None:
        call = settlement.Finalize(by.address, self.id)
        return self._both(call, by.address, JobMarketplace.encode_finalize(self.abi))

    def withdraw(self, who: Address) -> str | None:
        return self._both(settlement.Withdraw(who, self.token), who, JobMarketplace.encode_withdraw(self.token, who))

    # -- time -----------------------------------------------------------------------------------------------------------

    def until_block(self, block: int) -> None:
        self.evm.mine(block - self.evm.block, 2 * (block - self.evm.block))

    def until_time(self, time: int) -> None:
        self.evm.mine(1, max(0, time - self.evm.time))

    @contextmanager
    def at(self, time: int) -> Iterator[None]:
        """For calls that must fail at that time: afterwards it is as early as before."""
        now = self.evm.time
        self.evm.mine(0, time - now)
        yield
        self.evm.mine(0, now - self.evm.time)

    def prove(self, tokens: int) -> None:
        """Commit and answer in one go."""
        assert self.commit(tokens) is None
        self.until_block(self.committed_at + 3)
        assert self.submit() is None

    # -- the outcome ----------------------------------------------------------------------------------------------------

    def everything_is_refused(self) -> None:
        """A closed job whose claims are decided takes no call any more, and cannot be opened again."""
        tokens = max(self.state.signed, self.state.proven) + 1
        told = [
            self.commit(tokens), self.redeem(tokens), self.claim_proven(), self.close_by_host(), self.close_by_host(tokens),
            self.close_cooperative(tokens), self.request_close(), self.finalize(), self.top_up(1),
        ]  # fmt: skip
        if self.checkpoints:
            told.append(self.submit())
        assert set(told) == {"NotOpen"}
        late = [self.dispute(), self.contradict(0), self.settle_claim()]
        if self.arbiter != ZERO_ADDRESS:
            late.append(self.rule(True))
        if self.stream.proven is not None:
            late.append(self.answer())
        assert set(late) == {"WrongStage"}

    def check_payout(self, owed: int, bond_to_host: bool = False, slashed: bool = False) -> None:
        """After the end, to the last unit: the renter has the rest of its deposit, host and treasury withdraw the owed amount less and
        with the fee of each credit, bond, stake and compensation are where they belong, and nothing stays behind."""
        self.twin.check()
        assert (self.state.closed, self.state.owed, self.state.held, sum(self.credits)) == (True, owed, 0, owed)
        compensation = COMPENSATION * (slashed and self.token == self.twin.usdc)
        assert self.balance(RENTER.address) == self.had - owed - BOND * bond_to_host + compensation
        assert self.twin.model.stakes[HOST.address] == self.staked - SLASH * slashed
        assert self.twin.model.compensated.get(RENTER.address, 0) == COMPENSATION * slashed
        assert self.twin.model.repaid.get((HOST.address, self.token), 0) == BOND * bond_to_host
        fee = sum(delta * 500 // 10_000 for delta in self.credits)
        assert self.balance(self.twin.address) == owed
        for who, amount in ((HOST.address, owed - fee), (TREASURY, fee)):
            before = self.balance(who)
            assert self.withdraw(who) == (None if amount else "NothingToClaim")
            assert self.balance(who) == before + amount
        assert self.balance(self.twin.address) == 0
        assert self.withdraw(HOST.address) == "NothingToClaim"

    @property
    def undecided(self) -> bool:
        return self.state.stage in (ClaimStage.CLAIMED, ClaimStage.DISPUTED, ClaimStage.ANSWERED)
