"""A host's process with two models: renters pick either, models come and go by command and by the file of settings."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from fabstir.api.control import ListModels, Said, SwitchModel, tell
from fabstir.bootstrap.renter import renter_market
from fabstir.cli.host import Running, running_host
from fabstir.domain.errors import FabstirError
from fabstir.ops.settings import load
from fabstir.renter.market import Market
from tests.engines.bigram import Bigram
from tests.host.world import eventually
from tests.scenarios.host_place import HostPlace, host_place, registered

pytestmark = [pytest.mark.real, pytest.mark.scenario]

SECOND = """
[[engines]]
model = "{model}"
repository = "fabstir/bigram"
threads = 1
context_size = 512
price_per_mtok = 300000000
"""


async def _say(market: Market, model: str) -> str:
    async with market.session(model) as session:
        return "".join([piece async for piece in session.prompt("Hello.", max_tokens=12)])


def _running(now: HostPlace) -> Running:
    return running_host(load(now.host.config, environ={}))


async def _tell(now: HostPlace, command: ListModels | SwitchModel) -> Said:
    return await tell(Path(_running(now).control), command)


async def test_a_host_serves_two_models_and_takes_over_its_settings(tmp_path: Path) -> None:
    """Offer and prices, an answer of each, a switch by command, a price by the file, a file that is not valid, SIGHUP."""
    model = tmp_path / "bigram.gguf"
    Bigram().write(model)
    async with host_place(tmp_path) as now:
        second = SECOND.format(model=model)
        now.configure(second)
        await now.net.approve_model(load(now.host.config, environ={}))
        await now.host.start()
        offered = {row["id"]: row["prices"][0]["price_per_mtok"] for row in (await now.ask("/v1/models"))["data"]}
        assert len(offered) == 2 and sorted(offered.values()) == ["200000000", "300000000"]
        (other,) = offered.keys() - {"tiny-chat"}
        async with renter_market(now.renter) as market:
            await registered(market)
            assert {listing.name for listing in await market.models()} == {"tiny-chat", other}
            answers = await asyncio.gather(_say(market, "tiny-chat"), _say(market, other))
            assert all(answers) and answers[0] != answers[1]
            stands = {part.name: part.status for part in (await _tell(now, SwitchModel(other, other))).models}
            assert stands == {"tiny-chat": "ok", other: "ok"}
        now.configure(second.replace("300000000", "400000000"))

        async def dearer() -> bool:
            rows = (await now.ask("/v1/models"))["data"]
            return any(row["prices"][0]["price_per_mtok"] == "400000000" for row in rows)

        await eventually(dearer)
        now.host.config.write_text("[host")

        async def refused() -> bool:
            return bool((await now.ask("/health"))["settings"]["status"] == "refused")

        await eventually(refused)
        now.configure("")
        os.kill(_running(now).pid, signal.SIGHUP)

        async def alone() -> bool:
            return [part.name for part in (await _tell(now, ListModels())).models] == ["tiny-chat"]

        await eventually(alone)
        assert (await now.ask("/health"))["settings"] == {"status": "ok", "reason": ""}
        await now.host.stop()
        with pytest.raises(FabstirError, match="host_not_running"):
            _running(now)
