"""A host that proves with `spot` and signs fingerprints, from its configuration to the verdict on what a renter kept; one process with the
weights serves both."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabstir.bootstrap.renter import renter_market
from fabstir.bootstrap.verification import Weights, verify_session
from fabstir.engines.model_file import default_model
from fabstir.protocol.transcript_file import encode_file
from fabstir.renter.keeping import Keeper
from tests.scenarios.host_place import SETTLE_SECONDS, registered
from tests.scenarios.test_spot_host import place

pytestmark = [pytest.mark.real, pytest.mark.scenario]
SETTINGS = {"[host]\n": "fingerprint_surcharge_percent = 50\n", "[engine]\n": "fingerprints = true\n"}


async def test_a_renter_checks_the_fingerprints_that_it_paid_for(tmp_path: Path) -> None:
    """The offer lists rung 2 with its surcharge, the terms have that price, every answer's fingerprints are in the file, and none of them
    accuses the host; its money is settled."""
    async with place(tmp_path) as now:
        text = now.host.config.read_text()
        for section, setting in SETTINGS.items():
            assert section in text
            text = text.replace(section, section + setting)
        now.host.config.write_text(text)
        await now.host.start()
        offer = await now.ask("/v1/offer")
        assert {"rung": 2, "surcharge_percent": 50} in offer["rungs"]
        keeper = Keeper(tmp_path / "kept", words=True)
        async with renter_market(now.renter) as market:
            market.keeping(keeper)
            await registered(market)
            async with market.session("tiny-chat", rung=2) as session:
                for seed in range(3):
                    async for _ in session.prompt("Write about bees.", temperature=0.8, max_tokens=60, seed=seed):
                        pass
            assert all(one.paid_out for one in await session.settled(SETTLE_SECONDS))
            [job] = session.jobs
        kept = keeper.transcript(job.ledger)
        report = await verify_session(encode_file(kept), Weights(path=default_model()), None, threads=1)
        assert report.verdict.outcome != "inconsistent", report.verdict
        [asked] = [gate for gate in report.verdict.gates if gate.name == "fingerprint"]
        assert asked.passed and asked.count == sum(-(-len(turn.records) // 32) for turn in kept.turns) >= 3
        await now.host.stop()
        assert await now.logged("fingerprints_dropped") == []
