"""Every cell of the settlement matrix on the real contracts: who gets what, by which calls, from when, until when; to the last unit."""

from __future__ import annotations

from typing import Final

import pytest

from fabstir.domain.ids import ZERO_ADDRESS
from fabstir.domain.money import affordable
from fabstir.domain.terms import ClaimStage, ProofPolicy
from fabstir.protocol.matrix import MATRIX, Bond, Call, Cell, Ending, Kind, Pay
from tests.scenarios.play import Play, Story
from tests.scenarios.prompt_stage import ANSWER, PromptStage
from tests.scenarios.stage import ARBITER, EXPOSURE, HOST, PRICE, Stage

DEPOSIT: Final = 1_000
AFFORDABLE: Final = affordable(DEPOSIT, PRICE)  # type: ignore[arg-type]
E = Ending
STORIES: Final = {
    Kind.SESSION: {
        E.NEVER_STARTED: Story(),
        E.BEFORE_FIRST_TOKEN: Story(),
        E.COMPLETED: Story(300),
        E.CANCELLED: Story(37),
        E.DEPOSIT_EXHAUSTED: Story(AFFORDABLE),
        E.ENGINE_CRASHED: Story(1),
        E.HOST_RESTARTED: Story(512),
        E.NETWORK_LOST: Story(300, 17),
        E.RENTER_VANISHED: Story(0, EXPOSURE),
        E.VOUCHER_GAP: Story(256, EXPOSURE),
        E.HOST_VANISHED: Story(300),
        E.CLOSE_REQUESTED: Story(300),
        E.PROOF_MISSING: Story(300),
        E.PROOF_INVALID: Story(300),
        E.EXPIRED: Story(300),
        E.CLAIM_CONTRADICTED: Story(300, 17),
        E.SIGNED_LATE: Story(300, 17, late=317),
        E.AGREED_LATE: Story(300, 17, late=310),
        E.DISPUTE_ANSWERED: Story(300, 17),
        E.DISPUTE_UNANSWERED: Story(300, 17),
        E.RULED_FOR_HOST: Story(256, EXPOSURE),
        E.RULED_FOR_RENTER: Story(1, 1),
        E.ARBITER_SILENT: Story(0, 17),
    },
    Kind.PROMPT: {
        E.NEVER_CLAIMED: Story(),
        E.CANCELLED: Story(),
        E.HOST_FAILED: Story(),
        E.ACKNOWLEDGED: Story(ANSWER),
        E.SIGNED_LATE: Story(0, ANSWER, late=ANSWER),
        E.AGREED_LATE: Story(0, ANSWER, late=ANSWER - 15),
    },
}
RULED: Final = (E.RULED_FOR_HOST, E.RULED_FOR_RENTER, E.ARBITER_SILENT)
ON_THE_BOARD: Final = (Call.REFUND, Call.CANCEL)


def plays() -> list[tuple[Cell, Call, bool, bool]]:
    """Each cell, in each way of closing, in both currencies; where a claim is held, also with the job closed meanwhile."""
    found = []
    for cell in MATRIX.values():
        for way in cell.closed_by:
            claimed = (
                Call.CLAIM_PROVEN in cell.host_calls and way is Call.CLOSE_BY_HOST and cell.ending is not E.SIGNED_LATE
            )
            for early in (False, True) if claimed else (False,):
                found += [(cell, way, early, native) for native in (False, True)]
    return found


PLAYS: Final = plays()
NAMES: Final = [
    f"{c.kind}-{c.ending}-{c.policy.name.lower()}-{w}{'-early' * e}-{'native' if n else 'usdc'}" for c, w, e, n in PLAYS
]


def parameters() -> list[object]:
    """Each play by its name. Those in native coin are not among the unit tests: the same calls again, for twice the time."""
    named = zip(PLAYS, NAMES, strict=True)
    return [pytest.param(*play, id=name, marks=[pytest.mark.scenario] * play[-1]) for play, name in named]


def story_of(cell: Cell) -> Story:
    """Of an answer all is unsigned, unless the story says otherwise."""
    return STORIES[cell.kind].get(cell.ending, Story(0, ANSWER))


def pay_of(cell: Cell, story: Story, stage: Stage) -> int:
    """The amount that the cell promises to the host, fee included."""
    match cell.host_gets:
        case Pay.NOTHING:
            return 0
        case Pay.SIGNED:
            return stage.cost(story.late or story.signed)
        case Pay.SIGNED_AND_TAIL:
            return min(stage.deposit, stage.cost(story.signed + min(story.unsigned, stage.terms.exposure)))


def test_the_matrix_is_complete() -> None:
    """Each ending under both policies; what is special about a session has a story here; every way of the table is a way to close."""
    for kind in Kind:
        endings = [ending for of, ending, _ in MATRIX if of is kind]
        assert sorted(endings) == sorted([*set(endings)] * len(ProofPolicy))
    assert {ending for _, ending, _ in MATRIX} == set(Ending)
    assert set(STORIES[Kind.SESSION]) == {ending for kind, ending, _ in MATRIX if kind is Kind.SESSION}
    for cell in MATRIX.values():  # nobody is promised what was signed where nothing was
        assert cell.host_gets is not Pay.SIGNED or story_of(cell).signed or story_of(cell).late
    ways = {way for cell in MATRIX.values() for way in cell.closed_by}
    assert ways == {Call.CLOSE_BY_HOST, Call.CLOSE_COOPERATIVE, Call.FINALIZE, *ON_THE_BOARD}


@pytest.mark.parametrize(("cell", "way", "early", "native"), parameters())
def test_cell(cell: Cell, way: Call, early: bool, native: bool) -> None:
    """The calls of the cell are made, nobody else can make them, none of them too early, too late or twice; each side gets what the cell
    says, stake and bond go where it says; the job ends in this way, and after that everything is refused."""
    story = story_of(cell)
    arbiter = ARBITER.address if cell.ending in RULED else ZERO_ADDRESS
    kind: type[Stage] = PromptStage if cell.kind is Kind.PROMPT else Stage
    stage = kind(cell.policy, DEPOSIT, native, arbiter)
    play = Play(stage, cell, story)
    calls = [call for call in cell.host_calls if call is not Call.REDEEM or story.signed or story.late]
    for call in calls:
        if call in (Call.CLAIM, Call.COMPLETE):
            play.call(call)
    if way in ON_THE_BOARD:
        play.close(way)
        play.prompt.the_board_is_done(refunded=True)
        return
    before_collecting(stage, cell, story)
    collect(play, way, early)
    check_calls(stage, cell, way, calls)
    stage.check_payout(pay_of(cell, story, stage), cell.bond is Bond.TO_HOST, cell.slashed)
    stage.everything_is_refused()


def before_collecting(stage: Stage, cell: Cell, story: Story) -> None:
    """What makes this ending what it is."""
    match cell.ending:
        case Ending.CLOSE_REQUESTED:
            assert stage.request_close() is None
        case Ending.EXPIRED:
            stage.until_time(stage.terms.expires_at)
            assert stage.finalize() == "TooEarly"
        case Ending.PROOF_INVALID:
            assert stage.commit(story.served) is None
            stage.until_block(stage.committed_at + 3)
            assert stage.submit(valid=False) == "ProofInvalid"
    if cell.host_gets is Pay.NOTHING and cell.policy is ProofPolicy.REQUIRED and story.signed:
        assert stage.redeem(story.signed) == stage.close_by_host(story.signed) == "ProofMissing"


def collect(play: Play, way: Call, early: bool) -> None:
    """What is left of the host's calls, and the close: last, or `early`, as soon as the claim is made."""
    stage, closed = play.stage, False
    for call in play.cell.host_calls:
        if call in (Call.CLAIM, Call.COMPLETE):
            continue
        if call is Call.CLAIM_PROVEN and early:
            others, play.others = play.others, []
            play.call(call)
            play.close(way)
            closed, play.others = True, others
            play.after()
            continue
        play.call(call)
    assert play.others == []
    assert (stage.state.stage is ClaimStage.LOST) is play.cell.slashed
    if not closed:
        play.close(way)


def check_calls(stage: Stage, cell: Cell, way: Call, calls: list[Call]) -> None:
    """What went through is what the cell says, in its order."""
    besides = {way, Call.REQUEST_CLOSE}
    made = [(call, by) for call, by in stage.made if call not in besides]
    if cell.ending is Ending.PROOF_INVALID:
        made.remove((Call.COMMIT_PROOF, HOST.address))
    assert [call for call, by in made if by == HOST.address] == calls
    assert [call for call, by in made if by != HOST.address] == list(cell.other_calls)
    assert [call for call, _ in stage.made].count(way) == 1
