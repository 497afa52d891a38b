"""What a host does next about the money of one job: a pure planner over its ledger and the contract's state.

`plan` returns one action; the shell (`fabstir.host.settler`) carries it out and asks again. The order of the questions
*is* the policy: answer a dispute, see what is closed, answer the open challenge, commit, redeem, claim the tail, close, see
the claim through. Calls follow `fabstir.protocol.matrix.claims`. Restart-safe, because nothing is remembered here: the
contract says what is done, the log what is owed.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.domain.ids import ZERO_ADDRESS, Address
from fabstir.domain.money import BaseUnits, Tokens, cost
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy
from fabstir.protocol.commitments import CHECKPOINT_TOKENS, tree_root
from fabstir.protocol.epoch_plan import EpochView, Standing, session_of
from fabstir.protocol.epochs import EpochSession
from fabstir.protocol.host_log import CommitmentMade, EpochJoined, HostLedger, VoucherAccepted
from fabstir.protocol.settlement import BLOCKHASH_WINDOW, SEED_DELAY, finalizable_at
from fabstir.protocol.settlement_disputes import UNDECIDED


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What is worth its gas, in base units of one currency."""

    redeem_above: BaseUnits = BaseUnits(1_000_000)
    """Redeem a running job once so much is signed and not redeemed."""
    join_above: BaseUnits = BaseUnits(440_000)
    """Redeem so much already where another job's voucher goes to the contract anyway: in company it costs 24/55 of the gas."""
    claim_tail_above: BaseUnits = BaseUnits(2_000)
    """Claim the unsigned tail only where it is worth more than the gas."""


class SettlementRules(Bounds, frozen=True, kw_only=True):
    """When it is worth while. Its own bounds are of USDC, or of any other token."""

    native: Bounds = Bounds(
        redeem_above=BaseUnits(400_000_000_000_000),
        join_above=BaseUnits(176_000_000_000_000),
        claim_tail_above=BaseUnits(800_000_000_000),
    )
    """Of the chain's coin: the same where one ETH is worth 2,500 USDC."""
    expiry_margin: float = 3_600.0
    """Seconds before expiry at which a job is settled and closed."""
    idle_close: float = 3_600.0
    """Seconds without a connection after which a job is settled and closed."""

    def bounds(self, token: Address) -> Bounds:
        """Those of jobs that are paid in `token`."""
        return self.native if token == ZERO_ADDRESS else self

    def tail_above(self, token: Address) -> BaseUnits:
        """From which worth an unsigned tail in `token` is claimed."""
        return self.bounds(token).claim_tail_above


class Situation(msgspec.Struct, frozen=True):
    """What is known now."""

    job: JobState
    block: int
    now: float
    idle_for: float = 0.0
    """Seconds since the renter's connection was lost; 0 while it stands."""
    chain_time: int = 0
    """Unix seconds of the newest block: what the contract's deadlines are measured by."""
    staked: bool = True
    """The host's stake covers what a lost claim takes; without it the contract takes no claim."""
    epoch: EpochView | None = None
    """The host's epochs, as far as this job is concerned; None: no epochs, each job is proven on its own."""


# -- actions ------------------------------------------------------------------------------------------------------------------


class Rest(msgspec.Struct, frozen=True):
    """Nothing to do now."""

    reason: str


class AwaitBlock(msgspec.Struct, frozen=True):
    """The challenge is not known before `block` is there."""

    block: int


class CloseCheckpoint(msgspec.Struct, frozen=True):
    """Commit the next `tokens` records."""

    first: Tokens
    tokens: Tokens


class CommitTree(msgspec.Struct, frozen=True):
    """Log the intent, then commit this tree on chain."""

    commitment: CommitmentMade


class AnswerChallenge(msgspec.Struct, frozen=True):
    """The challenge of `commitment` is known by the hash of `seed_block`: prove."""

    commitment: CommitmentMade
    seed_block: int


class RedeemVoucher(msgspec.Struct, frozen=True):
    """Redeem; may travel with other jobs' vouchers in one transaction."""

    voucher: VoucherAccepted


class JoinEpoch(msgspec.Struct, frozen=True):
    """Ready to be proven with others: in one epoch where there are others, by `alone` where there are none."""

    joined: EpochSession
    checkpoints: int
    alone: CommitmentMade


class AwaitEpoch(msgspec.Struct, frozen=True):
    """An epoch of this host is on its way: this job is in it, or waits for the next."""


class RedeemByEpoch(msgspec.Struct, frozen=True):
    """Redeem what a proven epoch holds; travels with other jobs' vouchers of the same epoch."""

    voucher: VoucherAccepted
    epoch: EpochJoined


class JoinRedemption(msgspec.Struct, frozen=True):
    """Not worth a transaction of its own, but a place in one that is sent for another job."""

    voucher: VoucherAccepted


class ClaimTail(msgspec.Struct, frozen=True):
    """Claim proven tokens that the renter did not sign for."""


class AnswerDispute(msgspec.Struct, frozen=True):
    """Open the records from `signed` tokens to `commitment`, before `until`."""

    commitment: CommitmentMade
    signed: Tokens
    until: int


class SettleClaim(msgspec.Struct, frozen=True):
    """The stage of the claim is over: have its outcome."""

    until: int


class AwaitClaim(msgspec.Struct, frozen=True):
    """The claim is held until then (Unix seconds, the chain's time)."""

    until: int


class CloseJob(msgspec.Struct, frozen=True):
    """Close, with the last voucher where it is not redeemed yet."""

    voucher: VoucherAccepted | None


class NoteClosed(msgspec.Struct, frozen=True):
    """The contract has closed the job: write it down."""

    owed: BaseUnits
    refund: BaseUnits


Action = (
    Rest
    | AwaitBlock
    | CloseCheckpoint
    | CommitTree
    | AnswerChallenge
    | RedeemVoucher
    | JoinEpoch
    | AwaitEpoch
    | RedeemByEpoch
    | JoinRedemption
    | ClaimTail
    | AnswerDispute
    | SettleClaim
    | AwaitClaim
    | CloseJob
    | NoteClosed
)

NOT_DUE: Final = Rest("not due")
TIME_TO_CLAIM: Final = 300
"""Seconds that a proof and the claim after it may take: no claim is waited for where less is left behind it."""


def is_finishing(ledger: HostLedger, situation: Situation, rules: SettlementRules) -> bool:
    """The job is to be settled for good and closed."""
    return bool(
        ledger.finished
        or situation.job.closing_at
        or situation.now > ledger.terms.expires_at - rules.expiry_margin
        or situation.idle_for > rules.idle_close
    )


def plan(ledger: HostLedger, situation: Situation, rules: SettlementRules) -> Action:
    """The next action for one job."""
    job = situation.job
    if ledger.closed is not None:
        return Rest("closed")
    if job.stage is ClaimStage.DISPUTED and ledger.commitment is not None and situation.chain_time < job.held_until:
        return AnswerDispute(ledger.commitment, job.signed, job.held_until)
    if job.stage in UNDECIDED and situation.chain_time >= job.held_until:
        return SettleClaim(job.held_until)
    if job.closed:
        if job.stage in UNDECIDED:
            return AwaitClaim(job.held_until)
        if situation.epoch is not None and situation.epoch.mine is Standing.PENDING:
            return AwaitEpoch()  # the others need its records if it is drawn
        return NoteClosed(job.owed, BaseUnits(job.deposit - job.owed))
    if is_finishing(ledger, situation, rules):
        return _finish(ledger, situation, rules)
    if ledger.amount(ledger.acknowledged) - job.owed < rules.bounds(ledger.terms.token).redeem_above:
        return _early_checkpoint(ledger) or _join(ledger, job, rules)
    return _redeem_running(ledger, situation, rules)


def _finish(ledger: HostLedger, situation: Situation, rules: SettlementRules) -> Action:
    """Collect everything, then close. What is signed and can be redeemed never waits for a claim: nobody may be there at its end."""
    action, ready = _collect(ledger, situation, rules), _redeemable(ledger, situation.job)
    return RedeemVoucher(ready) if isinstance(action, AwaitClaim) and ready is not None else action


def _collect(ledger: HostLedger, situation: Situation, rules: SettlementRules) -> Action:
    """The last voucher travels with the close where nothing comes after it."""
    job = situation.job
    tail = _may_claim(ledger, situation) and tail_value(ledger, job) >= max(1, rules.tail_above(ledger.terms.token))
    ready = _redeemable(ledger, job)
    if tail and ready is not None and ready is ledger.voucher:
        return RedeemVoucher(
            ready
        )  # before the proof of the tail: signed money does not wait for a prover that it does not need
    needed = Tokens(0)
    if tail:
        needed = ledger.served
    elif ledger.terms.policy is ProofPolicy.REQUIRED:
        needed = ledger.acknowledged
    if needed > job.proven:
        may_wait = not tail and not is_urgent(ledger, situation, rules)
        return _by_epoch(ledger, situation) or _prove(ledger, situation, needed, may_wait=may_wait)
    if tail:
        return ClaimTail()
    return AwaitClaim(job.held_until) if _claims_again(ledger, situation, rules) else CloseJob(ready)


def _claims_again(ledger: HostLedger, situation: Situation, rules: SettlementRules) -> bool:
    """More was served after the claim that is held: worth another one, and nobody can close the job before that."""
    job = situation.job
    if job.stage not in UNDECIDED or not situation.staked or ledger.released:
        return False
    in_time = job.held_until + TIME_TO_CLAIM < finalizable_at(ledger.terms, job)
    return in_time and tail_value(ledger, job) >= max(1, rules.tail_above(ledger.terms.token))


def _redeem_running(ledger: HostLedger, situation: Situation, rules: SettlementRules) -> Action:
    """Collect while the session goes on. What is proven is what was signed when it was due, not what is signed by now: the proofs
    would chase the vouchers for ever."""
    job = situation.job
    ready, covered = _redeemable(ledger, job), ledger.covered
    if ready is not None:
        return RedeemVoucher(ready)
    if (proven := _by_epoch(ledger, situation)) is not None:
        return proven
    enough = rules.bounds(ledger.terms.token).redeem_above
    worth_it = covered is not None and covered.amount - job.owed >= enough
    needed = covered.tokens if covered is not None and worth_it else ledger.acknowledged
    return _prove(ledger, situation, needed, may_wait=True)


def is_urgent(ledger: HostLedger, situation: Situation, rules: SettlementRules) -> bool:
    """A deadline of the contract is near: nothing waits for other jobs any more."""
    return bool(situation.job.closing_at or situation.now > ledger.terms.expires_at - rules.expiry_margin)


def _by_epoch(ledger: HostLedger, situation: Situation) -> Action | None:
    """The voucher that a proven epoch holds and the contract has not redeemed."""
    joined = ledger.epoch
    if situation.epoch is None or situation.epoch.mine is not Standing.PROVEN or joined is None:
        return None
    session = joined.place.session
    voucher = ledger.vouchers.get(session.tokens)
    if voucher is None or voucher.transcript != session.head or session.tokens <= situation.job.signed:
        return None
    return RedeemByEpoch(voucher, joined)


def _may_claim(ledger: HostLedger, situation: Situation) -> bool:
    """Not without a stake, not where the end was signed, nor where a claim was lost or is under way."""
    return situation.staked and not ledger.released and situation.job.stage is ClaimStage.NONE


def tail_value(ledger: HostLedger, job: JobState) -> BaseUnits:
    """What `claimProven` would add to the signed amount, were everything served proven."""
    signed = max(ledger.acknowledged, job.signed)
    paid = Tokens(min(ledger.served, signed + ledger.terms.exposure))
    return BaseUnits(min(job.deposit, cost(paid, ledger.terms.price)) - max(job.owed, ledger.amount(signed)))


def _join(ledger: HostLedger, job: JobState, rules: SettlementRules) -> Action:
    """What the contract takes now, where it is worth the smaller gas of a voucher in company."""
    ready = _redeemable(ledger, job)
    enough = rules.bounds(ledger.terms.token).join_above
    return JoinRedemption(ready) if ready is not None and ready.amount - job.owed >= enough else NOT_DUE


def _early_checkpoint(ledger: HostLedger) -> Action | None:
    """Full checkpoints are committed while the session runs, so that little is left for its end."""
    if ledger.acknowledged - ledger.checkpointed >= CHECKPOINT_TOKENS:
        return CloseCheckpoint(ledger.checkpointed, Tokens(CHECKPOINT_TOKENS))
    return None


def _prove(ledger: HostLedger, situation: Situation, needed: Tokens, *, may_wait: bool) -> Action:
    """Towards a proof over at least `needed` tokens: answer the open challenge, close checkpoints, commit; in an epoch with other jobs
    where all that is to be proven is signed and there is time. Not while a claim is undecided: a dispute must be able to open the
    last proven commitment."""
    if situation.job.stage in UNDECIDED:
        return AwaitClaim(situation.job.held_until)
    pending = situation.job.pending_block
    if pending:
        seed_block = pending + SEED_DELAY
        if situation.block <= seed_block:
            return AwaitBlock(seed_block + 1)
        if situation.block < seed_block + BLOCKHASH_WINDOW and ledger.commitment is not None:
            return AnswerChallenge(ledger.commitment, seed_block)
        if situation.block <= seed_block + BLOCKHASH_WINDOW:
            return AwaitBlock(seed_block + BLOCKHASH_WINDOW + 1)
    if ledger.checkpointed < needed:
        size = min(CHECKPOINT_TOKENS, needed - ledger.checkpointed)
        return CloseCheckpoint(ledger.checkpointed, Tokens(size))
    tree = tree_root(tuple(ledger.checkpoints))
    head = ledger.covered.transcript if ledger.covered else ledger.heads[ledger.checkpointed]
    alone = CommitmentMade(ledger.checkpointed, tree.hash, head, len(ledger.checkpoints))
    if situation.epoch is None or not may_wait or ledger.covered is None:
        return CommitTree(alone)
    if situation.epoch.busy:
        return AwaitEpoch()
    return JoinEpoch(session_of(ledger.job, alone), len(ledger.checkpoints), alone)


def _redeemable(ledger: HostLedger, job: JobState) -> VoucherAccepted | None:
    """The best voucher that the contract takes now."""
    for voucher in (ledger.voucher, ledger.covered):
        if voucher is None or voucher.tokens <= job.signed:
            continue
        if ledger.terms.policy is ProofPolicy.FALLBACK or voucher.tokens <= job.proven:
            return voucher
    return None
