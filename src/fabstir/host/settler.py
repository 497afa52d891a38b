"""Carries out the settlement plan of every job: checkpoints, commitments, proofs, redemption, claims, disputes, close.

It decides nothing: `fabstir.protocol.settlement_plan.plan` says what comes next from the log and the contract, this
asks again after each step. It writes an intent before each transaction, and each transaction has a key that names it,
so that a crash at any point repeats nothing. A failing chain or prover delays a job, never loses it: the reason stands
in `problems` and the job is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from fabstir.domain.errors import FabstirError, error
from fabstir.domain.ids import Address, Hash32, JobId
from fabstir.domain.money import BaseUnits, Tokens, affordable, fee_of
from fabstir.host.checkpoints import Checkpoints
from fabstir.host.epochs import Epochs, Together, claim_of
from fabstir.host.health import ClaimsPart
from fabstir.host.jobs import JobBook
from fabstir.host.outlook import Outlook
from fabstir.host.proving import Proving
from fabstir.ops.metrics import Metrics
from fabstir.ports.chain import ClaimArgs, MarketChain
from fabstir.ports.clock import Clock
from fabstir.ports.prover import Prover
from fabstir.protocol.commitments import (
    challenge_seed,
    challenged_position,
    commitment_root,
    open_path,
    statement_words,
)
from fabstir.protocol.epoch_plan import SMALLEST
from fabstir.protocol.host_log import (
    CommitmentMade,
    Credited,
    HostLedger,
    JobClosed,
    ProofAccepted,
    VoucherAccepted,
)
from fabstir.protocol.opening import opening_of
from fabstir.protocol.settlement_disputes import UNDECIDED
from fabstir.protocol.settlement_plan import (
    Action,
    AnswerChallenge,
    AnswerDispute,
    AwaitBlock,
    AwaitClaim,
    AwaitEpoch,
    ClaimTail,
    CloseCheckpoint,
    CloseJob,
    CommitTree,
    JoinEpoch,
    NoteClosed,
    Rest,
    SettleClaim,
    SettlementRules,
    Situation,
    plan,
)

log = structlog.get_logger("fabstir.settler")

MAX_BATCH: Final = 25
"""Vouchers in one redeem transaction: 25 cost 24k gas each, more save little (research: gas table)."""
RETRY_SECONDS: Final = 5.0
FINISH_POLL_SECONDS: Final = 0.5
PROOF_FAULTS: Final = ("proof_failed", "prover_unavailable", "preimages_missing")
STEPS_PER_PASS: Final = 64
"""Bounds one pass over one job; the next pass goes on."""


class Settler:
    """One for each host. Memory: one line of text for each job that has a problem."""

    def __init__(
        self,
        book: JobBook,
        chain: MarketChain,
        prover: Prover,
        clock: Clock,
        rules: SettlementRules,
        *,
        idle_for: Callable[[JobId], float],
        on_closing: Callable[[JobId, str], Awaitable[None]],
        watch_seconds: float = 30.0,
    ) -> None:
        """`idle_for` says how long a job's renter is gone; `on_closing` is told when a job must serve nothing more."""
        self._book = book
        self._chain = chain
        self._prover = prover
        self._clock = clock
        self._rules = rules
        self._idle_for = idle_for
        self._on_closing = on_closing
        self._watch = watch_seconds
        self._proving = Proving(prover, clock)
        self._checkpoints = Checkpoints(book, prover, self._proving)
        self._epochs = Epochs(book, chain, self._proving)
        self.count_in(Metrics(chain.info.usdc))
        self._due = asyncio.Event()
        self.problems: dict[JobId, str] = {}
        """Why a job is not settled yet; shown in health."""
        self.held: dict[JobId, int] = {}
        """Job -> Unix seconds until which its claim is held; there is nothing else to do about it."""
        self.postponed: Callable[[HostLedger], bool] = _never
        """Jobs that are over, and whose renter may still sign so that nothing has to be proven."""
        self._staked = True
        self.passes = 0

    def __repr__(self) -> str:
        return f"<Settler {self.passes} passes, {len(self.problems)} problems>"

    def count_in(self, metrics: Metrics) -> None:
        """What is earned, proven and still to be collected is shown there from now on."""
        self._metrics = metrics
        self.outlook = Outlook(metrics, self._clock, self._tail_above)

    def claims(self) -> ClaimsPart:
        """For `/health`."""
        return self.outlook.part(len(self.problems))

    def proven_weaker(self) -> int:
        """Jobs that were committed for the weaker circuit, or proven by it; for `/health`."""
        return self._proving.weaker

    def _tail_above(self, token: Address) -> BaseUnits:
        return self._rules.tail_above(token)

    def go_by(self, rules: SettlementRules) -> None:
        """Other rules, from the next look on, which is now."""
        self._rules = rules
        self.wake()

    def wake(self) -> None:
        """Something can be settled: look now."""
        self._due.set()

    async def run(self) -> None:
        """Until cancelled: one pass, then sleep until woken, at the latest after `watch_seconds`."""
        while True:
            self._due.clear()
            delay = await self.settle()
            waker = asyncio.create_task(self._due.wait())
            timer = asyncio.create_task(self._clock.sleep(delay))
            try:
                await asyncio.wait((waker, timer), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (waker, timer):
                    task.cancel()
                await asyncio.gather(waker, timer, return_exceptions=True)

    async def finish(self, within: float) -> None:
        """Before the host goes down: settle the jobs that are over, for at most `within` seconds. What is left waits for its return."""
        deadline = self._clock.monotonic() + within
        while self._unfinished:
            delay = await self.settle()
            if self._clock.monotonic() >= deadline or not self._unfinished:
                return
            await self._clock.sleep(min(delay, FINISH_POLL_SECONDS))

    @property
    def _unfinished(self) -> bool:
        """Some job is over, and more can be done about it than to wait for the end of a claim."""
        over = [ledger for ledger in self._book.ledgers() if ledger.finished and ledger.job not in self.held]
        return any(not self.postponed(ledger) for ledger in over)

    async def settle(self) -> float:
        """One pass over all open jobs; returns the seconds after which the next is due."""
        self.passes += 1
        delay = self._watch
        await self._look_at_stake()
        await self._epochs.look()
        together = Together()
        for ledger in self._book.ledgers():
            if self.postponed(ledger):
                continue
            try:
                action = await self._advance(ledger)
            except FabstirError as fault:
                self._problem(ledger, fault)
                delay = min(delay, RETRY_SECONDS)
                continue
            self.problems.pop(ledger.job, None)
            self.held.pop(ledger.job, None)
            if isinstance(action, AwaitClaim):
                self.held[ledger.job] = action.until
            elif isinstance(action, AwaitBlock | AwaitEpoch):
                delay = min(delay, 1.0)
            else:
                together.take(ledger, action)
        if together.vouchers:
            taken = await self._redeem(together.vouchers + together.travelling)
            delay = 0.0 if taken else min(delay, RETRY_SECONDS)
        delay = min(delay, await self._settle_together(together))
        jobs = {ledger.job for ledger in self._book.ledgers()}
        self.outlook.keep(jobs)
        self._proving.keep(jobs)
        return delay

    async def _settle_together(self, together: Together) -> float:
        """The end of a pass: the open epoch, what proven ones hold, and those who wait for the next; the seconds until the next pass."""
        failed = await self._epochs.redeem(together.redeeming)
        for ledger, _ in together.redeeming:
            self.outlook.forget(ledger.job)
        try:
            await self._epochs.answer(self._metrics)
            if len(together.joining) >= SMALLEST:
                await self._epochs.commit(together.joining)
            else:
                for ledger, action in together.joining:
                    async with self._book.exclusive(ledger):
                        await self._book.record(ledger, action.alone)
                    await self._commit(ledger, action.alone)
        except FabstirError as fault:
            failed += [(ledger, fault) for ledger in self._epochs.concerned(together.joining)]
        for ledger, reason in failed:
            self._problem(ledger, reason)
        if failed:
            return RETRY_SECONDS
        if together.redeeming:
            return 0.0
        return 1.0 if together.joining or self._epochs.waiting else self._watch

    async def _look_at_stake(self) -> None:
        """Whether claims can be made at all. Where the chain cannot be asked, the last answer counts."""
        try:
            rules = await self._chain.stake_rules()
            held = await self._chain.stake(self._chain.account)
        except FabstirError as fault:
            log.warning("stake_unknown", code=fault.code, detail=fault.detail)
        else:
            self._staked = held.staked >= rules.slash

    def _problem(self, ledger: HostLedger, fault: FabstirError) -> None:
        if fault.code in PROOF_FAULTS:
            self._metrics.proof_failures.inc()
        self.problems[ledger.job] = str(fault)
        log.warning("settlement_delayed", job_id=ledger.job, code=fault.code, detail=fault.detail)

    async def _advance(self, ledger: HostLedger) -> Action:
        """Carry out steps until there is nothing to do, a block to wait for, or a voucher to redeem with others."""
        for _ in range(STEPS_PER_PASS):
            situation = await self._situation(ledger)  # outside: a slow chain must not hold up a running answer
            if isinstance(plan(ledger, situation, self._rules), CommitTree | JoinEpoch):
                await self._checkpoints.renew(ledger, self._metrics)  # outside as well
            async with self._book.exclusive(ledger):
                await self._note_credit(ledger, situation)
                self.outlook.note(ledger, situation.job, situation.chain_time, staked=self._staked)
                action = plan(ledger, situation, self._rules)
                if isinstance(action, CommitTree):
                    await self._book.record(ledger, action.commitment)
                elif isinstance(action, NoteClosed):
                    closed = JobClosed(action.owed, action.refund, self._clock.now())
                    await self._book.record(ledger, closed)
                    self._count_end(ledger, action.owed)
            if isinstance(action, NoteClosed):
                log.info("job_closed", job_id=ledger.job, owed=action.owed)
                await self._on_closing(ledger.job, "job_closed")
                return action
            if situation.job.closing_at and not ledger.finished:
                await self._on_closing(ledger.job, "job_closed")
            if not await self._step(ledger, action):
                return action
        return Rest("more next time")

    async def _note_credit(self, ledger: HostLedger, situation: Situation) -> None:
        """Write down what the contract credited since the last look, for the host's accounts: not what a claim still holds. What a
        closed job was paid once nothing is held is said by the note of its close."""
        job = situation.job
        credited = BaseUnits(job.owed - job.held)
        if credited > ledger.credited and (not job.closed or job.stage in UNDECIDED):
            more = BaseUnits(credited - ledger.credited)
            await self._book.record(ledger, Credited(credited, self._clock.now()))
            self._metrics.earned.add(ledger.terms.token, more - fee_of(more))

    def _count_end(self, ledger: HostLedger, owed: BaseUnits) -> None:
        more = BaseUnits(max(0, owed - ledger.credited))
        self._metrics.earned.add(ledger.terms.token, more - fee_of(more))
        self._metrics.unpaid_tokens.inc(max(0, ledger.served - affordable(owed, ledger.terms.price)))

    async def _situation(self, ledger: HostLedger) -> Situation:
        job = await self._chain.job(ledger.job)
        block, time = await self._chain.block_number(), await self._chain.timestamp()
        ledger.forget_vouchers(job.signed)
        idle, epoch = self._idle_for(ledger.job), await self._epochs.view(ledger)
        return Situation(job, block, self._clock.now(), idle, time, self._staked, epoch)

    async def _step(self, ledger: HostLedger, action: Action) -> bool:
        """True where the plan is to be asked again at once."""
        match action:
            case CloseCheckpoint():
                await self._checkpoints.close(ledger, action, self._metrics)
            case CommitTree(commitment=commitment):
                await self._commit(ledger, commitment)
            case AnswerChallenge():
                await self._prove(ledger, action)
            case ClaimTail():
                key = f"tail:{ledger.job.hex()}:{ledger.acknowledged}:{ledger.served}"
                await self._chain.claim_proven(key, ledger.terms)
                log.info("tail_claimed", job_id=ledger.job, tokens=ledger.served)
            case AnswerDispute():
                await self._answer(ledger, action)
            case SettleClaim(until=until):
                await self._chain.settle_claim(f"settle:{ledger.job.hex()}:{until}", ledger.terms)
                log.info("claim_settled", job_id=ledger.job)
            case CloseJob(voucher=voucher):
                await self._on_closing(ledger.job, "job_closed")
                await self._chain.close_by_host(f"close:{ledger.job.hex()}", self._claim(ledger, voucher))
            case _:
                return False
        return True

    async def _commit(self, ledger: HostLedger, commitment: CommitmentMade) -> None:
        root = commitment_root(commitment.tree_root, commitment.head)
        block = await self._chain.block_number()
        # a commitment whose challenge expired is made again: the key says which attempt this is
        key = f"commit:{ledger.job.hex()}:{commitment.tokens}:{block // 256}"
        result = await self._chain.commit_proof(key, ledger.terms, commitment.tokens, root)
        log.info("proof_committed", job_id=ledger.job, tokens=commitment.tokens, gas_used=result.gas_used)

    async def _prove(self, ledger: HostLedger, action: AnswerChallenge) -> None:
        made = action.commitment
        seed_hash = await self._chain.block_hash(action.seed_block)
        if seed_hash is None:
            return
        root = commitment_root(made.tree_root, made.head)
        seed = challenge_seed(seed_hash, ledger.job, root)
        path = open_path(ledger.committed, challenged_position(seed, made.tokens))

        def words_of(circuit: Hash32) -> bytes:
            return statement_words(ledger.market, ledger.terms, ledger.job, root, made.tokens, path, circuit)

        proof, seconds = await self._proving.prove(ledger, made, path, seed, words_of)
        # another hash at the same height, after a reorganisation, is another challenge
        key = f"prove:{ledger.job.hex()}:{made.tokens}:{action.seed_block}:{seed_hash[:8].hex()}"
        result = await self._chain.submit_proof(key, ledger.terms, proof)
        before = max((known.tokens for known in ledger.proofs), default=0)
        async with self._book.exclusive(ledger):
            await self._book.record(ledger, ProofAccepted(made.tokens, seconds, result.gas_used))
        self._proving.accepted(proof, ledger.job, self._metrics)
        self._metrics.prove_seconds.observe(seconds)
        self._metrics.proven_tokens.inc(max(0, made.tokens - before))

    async def _answer(self, ledger: HostLedger, action: AnswerDispute) -> None:
        if action.signed and action.signed not in ledger.vouchers:
            raise error("journal_failed", f"the voucher over {action.signed} tokens, which was redeemed, is not in it")
        opening = opening_of(ledger, action.commitment, action.signed)
        key = f"answer:{ledger.job.hex()}:{action.until}"  # two claims of one job can begin at the same voucher
        await self._chain.answer_dispute(key, ledger.terms, opening)
        log.warning("dispute_answered", job_id=ledger.job, tokens=action.commitment.tokens)

    async def _redeem(self, vouchers: list[tuple[HostLedger, VoucherAccepted]]) -> bool:
        """In batches; True where all of them were taken."""
        taken = True
        for at in range(0, len(vouchers), MAX_BATCH):
            batch = vouchers[at : at + MAX_BATCH]
            key = "redeem:" + ",".join(f"{ledger.job.hex()}:{voucher.tokens}" for ledger, voucher in batch)
            try:
                await self._chain.redeem(key, tuple(self._claim(ledger, voucher) for ledger, voucher in batch))
            except FabstirError as fault:
                taken = False
                for ledger, _ in batch:
                    self._problem(ledger, fault)
            else:
                for ledger, _ in batch:
                    self.outlook.forget(ledger.job)
        return taken

    @staticmethod
    def _claim(ledger: HostLedger, voucher: VoucherAccepted | None) -> ClaimArgs:
        if voucher is None:
            tokens = Tokens(0)
            return ClaimArgs(
                terms=ledger.terms, amount=ledger.amount(tokens), tokens=tokens, transcript=ledger.head, signature=b""
            )
        return claim_of(ledger, voucher)


def _never(ledger: HostLedger) -> bool:
    """Every job is settled as soon as it can be."""
    return False
