"""Which jobs a host takes, each rule at its bound, and that the order lets nobody starve."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.ids import Address, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.prompts import PromptId
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.prompt_job import PromptRules
from fabstir.protocol.prompt_rules import (
    MAX_DOUBLINGS,
    ModelOffer,
    Reason,
    fraction,
    latest_start,
    needed_seconds,
    rank,
    refusal,
)
from fabstir.protocol.prompt_signing import prompt_id
from tests.protocol.prompting import RENTER, START, host_address, queue_rules, terms

HOST = host_address(0)
OTHER = Address(b"\x66" * 20)
OFFER = ModelOffer(price=PricePerMTok(1_000_000), tokens_per_second=10.0)
# 100 tokens at 10 a second, 1.25 times, and 20 s around it: 32.5 s


@pytest.mark.parametrize(
    ("rules", "changes", "now", "reason"),
    [
        ({}, {}, START, None),
        ({}, {"model_id": ModelId(b"\x66" * 32)}, START, Reason.MODEL),
        ({}, {"token": OTHER}, START, Reason.MODEL),
        ({"blocked": frozenset({RENTER})}, {}, START, Reason.RENTER),
        ({"blocked": frozenset({OTHER})}, {}, START, None),
        ({"policies": frozenset({ProofPolicy.REQUIRED})}, {}, START, Reason.POLICY),
        ({}, {"arbiter": HOST}, START, Reason.ARBITER),
        ({"arbiters": frozenset({OTHER})}, {}, START, Reason.ARBITER),
        ({"arbiters": frozenset({OTHER})}, {"arbiter": OTHER}, START, None),
        ({"max_challenge": 899}, {}, START, Reason.CHALLENGE),
        ({"max_challenge": 900}, {}, START, None),
        ({}, {"max_tokens": 4097}, START, Reason.TOO_LONG),
        ({}, {"max_tokens": 4096, "execute_seconds": 900}, START, None),
        ({}, {"ceiling": PricePerMTok(999_999)}, START, Reason.PRICE),
        ({}, {"ceiling": PricePerMTok(1_000_000)}, START, None),
        ({"min_value": BaseUnits(101)}, {}, START, Reason.WORTHLESS),
        ({"min_value": BaseUnits(100)}, {}, START, None),
        ({"max_unpaid": BaseUnits(99)}, {}, START, Reason.EXPOSURE),
        ({"max_unpaid": BaseUnits(100)}, {}, START, None),
        ({}, {"execute_seconds": 32}, START, Reason.WINDOW),
        ({}, {"execute_seconds": 33}, START, None),
        ({}, {}, START + 3_567.5, None),
        ({}, {}, START + 3_567.6, Reason.DEADLINE),
    ],
)
def test_each_rule(rules: dict[str, Any], changes: dict[str, Any], now: float, reason: Reason | None) -> None:
    """Refused by its name, and one step inside the bound taken."""
    assert refusal(queue_rules(HOST, **rules), terms(**changes), now) is reason


def test_the_margins_fit_together() -> None:
    """What the queue takes, the planner has the time to claim and to complete."""
    margins = PromptRules()
    assert queue_rules(HOST).overhead >= margins.claim_margin + margins.complete_margin
    assert needed_seconds(queue_rules(HOST), OFFER, terms()) == 32.5
    assert latest_start(queue_rules(HOST), OFFER, terms()) == START + 3_567.5


def test_every_reason_has_a_name_of_its_own() -> None:
    """They are labels of a metric."""
    assert len({reason.value for reason in Reason}) == len(Reason)


def place(seen_at: float = START, offer: ModelOffer = OFFER, **changes: Any) -> float:
    wanted = terms(**changes)
    return rank(queue_rules(HOST, scatter=0.0), offer, prompt_id(wanted), wanted, seen_at)


def test_what_comes_first() -> None:
    """Older, due sooner, better paid for each second of work."""
    assert place(START) < place(START + 1)
    assert place(deadline=START + 600) < place(deadline=START + 601)
    dear = msgspec.structs.replace(OFFER, price=PricePerMTok(2_000_000))
    assert place(offer=dear) < place()
    assert place(START, deadline=START + 600) < place(START + 1, deadline=START + 600), (
        "older, though due at the same time"
    )
    fast = msgspec.structs.replace(OFFER, tokens_per_second=20.0)
    assert place(offer=fast, deadline=START + 90_000) < place(deadline=START + 90_000)
    assert place(deadline=START + 90_000) == place(deadline=START + 180_000), "equally patient"


def test_pay_counts_in_doublings() -> None:
    """From 1023 to 2047 units a second a job moves by the weight of one doubling, and beyond a bound by nothing."""
    at = [
        place(offer=ModelOffer(price=PricePerMTok(price * 10**5), tokens_per_second=10.0), max_tokens=10**6)
        for price in (1023, 2047)
    ]
    assert at[0] - at[1] == pytest.approx(60.0)
    most = [place(offer=ModelOffer(price=PricePerMTok(10**p), tokens_per_second=10.0)) for p in (20, 25)]
    assert most[0] == most[1]


times = st.floats(START, START + 10**6)
anything = st.fixed_dictionaries(
    {
        "deadline": st.integers(START + 100, START + 3 * 10**6),
        "max_tokens": st.integers(1, 4096).map(Tokens),
        "salt": st.binary(min_size=32, max_size=32),
    }
)
offers = st.builds(ModelOffer, price=st.integers(1, 2**88).map(PricePerMTok), tokens_per_second=st.floats(0.1, 10_000))


@given(one=anything, other=anything, offer=offers, another=offers, seen=times, gap=st.floats(0, 10_000))
def test_nobody_starves(
    one: dict[str, Any], other: dict[str, Any], offer: ModelOffer, another: ModelOffer, seen: float, gap: float
) -> None:
    """Whatever two jobs are like: what arrives later by the bound comes later, reserved or not. So a job waits at most for those
    that arrived within the bound after it."""
    rules = queue_rules(HOST)
    later = seen + rules.overtaking_bound + gap
    earlier_terms, later_terms = terms(**one), terms(**other)
    needed = latest_start(rules, another, later_terms) - later
    if needed < 0:  # then it is not queued at all
        return
    first = rank(rules, offer, prompt_id(earlier_terms), earlier_terms, seen)
    second = rank(rules, another, prompt_id(later_terms), later_terms, later) - rules.reserved_head_start
    assert first <= second + 1e-3
    assert rules.overtaking_bound == 3_600 + 60 + 60 * MAX_DOUBLINGS + 1_800


def test_equal_hosts_want_different_jobs() -> None:
    """Among twenty equal jobs the first of ten equal hosts are not one and the same."""
    jobs = [terms(n) for n in range(20)]
    favourites = set()
    for number in range(10):
        rules = queue_rules(host_address(number))
        favourites.add(min(jobs, key=lambda job: rank(rules, OFFER, prompt_id(job), job, START)).salt)
    assert len(favourites) >= 5


@given(seed=st.binary(max_size=20), prompt=st.binary(min_size=32, max_size=32), attempt=st.integers(0, 2**32 - 1))
def test_the_jitter_is_a_fraction(seed: bytes, prompt: bytes, attempt: int) -> None:
    """In [0, 1), the same each time."""
    value = fraction(seed, PromptId(prompt), attempt)
    assert 0 <= value < 1 and value == fraction(seed, PromptId(prompt), attempt)


def test_the_jitter_is_spread() -> None:
    """A thousand of them fill every tenth about evenly."""
    values = [fraction(HOST, prompt_id(terms(n))) for n in range(1_000)]
    assert all(60 < sum(low <= 10 * value < low + 1 for value in values) < 140 for low in range(10))
