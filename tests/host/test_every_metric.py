"""No metric stands on the page that nothing sets: a host is driven in memory and every family must move.

A declared gauge that nobody sets reads 0 for ever, and an alert on it never fires.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from tests.host.prompt_world import PromptWorld
from tests.host.settler_world import DEPOSIT, RENTER
from tests.host.settler_world import World as SettlerWorld
from tests.host.table_chain import USDC
from tests.host.world import Renter, World, some_terms

from fabstir.domain.ids import ZERO_ADDRESS
from fabstir.domain.money import BaseUnits
from fabstir.domain.prompts import PromptId
from fabstir.domain.terms import ProofPolicy
from fabstir.host.reception import MAX_ATTEMPTS
from fabstir.ops.metrics import Metrics
from fabstir.protocol.messages import ChatMessage, Notice, Response
from fabstir.protocol.prompt_log import Stage
from fabstir.testing.chain import INFO
from fabstir.testing.engine import ScriptedEngine
from fabstir.testing.machine import StillMachine

CONSTANT: Final = {"fabstir_build_info"}
"""Set where it is declared."""
ELSEWHERE: Final = {
    "fabstir_connections_open": "tests/api/test_routes.py",
    "fabstir_transactions": "tests/chain/test_transaction_counts.py",
    "fabstir_gas_used": "tests/chain/test_transaction_counts.py",
}
"""Family -> the test that reads it where it is set: behind a real server, and over a real chain."""


class Watched:
    """The metrics of a host, and which families ever had another value than at its start."""

    def __init__(self) -> None:
        self.metrics = Metrics(USDC)
        self.moved: set[str] = set()
        self._fresh = self._values()

    def _values(self) -> dict[str, set[tuple[str, frozenset[tuple[str, str]], float]]]:
        return {
            family.name: {
                (each.name, frozenset(each.labels.items()), each.value) for each in family.samples if each.value
            }
            for family in self.metrics.registry.collect()
        }

    def look(self) -> None:
        """Gauges come and go: called where something is going on."""
        self.moved |= {name for name, values in self._values().items() if values - self._fresh[name]}

    def requests(self) -> tuple[float | None, float | None]:
        """Those that wait for the engine, and those that it works on."""
        value = self.metrics.registry.get_sample_value
        return value("fabstir_num_requests_waiting"), value("fabstir_num_requests_running")


@pytest.fixture
def watched() -> Watched:
    return Watched()


async def _sessions(watched: Watched) -> None:
    """An answer, slowly, and one that waits behind it; an error; an engine that came back; money in the contract."""
    world = World(engine=ScriptedEngine(parallel=1))
    world.metrics, world.chain.earned = watched.metrics, {USDC: BaseUnits(5)}
    world.node = world.new_node(world.journal)
    world.node.machine = StillMachine()
    async with world.running():
        renter = await world.renter()
        await renter.refused("garbage")
        gate, other = world.engine.gate(2), await world.renter()
        await renter.ask("one two three")
        await gate.reached.wait()
        await other.ask("four")
        await other.until(Notice)
        await world.node.measure()
        watched.look()
        assert watched.requests() == (1, 1)
        gate.open.set()
        for each in (renter, other):
            _, end = await each.hear()
            assert isinstance(end, Response)
        assert watched.requests() == (0, 0)
        renter.context += [ChatMessage("user", "one two three"), ChatMessage("assistant", "You said: one two three")]
        await renter.chat("four again")  # of which the engine knows the beginning
        running = world.node._running
        assert running is not None
        world.node._memory(running.reception).look(0)
        world.engine.crash()
        world.engine.recover()
        await world.clock.advance(3)
        await world.node.measure()
        watched.look()


async def _prompts(watched: Watched, root: Path) -> None:
    """Two prompt jobs at once on a host with one slot: one waits, both are answered and paid."""
    world = PromptWorld(root, slots=1)
    world.metrics = watched.metrics
    await world.register()

    def settling(prompt: PromptId) -> bool:
        return bool(world.events(prompt)) and world.ledger(prompt).stage is Stage.SETTLING

    async with world.life():
        await world.until(
            lambda: world.node.prompts().status == "ok"
        )  # it has measured its engine: the gate is for a job
        gate = world.engine.gate(2)
        prompts = [(await world.ask("count 5", policy=ProofPolicy.FALLBACK))[0] for _ in range(2)]
        await world.until(gate.reached.is_set)
        await world.node.measure()
        watched.look()
        assert (world.node.prompts().working, world.node.prompts().queued) == (1, 1)
        gate.open.set()

        async def all_settling() -> bool:
            await world.node.measure()
            watched.look()
            return all(settling(prompt) for prompt in prompts)

        await world.until(all_settling)


async def _settlement(watched: Watched) -> None:
    """A claim that is held, then disputed; a deadline that is near; proofs that fail; tokens for which nobody pays."""
    world = SettlerWorld()
    world.settler.count_in(watched.metrics)
    claimed = await world.job(served=140, signed=100, policy=ProofPolicy.FALLBACK)
    await world.settle()
    watched.look()
    await world.dispute(claimed)
    world.chain.on_transaction = lambda key, phase: world.stop_after(key, phase, "answer:")
    await world.settle(1)
    watched.look()
    world.prover.forgetful = True
    await world.job(served=10, signed=10, salt=3)
    await world.settle()
    watched.look()
    late = await world.job(served=100, signed=90, policy=ProofPolicy.REQUIRED, salt=2, finished=False)
    await world.renter.request_close("close", late.terms)
    world.prover.unavailable = True
    await world.clock.advance(late.terms.challenge // 2)
    await world.settle(1)
    watched.look()
    unstaked = SettlerWorld(staked=False)
    unstaked.settler.count_in(watched.metrics)
    await unstaked.job(served=40, signed=30)
    await unstaked.settle()
    watched.look()


async def test_every_metric_is_set_by_something(watched: Watched, tmp_path: Path) -> None:
    """Sessions, prompt jobs and settlement move every family; the few that need a server or a chain are read in the tests named
    above."""
    await _sessions(watched)
    await _prompts(watched, tmp_path)
    await _settlement(watched)
    families = {family.name for family in watched.metrics.registry.collect()}
    assert families - watched.moved == CONSTANT | ELSEWHERE.keys()


@pytest.mark.parametrize(("family", "test"), ELSEWHERE.items())
def test_what_is_set_elsewhere_is_tested_there(family: str, test: str) -> None:
    """The exceptions above are no way out."""
    assert family in Path(test).read_text("utf-8")


async def test_each_job_is_earned_in_its_own_currency() -> None:
    """Of two jobs, one in USDC and one in ETH: what the contract credited, each under its token; nothing is added up."""
    world, metrics = SettlerWorld(), Metrics(INFO.usdc)
    world.settler.count_in(metrics)
    world.chain.mint(RENTER.address, DEPOSIT, ZERO_ADDRESS)
    await world.job(served=40, signed=40)
    await world.job(served=10, signed=10, salt=2, token=ZERO_ADDRESS)
    await world.settle()
    value = metrics.registry.get_sample_value
    earned = {token: value("fabstir_earned_base_units_total", {"token": token}) for token in ("usdc", "eth")}
    assert earned == {
        "usdc": await world.host.earnings(INFO.usdc, world.host.account),
        "eth": await world.host.earnings(ZERO_ADDRESS, world.host.account),
    }
    assert earned == {"usdc": 76_000, "eth": 19_000}


async def test_errors_before_a_session_are_counted() -> None:
    """Whoever says something else than hello, and goes on until it is put out."""
    world = World()
    async with world.running():
        wire = world.connect()
        for _ in range(MAX_ATTEMPTS):
            await wire.send("garbage")
            await wire.receive()
        await wire.receive()
        stranger = Renter(world.connect(), some_terms())  # nobody opened this job
        refused = await stranger.refused(stranger.init())
    value = world.metrics.registry.get_sample_value
    assert value("fabstir_request_failure_total", {"code": "message_malformed"}) == MAX_ATTEMPTS
    for code in ("rate_limited", refused.code):
        assert value("fabstir_request_failure_total", {"code": code}) == 1
