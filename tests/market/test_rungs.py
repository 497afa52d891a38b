"""The ladder of verification as a price: what a host's offer says is what renters pay and what the host admits, to the base unit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.host.table_chain import HOST, INFO, USDC

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import JobState, ProofPolicy, Terms
from fabstir.host.settings import HostSettings
from fabstir.market.choice import Candidate, Order, Ranked, choose
from fabstir.ports.chain import HostEntry
from fabstir.protocol.admission import check
from fabstir.protocol.offer import Offer, WireOffer
from fabstir.protocol.rungs import MAX_SURCHARGE, Rung, RungOffer, dearer, policy_at, rung_of
from fabstir.protocol.signing import job_id

MODEL = ModelId(b"\x0d" * 32)
DEPOSIT = BaseUnits(10**20)
NOW = 1_800_000_000.0

percents = st.integers(0, MAX_SURCHARGE)
hosts = st.builds(
    HostSettings,
    model_id=st.just(MODEL),
    price=st.integers(1, 10**12).map(PricePerMTok),
    price_native=st.integers(0, 10**22).map(PricePerMTok),
    policies=st.sampled_from([(ProofPolicy.REQUIRED,), (ProofPolicy.FALLBACK,), tuple(ProofPolicy)]),
    alternatives=st.booleans(),
    proof_surcharge=percents,
    fingerprints=st.booleans(),
    fingerprint_surcharge=percents,
    attestation_surcharge=st.none() | percents,
)


def offer_of(settings: HostSettings) -> Offer:
    """As a renter reads it."""
    return WireOffer.of(settings.offer(HOST.address, INFO, {MODEL: ("m", 4096)})).offer()


def ranked_for(settings: HostSettings, rung: Rung | None, policy: ProofPolicy, token: Address = USDC) -> Ranked | str:
    """What a renter would pay there, or why it does not go there."""
    offer = offer_of(settings)
    entry = HostEntry(address=HOST.address, url="http://h.example", offers=settings.registered(USDC), active=True)
    order = Order(
        contract=offer.market,
        model_id=MODEL,
        token=token,
        policy=policy_at(rung, policy),
        rung=rung,
        budget=DEPOSIT,
    )
    choice = choose((Candidate(entry=entry, offer=offer),), order, {}, 0.0)
    return choice.ranked[0] if choice.ranked else choice.discarded[0].why


def terms_of(ranked: Ranked) -> Terms:
    return Terms(
        renter=Address(b"\x01" * 20),
        signer=Address(b"\x02" * 20),
        host=ranked.offer.host,
        token=ranked.order.token,
        price=ranked.price,
        bond=ranked.payment.bond_min,
        expires_at=int(NOW) + 86_400,
        challenge=900,
        exposure=Tokens(64),
        policy=ranked.order.policy,
        model_id=MODEL,
        salt=Hash32(bytes(32)),
    )


def admitted(settings: HostSettings, terms: Terms, rung: int | None) -> str:
    """By the offer that the host publishes: `yes`, or the error with its words."""
    offer = settings.offer(HOST.address, INFO, {MODEL: ("m", 4096)})
    try:
        check(terms, job_id(terms), JobState(deposit=DEPOSIT), offer, NOW, None, rung)
    except FabstirError as fault:
        return f"{fault.code} {fault.detail}"
    return "yes"


@given(hosts, st.none() | st.sampled_from(Rung), st.sampled_from(ProofPolicy), st.sampled_from([USDC, ZERO_ADDRESS]))
def test_no_renter_pays_more_than_the_offer_says_and_no_host_accepts_less(
    settings: HostSettings, rung: Rung | None, policy: ProofPolicy, token: Address
) -> None:
    """Whatever prices, surcharges, policies, currency and wish: the ranked price is the offer's for them, at most the registered one; terms
    at it are admitted, and at one base unit less refused. The surcharges are those of policy and rung, rounded up."""
    ranked = ranked_for(settings, rung, policy, token)
    if isinstance(ranked, str):
        served = rung is None or offer_of(settings).serves_rung(rung)
        sold = token == USDC or settings.price_native > 0
        assert not (served and sold and policy_at(rung, policy) in settings.policies), ranked
        return
    base = settings.price if token == USDC else settings.price_native
    percent = settings.proof_surcharge if ranked.order.policy is ProofPolicy.REQUIRED else 0
    percent += (settings.attestation_surcharge or 0) if rung is Rung.ATTESTATION else 0
    percent += settings.fingerprint_surcharge if rung is Rung.FINGERPRINTS else 0
    assert base * percent <= (ranked.price - base) * 100 < base * percent + 100
    assert ranked.price <= (ranked.candidate.entry.price_of(MODEL, token) or 0)
    terms = terms_of(ranked)
    assert admitted(settings, terms, rung) == "yes"
    less = msgspec.structs.replace(terms, price=PricePerMTok(ranked.price - 1))
    assert admitted(settings, less, rung).startswith("job_foreign price")


@given(hosts)
def test_what_is_registered_is_the_dearest_price_and_no_more(settings: HostSettings) -> None:
    """Some renter pays just that, in each currency."""
    for row in settings.registered(USDC):
        found = [ranked_for(settings, rung, policy, row.token) for rung in (None, *Rung) for policy in ProofPolicy]
        assert max(one.price for one in found if not isinstance(one, str)) == row.price


@given(hosts)
def test_an_offer_is_the_same_as_text(settings: HostSettings) -> None:
    """Rungs with their surcharges included."""
    assert offer_of(settings) == settings.offer(HOST.address, INFO, {MODEL: ("m", 4096)})


def settings(**changes: Any) -> HostSettings:
    return HostSettings(model_id=MODEL, price=PricePerMTok(200_000), **changes)


@pytest.mark.parametrize(
    ("changes", "rungs"),
    [
        ({}, [(0, 0), (1, 0), (3, 0)]),
        ({"alternatives": False}, [(0, 0), (3, 0)]),
        ({"policies": (ProofPolicy.REQUIRED,), "proof_surcharge": 5}, [(3, 5)]),
        ({"policies": (ProofPolicy.FALLBACK,), "proof_surcharge": 5}, [(0, 0), (1, 0)]),
        ({"attestation_surcharge": 10}, [(0, 0), (1, 0), (3, 0), (4, 10)]),
        ({"fingerprints": True, "fingerprint_surcharge": 30}, [(0, 0), (1, 0), (2, 30), (3, 0)]),
        ({"fingerprints": True, "policies": (ProofPolicy.REQUIRED,)}, [(3, 0)]),
        ({"fingerprint_surcharge": 30}, [(0, 0), (1, 0), (3, 0)]),
    ],
)
def test_only_rungs_that_terms_can_have_are_listed(changes: dict[str, Any], rungs: list[tuple[int, int]]) -> None:
    """Each with its surcharge; fingerprints where they are made."""
    assert [(row.rung.value, row.surcharge) for row in settings(**changes).rungs()] == rungs


@pytest.mark.parametrize(
    ("changes", "rung", "policy", "why"),
    [
        ({}, 4, ProofPolicy.REQUIRED, "job_terms_unacceptable rung 4 of the ladder, served: 0, 1, 3"),
        ({}, 2, ProofPolicy.REQUIRED, "job_terms_unacceptable rung 2 of the ladder, served: 0, 1, 3"),
        ({"alternatives": False}, 1, ProofPolicy.FALLBACK, "job_terms_unacceptable rung 1 of the ladder, served: 0, 3"),
        ({}, 3, ProofPolicy.FALLBACK, "job_terms_unacceptable proof policy fallback is not that of rung 3"),
        ({}, 0, ProofPolicy.REQUIRED, "job_terms_unacceptable proof policy required is not that of rung 0"),
        (
            {"fingerprints": True},
            2,
            ProofPolicy.REQUIRED,
            "job_terms_unacceptable proof policy required is not that of rung 2",
        ),
        (
            {"fingerprints": True, "fingerprint_surcharge": 1},
            2,
            ProofPolicy.FALLBACK,
            "job_foreign price 200000, at least 202000",
        ),
        ({}, None, ProofPolicy.REQUIRED, "yes"),
        ({"proof_surcharge": 1}, None, ProofPolicy.REQUIRED, "job_foreign price 200000, at least 202000"),
        ({"attestation_surcharge": 1}, None, ProofPolicy.FALLBACK, "yes"),
        ({"attestation_surcharge": 1}, 4, ProofPolicy.FALLBACK, "job_foreign price 200000, at least 202000"),
    ],
)
def test_a_rung_that_is_not_served_or_not_paid_for_is_refused(
    changes: dict[str, Any], rung: int | None, policy: ProofPolicy, why: str
) -> None:
    """With what was named and what is served."""
    ranked = ranked_for(settings(), None, policy)
    assert not isinstance(ranked, str)
    assert admitted(settings(**changes), terms_of(ranked), rung).startswith(why)


def test_a_known_job_keeps_its_price_and_its_rung() -> None:
    """Agreed is agreed: a later surcharge, or a rung that is gone, takes nothing back."""
    ranked = ranked_for(settings(), None, ProofPolicy.REQUIRED)
    assert not isinstance(ranked, str)
    terms = terms_of(ranked)
    offer = settings(proof_surcharge=50).offer(HOST.address, INFO, {MODEL: ("m", 4096)})
    check(terms, job_id(terms), JobState(deposit=DEPOSIT), offer, NOW, Tokens(0), 4)


def test_a_host_without_the_rung_is_discarded_with_the_reason() -> None:
    """By name."""
    assert ranked_for(settings(), Rung.ATTESTATION, ProofPolicy.REQUIRED) == "does not serve rung 4 of the ladder"


def test_unknown_rungs_of_a_newer_host_are_left_out() -> None:
    """As policies are; what is known stays."""
    wire = WireOffer.of(settings().offer(HOST.address, INFO, {MODEL: ("m", 4096)}))
    newer = msgspec.structs.replace(wire, rungs=(*wire.rungs, msgspec.structs.replace(wire.rungs[0], rung=7)))
    assert newer.offer() == wire.offer()


def test_the_names_of_the_rungs() -> None:
    """Numbers as in docs/explanation/ladder.md."""
    assert {rung.value for rung in Rung} == {0, 1, 2, 3, 4} and rung_of(4) is Rung.ATTESTATION
    with pytest.raises(FabstirError, match=r"request_invalid.*rung 5"):
        rung_of(5)
    assert (dearer(PricePerMTok(3), 1), dearer(PricePerMTok(3), 0)) == (4, 3)
    assert RungOffer(Rung.PROOF).surcharge == 0
