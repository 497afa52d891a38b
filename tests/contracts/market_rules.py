"""What renters, hosts and strangers can do with deposits, vouchers and the end of a job; `dispute_rules` has proofs and claims.

Amounts and times are drawn at and around every bound: unbiased numbers missed a voucher above the deposit in every run
(research/chain.md 2.3).
"""

from __future__ import annotations

from typing import Final

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fabstir.chain.bindings import Claim, JobMarketplace
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, ModelId
from fabstir.domain.money import MAX_DEPOSIT, BaseUnits, PricePerMTok, Tokens, affordable, cost
from fabstir.domain.terms import ProofPolicy, Terms, salt_for
from fabstir.protocol import settlement
from fabstir.protocol.authorization import top_up_nonce
from fabstir.protocol.signing import SigningKey, job_id, keccak, recover
from tests.contracts.market import TREASURY, TwinMarket, abi_terms
from tests.contracts.stream import Stream

RENTERS: Final = tuple(SigningKey(bytes([n]) * 32) for n in (1, 2))
SIGNER, HOST, STRANGER, PAYER, ARBITER = (SigningKey(bytes([n]) * 32) for n in (5, 7, 9, 11, 13))
ACTORS: Final = tuple(key.address for key in (*RENTERS, HOST, STRANGER, PAYER, ARBITER))
KEYS: Final = st.sampled_from([SIGNER, SIGNER, SIGNER, SIGNER, HOST, STRANGER])
MOST_TOKENS: Final = 1_500
MOST_JOBS: Final = 4
"""Few jobs, so that each sees many calls."""
BAD_TERMS: Final = (
    {"price": 0}, {"host": ZERO_ADDRESS}, {"signer": ZERO_ADDRESS}, {"challenge": 899}, {"challenge": 3 * 86_400 + 1}, {"exposure": 0},
    {"exposure": 4097}, {"expires_at": 0}, {"bond": 0},
)  # fmt: skip
SELDOM: Final = st.integers(0, 3).map(lambda n: n == 3)
"""Closing ends all play with a job."""
MOSTLY_RIGHT: Final = st.integers(0, 39).map(lambda n: BAD_TERMS[n] if n < len(BAD_TERMS) else None)
BY: Final = st.sampled_from(
    ["renter", "renter", "renter", "payer", "payer", "relay", "relay", "stranger", "relay of a stranger"]
)


class MarketRules(RuleBasedStateMachine):
    """Deposits, vouchers, closing, earnings, time."""

    market_code: bytes | None = None

    def __init__(self) -> None:
        super().__init__()
        self.twin = TwinMarket(ACTORS, self.market_code)
        self.streams: dict[JobId, Stream] = {}

    # -- drawing at the bounds

    def some_job(self, data: st.DataObject) -> tuple[JobId, Terms]:
        """Nearly always an open one."""
        jobs = self.twin.model.jobs
        still_open = sorted(job for job in jobs if not jobs[job].state.closed)
        every = not still_open or data.draw(st.integers(0, 9)) == 9
        job = data.draw(st.sampled_from(sorted(jobs) if every else still_open))
        return job, jobs[job].terms

    def some_tokens(self, data: st.DataObject, job: JobId) -> int:
        account = self.twin.model.jobs[job]
        state, terms = account.state, account.terms
        most = min(affordable(state.deposit, terms.price), MOST_TOKENS)
        payable = state.proven if terms.policy == ProofPolicy.REQUIRED else most
        bounds = [state.signed, state.proven, min(state.signed + terms.exposure, MOST_TOKENS), most]
        if state.held_tokens:
            bounds += [min(state.held_tokens, most)] * 2
        right = st.integers(min(state.signed + 1, payable), payable)
        near = st.builds(lambda about, step: max(0, about + step), st.sampled_from(bounds), st.integers(-1, 1))
        return data.draw(near if data.draw(st.integers(0, 4)) == 4 or state.held_tokens else right)

    def some_amount(self, data: st.DataObject, job: JobId, tokens: int) -> int:
        right = cost(Tokens(tokens), self.twin.model.jobs[job].terms.price)
        deposit = self.twin.model.jobs[job].state.deposit
        return max(
            0, data.draw(st.sampled_from([right, right, right, right, right + 1, right - 1, deposit, deposit + 1]))
        )

    def voucher(self, data: st.DataObject, job: JobId, sender: Address) -> tuple[settlement.Redeem, Claim]:
        """Over the head of what was served, now and then over something else."""
        terms = self.twin.model.jobs[job].terms
        tokens = self.some_tokens(data, job)
        amount = self.some_amount(data, job, tokens)
        foreign = data.draw(st.integers(0, 9)) == 9
        transcript = keccak(b"foreign") if foreign else self.streams[job].head(tokens)
        return self.signed(job, terms, sender, amount, tokens, transcript, data.draw(KEYS))

    def signed(self, job, terms, sender, amount, tokens, transcript, key) -> tuple[settlement.Redeem, Claim]:
        claim = self.twin.claim(terms, job, amount, tokens, transcript, key)
        digest = self.twin.domain.voucher_digest(job, BaseUnits(amount), Tokens(tokens), transcript)
        return settlement.Redeem(sender, job, BaseUnits(amount), Tokens(tokens), recover(digest, claim.sig)), claim

    def wait_until(self, data: st.DataObject, deadline: int, offsets: list[int | None]) -> None:
        """Now (None), or in the seconds around the deadline."""
        off = data.draw(st.sampled_from(offsets))
        if off is not None and deadline + off > self.twin.evm.time:
            self.twin.evm.mine(1, deadline + off - self.twin.evm.time)

    # -- deposits

    @rule(
        renter=st.sampled_from(RENTERS),
        native=st.booleans(),
        price=st.sampled_from([1, 999_999, 1_000_000, 1_234_567, 10**12]),
        deposit=st.one_of(st.sampled_from([0, 1, 100]), st.integers(1, 2_000)),
        exposure=st.sampled_from([1, 64, 4096]),
        policy=st.sampled_from(list(ProofPolicy)),
        arbiter=st.booleans(),
        bond=st.sampled_from([1, 7, 10**9]),
        wrong=MOSTLY_RIGHT,
        by=BY,
        opener=st.sampled_from(["by", "by", "by", "by", "by", "payer", "unmarked"]),
        salt=st.integers(1, 30),
    )
    def open(self, renter, native, price, deposit, exposure, policy, arbiter, bond, wrong, by, opener, salt) -> None:
        if len(self.twin.model.jobs) == MOST_JOBS:
            return
        terms = Terms(
            renter=renter.address, signer=SIGNER.address, host=HOST.address,
            token=ZERO_ADDRESS if native else self.twin.usdc, arbiter=ARBITER.address if arbiter else ZERO_ADDRESS,
            price=PricePerMTok(price), bond=BaseUnits(bond), challenge=900, exposure=Tokens(exposure), policy=policy,
            expires_at=self.twin.evm.time // 86_400 * 86_400 + 2 * 86_400, model_id=ModelId(bytes(32)),
            salt=self.salted(by if opener == "by" else opener, salt),
        )  # fmt: skip
        terms = msgspec.structs.replace(terms, **(wrong or {}))
        deposit *= price // 10**6 or 1
        if by.startswith("relay"):
            self.relayed(terms, deposit, renter if by == "relay" else STRANGER)
            return
        sender = {"renter": renter, "payer": PAYER, "stranger": STRANGER}[by].address
        data = JobMarketplace.encode_open(abi_terms(terms), deposit)
        call = settlement.Open(sender, terms, BaseUnits(deposit))
        self.opens(terms, self.twin.both(call, sender, data, deposit if native else 0))

    @staticmethod
    def salted(opener: str, salt: int) -> Hash32:
        """For the payer alone to open, for the renter; or only nearly for the payer."""
        rest = bytes([salt]) * 8
        if opener == "unmarked":
            return Hash32(PAYER.address + b"\xff\xff\xff\xfe" + rest)
        return salt_for(PAYER.address, rest) if opener == "payer" else Hash32(bytes([salt]) * 32)

    def opens(self, terms: Terms, refusal: str | None) -> None:
        if refusal is None:
            self.streams[job_id(terms)] = Stream(self.twin.domain, terms)

    @precondition(lambda self: self.twin.model.jobs)
    @rule(data=st.data(), deposit=st.integers(1, 100))
    def open_again(self, data: st.DataObject, deposit: int) -> None:
        """The terms of a job that is or was open."""
        terms = self.twin.model.jobs[data.draw(st.sampled_from(sorted(self.twin.model.jobs)))].terms
        call = settlement.Open(terms.renter, terms, BaseUnits(deposit))
        value = deposit if terms.token == ZERO_ADDRESS else 0
        self.twin.both(call, terms.renter, JobMarketplace.encode_open(abi_terms(terms), deposit), value)

    def relayed(self, terms: Terms, deposit: int, key: SigningKey) -> None:
        before = self.twin.evm.time + 60
        sig = self.twin.authorized(key, terms.renter, deposit, before, Hash32(job_id(terms)))
        data = JobMarketplace.encode_open_with_authorization(abi_terms(terms), deposit, before, sig)
        call = settlement.Open(STRANGER.address, terms, BaseUnits(deposit), authorized=True)
        besides = "" if key.address == terms.renter else "SignatureInvalid"
        if terms.token == ZERO_ADDRESS:
            besides = "BadTerms"
        self.opens(terms, self.twin.both(call, STRANGER.address, data, payer=terms.renter, besides=besides))

    def addition(self, data: st.DataObject, job: JobId) -> int:
        """Small; now and then what fills the deposit up to the brim, and one more."""
        room = MAX_DEPOSIT - self.twin.model.jobs[job].state.deposit
        if data.draw(st.integers(0, 19)) == 19:
            return data.draw(st.sampled_from([room, room + 1, 2**96 - 1]))
        return data.draw(st.sampled_from([0, 1, 100, 1_000_000]))

    @precondition(lambda self: self.twin.model.jobs)
    @rule(data=st.data(), sender=st.sampled_from([*RENTERS, STRANGER, HOST]))
    def top_up(self, data: st.DataObject, sender: SigningKey) -> None:
        """By anybody; the refund is the renter's all the same."""
        job, terms = self.some_job(data)
        amount = self.addition(data, job)
        encoded = JobMarketplace.encode_top_up(abi_terms(terms), amount)
        call = settlement.TopUp(job, BaseUnits(amount))
        self.twin.both(call, sender.address, encoded, amount if terms.token == ZERO_ADDRESS else 0)

    @precondition(lambda self: self.twin.model.jobs)
    @rule(data=st.data(), flaw=st.sampled_from(["", "", "", "stranger", "deposit", "late", "job"]))
    def top_up_authorized(self, data: st.DataObject, flaw: str) -> None:
        """And once more with the same signature, which pays for one addition to one deposit."""
        job, terms = self.some_job(data)
        renter = next(key for key in RENTERS if key.address == terms.renter)
        amount, deposit = self.addition(data, job), self.twin.model.jobs[job].state.deposit
        before = self.twin.evm.time + (0 if flaw == "late" else 60)
        nonce = top_up_nonce(job, BaseUnits(deposit + (flaw == "deposit")))
        key = STRANGER if flaw == "stranger" else renter
        sig = self.twin.authorized(key, terms.renter, amount, before, Hash32(job) if flaw == "job" else nonce)
        encoded = JobMarketplace.encode_top_up_with_authorization(abi_terms(terms), amount, before, sig)
        besides = {"": "", "late": "AuthorizationExpired"}.get(flaw, "SignatureInvalid")
        if terms.token == ZERO_ADDRESS:
            besides = "BadTerms"
        call = settlement.TopUp(job, BaseUnits(amount))
        if self.twin.both(call, STRANGER.address, encoded, payer=terms.renter, besides=besides) is None:
            self.twin.both(call, STRANGER.address, encoded, payer=terms.renter, besides="SignatureInvalid")

    @rule(amount=st.sampled_from([1, 100]), seldom=SELDOM)
    def stake(self, amount: int, seldom: bool) -> None:
        if seldom:
            self.twin.stake(HOST.address, amount)

    # -- vouchers

    @precondition(lambda self: self.twin.model.jobs)
    @rule(data=st.data(), sender=st.sampled_from([HOST, HOST, HOST, HOST, STRANGER]))
    def redeem(self, data: st.DataObject, sender: SigningKey) -> None:
        job, _ = self.some_job(data)
        self.redeems(*self.voucher(data, job, sender.address))

    def redeems(self, call: settlement.Redeem, claim: Claim) -> None:
        if self.twin.both(call, call.sender, JobMarketplace.encode_redeem([claim])) is None:
            self.streams[call.job].redeemed(claim)

    # -- the end of a job

    @precondition(lambda self: self.twin.model.jobs)
    @rule(data=st.data(), bare=st.booleans(), sender=st.sampled_from([HOST, HOST, STRANGER]), seldom=SELDOM)
    def close_by_host(self, data: st.DataObject, bare: bool, sender: SigningKey, seldom: bool) -> None:
        if not seldom:
            return
        job, _ = self.some_job(data)
        voucher, claim = self.voucher(data, job, sender.address)
        if bare:
            claim = claim._replace(sig=b"")
        last = None if bare else voucher
        better = last is not None and last.tokens > self.twin.model.jobs[job].state.signed
        call = settlement.CloseByHost(sender.address, job, last)
        if self.twin.both(call, sender.address, JobMarketplace.encode_close_by_host(claim)) is None and better:
            self.streams[job].redeemed(claim)

    @precondition(lambda self: self.twin.model.jobs)
    @rule(data=st.data(), consent=st.sampled_from([HOST, HOST, HOST, SIGNER]), by_renter=st.booleans(), seldom=SELDOM)
    def close_cooperative(self, data: st.DataObject, consent: SigningKey, by_renter: bool, seldom: bool) -> None:
        if not seldom:
            return
        job, terms = self.some_job(data)
        sender = terms.renter if by_renter else STRANGER.address
        voucher, claim = self.voucher(data, job, sender)
        host_sig = consent.sign(self.twin.domain.close_digest(job, voucher.amount, voucher.tokens))
        call = settlement.CloseCooperative(
            sender, job, voucher.amount, voucher.tokens, consent.address, voucher.recovered
        )
        self.twin.both(call, sender, JobMarketplace.encode_close_cooperative(claim, host_sig))

    @precondition(lambda self: self.twin.model.jobs)
    @rule(data=st.data(), by_renter=st.sampled_from([True, True, False]))
    def request_close(self, data: st.DataObject, by_renter: bool) -> None:
        job, terms = self.some_job(data)
        sender = terms.renter if by_renter else HOST.address
        call = settlement.RequestClose(sender, job)
        self.twin.both(call, sender, JobMarketplace.encode_request_close(abi_terms(terms)))

    @precondition(lambda self: self.twin.model.jobs)
    @rule(data=st.data(), seldom=SELDOM)
    def finalize(self, data: st.DataObject, seldom: bool) -> None:
        """Now, or in the second around the deadline."""
        if not seldom:
            return
        job, terms = self.some_job(data)
        deadline = settlement.finalizable_at(terms, self.twin.model.jobs[job].state)
        self.wait_until(data, deadline, [-1, -1, 0, 1, None, None])
        call = settlement.Finalize(STRANGER.address, job)
        self.twin.both(call, STRANGER.address, JobMarketplace.encode_finalize(abi_terms(terms)))

    @precondition(lambda self: len(self.twin.model.earnings) > 0)
    @rule(account=st.sampled_from([HOST.address, HOST.address, TREASURY, RENTERS[0].address]), native=st.booleans())
    def withdraw(self, account: Address, native: bool) -> None:
        token = ZERO_ADDRESS if native else self.twin.usdc
        call = settlement.Withdraw(account, token)
        self.twin.both(call, account, JobMarketplace.encode_withdraw(token, account))

    # -- time

    @rule(blocks=st.sampled_from([1, 2, 3, 255, 256, 257]), seconds=st.sampled_from([1, 2, 449, 899, 900, 901, 86_400]))
    def wait(self, blocks: int, seconds: int) -> None:
        self.twin.evm.mine(blocks, seconds)

    @invariant()
    def agree(self) -> None:
        self.twin.check()
