"""Every cell of the settlement matrix on the real contracts: who gets what, by which calls, from when, until when; to the last unit."""

from __future__ import annotations

from typing import Final

import msgspec
import pytest

from fabstir.domain.money import affordable
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.matrix import MATRIX, RIGHTS, Call, Cell, Ending, Pay
from tests.scenarios.stage import EXPOSURE, HOST, PRICE, RENTER, SIGNER, STRANGER, Stage

DEPOSIT: Final = 1_000
AFFORDABLE: Final = affordable(DEPOSIT, PRICE)  # type: ignore[arg-type]


class Story(msgspec.Struct, frozen=True):
    """What had happened when the job ended."""

    signed: int = 0
    unsigned: int = 0
    """Tokens that were served and not signed for."""


STORIES: Final = {
    Ending.NEVER_STARTED: Story(),
    Ending.BEFORE_FIRST_TOKEN: Story(),
    Ending.COMPLETED: Story(300),
    Ending.CANCELLED: Story(37),
    Ending.DEPOSIT_EXHAUSTED: Story(AFFORDABLE),
    Ending.ENGINE_CRASHED: Story(1),
    Ending.HOST_RESTARTED: Story(512),
    Ending.NETWORK_LOST: Story(300, 17),
    Ending.RENTER_VANISHED: Story(0, EXPOSURE),
    Ending.VOUCHER_GAP: Story(256, EXPOSURE),
    Ending.HOST_VANISHED: Story(300),
    Ending.CLOSE_REQUESTED: Story(300),
    Ending.PROOF_MISSING: Story(300),
    Ending.PROOF_INVALID: Story(300),
    Ending.EXPIRED: Story(300),
}
PLAYS: Final = [(cell, way, native) for cell in MATRIX.values() for way in cell.closed_by for native in (False, True)]


def pay_of(cell: Cell, story: Story, stage: Stage) -> int:
    """The amount that the cell promises to the host, fee included."""
    match cell.host_gets:
        case Pay.NOTHING:
            return 0
        case Pay.SIGNED:
            return stage.cost(story.signed)
        case Pay.SIGNED_AND_TAIL:
            return min(DEPOSIT, stage.cost(story.signed + min(story.unsigned, EXPOSURE)))


def test_the_matrix_is_complete() -> None:
    """Each ending under both policies, with a story here; every way of the table is a way to close; a right for every call."""
    assert set(MATRIX) == {(ending, policy) for ending in Ending for policy in ProofPolicy}
    assert set(STORIES) == set(Ending)
    assert {way for cell in MATRIX.values() for way in cell.closed_by} == {
        Call.CLOSE_BY_HOST,
        Call.CLOSE_COOPERATIVE,
        Call.FINALIZE,
    }
    assert [right.call for right in RIGHTS] == list(Call)


@pytest.mark.parametrize(
    ("cell", "way", "native"),
    PLAYS,
    ids=[f"{c.ending}-{c.policy.name.lower()}-{w}-{'native' if n else 'usdc'}" for c, w, n in PLAYS],
)
def test_cell(cell: Cell, way: Call, native: bool) -> None:
    """The host makes the calls of the cell, nobody else can, none of them too early or twice; it gets what the cell says; the job ends in
    this way, the renter gets the rest, and after that everything is refused."""
    story = STORIES[cell.ending]
    stage = Stage(cell.policy, DEPOSIT, native)
    pay = pay_of(cell, story, stage)
    before_collecting(stage, cell.ending, story)
    credits = collect(stage, cell, story)
    assert (stage.state.owed, sum(credits)) == (pay, pay)
    close(stage, cell.ending, way)
    stage.check_payout(pay, credits)
    stage.everything_is_refused()


def before_collecting(stage: Stage, ending: Ending, story: Story) -> None:
    """What makes this ending what it is."""
    match ending:
        case Ending.CLOSE_REQUESTED:
            assert stage.request_close() is None
        case Ending.EXPIRED:
            stage.until_time(stage.terms.expires_at)
            assert stage.finalize() == "TooEarly"
        case Ending.PROOF_INVALID:
            assert stage.commit(story.signed) is None
            stage.until_block(stage.committed_at + 3)
            assert stage.submit(valid=False) == "ProofInvalid"


def collect(stage: Stage, cell: Cell, story: Story) -> list[int]:
    """The host's calls in the order of the cell; returns what each of them credited."""
    credits = []
    if cell.host_gets is Pay.NOTHING and cell.policy is ProofPolicy.REQUIRED and story.signed:
        assert stage.redeem(story.signed) == "ProofMissing"
        assert stage.close_by_host(story.signed) == "ProofMissing"
    for call in cell.host_calls:
        before = stage.state.owed
        {
            Call.COMMIT_PROOF: commit,
            Call.SUBMIT_PROOF: submit,
            Call.REDEEM: redeem,
            Call.CLAIM_PROVEN: claim_proven,
        }[call](stage, story)
        credits.append(stage.state.owed - before)
    return credits


def commit(stage: Stage, story: Story) -> None:
    for stranger in (RENTER, STRANGER, SIGNER):
        assert stage.commit(story.signed + story.unsigned, by=stranger) == "NotParty"
    assert stage.claim_proven() == "NothingToClaim"
    assert stage.commit(story.signed + story.unsigned) is None
    assert stage.commit(story.signed + story.unsigned) == "CommitmentPending"


def submit(stage: Stage, story: Story) -> None:
    if stage.terms.policy is ProofPolicy.REQUIRED and story.signed:
        assert stage.redeem(story.signed) == "ProofMissing"
    for block in (0, 1, 2):
        stage.until_block(stage.committed_at + block)
        assert stage.submit() == "SeedNotReady"
    stage.until_block(stage.committed_at + 3)
    assert stage.submit(valid=False) == "ProofInvalid"
    assert stage.submit() is None
    assert stage.submit() == "NoCommitment"
    assert stage.commit(story.signed + story.unsigned) == "NothingToProve"


def redeem(stage: Stage, story: Story) -> None:
    if story.signed == 0:
        return
    for stranger in (RENTER, STRANGER, SIGNER):
        assert stage.redeem(story.signed, by=stranger) == "NotParty"
    for key in (HOST, RENTER):
        assert stage.redeem(story.signed, key=key) == "BadSignature"
    assert stage.redeem(story.signed) is None
    assert stage.redeem(story.signed) == "StaleVoucher"


def claim_proven(stage: Stage, story: Story) -> None:
    for stranger in (RENTER, STRANGER, SIGNER):
        assert stage.claim_proven(by=stranger) == "NotParty"
    assert stage.claim_proven() is None
    assert stage.claim_proven() == "NothingToClaim"


def close(stage: Stage, ending: Ending, way: Call) -> None:
    """In the given way; wrong callers and wrong times first."""
    match way:
        case Call.CLOSE_BY_HOST:
            for stranger in (RENTER, STRANGER, SIGNER):
                assert stage.close_by_host(by=stranger) == "NotParty"
            assert stage.close_by_host() is None
        case Call.CLOSE_COOPERATIVE:
            close_together(stage)
        case _:
            close_after_the_window(stage, ending)


def close_together(stage: Stage) -> None:
    tokens = next(n for n in range(AFFORDABLE + 1) if stage.cost(n) == stage.state.owed)
    for consent in (SIGNER, STRANGER, RENTER):
        assert stage.close_cooperative(tokens, consent=consent) == "BadSignature"
    for sender in (STRANGER, HOST):
        assert stage.close_cooperative(tokens, by=sender) == "BadSignature"
        assert stage.close_cooperative(tokens, by=sender, key=HOST) == "BadSignature"
    if tokens:
        assert stage.close_cooperative(tokens - 1) == "StaleVoucher"
        assert stage.close_cooperative(tokens, by=STRANGER, key=SIGNER) is None
    else:
        assert stage.close_cooperative(tokens) is None


def close_after_the_window(stage: Stage, ending: Ending) -> None:
    assert stage.finalize() == "TooEarly"
    if ending is Ending.EXPIRED:
        deadline = stage.terms.expires_at + stage.terms.challenge
    else:
        for stranger in (HOST, STRANGER, SIGNER):
            assert stage.request_close(by=stranger) == "NotParty"
        if not stage.state.closing_at:
            assert stage.request_close() is None
        assert stage.request_close() == "AlreadyClosing"
        deadline = stage.state.closing_at
    stage.until_time(deadline - 1)
    assert stage.finalize() == "TooEarly"
    stage.until_time(deadline)
    assert stage.finalize() is None


# -- the bounds of the rights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ProofPolicy)
def test_the_tail_is_never_more_than_w(policy: ProofPolicy) -> None:
    """A host that proves more tokens than it may serve unsigned is paid W of them, once."""
    stage = Stage(policy, DEPOSIT)
    assert stage.commit(700) is None
    stage.until_block(stage.committed_at + 3)
    assert stage.submit() is None
    assert stage.redeem(300) is None
    assert stage.claim_proven() is None
    assert stage.state.owed == stage.cost(300 + EXPOSURE)
    assert stage.claim_proven() == "NothingToClaim"
    assert stage.redeem(300 + EXPOSURE) is None  # the renter signs for the tail after all: it is not paid twice
    assert stage.state.owed == stage.cost(300 + EXPOSURE)


def test_the_tail_ends_with_the_deposit() -> None:
    """Proven tokens are paid as far as the deposit goes, to its last unit."""
    stage = Stage(ProofPolicy.REQUIRED, DEPOSIT)
    assert stage.commit(AFFORDABLE + 10) is None
    stage.until_block(stage.committed_at + 3)
    assert stage.submit() is None
    assert stage.redeem(AFFORDABLE - 5) is None
    assert stage.claim_proven() is None
    assert stage.state.owed == DEPOSIT
    first = stage.cost(AFFORDABLE - 5)
    assert stage.close_by_host() is None
    stage.check_payout(DEPOSIT, [first, DEPOSIT - first])


def test_a_voucher_above_the_deposit_pays_nothing() -> None:
    """Signed or not."""
    stage = Stage(ProofPolicy.FALLBACK, DEPOSIT)
    assert stage.redeem(AFFORDABLE + 1) == "AboveDeposit"
    assert stage.redeem(AFFORDABLE) is None


def test_how_long_a_challenge_can_be_answered() -> None:
    """Until 258 blocks after the commitment; then it can be made again, and not before."""
    stage = Stage(ProofPolicy.REQUIRED, DEPOSIT)
    assert stage.commit(300) is None
    first = stage.committed_at
    stage.until_block(first + 258)
    assert stage.commit(300) == "CommitmentPending"
    stage.until_block(first + 259)
    assert stage.submit() == "SeedExpired"
    assert stage.commit(300) is None
    stage.until_block(first + 259 + 258)
    assert stage.submit() is None


def test_the_last_voucher_travels_with_the_close() -> None:
    """Under both policies, the second of them once it is proven: one transaction less."""
    for policy in ProofPolicy:
        stage = Stage(policy, DEPOSIT)
        if policy is ProofPolicy.REQUIRED:
            assert stage.commit(300) is None
            stage.until_block(stage.committed_at + 3)
            assert stage.submit() is None
        assert stage.close_by_host(300) is None
        stage.check_payout(stage.cost(300), [stage.cost(300)])


@pytest.mark.parametrize("policy", ProofPolicy)
def test_closing_together_pays_what_was_signed(policy: ProofPolicy) -> None:
    """With the host's consent and the renter's voucher anyone can end the job; under `required` only what is proven is paid."""
    stage = Stage(policy, DEPOSIT)
    if policy is ProofPolicy.REQUIRED:
        assert stage.close_cooperative(300, by=STRANGER, key=SIGNER) == "ProofMissing"
        assert stage.commit(300) is None
        stage.until_block(stage.committed_at + 3)
        assert stage.submit() is None
    assert stage.close_cooperative(300, by=STRANGER, key=SIGNER) is None
    stage.check_payout(stage.cost(300), [stage.cost(300)])


def test_an_expired_job_is_finalized_even_where_a_close_was_requested_late() -> None:
    """The earlier of both deadlines counts."""
    stage = Stage(ProofPolicy.FALLBACK, DEPOSIT)
    stage.until_time(stage.terms.expires_at + stage.terms.challenge - 10)
    assert stage.request_close() is None
    assert stage.finalize() == "TooEarly"
    stage.until_time(stage.terms.expires_at + stage.terms.challenge)
    assert stage.finalize() is None
    stage.check_payout(0, [])


def test_the_host_still_redeems_until_somebody_finalizes() -> None:
    """After the window has passed, too: the deadline only allows the close."""
    stage = Stage(ProofPolicy.FALLBACK, DEPOSIT)
    assert stage.request_close() is None
    stage.until_time(stage.state.closing_at + 10)
    assert stage.redeem(300) is None
    assert stage.finalize() is None
    stage.check_payout(stage.cost(300), [stage.cost(300)])
