"""Hosts, a renter and a board where everything goes wrong at any time (hypothesis): no job is answered twice, none is lost."""

from __future__ import annotations

import random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fabstir.domain.prompts import PromptState
from fabstir.protocol import prompt_log, prompt_order_log
from fabstir.protocol.host_log import HostLedger
from fabstir.protocol.host_log import decode_event as decode_host
from fabstir.protocol.prompt_log import PromptLedger, Stage
from fabstir.protocol.prompt_order_log import OrderLedger
from tests.machines import played
from tests.protocol.prompting import RENTER, START, TOKEN, Process, same, terms
from tests.protocol.prompting_world import World

RACES = {"AlreadyClaimed", "Reserved"}
"""What a claim may be refused with: another was first. Nothing else is ever sent in vain while transactions are mined in time."""


class PromptMachine(RuleBasedStateMachine):
    """Some hosts that are slow, crash and fail; a renter that posts, assigns, cancels and crashes; a chain that may be late."""

    @initialize(hosts=st.integers(1, 4), assign=st.booleans())
    def start(self, hosts: int, assign: bool) -> None:
        self.world = World(hosts)
        self.posted = 0
        self.orderly = True
        """No transaction came late: then only races are lost."""
        if assign:
            self.world.renter.rules = self.world.renter.rules.__class__(assign_at_once=True)

    def process(self, number: int) -> Process:
        everybody = (self.world.renter, *self.world.processes)
        return everybody[number % len(everybody)]

    # -- what people want ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.posted < 12)
    @rule(
        tokens=st.sampled_from([1, 20, 100, 400]),
        lasts=st.sampled_from([40, 120, 600]),
        window=st.sampled_from([30, 60, 300]),
    )
    def order(self, tokens: int, lasts: int, window: int) -> None:
        self.posted += 1
        deadline = self.world.now + lasts
        self.world.renter.order(terms(self.posted, max_tokens=tokens, deadline=deadline, execute_seconds=window))

    @rule(number=st.integers(0, 11), wanted=st.booleans())
    def change_of_mind(self, number: int, wanted: bool) -> None:
        ledgers = list(self.world.renter.ledgers)
        if ledgers:
            self.world.renter.wanted[ledgers[number % len(ledgers)]] = wanted

    # -- what happens ----------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([2, 6, 14, 40]))
    def time_passes(self, seconds: int) -> None:
        self.world.pass_time(seconds)

    @rule(seed=st.integers(0, 2**32), blocks=st.sampled_from([10, 30, 60]))
    def storm(self, seed: int, blocks: int) -> None:
        """A storm of small faults: more of them than hypothesis would put into one run by itself."""
        chance = random.Random(seed)
        everybody = (self.world.renter, *self.world.processes)
        for _ in range(blocks):
            process = chance.choice(everybody)
            match chance.randrange(9):
                case 0 | 1:
                    process.fuse, process.dies_after = chance.randint(1, 6), chance.random() < 0.5
                case 2:
                    process.late, self.orderly = chance.random() < 0.6, False
                case 3:
                    process.mine()
                case 4:
                    chance.choice(self.world.processes).engine_works = chance.random() < 0.8
                case 5 if self.posted < 40:
                    self.order(chance.choice([2, 20, 100, 200]), chance.choice([40, 120, 600]), chance.choice([30, 60]))
                case 6:
                    chance.choice(self.world.processes).skew, self.orderly = chance.choice([0, 0, 3, 20]), False
                case 7:
                    chance.choice(self.world.processes).down = chance.randint(0, 20)
            self.world.pass_time(chance.choice([2, 2, 2, 2, 12]), stride=2)
            self.nothing_is_sent_in_vain()
            self.the_log_is_the_state()

    @rule(seconds=st.sampled_from([10, 61, 400]))
    def everybody_is_down(self, seconds: int) -> None:
        self.world.board.now += seconds

    @rule(number=st.integers(0, 4), watch=st.booleans())
    def one_acts_alone(self, number: int, watch: bool) -> None:
        host = self.world.processes[number % len(self.world.processes)]
        host.step(watch)

    @rule(number=st.integers(0, 4), steps=st.integers(1, 12), after=st.booleans())
    def crash(self, number: int, steps: int, after: bool) -> None:
        process = self.process(number)
        process.fuse, process.dies_after = steps, after

    @rule(number=st.integers(0, 3), works=st.booleans())
    def engine(self, number: int, works: bool) -> None:
        self.world.processes[number % len(self.world.processes)].engine_works = works

    @rule(number=st.integers(0, 4), late=st.booleans())
    def transactions_are_late(self, number: int, late: bool) -> None:
        self.process(number).late = late
        self.orderly = self.orderly and not late

    @rule()
    def late_ones_are_mined(self) -> None:
        self.world.mine_late()

    # -- what always holds -----------------------------------------------------------------------------------------------------

    @invariant()
    def money_is_conserved(self) -> None:
        """What was deposited lies on the board, in market jobs, or is back with the renter."""
        if hasattr(self, "world"):
            board = self.world.board
            in_jobs = sum(deposit for _, deposit in board.jobs.values())
            back, taken = board.refunded.get((RENTER, TOKEN), 0), board.deposited.get((RENTER, TOKEN), 0)
            assert taken == board.escrowed.get(TOKEN, 0) + in_jobs + back

    @invariant()
    def nobody_works_on_what_another_holds(self) -> None:
        """At most one host at a time believes, and rightly so, that it may work on a job."""
        if hasattr(self, "world"):
            for prompt in self.world.terms:
                status = self.world.board.status(prompt)
                holders = [h for h in self.world.processes if status.held_by(h.account, self.world.now)]
                assert len(holders) <= 1

    @invariant()
    def nothing_is_sent_in_vain(self) -> None:
        """Claims only lose races; everything else is sent only when the contract takes it."""
        if hasattr(self, "world") and self.orderly:
            wrong = [(key, name) for key, name in self.world.reverted if name not in RACES or ":claim:" not in key]
            assert wrong == []

    @invariant()
    def no_claim_is_too_late(self) -> None:
        """A claim is sent only while there is time to do the work."""
        if hasattr(self, "world"):
            for prompt, _, at in self.world.claims:
                wanted = self.world.terms[prompt]
                assert at + wanted.max_tokens / 10.0 < wanted.deadline

    @invariant()
    def the_log_is_the_state(self) -> None:
        """A restart changes nothing."""
        if hasattr(self, "world"):
            for host in self.world.processes:
                for prompt, events in host.journal.items():
                    again = PromptLedger.replay([prompt_log.decode_event(data) for data in events])
                    assert same(again, host.ledgers[prompt])
            for prompt, events in self.world.renter.journal.items():
                order = OrderLedger.replay([prompt_order_log.decode_event(data) for data in events])
                assert same(order, self.world.renter.ledgers[prompt])

    def teardown(self) -> None:
        """Once everything works again, every job is answered by one host and handed to its settler, or refunded."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for process in (world.renter, *world.processes):
            process.fuse, process.late, process.down = -1, False, 0
        for host in world.processes:
            host.engine_works, host.skew = True, 0
        world.mine_late()
        world.pass_time(900, stride=10)
        assert world.ended(), [repr(ledger) for ledger in world.renter.ledgers.values()]
        settled = [job for host in world.processes for job in host.settled]
        assert sorted(settled) == sorted(world.board.jobs), "every answer is with the settler of its host, once"
        for prompt in world.terms:
            status = world.board.status(prompt)
            assert status.ended or status.state is PromptState.NONE
        for host in world.processes:
            assert host.queue.occupied == 0 and len(host.queue) == 0
            for job, events in host.settled.items():
                ledger = HostLedger.replay([decode_host(data) for data in events])
                market, deposit = world.board.jobs[ledger.job]
                assert (ledger.job, ledger.terms, ledger.deposit, ledger.finished) == (
                    job,
                    market,
                    deposit,
                    "prompt_completed",
                )
                assert ledger.served == market.exposure
            done = [ledger for ledger in host.ledgers.values() if ledger.stage is Stage.SETTLING]
            assert {ledger.head for ledger in done} == {
                HostLedger.replay([decode_host(data) for data in events]).head for events in host.settled.values()
            }
        assert world.now > START


TestPromptMachine = PromptMachine.TestCase
TestPromptMachine.settings = played(40, 20)
