"""Panels of verifiers: which ones there can be, who acts for one, and what is refused before a vote is sent."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fabstir.domain.errors import PeerFault
from fabstir.domain.ids import ZERO_ADDRESS, Address
from fabstir.domain.terms import ClaimStage
from fabstir.protocol.dispute_view import Act, Row, concerning, fold, parties, refusal, row_of
from fabstir.protocol.panel import MAX_MEMBERS, Panel, Vote, Votes, panel_members
from fabstir.protocol.signing import job_id
from tests.protocol.test_dispute_view import RULED, STRANGER, UNTIL, claimed, opened, state

MEMBERS = tuple(Address(bytes([number]) * 20) for number in range(1, 4))
PANEL = Panel(address=Address(b"\x99" * 20), members=MEMBERS, threshold=2)
TERMS = replace(RULED, arbiter=PANEL.address)


def many(count: int) -> list[Address]:
    return [Address(number.to_bytes(20, "big")) for number in range(1, count + 1)]


def row(stage: ClaimStage = ClaimStage.ANSWERED, *, voted: bool = False) -> Row:
    found = row_of(TERMS, state(stage))
    assert found is not None
    return replace(found, votes=Votes(for_host=0, for_renter=int(voted), voted=voted))


def test_the_order_of_names_makes_no_other_panel() -> None:
    """Whoever names the same members finds the same panel."""
    assert panel_members(reversed(MEMBERS), 2) == panel_members(MEMBERS, 2) == MEMBERS


@pytest.mark.parametrize("count", [1, 2, 3, 64])
def test_every_majority_is_allowed_and_nothing_else(count: int) -> None:
    """As the contract has it: more than half, at most all."""
    for threshold in range(-1, count + 2):
        if count < 2 * threshold <= 2 * count:
            assert panel_members(many(count), threshold)
        else:
            with pytest.raises(PeerFault, match="request_invalid"):
                panel_members(many(count), threshold)


@pytest.mark.parametrize(
    "named", [[], many(MAX_MEMBERS + 1), [*MEMBERS, MEMBERS[0]], [*MEMBERS, ZERO_ADDRESS]], ids=str
)
def test_members_that_the_contract_would_refuse(named: list[Address]) -> None:
    """Nobody, too many, one twice, the zero address."""
    with pytest.raises(PeerFault, match="request_invalid"):
        panel_members(named, len(named))


def test_a_member_is_a_verifier_where_the_terms_name_its_panel() -> None:
    """Not elsewhere, and nobody else is one; a claim that names the panel concerns whoever acts for it."""
    assert parties(TERMS, MEMBERS[0], PANEL) == ("verifier",)
    assert parties(TERMS, MEMBERS[0]) == parties(TERMS, STRANGER, PANEL) == parties(RULED, MEMBERS[0], PANEL) == ()
    assert parties(replace(TERMS, host=MEMBERS[0]), MEMBERS[0], PANEL) == ("host", "verifier")
    told = fold([opened(TERMS), claimed(TERMS), opened(RULED), claimed(RULED)])
    assert concerning(told, MEMBERS[0], PANEL) == (job_id(TERMS),)
    assert concerning(told, MEMBERS[0]) == ()


@pytest.mark.parametrize(
    ("claim", "caller", "now", "code"),
    [
        (row(), MEMBERS[0], UNTIL - 1, None),
        (row(voted=True), MEMBERS[0], UNTIL - 1, "dispute_voted"),
        (row(), STRANGER, UNTIL - 1, "dispute_foreign"),
        (row(), PANEL.address, UNTIL - 1, "dispute_foreign"),
        (row(ClaimStage.DISPUTED), MEMBERS[0], UNTIL - 1, "dispute_stage"),
        (row(), MEMBERS[0], UNTIL, "dispute_over"),
        (None, MEMBERS[0], UNTIL - 1, "dispute_stage"),
    ],
)
def test_what_the_panel_would_refuse_is_refused_before(
    claim: Row | None, caller: Address, now: int, code: str | None
) -> None:
    """By name, and nothing else is."""
    refused = refusal(Act.RULE, claim, caller, now, PANEL)
    assert (refused.code if refused else None) == code


def test_a_member_without_the_setting_has_no_say() -> None:
    """The panel is the arbiter, not each of its members."""
    refused = refusal(Act.RULE, row(), MEMBERS[0], UNTIL - 1)
    assert refused is not None and refused.code == "dispute_foreign"


def test_a_member_may_settle_like_anyone_though_it_has_voted() -> None:
    """A vote is no claim on the end."""
    assert refusal(Act.SETTLE, row(voted=True), MEMBERS[0], UNTIL, PANEL) is None


def test_the_vote_that_reaches_the_threshold_rules() -> None:
    """Nothing is missing then."""
    assert [Vote(votes=votes, threshold=2).missing for votes in (1, 2)] == [1, 0]
