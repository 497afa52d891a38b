"""Every right of the settlement matrix on the real contracts: a call inside of it goes through; a call by somebody else, one before it
begins and one after it has ended are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from fabstir.chain.bindings import EpochProofs, Proof
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.matrix import RIGHTS, Call
from fabstir.protocol.settlement import SEED_DELAY
from fabstir.protocol.signing import SigningKey
from fabstir.testing.prover import CIRCUIT_ID
from tests.contracts.dispute_rules import checkpoints_of
from tests.contracts.epoch_rules import Epoch
from tests.contracts.evm import CallReverted
from tests.contracts.market import SLASH, abi_terms
from tests.scenarios.prompt_stage import ASSIGNER, DELEGATE, PromptStage
from tests.scenarios.stage import ARBITER, BOND, HOST, OTHER_HOST, RENTER, SIGNER, STRANGER, Stage

DEPOSIT: Final = 1_000
REQUIRED, FALLBACK = ProofPolicy.REQUIRED, ProofPolicy.FALLBACK
OUTSIDERS: Final = (RENTER, STRANGER, SIGNER, ARBITER)


def job(policy: ProofPolicy = FALLBACK, **other: object) -> Stage:
    return Stage(policy, DEPOSIT, **other)  # type: ignore[arg-type]


def closed(stage: Stage) -> Stage:
    assert stage.close_by_host() is None
    return stage


def claimed(stage: Stage | None = None) -> Stage:
    """40 tokens, of which nobody signed one."""
    stage = stage or job(arbiter=ARBITER.address)
    stage.prove(40)
    assert stage.claim_proven() is None
    return stage


def disputed() -> Stage:
    stage = claimed()
    assert stage.dispute() is None
    return stage


def answered() -> Stage:
    stage = disputed()
    assert stage.answer() is None
    return stage


def prompt() -> PromptStage:
    return PromptStage(FALLBACK, DEPOSIT)


def taken() -> PromptStage:
    stage = prompt()
    assert stage.claim() is None
    return stage


def refused(error: str, *told: str | None) -> None:
    """Each of them, by this name."""
    assert set(told) == {error}


# -- the market -----------------------------------------------------------------------------------------------------------------------


def top_up() -> None:
    stage = job()
    assert [stage.top_up(7, by=who) for who in (RENTER, HOST, STRANGER)] == [None] * 3
    refused("BadTerms", stage.top_up(0))
    assert stage.state.deposit == DEPOSIT + 21
    refused("NotOpen", closed(stage).top_up(7))


def commit_proof() -> None:
    stage = job()
    refused("NotParty", *(stage.commit(40, by=who) for who in OUTSIDERS))
    stage = claimed()
    refused("ClaimPending", stage.commit(50))
    stage.until_time(stage.state.held_until)
    assert (stage.settle_claim(), stage.commit(50)) == (None, None)
    refused("NotOpen", closed(stage).commit(60))


def submit_proof() -> None:
    stage = job()
    assert stage.commit(40) is None
    for wait in (0, 1, 2):
        stage.until_block(stage.committed_at + wait)
        refused("SeedNotReady", stage.submit())
    stage.until_block(stage.committed_at + 259)
    refused("SeedExpired", stage.submit())
    assert stage.commit(40) is None
    stage.until_block(stage.committed_at + 258)
    refused("CommitmentPending", stage.commit(40))
    assert stage.submit(by=STRANGER) is None
    assert stage.commit(50) is None
    stage.until_block(stage.committed_at + 3)
    refused("NotOpen", closed(stage).submit())


def redeem() -> None:
    refused("NotParty", *(job().redeem(30, by=who) for who in OUTSIDERS))
    stage = job(REQUIRED)
    refused("ProofMissing", stage.redeem(30))
    stage.prove(30)
    assert stage.redeem(30) is None
    stage = job()
    assert stage.redeem(30) is None
    refused("NotOpen", closed(stage).redeem(40))


def epoch_of(stage: Stage, tokens: int = 40) -> Epoch:
    """Its only session is the job of `stage`, of one checkpoint."""
    session = (stage.terms, stage.id, checkpoints_of(tokens, 256), stage.stream.head(tokens))
    return Epoch(stage.twin, [session], set())


def sent(stage: Stage, by: SigningKey, data: bytes) -> str | None:
    """To EpochProofs; the name of its error."""
    try:
        stage.evm.call(by.address, stage.twin.epochs, data)
    except CallReverted as reverted:
        return reverted.revert.name
    return None


def commit_epoch() -> None:
    stage = job(REQUIRED)
    epoch = epoch_of(stage)
    data = EpochProofs.encode_commit_epoch(epoch.root, epoch.total)
    refused("NothingToProve", sent(stage, HOST, EpochProofs.encode_commit_epoch(epoch.root, 0)))
    assert [sent(stage, who, data) for who in OUTSIDERS] == [None] * 4  # each for itself
    stage.evm.mine(3, 3)
    refused("NoCommitment", sent(stage, STRANGER, answer_of(epoch)))
    assert sent(stage, HOST, data) is None
    last = stage.evm.block + SEED_DELAY + 256
    refused("CommitmentPending", sent(stage, HOST, data))
    stage.until_block(last)
    refused("CommitmentPending", sent(stage, HOST, data))
    stage.until_block(last + 1)
    assert sent(stage, HOST, data) is None


def answer_of(epoch: Epoch) -> bytes:
    """Of an epoch of one session with one checkpoint: whatever is drawn lies there. The proof is empty."""
    (place,), ((checkpoint,),) = epoch.places, epoch.checkpoints
    session = place.session
    proof = Proof(
        CIRCUIT_ID, session.tree_root, session.head, session.tokens, checkpoint.tokens, checkpoint.commitment, [], b""
    )
    return EpochProofs.encode_prove_epoch(abi_terms(epoch.terms[0]), [], proof)


def prove_epoch() -> None:
    stage = job(REQUIRED)
    epoch = epoch_of(stage)
    refused("NoCommitment", sent(stage, STRANGER, answer_of(epoch)))
    assert sent(stage, HOST, EpochProofs.encode_commit_epoch(epoch.root, epoch.total)) is None
    epoch.made_at = stage.evm.block
    stage.until_block(epoch.made_at + SEED_DELAY)
    refused("SeedNotReady", sent(stage, STRANGER, answer_of(epoch)))
    stage.until_block(epoch.made_at + SEED_DELAY + 1)
    refused("ProofInvalid", sent(stage, STRANGER, answer_of(epoch)))
    epoch.prove(by=STRANGER.address)
    refused("NoCommitment", sent(stage, STRANGER, answer_of(epoch)))
    late = epoch_of(stage, 50)
    late.commit()
    stage.until_block(late.made_at + SEED_DELAY + 257)
    refused("SeedExpired", sent(stage, STRANGER, answer_of(late)))


def redeem_by_epoch() -> None:
    stage = job(REQUIRED)
    epoch = epoch_of(stage)
    epoch.commit()
    refused("NotCovered", epoch.redeem(epoch.places))
    epoch.prove()
    refused("NotOpen", *(epoch.redeem(epoch.places, by=who.address) for who in OUTSIDERS))  # none is theirs
    assert epoch.redeem(epoch.places) is None
    assert stage.state.signed == stage.state.proven == 40
    over = job(REQUIRED)
    epoch = epoch_of(over)
    epoch.commit()
    epoch.prove()
    closed(over)
    refused("NotOpen", epoch.redeem(epoch.places))


def claim_proven() -> None:
    stage = job()
    refused("NothingToClaim", stage.claim_proven())
    stage.prove(40)
    refused("NotParty", *(stage.claim_proven(by=who) for who in OUTSIDERS))
    poor = job(stake=SLASH - 1)
    poor.prove(40)
    refused("StakeTooLow", poor.claim_proven())
    lost = disputed()
    lost.until_time(lost.state.held_until)
    assert lost.settle_claim() is None
    lost.prove(50)
    refused("ClaimPending", lost.claim_proven())
    refused("NotOpen", closed(stage).claim_proven())


def dispute() -> None:
    refused("WrongStage", job().dispute())
    stage = claimed()
    refused("NotParty", *(stage.dispute(by=who) for who in (HOST, STRANGER, SIGNER, ARBITER)))
    with stage.at(stage.state.held_until):
        refused("TooLate", stage.dispute())
    native = claimed(job(native=True))
    refused("BadValue", native.dispute(short=1), native.dispute(short=BOND))
    closed(stage).until_time(stage.state.held_until - 1)
    assert stage.dispute() is None


def contradict() -> None:
    refused("WrongStage", job().contradict(0))
    for stage in (claimed(), disputed(), answered()):
        refused("NoContradiction", stage.contradict(40))
        refused("BadSignature", *(stage.contradict(39, key=who) for who in OUTSIDERS))
        stage.until_time(stage.state.held_until + 1_000)
        assert closed(stage).contradict(39) is None
        refused("WrongStage", stage.contradict(39))


def answer_dispute() -> None:
    refused("WrongStage", claimed().answer())
    stage = disputed()
    refused("NotParty", *(stage.answer(by=who) for who in OUTSIDERS))
    with stage.at(stage.state.held_until):
        refused("TooLate", stage.answer())
    closed(stage).until_time(stage.state.held_until - 1)
    assert stage.answer() is None


def rule() -> None:
    refused("WrongStage", claimed().rule(True), disputed().rule(True))
    stage = answered()
    refused("NotParty", *(stage.rule(True, by=who) for who in (RENTER, HOST, STRANGER, SIGNER)))
    with stage.at(stage.state.held_until):
        refused("TooLate", stage.rule(True))
    closed(stage).until_time(stage.state.held_until - 1)
    assert stage.rule(False) is None


def settle_claim() -> None:
    refused("WrongStage", job().settle_claim())
    for stage, by in ((claimed(), STRANGER), (disputed(), RENTER), (answered(), HOST)):
        with stage.at(stage.state.held_until - 1):
            refused("StageRuns", stage.settle_claim(by=by))
        closed(stage).until_time(stage.state.held_until)
        assert stage.settle_claim(by=by) is None
        refused("WrongStage", stage.settle_claim(by=by))


def close_by_host() -> None:
    stage = job()
    refused("NotParty", *(stage.close_by_host(by=who) for who in OUTSIDERS))
    refused("NotOpen", closed(stage).close_by_host())


def close_cooperative() -> None:
    stage = job()
    refused("BadSignature", *(stage.close_cooperative(30, consent=who) for who in OUTSIDERS))
    refused(
        "BadSignature", stage.close_cooperative(30, by=STRANGER), stage.close_cooperative(30, by=STRANGER, key=HOST)
    )
    assert stage.close_cooperative(30, by=STRANGER, key=SIGNER) is None
    refused("NotOpen", stage.close_cooperative(30))


def request_close() -> None:
    stage = job()
    refused("NotParty", *(stage.request_close(by=who) for who in (HOST, STRANGER, SIGNER, ARBITER)))
    assert stage.request_close() is None
    refused("NotOpen", closed(stage).request_close())


def finalize() -> None:
    asked, expired = job(), job()
    assert asked.request_close() is None
    for stage, start in (
        (asked, asked.state.closing_at),
        (expired, expired.terms.expires_at + expired.terms.challenge),
    ):
        stage.until_time(start - 1)
        refused("TooEarly", stage.finalize())
        stage.until_time(start)
        assert stage.finalize() is None
        refused("NotOpen", stage.finalize())


# -- the board ------------------------------------------------------------------------------------------------------------------------


def claim() -> None:
    stage = prompt()
    refused("HostNotActive", stage.claim(by=STRANGER))
    refused("NotHost", stage.claim(by=DELEGATE, host=HOST))
    stage.delegate(DELEGATE, stage.evm.time + 100)
    assert stage.assign(HOST) is None
    refused("Reserved", stage.claim(by=OTHER_HOST))
    with stage.at(stage.evm.time + 100):
        refused("NotHost", stage.claim(by=DELEGATE, host=HOST))
    assert stage.claim(by=DELEGATE, host=HOST) is None
    refused("AlreadyClaimed", stage.claim(by=OTHER_HOST))
    stage.until_time(stage.until)
    assert stage.claim(by=OTHER_HOST) is None
    stage.until_time(stage.prompt.deadline)
    refused("PastDeadline", stage.claim())


def assign() -> None:
    stage = prompt()
    refused("NotAssigner", *(stage.assign(HOST, by=who) for who in (HOST, STRANGER, SIGNER)))
    refused("HostNotActive", stage.assign(STRANGER))
    assert stage.assign(OTHER_HOST, by=ASSIGNER) is None
    assert stage.assign(HOST) is None
    assert stage.claim() is None
    refused("AlreadyClaimed", stage.assign(OTHER_HOST))
    stage.until_time(stage.until)
    assert stage.assign(OTHER_HOST) is None
    stage.until_time(stage.prompt.deadline)
    refused("PastDeadline", stage.assign(HOST))


def release() -> None:
    refused("NotClaimed", prompt().release())
    stage = taken()
    refused("NotHost", *(stage.release(by=who) for who in (RENTER, STRANGER, OTHER_HOST)))
    with stage.at(stage.until):
        refused("NotClaimed", stage.release())
    stage.delegate(DELEGATE, stage.evm.time + 100)
    assert stage.release(by=DELEGATE) is None
    assert stage.claim(by=OTHER_HOST) is None


def complete() -> None:
    refused("NotClaimed", prompt().complete())
    stage = taken()
    stage.delegate(DELEGATE, stage.prompt.deadline)
    refused("NotHost", *(stage.complete(by=who) for who in (RENTER, STRANGER, OTHER_HOST, DELEGATE)))
    with stage.at(stage.until):
        refused("NotClaimed", stage.complete())
    stage.until_time(stage.until - 1)
    assert stage.complete() is None
    refused("NotPosted", stage.complete())


def cancel() -> None:
    refused("NotRenter", *(prompt().cancel(by=who) for who in (HOST, STRANGER, SIGNER, ASSIGNER)))
    stage = taken()
    refused("AlreadyClaimed", stage.cancel())
    stage.until_time(stage.until)
    assert stage.cancel() is None
    refused("NotPosted", stage.cancel())


def refund() -> None:
    stage = prompt()
    stage.until_time(stage.prompt.deadline - 1)
    assert stage.claim() is None  # the last second; the claim ends with the deadline
    refused("TooEarly", stage.refund())
    stage.until_time(stage.prompt.deadline)
    assert stage.refund() is None
    refused("NotPosted", stage.refund())


CHECKS: Final[dict[Call, Callable[[], None]]] = {
    Call.TOP_UP: top_up,
    Call.COMMIT_PROOF: commit_proof,
    Call.SUBMIT_PROOF: submit_proof,
    Call.REDEEM: redeem,
    Call.COMMIT_EPOCH: commit_epoch,
    Call.PROVE_EPOCH: prove_epoch,
    Call.REDEEM_BY_EPOCH: redeem_by_epoch,
    Call.CLAIM_PROVEN: claim_proven,
    Call.DISPUTE: dispute,
    Call.CONTRADICT: contradict,
    Call.ANSWER_DISPUTE: answer_dispute,
    Call.RULE: rule,
    Call.SETTLE_CLAIM: settle_claim,
    Call.CLOSE_BY_HOST: close_by_host,
    Call.CLOSE_COOPERATIVE: close_cooperative,
    Call.REQUEST_CLOSE: request_close,
    Call.FINALIZE: finalize,
    Call.CLAIM: claim,
    Call.ASSIGN: assign,
    Call.RELEASE: release,
    Call.COMPLETE: complete,
    Call.CANCEL: cancel,
    Call.REFUND: refund,
}


def test_every_call_has_a_right_and_a_check() -> None:
    """In the order of the table."""
    assert [right.call for right in RIGHTS] == list(Call) == list(CHECKS)


@pytest.mark.parametrize("call", Call)
def test_right(call: Call) -> None:
    """Who, from when, until when."""
    CHECKS[call]()
