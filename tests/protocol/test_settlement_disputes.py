"""Claims and their disputes as a pure function: every stage with every call, every silence, and where each unit of money ends.

`tests/contracts` holds the same function against the real contract.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import msgspec
import pytest

from fabstir.domain.ids import ZERO_ADDRESS
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import ClaimStage, JobState
from fabstir.protocol.settlement import (
    AnswerDispute,
    Call,
    ClaimProven,
    CloseByHost,
    CloseCooperative,
    CommitProof,
    Contradict,
    Dispute,
    MarketState,
    RequestClose,
    Reverted,
    Rule,
    SettleClaim,
    TopUp,
    apply,
)
from fabstir.protocol.signing import job_id
from tests.protocol.moves import (
    ARBITER,
    BLOCK,
    COMPENSATION,
    HOST,
    NOW,
    RENTER,
    ROOT,
    RULED,
    SLASH,
    STAKE,
    STRANGER,
    TERMS,
    TOKEN,
    TREASURY,
    after,
    claimed,
    job_of,
    market,
    opened,
    prove,
    proven,
    redeem,
    refused,
)

WINDOW: Final = TERMS.challenge
JOB: Final = job_id(RULED)
BOND: Final = RULED.bond
CLAIM, DISPUTE, ANSWER = ClaimProven(HOST, JOB), Dispute(RENTER, JOB), AnswerDispute(HOST, JOB)
FOR_HOST, FOR_RENTER, SETTLE = Rule(ARBITER, JOB, True), Rule(ARBITER, JOB, False), SettleClaim(JOB)
CONTRADICT: Final = Contradict(JOB, Tokens(163), HOST)

STAGES: Final[dict[ClaimStage, MarketState]] = {
    ClaimStage.NONE: after(proven(200, RULED), redeem(100, RULED)),
    ClaimStage.CLAIMED: claimed(RULED),
    ClaimStage.DISPUTED: after(claimed(RULED), DISPUTE),
    ClaimStage.ANSWERED: after(claimed(RULED), DISPUTE, ANSWER),
    ClaimStage.LOST: after(claimed(RULED), CONTRADICT),
}
"""100 tokens signed and paid, 200 proven, 64 of them claimed; each token is one unit."""


def stage_of(state: MarketState) -> ClaimStage:
    return job_of(state).stage


def got(state: MarketState) -> dict[str, int]:
    """What everybody has beyond the 100 that the voucher paid (95 to the host, 5 of fee)."""
    return {
        "host": state.earnings[HOST, TOKEN] - 95,
        "fee": state.earnings[TREASURY, TOKEN] - 5,
        "host bond": state.repaid.get((HOST, TOKEN), 0),
        "renter": state.repaid.get((RENTER, TOKEN), 0),
        "stake": state.stakes[HOST] - STAKE,
        "compensation": state.compensated.get(RENTER, 0),
    }


def outcome(**changes: int) -> dict[str, int]:
    nothing = dict.fromkeys(("host", "fee", "host bond", "renter", "stake", "compensation"), 0)
    return nothing | {name.replace("_", " "): amount for name, amount in changes.items()}


PAID: Final = {"host": 61, "fee": 3}
"""64 tokens, the fee floored."""
SLASHED: Final = {"stake": -SLASH, "compensation": COMPENSATION}


# -- the stages ----------------------------------------------------------------------------------------------------------------


def test_what_a_claim_holds() -> None:
    """Proven tokens, at most W beyond the signed ones: owed, but nobody's before the window ends; the stake is locked for all."""
    state = claimed()
    assert job_of(state) == JobState(
        deposit=BaseUnits(1_000),
        owed=BaseUnits(164),
        signed=Tokens(100),
        proven=Tokens(200),
        held=BaseUnits(64),
        held_tokens=Tokens(164),
        held_until=NOW + WINDOW,
        stage=ClaimStage.CLAIMED,
    )
    assert (got(state), state.locked[HOST]) == (outcome(), NOW + 4 * WINDOW)


def test_a_later_claim_never_shortens_the_lock() -> None:
    """The stake stands behind every claim of the host, the longest counts."""
    locked = msgspec.structs.replace(proven(200), locked=MappingProxyType({HOST: NOW + 9 * WINDOW}))
    assert after(locked, ClaimProven(HOST, job_id(TERMS))).locked[HOST] == NOW + 9 * WINDOW


def test_who_claims_and_when() -> None:
    """The host, for more than is owed, with its stake there, and with nothing left to prove."""
    job = job_id(TERMS)
    assert refused(proven(200), ClaimProven(RENTER, job)) == "NotParty"
    assert refused(opened(), ClaimProven(HOST, job)) == "NothingToClaim"
    assert refused(after(proven(100), redeem(100, TERMS)), ClaimProven(HOST, job)) == "NothingToClaim"
    committed = after(proven(200), CommitProof(HOST, job, Tokens(300), ROOT))
    assert refused(committed, ClaimProven(HOST, job)) == "ProofPending"
    assert refused(proven(200, stake=SLASH), ClaimProven(HOST, job)) is None
    assert refused(proven(200, stake=SLASH - 1), ClaimProven(HOST, job)) == "StakeTooLow"
    free = msgspec.structs.replace(proven(200, stake=0), slash=0)
    assert refused(free, ClaimProven(HOST, job)) is None


TABLE: Final[tuple[tuple[Call, tuple[str | None, ...]], ...]] = (
    #               none          claimed         disputed        answered        lost
    (CLAIM, (None, "ClaimPending", "ClaimPending", "ClaimPending", "ClaimPending")),
    (DISPUTE, ("WrongStage", None, "WrongStage", "WrongStage", "WrongStage")),
    (CONTRADICT, ("WrongStage", None, None, None, "WrongStage")),
    (ANSWER, ("WrongStage", "WrongStage", None, "WrongStage", "WrongStage")),
    (FOR_HOST, ("WrongStage", "WrongStage", "WrongStage", None, "WrongStage")),
    (SETTLE, ("WrongStage", "StageRuns", "StageRuns", "StageRuns", "WrongStage")),
    (CommitProof(HOST, JOB, Tokens(201), ROOT), (None, "ClaimPending", "ClaimPending", "ClaimPending", None)),
    (redeem(150, RULED), (None, None, None, None, None)),
    (TopUp(JOB, BaseUnits(1)), (None, None, None, None, None)),
    (CloseByHost(HOST, JOB), (None, None, None, None, None)),
    (RequestClose(RENTER, JOB), (None, None, None, None, None)),
)


@pytest.mark.parametrize(("call", "outcomes"), TABLE, ids=[type(call).__name__ for call, _ in TABLE])
def test_every_call_in_every_stage(call: Call, outcomes: tuple[str | None, ...]) -> None:
    """Allowed, or refused by name; a claim holds up neither vouchers nor the end of the job."""
    assert tuple(refused(state, call) for state in STAGES.values()) == outcomes


@pytest.mark.parametrize("call", [DISPUTE, CONTRADICT, ANSWER, FOR_HOST, SETTLE], ids=lambda call: type(call).__name__)
def test_a_job_that_was_never_opened_has_no_claim(call: Call) -> None:
    """Refused, not a failure of the model."""
    assert refused(market(), call) == "WrongStage"


@pytest.mark.parametrize(
    ("stage", "call", "too_late"),
    [
        (ClaimStage.CLAIMED, DISPUTE, "TooLate"),
        (ClaimStage.DISPUTED, ANSWER, "TooLate"),
        (ClaimStage.ANSWERED, FOR_RENTER, "TooLate"),
        (ClaimStage.CLAIMED, CONTRADICT, None),
        (ClaimStage.DISPUTED, CONTRADICT, None),
        (ClaimStage.ANSWERED, CONTRADICT, None),
    ],
)
def test_a_stage_lasts_one_window(stage: ClaimStage, call: Call, too_late: str | None) -> None:
    """To the second; then only its silence counts, or the host's own word against itself."""
    state = STAGES[stage]
    assert refused(state, call, now=NOW + WINDOW - 1) is None
    assert refused(state, call, now=NOW + WINDOW) == too_late
    assert refused(state, SETTLE, now=NOW + WINDOW - 1) == "StageRuns"
    assert refused(state, SETTLE, now=NOW + WINDOW) is None


def test_each_step_starts_the_next_window() -> None:
    """Acting in the last second takes nothing from the other side's time."""
    state = claimed(RULED)
    calls: tuple[Call, ...] = (DISPUTE, ANSWER)
    for step, call in enumerate(calls, 1):
        now = NOW + step * (WINDOW - 1)
        state = after(state, call, now=now)
        assert job_of(state).held_until == now + WINDOW
    assert refused(state, FOR_RENTER, now=NOW + 2 * (WINDOW - 1) + WINDOW - 1) is None
    assert state.locked[HOST] > NOW + 3 * (WINDOW - 1)  # the stake is there to the last


@pytest.mark.parametrize(
    ("stage", "call", "error"),
    [
        (ClaimStage.CLAIMED, Dispute(HOST, JOB), "NotParty"),
        (ClaimStage.CLAIMED, Dispute(STRANGER, JOB), "NotParty"),
        (ClaimStage.DISPUTED, AnswerDispute(RENTER, JOB), "NotParty"),
        (ClaimStage.DISPUTED, AnswerDispute(HOST, JOB, "OpeningMismatch"), "OpeningMismatch"),
        (ClaimStage.ANSWERED, Rule(RENTER, JOB, False), "NotParty"),
        (ClaimStage.ANSWERED, Rule(HOST, JOB, True), "NotParty"),
        (ClaimStage.CLAIMED, Contradict(JOB, Tokens(164), HOST), "NoContradiction"),
        (ClaimStage.CLAIMED, Contradict(JOB, Tokens(163), RENTER), "BadSignature"),
        (ClaimStage.CLAIMED, Contradict(JOB, Tokens(0), HOST), None),
    ],
)
def test_who_may(stage: ClaimStage, call: Call, error: str | None) -> None:
    """The one whose turn it is; a contradiction anyone, where it is one."""
    assert refused(STAGES[stage], call) == error


# -- where the money ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "call", "expected"),
    [
        (ClaimStage.CLAIMED, SETTLE, outcome(**PAID)),
        (ClaimStage.DISPUTED, SETTLE, outcome(renter=BOND, **SLASHED)),
        (ClaimStage.ANSWERED, SETTLE, outcome(renter=BOND, **PAID)),
        (ClaimStage.ANSWERED, FOR_HOST, outcome(host_bond=BOND, **PAID)),
        (ClaimStage.ANSWERED, FOR_RENTER, outcome(renter=BOND, **SLASHED)),
        (ClaimStage.CLAIMED, CONTRADICT, outcome(**SLASHED)),
        (ClaimStage.DISPUTED, CONTRADICT, outcome(renter=BOND, **SLASHED)),
        (ClaimStage.ANSWERED, CONTRADICT, outcome(renter=BOND, **SLASHED)),
    ],
)
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed meanwhile"])
def test_how_a_claim_ends(stage: ClaimStage, call: Call, expected: dict[str, int], closed: bool) -> None:
    """Paid or lost: the bond goes with it, or back; what is lost is the job's again, or the renter's where the job is closed."""
    state, won = STAGES[stage], expected["host"] > 0
    if closed:
        state = after(state, CloseByHost(HOST, JOB))
        expected = expected | {"renter": expected["renter"] + 1_000 - (164 if won else 100)}
        assert state.repaid[RENTER, TOKEN] == 1_000 - 164
    state = after(state, call, now=NOW + WINDOW - (call is not SETTLE))
    assert got(state) == expected
    job = job_of(state)
    assert (job.owed, job.held, job.held_tokens, job.held_until) == (164 if won else 100, 0, 0, 0)
    assert job.stage is (ClaimStage.NONE if won else ClaimStage.LOST)
    if closed:
        assert state.held[TOKEN] == sum(state.earnings.values())  # nothing is left behind


def test_without_an_arbiter_the_answer_decides() -> None:
    """For the host, with the bond; and nobody rules."""
    state = after(claimed(TERMS), Dispute(RENTER, job_id(TERMS)), AnswerDispute(HOST, job_id(TERMS)))
    assert (got(state), stage_of(state)) == (outcome(host_bond=BOND, **PAID), ClaimStage.NONE)
    assert refused(after(claimed(TERMS), Dispute(RENTER, job_id(TERMS))), Rule(ZERO_ADDRESS, job_id(TERMS), True)) == (
        "WrongStage"
    )


def test_an_opening_that_fails_leaves_the_dispute_as_it_was() -> None:
    """The host may try again within its window."""
    state = STAGES[ClaimStage.DISPUTED]
    with pytest.raises(Reverted, match="OpeningMalformed"):
        apply(state, AnswerDispute(HOST, JOB, "OpeningMalformed"), NOW, BLOCK)
    assert stage_of(after(state, ANSWER, now=NOW + WINDOW - 1)) is ClaimStage.ANSWERED


# -- vouchers and agreements ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "held", "paid", "owed"), [(101, 63, 1, 164), (120, 44, 20, 164), (164, 0, 64, 164), (200, 0, 100, 200)]
)
@pytest.mark.parametrize("stage", [ClaimStage.CLAIMED, ClaimStage.DISPUTED, ClaimStage.ANSWERED])
def test_a_voucher_takes_over(stage: ClaimStage, tokens: int, held: int, paid: int, owed: int) -> None:
    """What the renter signs is paid at once, out of the claim; signed for all of it, the claim is over and the host was right."""
    state = after(STAGES[stage], redeem(tokens, RULED))
    job, bond = job_of(state), 0 if held or stage is ClaimStage.CLAIMED else BOND
    fee = paid // 20
    assert got(state) == outcome(host=paid - fee, fee=fee, host_bond=bond)
    assert (job.owed, job.held, job.signed) == (owed, held, tokens)
    assert job.stage is (stage if held else ClaimStage.NONE)
    assert job.held_tokens == (164 if held else 0)


def test_what_a_voucher_left_is_decided_for_itself() -> None:
    """Lost: only the rest of the claim; won: only the rest is paid, nothing twice."""
    state = after(STAGES[ClaimStage.DISPUTED], redeem(120, RULED))
    lost, won = after(state, SETTLE, now=NOW + WINDOW), after(state, ANSWER, FOR_HOST)
    assert got(lost) == outcome(host=19, fee=1, renter=BOND, **SLASHED)
    assert job_of(lost).owed == 120
    assert got(won) == outcome(host=19 + 42, fee=1 + 2, host_bond=BOND)
    assert job_of(won).owed == 164


def test_after_a_claim_that_was_paid_comes_the_next() -> None:
    """Of what is proven beyond it, W beyond the best voucher."""
    state = after(claimed(RULED), SETTLE, now=NOW + WINDOW)
    assert refused(state, CLAIM) == "NothingToClaim"
    state = after(state, redeem(164, RULED), CLAIM)
    assert (job_of(state).owed, job_of(state).held) == (200, 36)


def test_a_host_that_lost_a_claim_has_no_other_in_this_job() -> None:
    """Vouchers are paid all the same, and cost it nothing."""
    state = STAGES[ClaimStage.LOST]
    assert refused(prove(state, RULED, 300), CLAIM) == "ClaimPending"
    state = after(state, redeem(200, RULED))
    assert (job_of(state).owed, stage_of(state)) == (200, ClaimStage.LOST)
    assert state.stakes[HOST] == STAKE - SLASH


@pytest.mark.parametrize(
    ("stake", "slashed", "compensated"), [(25, 10, 6), (10, 10, 6), (9, 9, 6), (6, 6, 6), (5, 5, 5), (0, 0, 0)]
)
def test_no_more_is_slashed_than_there_is(stake: int, slashed: int, compensated: int) -> None:
    """Other jobs may have cost the host its stake since it claimed; the renter comes first."""
    state = msgspec.structs.replace(claimed(RULED), stakes=market(stake).stakes)
    state = after(state, CONTRADICT)
    assert (state.stakes[HOST], state.compensated[RENTER]) == (stake - slashed, compensated)


@pytest.mark.parametrize("stage", [ClaimStage.CLAIMED, ClaimStage.DISPUTED, ClaimStage.ANSWERED])
@pytest.mark.parametrize(("tokens", "error"), [(99, "StaleVoucher"), (100, None), (130, None), (200, None)])
def test_closing_together_voids_the_claim(stage: ClaimStage, tokens: int, error: str | None) -> None:
    """Any amount that both agree on, from what was credited; the bond goes back, and nobody loses a stake."""
    call = CloseCooperative(RENTER, JOB, BaseUnits(tokens), Tokens(tokens), HOST)
    assert refused(STAGES[stage], call) == error
    if error is None:
        state, bond = after(STAGES[stage], call), 0 if stage is ClaimStage.CLAIMED else BOND
        fee = (tokens - 100) // 20
        assert got(state) == outcome(host=tokens - 100 - fee, fee=fee, renter=1_000 - tokens + bond)
        assert (job_of(state).owed, job_of(state).held, stage_of(state)) == (tokens, 0, ClaimStage.NONE)
        assert refused(state, SETTLE, now=NOW + WINDOW) == "WrongStage"
        assert state.held[TOKEN] == sum(state.earnings.values())
