"""A host that sends renters' signed payments: once each, within its limits, and never at its own risk."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.renter.world import MODEL, eventually

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.host.relay import ASKED_A_MINUTE, UNDER_WAY, Relay
from fabstir.host.settings import HostSettings
from fabstir.protocol.authorization import authorization_digest, top_up_nonce
from fabstir.protocol.relay import RelayOpening, RelayTopUp
from fabstir.protocol.signing import SigningKey, job_id
from fabstir.testing.chain import INFO, MemoryChain
from fabstir.testing.clock import ManualClock

HOST, SESSION = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
DEPOSIT = BaseUnits(100_000)


class Place:
    """A host's relay on a chain in memory."""

    def __init__(self, per_hour: int = 60) -> None:
        self.clock = ManualClock()
        self.chain = MemoryChain(self.clock)
        settings = HostSettings(model_id=MODEL, price=PricePerMTok(200_000), relayed_from=BaseUnits(50_000))
        offer = settings.offer(HOST.address, INFO, {MODEL: ("m", 4096)})
        self.relay = Relay(self.chain.connect(HOST.address), lambda: offer, self.clock, per_hour)
        self.salts = iter(range(1, 1_000))
        self.sent: list[str] = []
        self.chain.on_transaction = lambda key, phase: self.sent.append(key) if phase == "before" else None

    def renter(self, number: int = 1, usdc: int = 10_000_000) -> SigningKey:
        key = SigningKey(bytes([100 + number]) * 32)
        self.chain.mint(key.address, usdc)
        return key

    def terms(self, renter: SigningKey, **changes: Any) -> Terms:
        terms = Terms(
            renter=renter.address,
            signer=SESSION.address,
            host=HOST.address,
            token=INFO.usdc,
            price=PricePerMTok(200_000),
            expires_at=int(self.clock.now()) + 86_400,
            challenge=900,
            exposure=Tokens(64),
            policy=ProofPolicy.FALLBACK,
            model_id=MODEL,
            salt=Hash32(next(self.salts).to_bytes(32, "big")),
        )
        return msgspec.structs.replace(terms, **changes)

    def opening(self, renter: SigningKey, terms: Terms | None = None, deposit: int = DEPOSIT) -> RelayOpening:
        terms = terms or self.terms(renter)
        return RelayOpening.of(terms, *self.signed(renter, terms, deposit, Hash32(job_id(terms))))

    def signed(self, renter: SigningKey, terms: Terms, amount: int, nonce: Hash32) -> tuple[BaseUnits, int, bytes]:
        until = int(self.clock.now()) + 300
        digest = authorization_digest(
            INFO.chain_id, terms.token, renter.address, INFO.market, BaseUnits(amount), until, nonce
        )
        return BaseUnits(amount), until, renter.sign(digest)

    async def code(self, opening: RelayOpening) -> str:
        try:
            await self.relay.open(opening)
        except FabstirError as fault:
            return fault.code
        return "sent"


async def test_the_host_opens_the_job_with_the_renters_money() -> None:
    """The deposit is the renter's, the transaction the host's; the answer names it."""
    place = Place()
    renter = place.renter()
    terms = place.terms(renter)
    answer = await place.relay.open(place.opening(renter, terms))
    state = await place.chain.connect(HOST.address).job(job_id(terms))
    assert (state.deposit, place.chain.ledger.balance(INFO.usdc, renter.address)) == (DEPOSIT, 10_000_000 - DEPOSIT)
    assert answer.job_id == "0x" + job_id(terms).hex() and answer.gas_used > 0


async def test_asked_again_it_answers_the_same_and_sends_nothing() -> None:
    """A renter whose connection broke asks again."""
    place = Place(per_hour=1)
    opening = place.opening(place.renter())
    assert await place.relay.open(opening) == await place.relay.open(opening)
    assert len(place.chain.ledger.market.jobs) == 1 and place.chain.block == 2


async def test_a_top_up_is_added_once() -> None:
    """The second of two equal ones is for a deposit that is not there any more."""
    place = Place()
    renter = place.renter()
    terms = place.terms(renter)
    await place.relay.open(place.opening(renter, terms))
    adding = RelayTopUp.of(terms, *place.signed(renter, terms, 70_000, top_up_nonce(job_id(terms), DEPOSIT)))
    await place.relay.top_up(job_id(terms), adding)
    with pytest.raises(FabstirError, match="authorization_invalid"):
        await place.relay.top_up(job_id(terms), adding)
    assert (await place.chain.connect(HOST.address).job(job_id(terms))).deposit == 170_000


async def test_a_renter_that_does_not_have_it_costs_no_gas() -> None:
    """Looked at before anything is sent; so is a job that is closed."""
    place = Place()
    assert await place.code(place.opening(place.renter(usdc=99_999))) == "relay_refused"
    assert place.sent == []


async def test_so_many_in_an_hour_and_a_quarter_of_them_for_one() -> None:
    """Refusals that cost nothing are not counted; after an hour there is room again."""
    place = Place(per_hour=8)
    one, two = place.renter(1), place.renter(2)
    assert await place.code(place.opening(one, deposit=1)) == "job_terms_unacceptable"
    assert [await place.code(place.opening(one)) for _ in range(3)] == ["sent", "sent", "rate_limited"]
    others = [place.renter(number) for number in range(3, 10)]
    assert [await place.code(place.opening(other)) for other in (two, *others)][5:] == ["sent", *["rate_limited"] * 2]
    await place.clock.advance(3_600)
    assert await place.code(place.opening(one)) == "sent"


async def test_so_many_are_looked_at_in_a_minute() -> None:
    """Each reads the chain, whatever comes of it."""
    place = Place()
    poor = place.renter(usdc=0)
    asked = [await place.code(place.opening(poor)) for _ in range(ASKED_A_MINUTE + 1)]
    assert asked == ["relay_refused"] * ASKED_A_MINUTE + ["rate_limited"]
    await place.clock.advance(60)
    assert await place.code(place.opening(poor)) == "relay_refused"


async def test_a_few_at_a_time_and_one_for_each_renter() -> None:
    """While blocks do not come, others wait outside."""
    place = Place()
    place.chain.hold_blocks()
    renters = [place.renter(number) for number in range(1, UNDER_WAY + 2)]
    waiting = [asyncio.ensure_future(place.code(place.opening(renter))) for renter in renters[:UNDER_WAY]]
    await eventually(lambda: len(place.sent) == UNDER_WAY)
    assert await place.code(place.opening(renters[0])) == "rate_limited"
    assert await place.code(place.opening(renters[-1])) == "capacity"
    place.chain.automine()
    assert await asyncio.gather(*waiting) == ["sent"] * UNDER_WAY
    assert await place.code(place.opening(renters[-1])) == "sent"
