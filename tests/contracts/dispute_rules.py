"""What can be done about tokens that the renter did not sign: proofs, claims, disputes, answers, rulings, contradictions.

Each rule may bring about by itself what it needs, in the right order and at the last second: chance alone rarely gets as far as a
ruling. Openings are honest ones of a real transcript, or have one flaw each.
"""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from fabstir.chain.bindings import JobMarketplace, Proof
from fabstir.domain.ids import ZERO_ADDRESS, ZERO_HASH, Hash32, JobId
from fabstir.domain.money import Tokens, cost
from fabstir.domain.terms import ClaimStage, Terms
from fabstir.protocol import commitments, settlement
from fabstir.protocol.commitments import Checkpoint
from fabstir.protocol.host_log import CommitmentMade
from fabstir.protocol.opening import Opening, refusal_of
from fabstir.protocol.settlement_disputes import UNDECIDED
from fabstir.protocol.signing import SigningKey, keccak
from tests.contracts.market import abi_terms
from tests.contracts.market_rules import ARBITER, HOST, MOST_TOKENS, STRANGER, MarketRules
from tests.contracts.stream import FLAWS as OPENING_FLAWS
from tests.contracts.stream import abi_opening
from tests.contracts.stream import spoil as spoil_opening

FLAWS: Final = ("proof", "commitment", "path", "sibling", "tokens", "circuit", "head")
WIDTHS: Final = st.sampled_from([256, 100, 7])
HOSTS: Final = st.sampled_from([HOST, HOST, HOST, STRANGER])
ANSWERS: Final = st.lists(st.sampled_from([*OPENING_FLAWS, "start"]), max_size=4, unique=True).map(
    lambda flaws: [*flaws, ""]
)
"""Openings with one flaw each, then the right one; "start": as if the renter had never signed."""
NEAR_THE_END: Final[list[int | None]] = [None, None, None, -1, -1, 0]


def checkpoints_of(tokens: int, width: int) -> tuple[Checkpoint, ...]:
    """`tokens` tokens in checkpoints of `width`, the last one with the rest."""
    sizes = [width] * (tokens // width) + ([tokens % width] if tokens % width else [])
    return tuple(Checkpoint(keccak(b"checkpoint%d" % n), Tokens(size)) for n, size in enumerate(sizes))


class DisputeRules(MarketRules):
    """Proofs, claims and what follows."""

    def __init__(self) -> None:
        super().__init__()
        self.committed: dict[JobId, tuple[tuple[Checkpoint, ...], Hash32, int]] = {}
        """Checkpoints, head and block of the commitment that waits for its challenge."""

    # -- proofs

    def provable_tokens(self, data: st.DataObject, job: JobId) -> int:
        """Nearly always more than is proven; now and then exactly that, or around what may be claimed."""
        account = self.twin.model.jobs[job]
        proven, bound = account.state.proven, min(account.state.signed + account.terms.exposure, MOST_TOKENS)
        if data.draw(st.integers(0, 9)) == 9:
            return proven
        return max(proven + 1, data.draw(st.one_of(st.integers(bound - 1, bound + 1), st.integers(1, MOST_TOKENS))))

    @precondition(lambda self: self.twin.model.jobs)
    @rule(data=st.data(), width=WIDTHS, sender=HOSTS)
    def commit(self, data: st.DataObject, width: int, sender: SigningKey) -> None:
        self.commits(data, *self.some_job(data), width, sender)

    def commits(self, data: st.DataObject, job: JobId, terms: Terms, width: int, sender: SigningKey) -> bool:
        """To the head of what was served; one host in ten to another one."""
        tokens = self.provable_tokens(data, job)
        checkpoints = checkpoints_of(tokens, width)
        head = keccak(b"made up") if data.draw(st.integers(0, 9)) == 9 else self.streams[job].head(tokens)
        root = commitments.commitment_root(commitments.tree_root(checkpoints).hash, head) if tokens else ZERO_HASH
        call = settlement.CommitProof(sender.address, job, Tokens(tokens), root)
        encoded = JobMarketplace.encode_commit_proof(abi_terms(terms), tokens, root)
        accepted = self.twin.both(call, sender.address, encoded) is None
        if accepted:
            self.committed[job] = (checkpoints, head, self.twin.evm.block)
        return accepted

    @precondition(lambda self: self.twin.model.jobs)
    @rule(data=st.data(), width=WIDTHS, wait=st.sampled_from([3, 3, 3, 3, 2, 258, 259]))
    def prove(self, data: st.DataObject, width: int, wait: int) -> None:
        """Commit, wait and answer in one go."""
        self.proves(data, *self.some_job(data), width, wait)

    def proves(self, data: st.DataObject, job: JobId, terms: Terms, width: int, wait: int) -> None:
        if self.commits(data, job, terms, width, HOST):
            self.twin.evm.mine(wait, wait)
            self.submits(job, "")

    @precondition(lambda self: self.committed)
    @rule(data=st.data(), flaw=st.sampled_from(["", "", *FLAWS]))
    def submit(self, data: st.DataObject, flaw: str) -> None:
        job = data.draw(st.sampled_from(sorted(self.committed)))
        ripe = self.committed[job][2] + settlement.SEED_DELAY + 1 - self.twin.evm.block
        if ripe > 0 and data.draw(st.booleans()):
            self.twin.evm.mine(ripe, ripe)
        self.submits(job, flaw)

    def submits(self, job: JobId, flaw: str) -> None:
        checkpoints, head, made_at = self.committed[job]
        terms = self.twin.model.jobs[job].terms
        proof = self.twin.proof(terms, job, checkpoints, head, made_at)
        spoilt = spoil(proof, flaw)
        root = commitments.commitment_root(Hash32(spoilt.tree_root), Hash32(spoilt.head))
        call = settlement.SubmitProof(job, Tokens(spoilt.tokens), root, valid=spoilt == proof)
        encoded = JobMarketplace.encode_submit_proof(abi_terms(terms), spoilt)
        if self.twin.both(call, STRANGER.address, encoded) is None:
            del self.committed[job]
            tree_root, tokens = Hash32(proof.tree_root), Tokens(proof.tokens)
            self.streams[job].proven = CommitmentMade(tokens, tree_root, head, len(checkpoints))

    # -- claims

    @precondition(lambda self: self.twin.model.jobs)
    @rule(data=st.data(), width=WIDTHS, sender=HOSTS, prepared=st.sampled_from([True, True, False]))
    def claim_proven(self, data: st.DataObject, width: int, sender: SigningKey, prepared: bool) -> None:
        """Where nothing is held yet, mostly after a proof."""
        job, terms = self.some_job(data)
        if prepared and self.twin.model.jobs[job].state.stage is ClaimStage.NONE:
            self.proves(data, job, terms, width, 3)
        self.claims(job, terms, sender)

    def claims(self, job: JobId, terms: Terms, sender: SigningKey) -> None:
        call = settlement.ClaimProven(sender.address, job)
        self.twin.both(call, sender.address, JobMarketplace.encode_claim_proven(abi_terms(terms)))

    def staged(self, *stages: ClaimStage) -> list[JobId]:
        jobs = self.twin.model.jobs
        return sorted(job for job in jobs if jobs[job].state.stage in stages)

    def some_claim(self, data: st.DataObject, *stages: ClaimStage) -> tuple[JobId, Terms]:
        """Mostly one in the first of these stages that has any, of an open job or a closed one; now and then any job."""
        jobs = self.twin.model.jobs
        fitting = next(filter(None, (self.staged(stage) for stage in stages)), [])
        every = not fitting or data.draw(st.integers(0, 9)) == 9
        job = data.draw(st.sampled_from(sorted(jobs) if every else fitting))
        return job, jobs[job].terms

    def near_the_end(self, data: st.DataObject, job: JobId) -> None:
        self.wait_until(data, self.twin.model.jobs[job].state.held_until, NEAR_THE_END)

    @precondition(lambda self: self.staged(*UNDECIDED))
    @rule(data=st.data(), stage=st.sampled_from(UNDECIDED), off=st.sampled_from([None, -1, 0, 0, 1]))
    def settle_claim(self, data: st.DataObject, stage: ClaimStage, off: int | None) -> None:
        """The silence of whoever was to act."""
        job, terms = self.some_claim(data, stage, *UNDECIDED)
        self.wait_until(data, self.twin.model.jobs[job].state.held_until, [off])
        encoded = JobMarketplace.encode_settle_claim(abi_terms(terms))
        self.twin.both(settlement.SettleClaim(job), STRANGER.address, encoded)

    @precondition(lambda self: self.staged(ClaimStage.CLAIMED))
    @rule(data=st.data(), by_renter=st.sampled_from([True, True, True, False]))
    def dispute(self, data: st.DataObject, by_renter: bool) -> None:
        job, terms = self.some_claim(data, ClaimStage.CLAIMED)
        self.near_the_end(data, job)
        self.disputes(job, terms, by_renter)

    def disputes(self, job: JobId, terms: Terms, by_renter: bool) -> None:
        sender = terms.renter if by_renter else STRANGER.address
        value = terms.bond if terms.token == ZERO_ADDRESS else 0
        encoded = JobMarketplace.encode_dispute(abi_terms(terms))
        self.twin.both(settlement.Dispute(sender, job), sender, encoded, value)

    @precondition(lambda self: self.staged(ClaimStage.CLAIMED, ClaimStage.DISPUTED))
    @rule(data=st.data(), flaws=ANSWERS, sender=HOSTS, disputed=st.booleans())
    def answer(self, data: st.DataObject, flaws: list[str], sender: SigningKey, disputed: bool) -> None:
        """A dispute, mostly after answers that are wrong; one that is not raised yet may be raised first."""
        job, terms = self.some_claim(data, ClaimStage.DISPUTED, ClaimStage.CLAIMED)
        if disputed and self.twin.model.jobs[job].state.stage is ClaimStage.CLAIMED:
            self.disputes(job, terms, True)
        self.near_the_end(data, job)
        for flaw in flaws:
            self.answers(job, terms, sender, flaw)

    def answers(self, job: JobId, terms: Terms, sender: SigningKey, flaw: str) -> None:
        state, stream = self.twin.model.jobs[job].state, self.streams[job]
        if stream.proven is None or (state.signed and state.signed not in stream.ledger.vouchers):
            return  # never proven, or closed together: nobody has anything to open
        opening = spoil_opening(stream.opening(Tokens(0) if flaw == "start" else state.signed), flaw)
        call = settlement.AnswerDispute(sender.address, job, self.refusal(job, terms, opening))
        encoded = JobMarketplace.encode_answer_dispute(abi_terms(terms), abi_opening(opening))
        self.twin.both(call, sender.address, encoded)

    def refusal(self, job: JobId, terms: Terms, opening: Opening) -> str:
        proven = self.streams[job].proven
        assert proven is not None
        if (opening.tree_root, opening.head, opening.tokens) != (proven.tree_root, proven.head, proven.tokens):
            return "NoCommitment"
        return refusal_of(self.twin.domain, terms, self.twin.model.jobs[job].state.signed, opening)

    @precondition(lambda self: self.staged(ClaimStage.DISPUTED, ClaimStage.ANSWERED))
    @rule(
        data=st.data(),
        by_arbiter=st.sampled_from([True, True, True, False]),
        for_host=st.booleans(),
        answered=st.booleans(),
    )
    def arbitrate(self, data: st.DataObject, by_arbiter: bool, for_host: bool, answered: bool) -> None:
        """Also by the arbiter of other terms, where these name nobody. A dispute that waits for its answer may get one first."""
        job, terms = self.some_claim(data, ClaimStage.ANSWERED, ClaimStage.DISPUTED)
        if answered and self.twin.model.jobs[job].state.stage is ClaimStage.DISPUTED:
            self.answers(job, terms, HOST, "")
        self.near_the_end(data, job)
        sender = ARBITER.address if by_arbiter else HOST.address
        encoded = JobMarketplace.encode_rule(abi_terms(terms), for_host)
        self.twin.both(settlement.Rule(sender, job, for_host), sender, encoded)

    @precondition(lambda self: self.staged(*UNDECIDED))
    @rule(data=st.data(), key=HOSTS, step=st.sampled_from([-1, -1, 0, 0, 1]), stage=st.sampled_from(UNDECIDED))
    def contradict(self, data: st.DataObject, key: SigningKey, step: int, stage: ClaimStage) -> None:
        """The host's `Close` for fewer tokens, for as many, for more; shown by a stranger."""
        job, terms = self.some_claim(data, stage, *UNDECIDED)
        tokens = Tokens(max(0, self.twin.model.jobs[job].state.held_tokens + step))
        amount = cost(tokens, terms.price)
        sig = key.sign(self.twin.domain.close_digest(job, amount, tokens))
        encoded = JobMarketplace.encode_contradict(abi_terms(terms), amount, tokens, sig)
        self.twin.both(settlement.Contradict(job, tokens, key.address), STRANGER.address, encoded)


def spoil(proof: Proof, flaw: str) -> Proof:
    """`proof` with one thing wrong; itself where there is nothing to spoil."""
    match flaw:
        case "proof":
            return proof._replace(proof=bytes(32))
        case "commitment":
            return proof._replace(commitment=ZERO_HASH)
        case "circuit":
            return proof._replace(circuit_id=ZERO_HASH)
        case "head":
            return proof._replace(head=ZERO_HASH)
        case "tokens":
            return proof._replace(tokens=proof.tokens + 1)
        case "sibling" if proof.path:
            return proof._replace(path=[proof.path[0]._replace(hash=ZERO_HASH), *proof.path[1:]])
        case "path" if proof.path:
            first = proof.path[0]
            return proof._replace(path=[first._replace(tokens=first.tokens + 1), *proof.path[1:]])
    return proof
