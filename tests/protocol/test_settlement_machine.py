"""The planner where everything goes wrong at any time (hypothesis): it ends, is paid what the matrix says, and repeats nothing."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fabstir.domain.ids import ZERO_ADDRESS, Address
from fabstir.domain.money import cost
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy
from fabstir.protocol.host_log import HostLedger, decode_event
from fabstir.protocol.settlement import Finalize, RequestClose, SettleClaim, finalizable_at
from fabstir.protocol.settlement_disputes import UNDECIDED
from fabstir.protocol.settlement_plan import TIME_TO_CLAIM, AwaitBlock, Rest, is_finishing
from tests.machines import played
from tests.protocol.market import same_ledger
from tests.protocol.settling import ARBITER, BOND, RULES, SLASH, STAKE, Fault, Settling, expected_owed

BONDED = (ClaimStage.DISPUTED, ClaimStage.ANSWERED)
ONE_STEP = 2
"""Seconds from a look at the chain to the block of what follows from it."""


class SettlementMachine(RuleBasedStateMachine):
    """One job: a session that goes on, a settler that is interrupted, a renter that may want out or object, a chain that is late."""

    @initialize(
        policy=st.sampled_from(ProofPolicy),
        exposure=st.sampled_from([1, 64, 64, 600, 600]),
        deposit=st.sampled_from([5, 90, 400, 5_000, 5_000]),
        arbiter=st.sampled_from([ARBITER, ZERO_ADDRESS]),
        stake=st.sampled_from([STAKE, STAKE, SLASH, SLASH - 1]),
    )
    def start(self, policy: ProofPolicy, exposure: int, deposit: int, arbiter: Address, stake: int) -> None:
        self.world = Settling(policy, exposure, deposit, arbiter=arbiter, stake=stake)
        self.stake = stake
        self.paid = 0
        self.late = False
        """The host had no time to answer a dispute."""
        self.found_wrong = False
        """By the arbiter."""
        self.orderly = True
        """No transaction came late: then none is ever refused."""

    # -- the session -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.world.ledger.finished and not self.world.job.closed)
    @rule(tokens=st.sampled_from([1, 3, 64, 300]), times=st.integers(1, 4), signed=st.booleans())
    def serve(self, tokens: int, times: int, signed: bool) -> None:
        for _ in range(times):
            self.world.serve(tokens)
            if signed:
                self.world.sign()

    @precondition(lambda self: not self.world.ledger.finished and not self.world.job.closed)
    @rule()
    def sign(self) -> None:
        self.world.sign()

    @precondition(lambda self: not self.world.ledger.finished and not self.world.job.closed)
    @rule(back=st.sampled_from([1, 10, 64]))
    def connection_is_lost(self, back: int) -> None:
        self.world.resync(back)

    @rule(really=st.integers(0, 3))
    def finish(self, really: int) -> None:
        """`Close` is signed only where nothing is left to claim."""
        if really == 3 and not self.world.job.closed:
            self.world.finish(released=self.world.ledger.exposed == 0)

    @rule(idle=st.sampled_from([0.0, 10.0, 4_000.0]))
    def renter_is_gone(self, idle: float) -> None:
        self.world.idle_for = idle

    # -- the settler -----------------------------------------------------------------------------------------------------

    @rule(steps=st.integers(1, 12), fault=st.sampled_from([Fault.NONE, Fault.NONE, *Fault]))
    def settle(self, steps: int, fault: Fault) -> None:
        for _ in range(steps):
            action = self.world.step()
            if isinstance(action, AwaitBlock):
                self.world.pass_time(1)
        if fault is not Fault.NONE:
            self.orderly = self.orderly and fault is not Fault.TX_LATE
            self.world.step(fault)

    @precondition(lambda self: self.world.job.stage is ClaimStage.NONE and not self.world.job.closed)
    @rule(tail=st.sampled_from([10, 64, 600]), disputed=st.booleans(), closed=st.booleans())
    def tail_is_claimed(self, tail: int, disputed: bool, closed: bool) -> None:
        """The renter is gone, and comes back after the claim, or after the close: chance alone rarely gets as far."""
        world = self.world
        if not world.ledger.finished:
            world.serve(tail)
        world.prover_works, world.idle_for = True, 4_000.0
        for _ in range(60):
            if world.job.stage is not ClaimStage.NONE or world.ledger.closed is not None:
                break
            if isinstance(action := world.step(), AwaitBlock):
                world.pass_time(action.block - world.block)
        if closed:
            world.step()
        if disputed:
            world.dispute()
        world.idle_for = 0.0

    @precondition(lambda self: self.world.job.stage in UNDECIDED)
    @rule(left=st.sampled_from([-1, 0, 2, 3, 60, 600]))
    def time_runs_out(self, left: int) -> None:
        """So many seconds before the end of the stage."""
        self.world.now = max(self.world.now, self.world.job.held_until - left)

    @rule(works=st.booleans())
    def prover(self, works: bool) -> None:
        self.world.prover_works = works

    # -- the chain ---------------------------------------------------------------------------------------------------------

    @rule(blocks=st.sampled_from([1, 2, 3, 200, 260, 1_000]))
    def blocks_pass(self, blocks: int) -> None:
        self.world.pass_time(blocks)

    @rule()
    def late_transactions(self) -> None:
        self.world.mine_late()

    @precondition(lambda self: not self.world.job.closed and not self.world.job.closing_at)
    @rule(really=st.integers(0, 3))
    def renter_wants_out(self, really: int) -> None:
        if really == 3:
            self.world.act(RequestClose(self.world.terms.renter, self.world.ledger.job))

    @precondition(lambda self: self.world.job.stage is ClaimStage.CLAIMED)
    @rule()
    def renter_disputes(self) -> None:
        self.world.dispute()

    @precondition(lambda self: self.world.job.stage is ClaimStage.ANSWERED)
    @rule(for_host=st.sampled_from([True, True, False, None]))
    def arbiter_rules(self, for_host: bool | None) -> None:
        if for_host is not None:
            before = self.world.job.stage
            self.world.rule(for_host)
            self.found_wrong = self.found_wrong or (self.world.job.stage is not before and not for_host)

    @precondition(lambda self: self.world.job.stage in UNDECIDED)
    @rule()
    def somebody_settles_the_claim(self) -> None:
        if self.world.now >= self.world.job.held_until:
            self.world.act(SettleClaim(self.world.ledger.job))

    @precondition(lambda self: not self.world.job.closed)
    @rule(really=st.integers(0, 9))
    def job_expires(self, really: int) -> None:
        if really == 9:
            self.world.now = max(self.world.now, self.world.terms.expires_at)

    @precondition(lambda self: not self.world.job.closed)
    @rule()
    def somebody_finalizes(self) -> None:
        world = self.world
        if world.now >= finalizable_at(world.terms, world.job):
            world.act(Finalize(world.terms.renter, world.ledger.job))

    # -- what always holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_paid_that_was_not_served(self) -> None:
        """Signed money, and at most W proven tokens beyond; nothing that was credited is taken back."""
        if hasattr(self, "world"):
            world = self.world
            ledger, job = world.ledger, world.job
            most = min(ledger.served, ledger.acknowledged + world.terms.exposure)
            assert job.owed <= min(job.deposit, cost(most, world.terms.price))  # type: ignore[arg-type]
            assert self.paid <= job.owed - job.held
            self.paid = job.owed - job.held

    @invariant()
    def money_is_conserved(self) -> None:
        """Deposit and bonds = host + fee + what went back + what the contract still holds for the job."""
        if hasattr(self, "world"):
            world, job = self.world, self.world.job
            host, fee, back = world.money()
            waiting = (0 if job.closed else job.deposit - job.owed) + job.held + BOND * (job.stage in BONDED)
            assert host + fee == job.owed - job.held
            assert world.chain.held[world.terms.token] == host + fee + waiting
            assert host + fee + waiting + back + world.repaid(world.terms.host) == job.deposit + world.bonds

    @invariant()
    def a_claim_is_lost_only_by_the_arbiter_or_for_want_of_time(self) -> None:
        """A host that runs answers every dispute before its end."""
        if hasattr(self, "world"):
            world, job = self.world, self.world.job
            if job.stage is ClaimStage.DISPUTED and world.now >= job.held_until - ONE_STEP:
                self.late = True
            lost = job.stage is ClaimStage.LOST
            assert not lost or self.late or self.found_wrong
            assert world.stake == self.stake - SLASH * lost

    @invariant()
    def no_transaction_is_for_nothing(self) -> None:
        """The planner knows what the contract will say, unless transactions come late; no token is redeemed twice."""
        if hasattr(self, "world") and self.orderly:
            assert self.world.reverted == [] or (self.late and set(self.world.reverted) == {"answerDispute: TooLate"})

    @invariant()
    def the_log_is_the_state(self) -> None:
        """A restart changes nothing."""
        if hasattr(self, "world"):
            again = HostLedger.replay([decode_event(data) for data in self.world.journal])
            assert same_ledger(again, self.world.ledger)
            assert again.covered == self.world.ledger.covered
            assert (again.turns, again.released) == (self.world.ledger.turns, self.world.ledger.released)
            again.forget_vouchers(self.world.job.signed)
            self.world.ledger.forget_vouchers(self.world.job.signed)
            assert again.vouchers == self.world.ledger.vouchers

    def claim_ends(self, before: JobState) -> int:
        """When the claim that is held is decided, if nobody says anything more but the host."""
        world = self.world
        answers = before.stage is ClaimStage.DISPUTED
        return world.now + ONE_STEP + world.terms.challenge if answers else before.held_until

    def teardown(self) -> None:
        """Once everything works again, the settler comes to its end, and the host has what the matrix says."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.mine_late()
        world.prover_works = True
        ledger, before = world.ledger, world.job
        finishing = is_finishing(ledger, world.situation, world.rules)
        signed = ledger.amount(ledger.acknowledged)
        decided = before.stage not in UNDECIDED or world.now >= before.held_until
        steps = world.settle(most=400)
        if finishing and not before.closed:
            lost = world.job.stage is ClaimStage.LOST
            least = max(before.owed - before.held * lost, signed)  # what a claim held, unless it was lost
            everything = expected_owed(ledger, before.deposit, True)
            worth_it = everything - least >= max(1, RULES.claim_tail_above)
            in_time = decided or self.claim_ends(before) + TIME_TO_CLAIM < finalizable_at(world.terms, before)
            may = (
                world.situation.staked and not ledger.released and not lost and in_time
            )  # again, after one that was believed
            assert world.job.owed == (everything if may and worth_it else least)
        if finishing or before.closed:
            assert world.job.closed and steps[-1] == Rest("closed")
        else:
            assert steps[-1] == Rest("not due")
            assert signed - world.job.owed < RULES.redeem_above


TestSettlementMachine = SettlementMachine.TestCase
TestSettlementMachine.settings = played(250, 40)
