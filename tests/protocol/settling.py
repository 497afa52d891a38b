"""A host that settles one job with the contract's model: the planner's shell without I/O, and everything that can go wrong around it.

Transactions are carried out by `protocol.settlement`, proofs by a prover that is believed as long as it runs. After each fault
nothing is left but the journal and the chain.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32
from fabstir.domain.money import BaseUnits, Tokens, cost
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy
from fabstir.protocol.commitments import (
    challenge_seed,
    challenged_position,
    commitment_root,
    open_path,
    root_of_path,
    tree_root,
)
from fabstir.protocol.host_log import (
    CheckpointClosed,
    CommitmentMade,
    HostEvent,
    HostLedger,
    JobAdmitted,
    JobClosed,
    ProofAccepted,
    Resynced,
    SessionFinished,
    TokensServed,
    TurnEnded,
    TurnStarted,
    VoucherAccepted,
    decode_event,
    encode_event,
)
from fabstir.protocol.opening import opening_of, refusal_of
from fabstir.protocol.settlement import (
    AnswerDispute,
    Call,
    ClaimProven,
    CloseByHost,
    CommitProof,
    Dispute,
    MarketState,
    Open,
    Redeem,
    Reverted,
    Rule,
    SettleClaim,
    SubmitProof,
    apply,
)
from fabstir.protocol.settlement_disputes import UNDECIDED
from fabstir.protocol.settlement_plan import (
    Action,
    AnswerChallenge,
    AwaitBlock,
    AwaitClaim,
    ClaimTail,
    CloseCheckpoint,
    CloseJob,
    CommitTree,
    NoteClosed,
    RedeemVoucher,
    SettlementRules,
    Situation,
    plan,
)
from fabstir.protocol.settlement_plan import AnswerDispute as PlannedAnswer
from fabstir.protocol.settlement_plan import SettleClaim as PlannedSettle
from fabstir.protocol.settlement_state import add
from fabstir.protocol.signing import keccak, recover
from tests.protocol.market import MARKET, SESSION_KEY, terms

TREASURY = Address(b"\x7e" * 20)
ARBITER = Address(b"\x7a" * 20)
START = 1_800_000_000
STAKE, SLASH, COMPENSATION, BOND = 1_000, 100, 40, 7
RULES = SettlementRules(
    redeem_above=BaseUnits(100), claim_tail_above=BaseUnits(5), expiry_margin=3_600.0, idle_close=3_600.0
)


class Fault(Enum):
    """What goes wrong in one step."""

    NONE = "none"
    CRASH_BEFORE = "crash before anything is written"
    CRASH_BETWEEN = "crash after the intent is written, before the transaction"
    TX_LOST = "the transaction is never mined, and an error is seen"
    TX_UNSEEN = "the transaction is mined, and the host dies before it knows"
    TX_LATE = "an error is seen, and the transaction is mined later"


class Down(Exception):
    """The step did not come to its end."""


@functools.cache  # the same few thousand in every play
def record(index: int, lost_connections: int) -> Hash32:
    """The digest of one token; others after a connection was lost."""
    return keccak(b"record%d-%d" % (index, lost_connections))


class Settling:
    """One job, its journal, the chain, and whatever fails."""

    def __init__(
        self,
        policy: ProofPolicy = ProofPolicy.REQUIRED,
        exposure: int = 64,
        deposit: int = 100_000,
        price: int = 1_000_000,
        rules: SettlementRules = RULES,
        arbiter: Address = ZERO_ADDRESS,
        stake: int = STAKE,
    ) -> None:
        agreed = terms(exposure=exposure, price=price, policy=policy)
        self.terms, self.rules = msgspec.structs.replace(agreed, arbiter=arbiter, bond=BaseUnits(BOND)), rules
        self.now, self.block, self.idle_for = START, 1_000, 0.0
        market = MarketState(TREASURY, slash=SLASH, compensation=COMPENSATION)
        market = msgspec.structs.replace(market, stakes=add(market.stakes, self.terms.host, stake))
        opened = Open(self.terms.renter, self.terms, BaseUnits(deposit))
        self.chain = apply(market, opened, self.now, self.block)
        self.journal = [encode_event(JobAdmitted(self.terms, BaseUnits(deposit), MARKET, float(self.now)))]
        self.restart()
        self.prover_works = True
        self.mined: list[str] = []
        """Transactions that went through, by name."""
        self.reverted: list[str] = []
        """`name: error` of those that did not."""
        self.late: list[tuple[str, Call]] = []
        self.proofs_made = 0
        self.proven: tuple[int, bytes] = (0, b"")
        """Tokens and root of the last proven commitment: what the contract wants opened."""
        self.bonds = 0
        """What the renter paid for disputes."""
        self.lost_connections = 0

    # -- what is known ------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """All that is left is the journal."""
        self.ledger = HostLedger.replay([decode_event(data) for data in self.journal])

    @property
    def job(self) -> JobState:
        return next(iter(self.chain.jobs.values())).state

    def money(self) -> tuple[int, int, int]:
        """What host, treasury and renter got."""
        token = self.terms.token
        earned = [self.chain.earnings.get((who, token), 0) for who in (self.terms.host, TREASURY)]
        return earned[0], earned[1], self.chain.repaid.get((self.terms.renter, token), 0)

    def repaid(self, who: Address) -> int:
        """What the contract pushed to an account: refunds, lost claims, bonds."""
        return self.chain.repaid.get((who, self.terms.token), 0)

    @property
    def stake(self) -> int:
        """What is left of the host's."""
        return self.chain.stakes[self.terms.host]

    @property
    def situation(self) -> Situation:
        """What the settler sees now; it forgets old vouchers as it looks."""
        self.ledger.forget_vouchers(self.job.signed)
        return Situation(self.job, self.block, float(self.now), self.idle_for, self.now, self.stake >= SLASH)

    def plan(self) -> Action:
        return plan(self.ledger, self.situation, self.rules)

    # -- the session ----------------------------------------------------------------------------------------------------

    def record(self, *events: HostEvent) -> None:
        for event in events:
            self.journal.append(encode_event(event))
            self.ledger.apply(event)

    def serve(self, tokens: int) -> None:
        """One answer; as much of it as deposit and W allow."""
        ledger = self.ledger
        room = min(ledger.affordable - ledger.served, self.terms.exposure - ledger.exposed, tokens)
        if room <= 0:
            return
        first = ledger.served
        lost = self.lost_connections
        digests = b"".join(record(index, lost) for index in range(first, first + room))
        turn = ledger.message_index
        self.record(TurnStarted(turn, keccak(b"asked")), TokensServed(digests), TurnEnded(turn, "stop"))

    def sign(self) -> None:
        """The renter signs for everything."""
        ledger = self.ledger
        if ledger.served > ledger.acknowledged:
            tokens, amount, head = ledger.served, ledger.amount(ledger.served), ledger.heads[ledger.served]
            signature = SESSION_KEY.sign(MARKET.voucher_digest(ledger.job, amount, tokens, head))
            self.record(VoucherAccepted(tokens, amount, head, signature))

    def served_and_signed(self, signed: int, tail: int = 0) -> Settling:
        """So many tokens in pieces that W allows, then a tail without a signature."""
        while self.ledger.acknowledged < signed:
            self.serve(min(self.terms.exposure, signed - self.ledger.served))
            self.sign()
        self.serve(tail)
        return self

    def resync(self, back: int) -> None:
        """The connection broke, and the last tokens with it: both sides go on from there, as `Meter.agree` allows."""
        ledger = self.ledger
        tokens = Tokens(max(ledger.acknowledged, ledger.checkpointed, ledger.served - back))
        self.lost_connections += 1
        if ledger.heads[tokens] != ledger.head:
            self.record(Resynced(tokens, ledger.heads[tokens]))

    def finish(self, reason: str = "ended by the renter", released: bool = False) -> None:
        if not self.ledger.finished:
            self.record(SessionFinished(reason, released))

    # -- what others do ----------------------------------------------------------------------------------------------------

    def act(self, call: Call) -> None:
        """Not the host."""
        self.chain = apply(self.chain, call, self.now, self.block)

    def dispute(self) -> None:
        """The renter objects, where there is a claim to object to and time left."""
        job = self.job
        if job.stage is ClaimStage.CLAIMED and self.now < job.held_until:
            self.act(Dispute(self.terms.renter, self.ledger.job))
            self.bonds += BOND

    def rule(self, for_host: bool) -> None:
        """The arbiter speaks, where it is asked and time is left."""
        if self.job.stage is ClaimStage.ANSWERED and self.now < self.job.held_until:
            self.act(Rule(self.terms.arbiter, self.ledger.job, for_host))

    # -- steps of the settler -------------------------------------------------------------------------------------------

    def send(self, name: str, call: Call, fault: Fault) -> None:
        """One transaction, in a block of its own."""
        if fault is Fault.CRASH_BETWEEN:
            raise Down
        if fault is Fault.TX_LATE:
            self.late.append((name, call))
        if fault in (Fault.TX_LOST, Fault.TX_LATE):
            raise Down
        self.mine(name, call)
        if fault is Fault.TX_UNSEEN:
            raise Down

    def mine(self, name: str, call: Call) -> None:
        self.pass_time(1)
        try:
            self.chain = apply(self.chain, call, self.now, self.block)
        except Reverted as refusal:
            self.reverted.append(f"{name}: {refusal.name}")
            raise Down from refusal
        self.mined.append(name)
        if isinstance(call, SubmitProof):
            self.proven = (call.tokens, call.root)

    def pass_time(self, blocks: int, seconds: int = 0) -> None:
        """Blocks of two seconds."""
        self.block += blocks
        self.now += 2 * blocks + seconds

    def mine_late(self) -> None:
        """Transactions that nobody expected any more."""
        late, self.late = self.late, []
        for name, call in late:
            with contextlib.suppress(Down):
                self.mine(name, call)

    def step(self, fault: Fault = Fault.NONE) -> Action:
        """Ask the planner and do what it says; an interrupted step is not an error of this function."""
        action = self.plan()
        if fault is not Fault.CRASH_BEFORE:
            with contextlib.suppress(Down):
                self._carry_out(action, fault)
        if fault is not Fault.NONE:
            self.restart()
        return action

    def _carry_out(self, action: Action, fault: Fault) -> None:
        ledger, host = self.ledger, self.terms.host
        match action:
            case CloseCheckpoint(first=first, tokens=tokens):
                self._need_prover()
                assert 1 <= tokens <= ledger.served - first
                digest = keccak(b"".join(ledger.records_between(first, tokens)))
                self.record(CheckpointClosed(digest, b"", tokens))
            case CommitTree(commitment=made):
                self.record(made)
                assert tree_root(tuple(ledger.checkpoints)).tokens == made.tokens
                root = commitment_root(made.tree_root, made.head)
                self.send("commitProof", CommitProof(host, ledger.job, made.tokens, root), fault)
            case AnswerChallenge():
                self._need_prover()
                self._answer(ledger, action.commitment, action.seed_block, fault)
            case RedeemVoucher(voucher=voucher):
                self.send("redeem", self._redeem(ledger, voucher), fault)
            case ClaimTail():
                self.send("claimProven", ClaimProven(host, ledger.job), fault)
            case PlannedAnswer(commitment=made, signed=signed):
                self.send("answerDispute", self._opened(ledger, made, signed), fault)
            case PlannedSettle(until=until):
                assert until == self.job.held_until
                self.send("settleClaim", SettleClaim(ledger.job), fault)
            case CloseJob(voucher=last):
                self.finish("closing")
                redeem = self._redeem(ledger, last) if last else None
                self.send("closeByHost", CloseByHost(host, ledger.job, redeem), fault)
            case NoteClosed(owed=owed, refund=refund):
                assert self.job.stage not in UNDECIDED
                self.record(JobClosed(owed, refund, float(self.now)))
            case AwaitBlock(block=block):
                assert block > self.block
            case AwaitClaim(until=until):
                assert until > self.now
            case _:
                pass

    def _need_prover(self) -> None:
        if not self.prover_works:
            raise Down

    def _redeem(self, ledger: HostLedger, voucher: VoucherAccepted) -> Redeem:
        digest = MARKET.voucher_digest(ledger.job, voucher.amount, voucher.tokens, voucher.transcript)
        signer = recover(digest, voucher.signature)
        return Redeem(self.terms.host, ledger.job, voucher.amount, voucher.tokens, signer)

    def _answer(self, ledger: HostLedger, made: CommitmentMade, seed_block: int, fault: Fault) -> None:
        """As the settler opens it: the path must lead to the committed root and hold the challenged token."""
        root = commitment_root(made.tree_root, made.head)
        block_hash = Hash32(keccak(b"block%d" % seed_block))
        position = challenged_position(challenge_seed(block_hash, ledger.job, root), made.tokens)
        path = open_path(tuple(ledger.checkpoints[: made.checkpoints]), position)
        found, before = root_of_path(path)
        valid = (found.hash, found.tokens) == (made.tree_root, made.tokens)
        valid = valid and before <= position < before + path.checkpoint.tokens
        records = ledger.records_between(before, path.checkpoint.tokens)
        valid = valid and keccak(b"".join(records)) == path.checkpoint.commitment
        self.proofs_made += 1
        self.send("submitProof", SubmitProof(ledger.job, made.tokens, root, valid), fault)
        self.record(ProofAccepted(made.tokens, 0.1, 1))

    def _opened(self, ledger: HostLedger, made: CommitmentMade, signed: Tokens) -> AnswerDispute:
        """As the contract checks it: of the last proven commitment, from what is redeemed."""
        opening = opening_of(ledger, made, signed)
        refusal = refusal_of(MARKET, self.terms, self.job.signed, opening)
        if (opening.tokens, commitment_root(opening.tree_root, opening.head)) != self.proven:
            refusal = "NoCommitment"
        return AnswerDispute(self.terms.host, ledger.job, refusal)

    def settle(
        self,
        most: int = 200,
        meanwhile: Callable[[], Any] = lambda: None,
        fault_at: int = -1,
        fault: Fault = Fault.NONE,
    ) -> list[Action]:
        """Steps until nothing is left to do, waiting for blocks and for held claims where the planner says so; returns them."""
        taken: list[Action] = []
        while len(taken) < most:
            action = self.step(fault if len(taken) == fault_at else Fault.NONE)
            taken.append(action)
            if isinstance(action, AwaitBlock):
                self.pass_time(action.block - self.block)
            elif isinstance(action, AwaitClaim):
                self.pass_time(0, action.until - self.now)
            elif type(action).__name__ == "Rest":
                return taken
            meanwhile()
        raise AssertionError(f"no end after {most} steps: {taken[-5:]}")


def expected_owed(ledger: HostLedger, deposit: int, tail: bool) -> int:
    """What the matrix says that the host gets: everything signed, and where it pays, proven tokens beyond, at most W."""
    signed = cost(ledger.acknowledged, ledger.terms.price)
    if not tail:
        return signed
    paid = Tokens(min(ledger.served, ledger.acknowledged + ledger.terms.exposure))
    return min(deposit, cost(paid, ledger.terms.price))
