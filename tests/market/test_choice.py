"""Which host is taken, and the reason for every one that is not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import error
from fabstir.domain.ids import ZERO_ADDRESS, Address, ModelId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy
from fabstir.market.choice import (
    FIRST_REST_SECONDS,
    LONGEST_REST_SECONDS,
    Candidate,
    Order,
    Rest,
    choose,
    rest_after,
)
from fabstir.ports.chain import HostEntry, RegisteredOffer
from fabstir.protocol.offer import ModelOffer, Offer, Payment, TokenPrice
from fabstir.protocol.signing import Market as Contract

MODEL, OTHER = ModelId(b"\x01" * 32), ModelId(b"\x02" * 32)
USDC = Address(b"\x0a" * 20)
CONTRACT = Contract(31337, Address(b"\x0c" * 20))
ORDER = Order(
    contract=CONTRACT,
    model_id=MODEL,
    token=USDC,
    policy=ProofPolicy.REQUIRED,
    budget=BaseUnits(100_000),
    bond_max=BaseUnits(1_000_000),
    max_price=None,
)


def account(number: int) -> Address:
    return Address(number.to_bytes(20, "big"))


def registered_for(model: ModelId, price: int, token: Address = USDC) -> tuple[RegisteredOffer, ...]:
    return (RegisteredOffer(model, token, PricePerMTok(price)),)


def model_for(price: int, token: Address = USDC) -> ModelOffer:
    return ModelOffer(name="m", model_id=MODEL, prices=(TokenPrice(token, PricePerMTok(price)),), context_size=4096)


def payment(token: Address = USDC, **changes: int) -> Payment:
    amounts = {"min_deposit": 10_000, "bond_min": 100_000} | changes
    return Payment(token=token, **{name: BaseUnits(amount) for name, amount in amounts.items()})


def candidate(
    number: int, price: int = 200_000, latency: float = 0.01, *, registered: int | None = None, **changes: Any
) -> Candidate:
    """A host that fits, except for `changes` of its offer."""
    offer = Offer(
        host=account(number),
        market=CONTRACT,
        models=(model_for(price),),
        payments=(payment(),),
        exposure_max=Tokens(256),
        challenge_min=900,
        challenge_max=7_200,
        min_seconds_left=300,
        policies=(ProofPolicy.REQUIRED,),
        max_message_bytes=1 << 20,
        max_answer_tokens=4096,
    )
    listed = registered_for(MODEL, price if registered is None else registered)
    entry = HostEntry(address=account(number), url=f"http://{number}.example", offers=listed, active=True)
    return Candidate(entry=entry, offer=msgspec.structs.replace(offer, **changes), latency=latency)


def ranking(*candidates: Candidate, **kwargs: Any) -> list[int]:
    rests, now = kwargs.pop("rests", {}), kwargs.pop("now", 0.0)
    choice = choose(candidates, ORDER, rests, now, **kwargs)
    return [int.from_bytes(row.candidate.address, "big") for row in choice.ranked]


def why_not(one: Candidate, order: Order = ORDER, excluded: tuple[Address, ...] = ()) -> str:
    choice = choose((one,), order, {}, 0.0, excluded)
    assert choice.ranked == ()
    return choice.discarded[0].why


def test_the_cheapest_comes_first_then_the_quickest() -> None:
    """Equal in both: by address, so that the order never depends on who answered first."""
    hosts = candidate(3, 200, 0.5), candidate(1, 300, 0.1), candidate(4, 200, 0.1), candidate(2, 200, 0.1)
    assert ranking(*hosts) == [2, 4, 3, 1]
    assert ranking(*reversed(hosts)) == [2, 4, 3, 1]


def test_a_host_that_failed_lately_comes_last_but_is_not_lost() -> None:
    """Until its rest is over; a lone host is still tried."""
    rests = {account(1): Rest(1, until=10.0)}
    assert ranking(candidate(1, 100), candidate(2, 200), rests=rests, now=9.9) == [2, 1]
    assert ranking(candidate(1, 100), candidate(2, 200), rests=rests, now=10.0) == [1, 2]
    assert ranking(candidate(1, 100), rests=rests, now=9.9) == [1]
    [row] = choose((candidate(1),), ORDER, rests, 9.9).ranked
    assert "failed 1 times" in row.why


def test_each_failure_doubles_the_rest() -> None:
    """From two seconds to five minutes."""
    rest, pauses = None, []
    for _ in range(12):
        rest = rest_after(rest, 100.0)
        pauses.append(rest.until - 100.0)
    assert pauses[:4] == [FIRST_REST_SECONDS, 4.0, 8.0, 16.0]
    assert pauses[-1] == LONGEST_REST_SECONDS


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"host": account(9)}, "another host, chain or contract"),
        ({"market": Contract(1, CONTRACT.address)}, "another host, chain or contract"),
        ({"market": Contract(31337, account(9))}, "another host, chain or contract"),
        ({"models": ()}, "does not offer the model"),
        ({"payments": (payment(account(7)),)}, "does not take this token"),
        ({"models": (model_for(200_000, account(7)),)}, "does not take this token"),
        ({"policies": (ProofPolicy.FALLBACK,)}, "does not accept the proof policy required"),
        ({"payments": (payment(min_deposit=100_001),)}, "asks a deposit of 100001, 100000 base units are left"),
        ({"payments": (payment(bond_min=1_000_001),)}, "asks a bond of 1000001, at most 1000000 base units are wanted"),
        ({"challenge_max": 899}, "accepts challenge windows up to 899 s, 900 s are wanted"),
    ],
)
def test_an_offer_that_does_not_fit_is_discarded_with_the_reason(changes: dict[str, Any], why: str) -> None:
    """One reason for each thing that can be wrong."""
    assert why in why_not(candidate(1, **changes))


def test_a_host_may_not_ask_more_than_it_registered() -> None:
    """The price on chain is public; who asks more in private is not taken. Less is welcome."""
    assert why_not(candidate(1, 201, registered=200)) == "asks 201, registered on chain is 200"
    assert ranking(candidate(1, 199, registered=200)) == [1]


def test_a_price_of_nothing_is_none() -> None:
    """The contract refuses such terms, so nothing is sent there."""
    assert why_not(candidate(1, 0, registered=200)) == "asks nothing, which the contract does not know"


def test_a_host_that_is_not_registered_for_the_model_is_not_taken() -> None:
    """Whatever its offer says."""
    offers = registered_for(OTHER, 1)
    entry = HostEntry(address=account(1), url="http://1.example", offers=offers, active=True)
    assert "not registered" in why_not(msgspec.structs.replace(candidate(1), entry=entry))


def test_a_price_in_another_currency_is_none() -> None:
    """Registered for the model in coins only: nothing is known of its price in USDC."""
    offers = registered_for(MODEL, 200_000, token=ZERO_ADDRESS)
    entry = msgspec.structs.replace(candidate(1).entry, offers=offers)
    assert "in this currency" in why_not(msgspec.structs.replace(candidate(1), entry=entry))


def test_each_currency_has_its_own_price_and_bounds() -> None:
    """One host in two currencies: each order sees its own."""
    both = (TokenPrice(USDC, PricePerMTok(200)), TokenPrice(ZERO_ADDRESS, PricePerMTok(8 * 10**13)))
    one = candidate(
        1,
        models=(msgspec.structs.replace(model_for(1), prices=both),),
        payments=(payment(), payment(ZERO_ADDRESS, min_deposit=10**12, bond_min=10**13)),
    )
    listed = (*registered_for(MODEL, 200), *registered_for(MODEL, 8 * 10**13, ZERO_ADDRESS))
    one = msgspec.structs.replace(one, entry=msgspec.structs.replace(one.entry, offers=listed))
    wei = msgspec.structs.replace(ORDER, token=ZERO_ADDRESS, budget=BaseUnits(10**15), bond_max=BaseUnits(10**14))
    [in_usdc], [in_wei] = choose((one,), ORDER, {}, 0.0).ranked, choose((one,), wei, {}, 0.0).ranked
    assert (in_usdc.price, in_usdc.payment.bond_min) == (200, 100_000)
    assert (in_wei.price, in_wei.payment.bond_min) == (8 * 10**13, 10**13)


def test_an_arbiter_must_be_accepted_and_nobody_always_is() -> None:
    """A host that does not accept the wanted one is discarded with its name."""
    order = msgspec.structs.replace(ORDER, arbiter=account(5))
    assert why_not(candidate(1), order) == f"does not accept the arbiter 0x{account(5).hex()}"
    assert choose((candidate(1, arbiters=(account(5),)),), order, {}, 0.0).ranked != ()
    assert ranking(candidate(1, arbiters=(account(5),))) == [1]


def test_who_needs_a_relay_takes_only_hosts_that_relay() -> None:
    """And whose smallest relayed deposit is within the budget."""
    order = msgspec.structs.replace(ORDER, relayed=True)
    assert why_not(candidate(1), order) == "does not relay openings"
    dear = candidate(1, payments=(payment(relayed_from=100_001),))
    assert why_not(dear, order) == "relays deposits of 100001 or more, 100000 base units are left"
    assert choose((candidate(1, payments=(payment(relayed_from=100_000),)),), order, {}, 0.0).ranked != ()


def test_a_host_without_its_stake_is_not_taken() -> None:
    """A lost claim would cost it nothing."""
    entry = msgspec.structs.replace(candidate(1).entry, active=False)
    assert why_not(msgspec.structs.replace(candidate(1), entry=entry)) == "has not staked enough"


def test_a_price_above_the_limit_is_not_paid() -> None:
    """The limit itself is."""
    order = msgspec.structs.replace(ORDER, max_price=PricePerMTok(200))
    assert "asks 201, at most 200" in why_not(candidate(1, 201), order)
    assert choose((candidate(1, 200),), order, {}, 0.0).ranked != ()


def test_a_host_that_did_not_answer_is_told_with_what_it_said() -> None:
    """And one that was excluded, with that."""
    silent = Candidate(entry=candidate(1).entry, fault=error("host_unreachable", "GET /v1/offer: TimeoutError"))
    assert why_not(silent) == "GET /v1/offer: TimeoutError"
    assert why_not(candidate(1), excluded=(account(1),)) == "failed in this answer, or is not to be asked"
    choice = choose((silent,), ORDER, {}, 0.0)
    assert str(choice.discarded[0]) == "0x00000000 at http://1.example: GET /v1/offer: TimeoutError"


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 400), st.floats(0, 3), st.booleans()), max_size=30))
def test_every_host_is_in_exactly_one_list(rows: list[tuple[int, int, float, bool]]) -> None:
    """Nobody is dropped without a reason, whatever the market looks like."""
    hosts = [
        candidate(number, price, latency, payments=(payment(),) if takes else ())
        for number, price, latency, takes in rows
    ]
    choice = choose(hosts, ORDER, {account(7): Rest(1, 1.0)}, 0.5)
    assert len(choice.ranked) + len(choice.discarded) == len(hosts)
    assert all(row.why for row in choice.ranked) and all(row.why for row in choice.discarded)
    prices = [row.price for row in choice.ranked if row.candidate.address != account(7)]
    assert prices == sorted(prices)
