"""The planner where everything goes wrong at any time (hypothesis): it ends, is paid what the matrix says, and repeats nothing."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fabstir.domain.money import cost
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.host_log import HostLedger, decode_event
from fabstir.protocol.settlement import Finalize, RequestClose, apply, finalizable_at
from fabstir.protocol.settlement_plan import Rest, Situation, is_finishing
from tests.protocol.market import same_ledger
from tests.protocol.settling import RULES, Fault, Settling, expected_owed


class SettlementMachine(RuleBasedStateMachine):
    """One job: a session that goes on, a settler that is interrupted, a renter that may want out, a chain that is late."""

    @initialize(
        policy=st.sampled_from(ProofPolicy),
        exposure=st.sampled_from([1, 4, 64, 600]),
        deposit=st.sampled_from([5, 90, 400, 5_000]),
    )
    def start(self, policy: ProofPolicy, exposure: int, deposit: int) -> None:
        self.world = Settling(policy, exposure, deposit)
        self.paid = 0
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

    @rule(really=st.integers(0, 3))
    def finish(self, really: int) -> None:
        if really == 3 and not self.world.job.closed:
            self.world.finish()

    @rule(idle=st.sampled_from([0.0, 10.0, 4_000.0]))
    def renter_is_gone(self, idle: float) -> None:
        self.world.idle_for = idle

    # -- the settler -----------------------------------------------------------------------------------------------------

    @rule(steps=st.integers(1, 12), fault=st.sampled_from([Fault.NONE, Fault.NONE, *Fault]))
    def settle(self, steps: int, fault: Fault) -> None:
        for _ in range(steps):
            action = self.world.step()
            if type(action).__name__ == "AwaitBlock":
                self.world.pass_time(1)
        if fault is not Fault.NONE:
            self.orderly = self.orderly and fault is not Fault.TX_LATE
            self.world.step(fault)

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
        world = self.world
        if really == 3:
            world.chain = apply(world.chain, RequestClose(world.terms.renter, world.ledger.job), world.now, world.block)

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
            world.chain = apply(world.chain, Finalize(world.terms.renter, world.ledger.job), world.now, world.block)

    # -- what always holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_paid_that_was_not_served(self) -> None:
        """Signed money, and at most W proven tokens beyond; never less than before."""
        if hasattr(self, "world"):
            world = self.world
            ledger, job = world.ledger, world.job
            most = min(ledger.served, ledger.acknowledged + world.terms.exposure)
            assert self.paid <= job.owed <= min(job.deposit, cost(most, world.terms.price))  # type: ignore[arg-type]
            self.paid = job.owed

    @invariant()
    def money_is_conserved(self) -> None:
        """Deposit = host + fee + refund + what the contract still holds for the job."""
        if hasattr(self, "world"):
            host, fee, refund = self.world.money()
            job = self.world.job
            assert host + fee == job.owed
            assert refund == (job.deposit - job.owed if job.closed else 0)

    @invariant()
    def no_transaction_is_for_nothing(self) -> None:
        """The planner knows what the contract will say, unless transactions come late; no token is redeemed twice."""
        if hasattr(self, "world") and self.orderly:
            assert self.world.reverted == []

    @invariant()
    def the_log_is_the_state(self) -> None:
        """A restart changes nothing."""
        if hasattr(self, "world"):
            again = HostLedger.replay([decode_event(data) for data in self.world.journal])
            assert same_ledger(again, self.world.ledger)
            assert again.covered == self.world.ledger.covered

    def teardown(self) -> None:
        """Once everything works again, the settler comes to its end, and the host has what the matrix says."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.mine_late()
        world.prover_works = True
        world.now = min(world.now, world.terms.expires_at)  # nobody finalizes before the host is done
        closed_before = world.job.closed
        situation = Situation(world.job, world.block, float(world.now), world.idle_for)
        finishing = is_finishing(world.ledger, situation, world.rules)
        ledger = world.ledger
        tail = expected_owed(ledger, world.job.deposit, True) - max(world.job.owed, ledger.amount(ledger.acknowledged))
        steps = world.settle(most=400)
        if finishing and not closed_before:
            claimed = world.job.owed > ledger.amount(ledger.acknowledged)
            assert claimed or tail < max(1, RULES.claim_tail_above)
            assert world.job.owed == expected_owed(world.ledger, world.job.deposit, claimed)
        if finishing or closed_before:
            assert world.job.closed and steps[-1] == Rest("closed")
        else:
            assert steps[-1] == Rest("not due")
            assert ledger.amount(ledger.acknowledged) - world.job.owed < RULES.redeem_above


TestSettlementMachine = SettlementMachine.TestCase
TestSettlementMachine.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
