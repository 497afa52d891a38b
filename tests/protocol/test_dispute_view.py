"""Claims as those see them who act by hand: what is folded from events, whom it names, what is refused."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fabstir.domain.errors import ChainFault, FabstirError
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, ModelId, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ClaimStage, JobState, ProofPolicy, Terms
from fabstir.protocol.dispute_view import Act, Claimed, Opened, concerning, find, fold, parties, refusal, row_of, rows
from fabstir.protocol.signing import job_id, keccak
from tests.chain.support import HOST, OTHER, RENTER, SESSION_KEY

UNTIL = 5_000
STRANGER = Address(b"\x77" * 20)
RULED = Terms(
    renter=RENTER.address,
    signer=SESSION_KEY.address,
    host=HOST.address,
    token=ZERO_ADDRESS,
    arbiter=OTHER.address,
    price=PricePerMTok(1),
    expires_at=1_000,
    challenge=900,
    exposure=Tokens(64),
    policy=ProofPolicy.REQUIRED,
    model_id=ModelId(bytes(32)),
    salt=keccak(b"ruled"),
)
ALONE = replace(RULED, arbiter=ZERO_ADDRESS, salt=keccak(b"alone"))


def opened(terms: Terms) -> Opened:
    return Opened(job_id(terms), terms)


def claimed(terms: Terms) -> Claimed:
    return Claimed(job_id(terms))


def state(stage: ClaimStage, until: int = UNTIL) -> JobState:
    return JobState(deposit=BaseUnits(9), held=BaseUnits(4), held_tokens=Tokens(64), held_until=until, stage=stage)


def test_events_fold_into_jobs_with_a_claim() -> None:
    """Each once, in the order of its first event; a job that nobody claimed in is not among them, one opened before is counted."""
    elsewhere = Claimed(JobId(bytes(32)))
    told = fold([opened(ALONE), opened(RULED), claimed(RULED), claimed(ALONE), claimed(RULED), elsewhere])
    assert told.claimed == (job_id(RULED), job_id(ALONE), elsewhere.job)
    assert told.without_terms == 1
    assert concerning(told, OTHER.address) == (job_id(RULED),)
    assert concerning(told, HOST.address) == (job_id(RULED), job_id(ALONE))
    assert concerning(told, STRANGER) == ()
    assert concerning(fold([opened(RULED)]), OTHER.address) == ()


def test_terms_that_are_not_the_jobs_are_refused() -> None:
    """An endpoint that names another arbiter or another bond cannot have anybody act on it."""
    with pytest.raises(ChainFault, match="chain_mismatch"):
        fold([Opened(job_id(RULED), replace(RULED, bond=BaseUnits(1)))])


def test_nobody_is_the_arbiter_of_terms_without_one() -> None:
    """Not even the zero address."""
    assert parties(RULED, RENTER.address) == ("renter",)
    assert parties(replace(RULED, arbiter=RENTER.address), RENTER.address) == ("renter", "arbiter")
    assert parties(ALONE, ZERO_ADDRESS) == ()


def test_only_undecided_claims_are_rows_and_the_first_to_be_over_comes_first() -> None:
    """What the market holds decides, not which events there were."""
    told = fold([opened(RULED), claimed(RULED), opened(ALONE), claimed(ALONE)])
    both = {job_id(RULED): state(ClaimStage.ANSWERED), job_id(ALONE): state(ClaimStage.CLAIMED, UNTIL - 1)}
    assert [row.terms for row in rows(told, both)] == [ALONE, RULED]
    for decided in (ClaimStage.NONE, ClaimStage.LOST):
        assert rows(told, {job_id(RULED): state(decided)}) == ()


@pytest.mark.parametrize(
    ("stage", "actor"),
    [(ClaimStage.CLAIMED, "renter"), (ClaimStage.DISPUTED, "host"), (ClaimStage.ANSWERED, "arbiter")],
)
def test_who_is_to_act(stage: ClaimStage, actor: str) -> None:
    """Until the second at which the stage is over; from then on anyone."""
    row = row_of(RULED, state(stage))
    assert row is not None
    assert (row.awaits(UNTIL - 1), row.awaits(UNTIL)) == (actor, "anyone")


@pytest.mark.parametrize(
    ("act", "stage", "caller", "now", "code"),
    [
        (Act.RAISE, ClaimStage.CLAIMED, RENTER.address, UNTIL - 1, None),
        (Act.RAISE, ClaimStage.CLAIMED, RENTER.address, UNTIL, "dispute_over"),
        (Act.RAISE, ClaimStage.CLAIMED, HOST.address, UNTIL - 1, "dispute_foreign"),
        (Act.RAISE, ClaimStage.DISPUTED, RENTER.address, UNTIL - 1, "dispute_stage"),
        (Act.RULE, ClaimStage.ANSWERED, OTHER.address, UNTIL - 1, None),
        (Act.RULE, ClaimStage.ANSWERED, OTHER.address, UNTIL, "dispute_over"),
        (Act.RULE, ClaimStage.ANSWERED, RENTER.address, UNTIL - 1, "dispute_foreign"),
        (Act.RULE, ClaimStage.DISPUTED, OTHER.address, UNTIL - 1, "dispute_stage"),
        (Act.RULE, ClaimStage.LOST, OTHER.address, UNTIL - 1, "dispute_stage"),
        (Act.SETTLE, ClaimStage.CLAIMED, STRANGER, UNTIL, None),
        (Act.SETTLE, ClaimStage.ANSWERED, STRANGER, UNTIL, None),
        (Act.SETTLE, ClaimStage.DISPUTED, STRANGER, UNTIL - 1, "dispute_runs"),
        (Act.SETTLE, ClaimStage.NONE, STRANGER, UNTIL, "dispute_stage"),
    ],
)
def test_what_the_market_would_refuse_is_refused_before(
    act: Act, stage: ClaimStage, caller: Address, now: int, code: str | None
) -> None:
    """By name, and nothing else is."""
    refused = refusal(act, row_of(RULED, state(stage)), caller, now)
    assert (refused.code if refused else None) == code


def test_the_beginning_of_an_id_is_enough_where_it_is_one_jobs() -> None:
    """In either case of letters; without 0x it is no id."""
    told, whole = fold([opened(RULED), opened(ALONE)]), to_hex(job_id(RULED))
    assert find(told, whole[:12].upper().replace("X", "x")) == find(told, whole) == job_id(RULED)
    for text, code in (("0x", "request_invalid"), ("", "dispute_unknown"), ("0x" + "0" * 64, "dispute_unknown")):
        with pytest.raises(FabstirError) as refused:
            find(told, text)
        assert refused.value.code == code
    assert Hash32(job_id(RULED)) != Hash32(job_id(ALONE))
