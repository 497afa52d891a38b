"""Several models on one host: each has its own engines, price and line, and comes and goes while renters are served."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.host.table_chain import USDC
from tests.host.world import MODEL, Renter, World, eventually, some_terms

from fabstir.domain.errors import LocalFault, error
from fabstir.domain.ids import Address, ModelId, to_hex
from fabstir.domain.money import PricePerMTok
from fabstir.host.queueing import Asker, LineSettings
from fabstir.host.settings import ModelTerms
from fabstir.host.shelf import Stand
from fabstir.host.standing import StandingInLine
from fabstir.ports.engine import Engine, GenerationRequest, TokenBatch
from fabstir.protocol.messages import ChatMessage, Error, Notice, Response
from fabstir.testing.engine import ScriptedEngine

OTHER = ModelId(b"\x0c" * 32)
THIRD = ModelId(b"\x0d" * 32)
DEARER = PricePerMTok(500_000)


def two_models(second: ScriptedEngine | None = None, **settings: Any) -> World:
    """A host with "scripted" at its price and "second" at a higher one."""
    further: dict[ModelId, dict[str, Engine]] = {OTHER: {"engines[0]": second or ScriptedEngine(name="second")}}
    return World(further=further, further_terms=(ModelTerms(model_id=OTHER, price=DEARER),), **settings)


async def renter_of_second(world: World, **changes: Any) -> Renter:
    return await world.renter(world.chain.open(some_terms(model_id=OTHER, price=DEARER, **changes)))


async def test_a_renter_picks_either_model() -> None:
    """The offer has both with their prices, each session is answered by its own model, and health shows each."""
    world = two_models()
    async with world.running():
        offered = {model.name: model.prices[0].price for model in world.node.offer.models}
        assert offered == {"scripted": 200_000, "second": DEARER}
        one, two = await world.renter(), await renter_of_second(world)
        assert (one.ready.model, two.ready.model) == ("scripted", "second")
        assert (await one.chat("hello"), await two.chat("hello")) == ("You said: hello", "You said: hello")
        engines = [world.engine, world.further[OTHER]["engines[0]"]]
        assert [len(engine.requests) for engine in engines] == [1, 1]  # type: ignore[attr-defined]
        health = await world.node.health()
        assert [(part.name, part.status) for part in health.models] == [("scripted", "ok"), ("second", "ok")]
        assert (health.engine.status, health.engine.model) == ("ok", "scripted, second")
        listed = world.node.settings.registered(USDC)
        assert [(row.model_id, row.price) for row in listed] == [(MODEL, 200_000), (OTHER, DEARER)]


async def test_each_model_has_its_own_price() -> None:
    """Terms with the cheaper model's price do not open a session about the dearer one."""
    world = two_models()
    async with world.running():
        cheap = Renter(world.connect(), world.chain.open(some_terms(model_id=OTHER)))
        assert (await cheap.refused(cheap.init())).code == "job_foreign"


async def test_a_model_is_unloaded_while_it_answers() -> None:
    """The running answer ends, what comes after it is refused with the reason, the other model is served on, and it comes back."""
    world = two_models()
    async with world.running():
        one, two = await world.renter(), await renter_of_second(world)
        gate = world.engine.gate(2)
        await one.ask("one two three")
        await gate.reached.wait()
        unloading = asyncio.create_task(world.node.shelf.unload(MODEL))
        await eventually(lambda: world.node.shelf.get(MODEL).stand is Stand.ENDING)
        assert [model.name for model in world.node.offer.models] == ["second"]
        gate.open.set()
        text, end = await one.hear()
        assert isinstance(end, Response) and text == "You said: one two three"
        one.context += [ChatMessage("user", "one two three"), ChatMessage("assistant", text)]
        await unloading
        assert (await world.engine.health()).status == "down"
        await one.ask("more")
        _, refused = await one.hear()
        assert isinstance(refused, Error) and refused.code == "model_unloaded" and refused.retryable
        stranger = Renter(world.connect(), world.chain.open(some_terms()))
        assert (await stranger.refused(stranger.init())).code == "model_unloaded"
        assert await two.chat("still here") == "You said: still here"
        health = await world.node.health()
        assert (health.status, health.engine.status) == ("ok", "ok")  # on purpose is no fault
        await world.node.shelf.load(MODEL)
        assert {model.name for model in world.node.offer.models} == {"scripted", "second"}
        await one.open(one.resume())  # after an error that ends a prompt both sides agree again
        assert await one.chat("again") == "You said: again"


async def test_a_switch_lets_requests_of_the_new_model_wait() -> None:
    """From the first moment on they stand in line; the old model's running answer ends before anything is loaded."""
    world = two_models()
    async with world.running():
        one, two = await world.renter(), await renter_of_second(world)
        shelf = world.node.shelf
        await shelf.unload(OTHER)
        gate = world.engine.gate(2)
        await one.ask("one two three")
        await gate.reached.wait()
        switching = asyncio.create_task(shelf.switch(MODEL, OTHER))
        await eventually(lambda: shelf.get(OTHER).stand is Stand.LOADING)
        await two.ask("waits")
        notice = await two.until(Notice)
        assert (notice.code, shelf.get(OTHER).line.waiting) == ("queued", 1)
        gate.open.set()
        assert isinstance((await one.hear())[1], Response)
        assert (await two.hear())[0] == "You said: waits"
        await switching
        assert [model.name for model in world.node.offer.models] == ["second"]


async def test_a_switch_that_fails_brings_the_old_model_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is refused with the reason, and the host serves what it served."""
    second = ScriptedEngine(name="second")
    world = two_models(second)
    async with world.running():
        two, shelf = await renter_of_second(world), world.node.shelf
        await shelf.unload(OTHER)

        async def broken() -> None:
            await two.ask("waits")
            await two.until(Notice)
            raise error("model_invalid", "no such file")

        monkeypatch.setattr(second, "start", broken)
        with pytest.raises(LocalFault, match="model_invalid"):
            await shelf.switch(MODEL, OTHER)
        _, refused = await two.hear()
        assert isinstance(refused, Error) and "no such file" in str(refused)
        assert (shelf.get(MODEL).stand, shelf.get(OTHER).stand) == (Stand.LOADED, Stand.FAILED)
        health = await world.node.health()
        assert (health.status, health.engine.status) == ("degraded", "partly")
        assert "no such file" in health.engine.reason


async def test_a_full_line_refuses_and_says_how_long() -> None:
    """One place, one in line: the third is refused with what it would wait; whoever waits too long is refused, too."""
    engine = ScriptedEngine(parallel=1)
    world = World(engine=engine, line=LineSettings(longest=1, patience=20.0))
    async with world.running():
        first, second, third = [
            await world.renter(world.chain.open(some_terms(renter=Address(bytes([n]) * 20)))) for n in (51, 52, 53)
        ]
        gate = engine.gate(2)
        await first.ask("one two three")
        await gate.reached.wait()
        await second.ask("waits")
        notice = await second.until(Notice)
        assert (notice.code, notice.position, notice.wait_s) == ("queued", 1, 10)
        await third.ask("too many")
        _, refused = await third.hear()
        assert isinstance(refused, Error) and refused.code == "capacity" and refused.retry_after_s == 20
        assert "1 requests wait already" in str(refused)
        for _ in range(4):
            await world.clock.advance(5)
        _, gave_up = await second.hear()
        assert isinstance(gave_up, Error) and gave_up.code == "capacity" and "no place within 20 s" in str(gave_up)
        gate.open.set()
        assert isinstance((await first.hear())[1], Response)
        assert await second.chat("again") == "You said: again"


async def test_a_renter_with_many_sessions_does_not_hold_up_another() -> None:
    """With one place and three sessions of one account in line, another renter's first request is answered next."""
    engine = ScriptedEngine(parallel=1)
    async with World(engine=engine).running() as world:
        hogs = [await world.renter() for _ in range(4)]
        modest = await world.renter(world.chain.open(some_terms(renter=Address(b"\x33" * 20))))
        gate = engine.gate(2)
        for hog in hogs:
            await hog.ask("one two three")
        await gate.reached.wait()
        await modest.ask("please")
        await modest.until(Notice)
        gate.open.set()
        await asyncio.gather(*(each.hear() for each in (*hogs, modest)))
        order = [request.messages[-1].content for request in engine.requests]
        assert order.index("please") == 1


async def test_what_one_engine_cannot_do_another_does() -> None:
    """Two engines of one model share its requests; one that is gone is passed over before the first token, and health names it."""
    broken, whole = ScriptedEngine(parallel=2), ScriptedEngine(parallel=2)
    world = World(engine=broken)
    world.node = world.new_node(world.journal, {MODEL: {"engine": broken, "engines[0]": whole}})
    async with world.running():
        renters = [await world.renter() for _ in range(2)]
        for renter in renters:
            await renter.chat("hello")
        assert (len(broken.requests), len(whole.requests)) == (2, 0) or len(whole.requests) == 1
        broken.crash()
        assert await renters[0].chat("again") == "You said: again"
        part = (await world.node.health()).models[0]
        assert (part.status, part.serves) == ("degraded", True)
        assert part.reason.startswith("engine: ")
        assert [one.status for one in part.engines] == ["restarting", "ok"]
        whole.crash()
        await renters[0].ask("nobody")
        _, end = await renters[0].hear()
        assert isinstance(end, Error) and end.code == "engine_gone"


async def test_names_that_are_not_there() -> None:
    """By name or by id; anything else is `model_unknown`."""
    async with two_models().running() as world:
        shelf = world.node.shelf
        assert shelf.named("second") is shelf.named(to_hex(OTHER)) is shelf.get(OTHER)
        for ask in (lambda: shelf.named("third"), lambda: shelf.get(ModelId(bytes(32)))):
            with pytest.raises(Exception, match="model_unknown"):
                ask()
        shelf.get(MODEL).needed_for = "prompt jobs are made with it"
        for unloading in (shelf.unload(MODEL), shelf.switch(MODEL, OTHER)):
            with pytest.raises(Exception, match="model_needed"):
                await unloading
        assert shelf.get(MODEL).stand is Stand.LOADED


async def test_engines_are_rearranged_while_renters_are_served() -> None:
    """A model that gets another engine lets requests wait and running answers end; one that goes is refused; one that comes is offered."""
    world, third = two_models(), ScriptedEngine(name="third")
    async with world.running():
        shelf, one, two = world.node.shelf, await world.renter(), await renter_of_second(world)
        gate = world.engine.gate(2)
        await one.ask("one two three")
        await gate.reached.wait()
        better = ScriptedEngine(context_size=8192)
        wanted: dict[ModelId, dict[str, Engine]] = {MODEL: {"engine": better}, THIRD: {"engines[0]": third}}
        arranging = asyncio.create_task(shelf.arrange(wanted, frozenset()))
        await eventually(lambda: shelf.get(MODEL).stand is Stand.LOADING)
        other = await world.renter(world.chain.open(some_terms(renter=Address(b"\x44" * 20))))
        await other.ask("waits")
        await other.until(Notice)
        gate.open.set()
        assert isinstance((await one.hear())[1], Response)
        assert (await other.hear())[0] == "You said: waits"
        assert await arranging == {}
        assert [request.messages[-1].content for request in better.requests] == ["waits"]
        await two.ask("gone")
        _, end = await two.hear()
        assert isinstance(end, Error) and end.code == "model_unloaded"
        assert [model.name for model in shelf.offered] == ["scripted", "third"]
        world.node.adopt(
            msgspec.structs.replace(world.settings, further=(ModelTerms(model_id=THIRD, price=DEARER),), max_sessions=3)
        )
        assert [model.context_size for model in world.node.offer.models] == [8192, 4096]
        assert await shelf.arrange({MODEL: {"renamed": better}, THIRD: {"x": third}}, frozenset((MODEL, THIRD))) == {}
        assert (await shelf.get(MODEL).part()).engines[0].name == "renamed"


async def test_a_model_that_cannot_be_loaded_is_named_and_the_others_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload goes on with what works."""
    world, third = two_models(), ScriptedEngine(name="third")

    async def broken() -> None:
        raise error("model_invalid", "not a GGUF file")

    monkeypatch.setattr(third, "start", broken)
    async with world.running():
        wanted: dict[ModelId, dict[str, Engine]] = {MODEL: {"engine": world.engine}, THIRD: {"engines[0]": third}}
        failed = await world.node.shelf.arrange(wanted, frozenset((MODEL,)))
        assert list(failed) == [to_hex(THIRD)] and "not a GGUF file" in failed[to_hex(THIRD)]
        renter = await world.renter()
        assert await renter.chat("hello") == "You said: hello"
        refused = Renter(world.connect(), world.chain.open(some_terms(model_id=THIRD, price=DEARER)))
        assert (await refused.refused(refused.init())).code == "model_unloaded"


async def test_other_settings_are_adopted_at_once() -> None:
    """Offer, bounds and what is registered follow; a session that stands keeps its terms."""
    world = World(url="http://host.example")
    async with world.running():
        renter = await world.renter()
        dearer = msgspec.structs.replace(world.settings, price=DEARER, max_sessions=1, line=LineSettings(longest=1))
        world.node.adopt(dearer)
        assert world.node.offer.models[0].prices[0].price == DEARER
        assert await renter.chat("hello") == "You said: hello"
        stranger = Renter(world.connect(), world.chain.open(some_terms(price=DEARER)))
        assert (await stranger.refused(stranger.init())).code == "capacity"

        def registered() -> list[int]:
            return [row.price for entry in world.chain.entries.values() for row in entry.offers]

        await eventually(lambda: registered() == [DEARER])


async def test_work_of_the_host_itself_stands_in_line_too() -> None:
    """A prompt job waits behind a renter's answer, and a model that gets other engines waits for it."""
    engine = ScriptedEngine(parallel=1)
    async with World(engine=engine).running() as world:
        model, renter = world.node.shelf.get(MODEL), await world.renter()
        standing = StandingInLine(model, Asker(Address(b"\x55" * 20)))
        gate = engine.gate(2)
        await renter.ask("one two three")
        await gate.reached.wait()
        request = GenerationRequest(messages=(ChatMessage("user", "own"),), max_tokens=9)

        async def own() -> str:
            return "".join([item.text async for item in standing.generate(request) if isinstance(item, TokenBatch)])

        working = asyncio.create_task(own())
        await eventually(lambda: model.line.waiting == 1)
        gate.open.set()
        assert await working == "You said: own"
        assert (await standing.health()).status == "ok"
        assert standing.info.parallel == 1 and await standing.count_tokens(request.messages) == 5


async def test_nothing_is_loaded_into_a_host_that_goes_down() -> None:
    """A load that is under way when the host stops leaves no engine behind, and none begins afterwards."""
    second = ScriptedEngine(name="second")
    world = two_models(second)
    async with world.running():
        shelf = world.node.shelf
        await shelf.unload(OTHER)
        loading, free, start = asyncio.Event(), asyncio.Event(), second.start

        async def slow() -> None:
            loading.set()
            await free.wait()
            await start()

        second.start = slow  # type: ignore[method-assign]
        task = asyncio.create_task(shelf.load(OTHER))
        await loading.wait()
        await shelf.stop()
        free.set()
        with pytest.raises(Exception, match="draining"):
            await task
        assert (await second.health()).status == "down"
        with pytest.raises(Exception, match="draining"):
            await shelf.load(MODEL)
