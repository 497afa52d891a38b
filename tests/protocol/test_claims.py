"""What a host can still collect: each kind, each urgency, and that what is shown is what the settler then collects."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabstir.domain.ids import ZERO_ADDRESS
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy
from fabstir.protocol.claims import SOON_SECONDS, Claim, Kind, Urgency, claims_of
from fabstir.protocol.settlement import Finalize, RequestClose, finalizable_at
from tests.protocol.settling import ARBITER, RULES, SLASH, STAKE, TREASURY, Settling

SIGNED, SERVED = 100, 140
FALLBACK, REQUIRED = ProofPolicy.FALLBACK, ProofPolicy.REQUIRED


def rows_of(world: Settling, **changes: Any) -> tuple[Claim, ...]:
    """As the host shows them, of the job as it is or with `changes`."""
    job = msgspec.structs.replace(world.job, **changes)
    return claims_of(world.ledger, job, world.now, tail_above=world.rules.claim_tail_above, staked=world.stake >= SLASH)


def shown(world: Settling, **changes: Any) -> dict[Kind, int]:
    return {row.kind: row.amount for row in rows_of(world, **changes)}


HELD = {"owed": BaseUnits(SERVED), "held": BaseUnits(40), "signed": Tokens(SIGNED), "proven": Tokens(SERVED)}


@pytest.mark.parametrize(
    ("policy", "state", "expected"),
    [
        (FALLBACK, {}, {Kind.REDEEM: 100, Kind.CLAIM: 40}),
        (REQUIRED, {}, {Kind.PROVE: 100, Kind.CLAIM: 40}),
        (REQUIRED, {"proven": 99}, {Kind.PROVE: 100, Kind.CLAIM: 40}),
        (REQUIRED, {"proven": 100}, {Kind.REDEEM: 100, Kind.CLAIM: 40}),
        (FALLBACK, {"owed": 60, "signed": 60}, {Kind.REDEEM: 40, Kind.CLAIM: 40}),
        (FALLBACK, {"owed": 100, "signed": 100}, {Kind.CLAIM: 40}),
        (FALLBACK, {"owed": 100, "signed": 100, "closed": True}, {}),
        (FALLBACK, {"closed": True}, {}),
        (FALLBACK, {"deposit": 0}, {}),
        (FALLBACK, {"deposit": 120}, {Kind.REDEEM: 100, Kind.CLAIM: 20}),
        (FALLBACK, {"deposit": 90}, {Kind.REDEEM: 90}),
        (FALLBACK, {"owed": 100, "signed": 100, "stage": ClaimStage.LOST}, {}),
        (FALLBACK, {**HELD, "stage": ClaimStage.CLAIMED, "held_until": 9}, {Kind.HELD: 40}),
        (FALLBACK, {**HELD, "stage": ClaimStage.CLAIMED, "held_until": 9, "closed": True}, {Kind.HELD: 40}),
        (FALLBACK, {**HELD, "stage": ClaimStage.CLAIMED, "held_until": 0}, {Kind.SETTLE: 40}),
        (FALLBACK, {**HELD, "stage": ClaimStage.ANSWERED, "held_until": 9}, {Kind.HELD: 40}),
        (FALLBACK, {**HELD, "stage": ClaimStage.ANSWERED, "held_until": 0, "closed": True}, {Kind.SETTLE: 40}),
        (FALLBACK, {**HELD, "stage": ClaimStage.DISPUTED, "held_until": 9}, {Kind.ANSWER: 40}),
        (FALLBACK, {**HELD, "stage": ClaimStage.DISPUTED, "held_until": 0}, {}),
        (FALLBACK, {**HELD, "stage": ClaimStage.CLAIMED, "held_until": 9, "signed": 90, "owed": 130}, {Kind.REDEEM: 10, Kind.HELD: 30}),
        (FALLBACK, {**HELD, "stage": ClaimStage.DISPUTED, "held_until": 9, "signed": 60, "owed": 100}, {Kind.REDEEM: 40, Kind.ANSWER: 0}),
        (FALLBACK, {**HELD, "stage": ClaimStage.CLAIMED, "held_until": 9, "signed": 60, "owed": 100}, {Kind.REDEEM: 40}),
    ],
)  # fmt: skip
def test_each_kind(policy: ProofPolicy, state: dict[str, Any], expected: dict[Kind, int]) -> None:
    """A price of one unit a token, 100 signed, 140 served; `held_until` from now on. A row stands for money that is in no other."""
    world = Settling(policy).served_and_signed(SIGNED, SERVED - SIGNED)
    if "held_until" in state:
        state = state | {"held_until": world.now + state["held_until"]}
    assert shown(world, **state) == expected


def test_a_tail_is_shown_where_the_host_claims_it() -> None:
    """Not where the end was signed, no stake covers it, or it is worth less than its gas."""
    world = Settling(FALLBACK).served_and_signed(SIGNED, 4)
    assert shown(world) == {Kind.REDEEM: 100}
    world.serve(1)
    assert shown(world) == {Kind.REDEEM: 100, Kind.CLAIM: 5}
    assert shown(Settling(FALLBACK, stake=SLASH - 1).served_and_signed(SIGNED, 40)) == {Kind.REDEEM: 100}
    world.finish(released=True)
    assert shown(world) == {Kind.REDEEM: 100}


@pytest.mark.parametrize("challenge", [900, 7_200, 86_400])
@pytest.mark.parametrize("by", ["expiry", "request"])
def test_how_near_the_deadline_is(challenge: int, by: str) -> None:
    """Expiry and challenge, or a close that was asked for: within the hour, or half a window where that is shorter, it is soon."""
    world = Settling(FALLBACK)
    world.ledger.terms = msgspec.structs.replace(world.terms, challenge=challenge)  # type: ignore[misc]
    world.serve(40)
    world.sign()
    deadline = world.terms.expires_at + challenge if by == "expiry" else world.now + 50_000
    closing = {} if by == "expiry" else {"closing_at": deadline}
    soon = min(SOON_SECONDS, challenge // 2)
    expected = [
        (soon + 1, Urgency.LATER),
        (soon, Urgency.SOON),
        (1, Urgency.SOON),
        (0, Urgency.GONE),
        (-9, Urgency.GONE),
    ]
    for left, urgency in expected:
        world.now = deadline - left
        (row,) = rows_of(world, **closing)
        assert (row.kind, row.expires_at, row.urgency) == (Kind.REDEEM, deadline, urgency)
        assert row.needs_care is row.expires_soon is (urgency is not Urgency.LATER)


@pytest.mark.parametrize(
    ("stage", "left", "kind", "available", "expires", "urgency", "care"),
    [
        (ClaimStage.CLAIMED, 500, Kind.HELD, 500, None, Urgency.LATER, False),
        (ClaimStage.CLAIMED, 1, Kind.HELD, 1, None, Urgency.LATER, False),
        (ClaimStage.CLAIMED, -5, Kind.SETTLE, None, None, Urgency.LATER, False),
        (ClaimStage.DISPUTED, 10_000, Kind.ANSWER, None, 10_000, Urgency.LATER, True),
        (ClaimStage.DISPUTED, 1, Kind.ANSWER, None, 1, Urgency.SOON, True),
    ],
)
def test_a_claim_waits_and_a_dispute_does_not(
    stage: ClaimStage, left: int, kind: Kind, available: int | None, expires: int | None, urgency: Urgency, care: bool
) -> None:
    """Nobody needs to hurry for what is held; a dispute needs care from its first second."""
    world = Settling(FALLBACK).served_and_signed(SIGNED, 40)
    until = world.now + left
    (row,) = rows_of(world, **HELD, stage=stage, held_until=until, closed=True)
    assert (row.kind, row.urgency, row.needs_care) == (kind, urgency, care)
    assert row.available_at == (world.now + available if available is not None else 0)
    assert row.expires_at == (world.now + expires if expires is not None else 0)


def test_a_row_names_its_job() -> None:
    """Whose, in which coin, from whom."""
    world = Settling(FALLBACK).served_and_signed(10)
    (row,) = rows_of(world)
    assert (row.job, row.token, row.renter) == (world.ledger.job, world.terms.token, world.terms.renter)
    assert claims_of(world.ledger, JobState(), world.now) == ()


# -- what is shown is what is collected ------------------------------------------------------------------------------------


def _session(draw: st.DrawFn, world: Settling) -> None:
    """What renter and host do, with the settler at work beside them."""
    for act in draw(st.lists(st.sampled_from(["serve", "serve", "sign", "resync", "step"]), min_size=2, max_size=8)):
        match act:
            case "serve":
                world.serve(draw(st.integers(1, 70)))
            case "sign":
                world.sign()
            case "resync":
                world.resync(draw(st.integers(1, 20)))
            case "step":
                world.step()
                world.pass_time(3)


@st.composite
def worlds(draw: st.DrawFn) -> Settling:
    """Somewhere in the life of a job: served, signed, partly settled, claimed, closing, disputed."""
    world = Settling(
        draw(st.sampled_from(ProofPolicy)),
        exposure=draw(st.sampled_from([4, 64])),
        deposit=draw(st.sampled_from([30, 150, 100_000])),
        price=draw(st.sampled_from([300_000, 1_000_000, 7_000_000])),
        arbiter=draw(st.sampled_from([ZERO_ADDRESS, ARBITER])),
        stake=draw(st.sampled_from([0, STAKE, STAKE])),
        rules=msgspec.structs.replace(RULES, claim_tail_above=BaseUnits(draw(st.sampled_from([1, 5, 60])))),
    )
    _session(draw, world)
    if draw(st.booleans()):
        world.act(RequestClose(world.terms.renter, world.ledger.job))
    if draw(st.booleans()):
        world.finish(released=draw(st.sampled_from([False, False, False, True])))
    for _ in range(draw(st.sampled_from([0, 3, 6, 30]))):
        if world.job.stage is not ClaimStage.NONE:
            break
        world.step()
        world.pass_time(3)
    for act in draw(st.lists(st.sampled_from(["sign", "dispute", "step"]), max_size=3)):
        match act:
            case "sign":  # late
                world.sign()
            case "dispute":
                world.dispute()
            case "step":
                world.step()
    return world


@settings(max_examples=400)
@given(worlds())
def test_what_is_shown_is_what_the_settler_then_collects(world: Settling) -> None:
    """To the last unit, wherever the job stands: both policies, tails, deposits that end, claims held, disputed and taken over."""
    before = sum(world.money()[:2])
    promised = sum(row.amount for row in rows_of(world))
    world.finish()
    world.settle()
    assert sum(world.money()[:2]) - before == promised
    assert world.job.closed and rows_of(world) == ()


@settings(max_examples=400)
@given(worlds(), st.sampled_from([500, 400_000, 300_000_000]), st.booleans())
def test_nothing_is_shown_that_can_never_be_had(world: Settling, silence: int, closed: bool) -> None:
    """A host that was away: its dispute was not answered, and somebody may have closed the job as soon as anybody could."""
    world.pass_time(0, silence)
    if closed and not world.job.closed and world.now >= finalizable_at(world.terms, world.job):
        world.act(Finalize(TREASURY, world.ledger.job))
    before = sum(world.money()[:2])
    promised = sum(row.amount for row in rows_of(world))
    world.finish()
    world.settle()
    assert sum(world.money()[:2]) - before == promised
