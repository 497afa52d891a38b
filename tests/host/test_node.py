"""The node: it starts with everything or not at all, tells the truth, and lets go of jobs that the chain closes."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from tests.host.table_chain import HOST, INFO, USDC
from tests.host.world import MARKET, MODEL, STRANGER, HeldJournal, Renter, World, eventually, some_terms

from fabstir.domain.errors import Interrupted, LocalFault, error
from fabstir.domain.ids import ZERO_ADDRESS, JobId
from fabstir.domain.money import BaseUnits, PricePerMTok
from fabstir.domain.terms import JobState
from fabstir.host.health import ClaimsPart, Part, overall
from fabstir.host.settings import HostSettings, settlement_rules
from fabstir.ops.config import AttestationSection, Config, EngineSection, HostSection
from fabstir.protocol.host_log import SessionFinished, decode_event
from fabstir.protocol.messages import Error, Ping, Pong, SessionEnd
from fabstir.protocol.settlement_plan import Bounds, SettlementRules
from fabstir.protocol.signing import recover
from fabstir.testing.engine import ScriptedEngine

OK, DOWN, OFF = Part(status="ok"), Part(status="down"), Part(status="off")


@pytest.mark.parametrize(
    ("draining", "needed", "wanted", "status"),
    [
        (False, (OK, OK), (OK, OFF), "ok"),
        (False, (OK, OK), (DOWN, OFF), "degraded"),
        (False, (OK, DOWN), (OK, OK), "failing"),
        (False, (OK, OFF), (OK, OK), "failing"),
        (True, (OK, DOWN), (OK, OK), "draining"),
    ],
)
def test_the_whole_is_as_good_as_its_parts(
    draining: bool, needed: tuple[Part, ...], wanted: tuple[Part, ...], status: str
) -> None:
    """Without a needed part nothing is served; a wanted one that is down is shown; a part that is off on purpose is no fault."""
    assert overall(draining, needed, wanted) == status


def test_the_ladder_comes_from_the_configuration() -> None:
    """Surcharges, alternatives in the records, and attestation only where a provider is named."""
    plain = HostSettings.of(Config(), MODEL, "http://127.0.0.1:8080")
    assert (plain.proof_surcharge, plain.attestation_surcharge, plain.alternatives) == (0, None, True)
    config = Config(
        host=HostSection(proof_surcharge_percent=5),
        engine=EngineSection(top_logprobs=0),
        attestation=AttestationSection(provider="tdx-configfs", surcharge_percent=10),
    )
    other = HostSettings.of(config, MODEL, "http://127.0.0.1:8080")
    assert (other.proof_surcharge, other.attestation_surcharge, other.alternatives) == (5, 10, False)
    assert [row.price for row in other.registered(USDC)] == [230_000]


def test_the_rules_of_settlement_come_from_the_configuration() -> None:
    """The defaults of the file are those of the rules; each bound reaches the rules of its own currency."""
    assert settlement_rules(Config()) == msgspec.structs.replace(
        SettlementRules(),
        join_above=436_363,
        native=msgspec.structs.replace(SettlementRules().native, join_above=174_545_454_545_454),
    )
    host = HostSection(
        redeem_above=550, redeem_above_native="1100", claim_tail_above=3, claim_tail_above_native=str(10**25)
    )
    rules = settlement_rules(Config(host=host))
    assert (rules.redeem_above, rules.join_above, rules.claim_tail_above) == (550, 240, 3)
    assert rules.native == Bounds(
        redeem_above=BaseUnits(1_100), join_above=BaseUnits(480), claim_tail_above=BaseUnits(10**25)
    )


def test_settings_come_from_the_configuration() -> None:
    """Every setting of the host that exists in the file reaches the node; without registration there is no URL."""
    config = Config()
    settings = HostSettings.of(config, MODEL, "http://127.0.0.1:8080")
    assert (settings.price_native, settings.relayed_from, settings.arbiters) == (0, 0, ())
    money = HostSection(
        price_native_per_mtok=str(8 * 10**13),
        bond_min_native=7,
        arbiters=("0x" + "AB" * 20,),
        relay_openings=True,
        relay_min_deposit=9,
    )
    richer = HostSettings.of(Config(host=money), MODEL, "http://127.0.0.1:8080")
    assert (richer.price_native, richer.bond_min_native, richer.relayed_from) == (8 * 10**13, 7, 9)
    assert richer.arbiters == (b"\xab" * 20,)
    assert settings.url == "http://127.0.0.1:8080"
    assert (settings.price, settings.min_deposit, settings.max_sessions) == (200_000, 10_000, 64)
    assert (settings.ack_timeout, settings.exposure_max, settings.challenge_min) == (30.0, 256, 900)
    quiet = HostSettings.of(
        Config(host=type(config.host)(auto_register=False, advertise_url="https://host.example")), MODEL, "http://x"
    )
    assert quiet.url is None
    named = HostSettings.of(Config(host=type(config.host)(advertise_url="https://host.example")), MODEL, "http://x")
    assert named.url == "https://host.example"


async def test_a_key_that_is_not_the_chains_account_stops_the_start() -> None:
    """Receipts would be signed by one account and money be paid to another."""
    world = World()
    world.chain.account = STRANGER.address  # type: ignore[misc]
    with pytest.raises(LocalFault, match="config_invalid"):
        await world.node.start()


async def test_a_model_that_cannot_be_loaded_stops_the_start_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error, not a group of them."""

    async def broken(_engine: ScriptedEngine) -> None:
        raise error("model_invalid", "no such file")

    monkeypatch.setattr(ScriptedEngine, "start", broken)
    world = World()
    with pytest.raises(LocalFault, match="model_invalid"):
        await world.node.start()
    await world.node.stop()


async def test_before_the_start_nothing_is_offered() -> None:
    """`host_not_running`, and draining, so that nobody is let in."""
    world = World()
    assert world.node.draining
    with pytest.raises(LocalFault, match="host_not_running"):
        _ = world.node.offer


async def test_a_configured_host_registers_itself() -> None:
    """Health shows it as pending until the chain has it."""
    world = World(url="http://127.0.0.1:8080")
    world.chain.reachable = False
    async with world.running():
        await eventually(lambda: world.clock.sleepers >= 2)
        assert (await world.node.health()).registration.status == "down"
        world.chain.reachable = True
        await world.clock.advance(5)
        health = await world.node.health()
        assert (health.status, health.registration.status) == ("ok", "ok")
    assert world.chain.entries[HOST.address].url == "http://127.0.0.1:8080"


async def test_a_slow_endpoint_is_down_for_whoever_asks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/health` does not hang with it."""
    monkeypatch.setattr("fabstir.host.health.PATIENCE_SECONDS", 0.01)

    async def never() -> int:
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(world.chain, "block_number", never)
    health = await world.node.health()
    assert (health.status, health.chain.status) == ("failing", "down") and "no answer" in health.chain.reason


async def test_asking_often_costs_the_chain_one_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of the parts are two seconds old at most."""
    asked = 0

    async def block_number() -> int:
        nonlocal asked
        asked += 1
        return 7

    monkeypatch.setattr(world.chain, "block_number", block_number)
    await asyncio.gather(*(world.node.health() for _ in range(50)))
    await world.clock.advance(1.9)
    await world.node.health()
    assert asked == 1
    await world.clock.advance(0.2)
    await world.node.health()
    assert asked == 2


# -- jobs that the chain closes ------------------------------------------------------------------------------------------------


async def test_a_job_that_closes_on_chain_serves_nothing_more(world: World) -> None:
    """In the middle of an answer: the renter is told, the engine is free, the log says finished before the call returns."""
    gate = world.engine.gate(3)
    renter = await world.renter()
    await renter.ask("count 9")
    await renter.hear(until=3)
    await gate.reached.wait()
    await world.node.chain_closing(renter.job, "job_expired")
    ledger = world.ledger(renter)
    assert (ledger.finished, ledger.in_turn, ledger.served) == ("job_expired", False, 3)
    assert (await renter.until(Error)).code == "job_expired"
    with pytest.raises(Interrupted, match="job_expired"):
        await renter.next()
    await eventually(lambda: world.engine.active == 0)
    assert renter.job in world.settlements
    again = Renter(world.connect(), renter.terms).continues(renter)
    assert (await again.refused(again.resume())).code == "job_closed"


async def test_a_job_without_a_connection_is_finished_as_well(world: World) -> None:
    """Once, however often the chain is heard; a job that this host does not know is none of its business."""
    renter = await world.renter()
    await renter.wire.close("bye")  # type: ignore[attr-defined]
    await eventually(lambda: not world.jobs_at_work())
    for _ in range(2):
        await world.node.chain_closing(renter.job)
    events = [decode_event(data) for data in await world.journal.read("job:" + renter.job.hex())]
    assert [event for event in events if isinstance(event, SessionFinished)] == [SessionFinished("job_closed")]
    await world.node.chain_closing(Renter(world.connect(), some_terms()).job)


async def test_the_renter_ends_the_session_and_can_close_at_once(world: World) -> None:
    """`session_end` comes back with the host's signature over what was acknowledged; the settler is woken; nothing more is served."""
    renter = await world.renter()
    await renter.chat("hello")
    await renter.send(SessionEnd(session_id="chat"))
    end = await renter.until(SessionEnd)
    assert (end.tokens_served, end.tokens_acknowledged) == (4, 4)
    ledger = world.ledger(renter)
    digest = MARKET.close_digest(renter.job, ledger.amount(ledger.acknowledged), ledger.acknowledged)
    assert recover(digest, bytes.fromhex((end.close_signature or "")[2:])) == HOST.address
    with pytest.raises(Interrupted, match="ended"):
        await renter.next()
    assert world.settlements == [renter.job]


# -- connections ---------------------------------------------------------------------------------------------------------------


async def test_a_connection_that_says_nothing_is_dropped(world: World) -> None:
    """After `hello_timeout`, also where it only pings; a session that stands may be silent for ever."""
    silent, pinging = world.connect(), Renter(world.connect(), some_terms())
    session = await world.renter()
    await pinging.send(Ping(id=1))
    assert await pinging.next() == Pong(id=1)
    await world.clock.advance(39)
    assert silent.code == "aborted"
    with pytest.raises(Interrupted):
        await pinging.next()
    await world.clock.advance(10_000)
    await session.send(Ping(id=2))
    assert await session.next() == Pong(id=2)


async def test_the_chain_is_read_once_for_each_session(world: World) -> None:
    """Signatures are checked first: a stranger cannot make the host ask the chain."""
    renter = Renter(world.connect(), some_terms(), STRANGER)
    assert (await renter.refused(renter.init())).code == "session_unauthorized"
    assert world.chain.reads == 0
    good = await world.renter()
    await good.chat("one")
    await good.open(good.resume())
    await good.chat("two")
    assert world.chain.reads == 1


async def test_two_connections_that_ask_at_once_get_one_session(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both wait for the chain; the first to hear from it is served, the other is `session_in_use`."""
    free, asked, job = asyncio.Event(), 0, world.chain.job

    async def slow(job_id: JobId) -> JobState:
        nonlocal asked
        asked += 1
        await free.wait()
        return await job(job_id)

    monkeypatch.setattr(world.chain, "job", slow)
    terms = world.chain.open(some_terms())
    first, second = Renter(world.connect(), terms), Renter(world.connect(), terms)
    await first.send(first.init())
    await second.send(second.init())
    await eventually(lambda: asked == 2)
    free.set()
    answers = [await first.next(), await second.next()]
    assert sorted(type(answer).__name__ for answer in answers) == ["Error", "SessionReady"]
    (refused,) = [answer for answer in answers if isinstance(answer, Error)]
    assert refused.code == "session_in_use"


async def test_who_is_being_admitted_when_the_drain_begins_is_turned_away() -> None:
    """A session that would begin after the last look at the sessions could not be drained."""
    journal = HeldJournal()
    async with World(journal=journal).running() as world:
        journal.free.clear()
        renter = Renter(world.connect(), world.chain.open(some_terms()))
        await renter.send(renter.init())
        await eventually(lambda: journal.waiting == 1)
        await world.node.drain()
        journal.free.set()
        assert (await renter.until(Error)).code == "draining"
        assert not world.jobs_at_work()


async def test_how_long_a_renter_is_gone(world: World) -> None:
    """Zero while it is here; from its leaving on; for jobs of an earlier process from the start on."""
    renter = await world.renter()
    await world.clock.advance(10)
    assert world.node.idle_for(renter.job) == 0
    await renter.wire.close("bye")  # type: ignore[attr-defined]
    await eventually(lambda: not world.jobs_at_work())
    await world.clock.advance(25)
    assert world.node.idle_for(renter.job) == 25
    assert world.node.idle_for(Renter(world.connect(), some_terms()).job) == 35


async def test_the_offer_is_what_the_chain_and_the_engine_say(world: World) -> None:
    """Chain id and market from the chain, name and context from the engine; where only USDC has a price, nothing else is taken."""
    offer = world.node.offer
    assert (offer.market, [payment.token for payment in offer.payments]) == (MARKET, [INFO.usdc])
    (model,) = offer.models
    assert (model.name, model.context_size, model.model_id) == ("scripted", 4096, MODEL)


async def test_each_currency_with_a_price_is_offered_and_registered() -> None:
    """The model in USDC and in the chain's coin: two payments with their own bounds, two rows of the registry."""
    async with World(price_native=PricePerMTok(8 * 10**13), url="http://host.example").running() as world:
        offer = world.node.offer
        assert offer.price_of(MODEL, ZERO_ADDRESS) == 8 * 10**13
        assert [payment.token for payment in offer.payments] == [INFO.usdc, ZERO_ADDRESS]
        await eventually(lambda: bool(world.chain.entries))
        [entry] = world.chain.entries.values()
        listed = {(row.model_id, row.token): row.price for row in entry.offers}
        assert listed == {(MODEL, INFO.usdc): 200_000, (MODEL, ZERO_ADDRESS): 8 * 10**13}


# -- what is still to be collected -----------------------------------------------------------------------------------------------


async def test_claims_that_need_care_are_seen_in_health(world: World) -> None:
    """The host goes on serving: `degraded`, with the part that says why; gauges follow when they are read."""
    assert (await world.node.health()).claims == ClaimsPart(status="off")
    asked = 0

    def claims() -> ClaimsPart:
        nonlocal asked
        asked += 1
        return ClaimsPart(status="degraded", reason="1 disputed", disputed=1)

    world.node.claims = claims
    health = await world.node.health()
    assert (health.status, health.serves, health.claims.disputed) == ("degraded", True, 1)
    await world.node.measure()
    assert asked == 2


async def test_reading_the_metrics_asks_the_parts(world: World) -> None:
    """An alert on a part that is down must not depend on somebody who asks for `/health`."""

    def up(part: str) -> float | None:
        return world.metrics.registry.get_sample_value("fabstir_part_up", {"part": part})

    await world.node.measure()
    assert (up("chain"), up("engine")) == (1, 1)
    assert world.metrics.registry.get_sample_value("fabstir_chain_head_block") == 7
    world.chain.reachable = False
    await world.clock.advance(3)
    await world.node.measure()
    assert (up("chain"), up("engine")) == (0, 1)
    assert world.metrics.registry.get_sample_value("fabstir_chain_head_block") == 7


async def test_what_can_be_withdrawn_is_asked_of_the_chain(world: World) -> None:
    """By currency. While nobody answers, what was seen last stands: money does not vanish with an endpoint."""

    def withdrawable(token: str) -> float | None:
        return world.metrics.registry.get_sample_value("fabstir_withdrawable_base_units", {"token": token})

    world.chain.reachable = False
    await world.node.measure()
    assert (withdrawable("usdc"), withdrawable("eth")) == (None, None)
    world.chain.reachable = True
    world.chain.earned = {USDC: BaseUnits(950_000), ZERO_ADDRESS: BaseUnits(10**15)}
    await world.clock.advance(3)
    await world.node.measure()
    assert (withdrawable("usdc"), withdrawable("eth")) == (950_000, 10**15)
    world.chain.reachable = False
    await world.node.measure()  # the probe still remembers a chain that answered
    await world.clock.advance(3)
    await world.node.measure()
    assert (withdrawable("usdc"), withdrawable("eth")) == (950_000, 10**15)


async def test_restarts_of_the_engine_are_counted(world: World) -> None:
    """By the engine's own count, whoever asks and however often."""
    for restarts in (1, 2):
        world.engine.crash()
        world.engine.recover()
        await world.clock.advance(3)
        await world.node.measure()
        await world.node.health()
        assert world.metrics.registry.get_sample_value("fabstir_engine_restarts_total") == restarts
