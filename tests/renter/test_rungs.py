"""Sessions on the rungs of the ladder of verification: which host, which terms, which price, and what is asked before anything is paid."""

from __future__ import annotations

from typing import Any

import pytest
from tests.renter.world import MODEL, World, world_of

from fabstir.domain.errors import FabstirError
from fabstir.domain.terms import ProofPolicy
from fabstir.protocol.messages import FromHost, SessionReady
from fabstir.protocol.rungs import Rung, rung_of
from fabstir.renter import Session
from fabstir.renter.access import Wish
from fabstir.testing.attestation import MemoryJudge

REQUIRED, FALLBACK = ProofPolicy.REQUIRED, ProofPolicy.FALLBACK


async def gather(session: Session) -> str:
    return "".join([piece async for piece in session.prompt("hi")])


@pytest.mark.parametrize(
    ("settings", "rung", "policy", "price"),
    [
        ({"policy": REQUIRED}, None, REQUIRED, 210_000),
        ({"policy": FALLBACK}, None, FALLBACK, 200_000),
        ({"policy": REQUIRED}, 0, FALLBACK, 200_000),
        ({"policy": REQUIRED}, 1, FALLBACK, 200_000),
        ({"policy": FALLBACK}, 3, REQUIRED, 210_000),
        ({"policy": FALLBACK}, 4, FALLBACK, 240_000),
        ({"policy": REQUIRED}, 4, REQUIRED, 250_000),
        ({"policy": REQUIRED, "rung": Rung.RECEIPT}, None, FALLBACK, 200_000),
        ({"policy": REQUIRED, "rung": Rung.RECEIPT}, 3, REQUIRED, 210_000),
    ],
)
async def test_the_rung_of_a_session_makes_policy_and_price(
    settings: dict[str, Any], rung: int | None, policy: ProofPolicy, price: int
) -> None:
    """The terms have the policy of the rung and the price of the offer for it; the host admits them and serves."""
    async with world_of(200_000, proof_surcharge=5, attestation_surcharge=20) as world:
        market = world.market(**settings).attesting(MemoryJudge())
        async with market, market.session(MODEL, rung=rung) as session:
            assert await gather(session) == "You said: hi"
            [job] = session.jobs
            assert (job.ledger.terms.policy, job.ledger.terms.price) == (policy, price)


async def test_a_host_tells_its_rungs_when_a_session_begins() -> None:
    """In `session_ready.capabilities`."""
    async with world_of(200_000, attestation_surcharge=0) as world:
        said: list[FromHost] = []

        def listen(message: FromHost) -> FromHost:
            said.append(message)
            return message

        world.hosts[0].tamper = listen
        async with world.market() as market, market.session(MODEL) as session:
            await session.connect()
        [ready] = [message for message in said if isinstance(message, SessionReady)]
        assert [name for name in ready.capabilities if name.startswith("rung")] == [
            "rung_0",
            "rung_1",
            "rung_3",
            "rung_4",
        ]


async def test_the_cheapest_host_of_the_rung_is_taken() -> None:
    """A surcharge counts where it is paid: another host is cheapest on another rung."""
    async with world_of() as world:
        proving = await world.host(100_000, proof_surcharge=100)
        plain = await world.host(150_000)
        for rung, host in ((0, proving), (3, plain)):
            async with world.market() as market, market.session(MODEL, rung=rung) as session:
                await session.connect()
                assert session.jobs[0].host == host.key.address


async def test_models_are_listed_at_the_price_of_the_renters_rung() -> None:
    """What it would pay, not what somebody else would."""
    async with world_of(200_000, proof_surcharge=5) as world:
        for policy, price in ((REQUIRED, 210_000), (FALLBACK, 200_000)):
            async with world.market(policy=policy) as market:
                assert [model.cheapest for model in await market.models()] == [price]


async def test_an_attested_session_pays_only_a_host_that_was_verified() -> None:
    """The cheapest host is refused by what it attests: it is not even called, and the next one is paid."""
    async with world_of(100_000, 200_000, attestation_surcharge=0) as world:
        liar, honest = world.hosts
        judge = MemoryJudge(liar.key.address)
        market = world.market().attesting(judge)
        async with market, market.session(MODEL, rung=4) as session:
            assert await gather(session) == "You said: hi"
            assert [job.host for job in session.jobs] == [honest.key.address]
        assert judge.asked == [(liar.key.address, MODEL), (honest.key.address, MODEL)]
        assert liar.dialled == 0 and liar.ledgers == ()


async def test_nothing_is_paid_where_nobody_can_attest() -> None:
    """Neither where no host serves the rung, nor where all are refused, nor where nothing is configured to verify with."""
    async with world_of(200_000) as world:
        market = world.market().attesting(MemoryJudge())
        async with market:
            session = await _session(market, 4)
            with pytest.raises(FabstirError, match="does not serve rung 4 of the ladder"):
                await session.connect()
    async with world_of(200_000, attestation_surcharge=0) as world:
        market = world.market().attesting(MemoryJudge(world.hosts[0].key.address))
        async with market:
            with pytest.raises(FabstirError, match=r"hosts_exhausted.*attestation_refused"):
                await (await _session(market, 4)).connect()
        async with world.market() as market:
            with pytest.raises(FabstirError, match=r"config_invalid.*renter.attestation_policy"):
                await (await _session(market, 4)).connect()
            with pytest.raises(FabstirError, match=r"request_invalid.*rung 5"):
                async with market.session(MODEL, rung=5):
                    pass
        assert _opened(world) == 0


async def test_a_spare_job_is_used_again_on_its_own_rung_alone() -> None:
    """A deposit at the price of one rung does not pay for another; after a restart of the renter it is still known which it was."""
    async with world_of(200_000, attestation_surcharge=20) as world:
        jobs = []
        for rung in (None, 4, None):
            market = world.market().attesting(MemoryJudge())
            async with market:
                session = await _session(market, rung)
                await session.connect()
                jobs.append(session.jobs[0].ledger)
                session.jobs[0].in_use = False
                await session._access.link.close()  # type: ignore[union-attr]
        assert [ledger.terms.price for ledger in jobs] == [200_000, 240_000, 200_000]
        assert jobs[0].job == jobs[2].job != jobs[1].job
        assert [ledger.planned.rung for ledger in jobs] == [None, 4, None]


async def _session(market: Any, rung: int | None) -> Session:
    """One that the test does not close: its host shall not hear of an end."""
    wish = Wish(rung=None if rung is None else rung_of(rung))
    session: Session = await market.start_session(MODEL, wish=wish)
    return session


def _opened(world: World) -> int:
    return len(world.chain.state.jobs)
