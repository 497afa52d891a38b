"""A renter that verifies a host before it pays, over HTTP: accepted where all holds, else refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.api.served import serving
from tests.host.world import World
from tests.proofs.attesting import BINDING, POLICY, Machine, Published, verifier

from fabstir.bootstrap.attestation import RenterAttestations, renter_attestations
from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Address, Hash32, ModelId
from fabstir.host.attestation import Attester
from fabstir.market.attestations import HttpAttestations
from fabstir.ops.config import Config
from fabstir.ops.config_renter import RenterSection
from fabstir.ports.chain import HostEntry
from fabstir.proofs.attestation.configfs import ConfigfsTdx
from fabstir.testing.attestation import MemoryReports


def attester(**how: Any) -> Attester:
    provider = ConfigfsTdx(MemoryReports(lambda data: Machine(report_data=data, **how).quote()))
    return Attester(provider, BINDING.host, BINDING.key, BINDING.model_id)


def entry(url: str, host: Address = BINDING.host, key: Hash32 = BINDING.key) -> HostEntry:
    return HostEntry(address=host, url=url, encryption_key=key, offers=(), active=True)


class Renter:
    """Policy and collateral in files, and a verifier that trusts the tests' root."""

    def __init__(self, folder: Path) -> None:
        self.policy, self.collateral = folder / "policy.json", folder / "collateral.json"
        self.policy.write_bytes(msgspec.json.encode(POLICY))
        self.collateral.write_bytes(Published().file())
        self._source = HttpAttestations()
        self.judge = RenterAttestations(self._source, self.policy, self.collateral, verifier())

    async def says(self, url: str, model: ModelId = BINDING.model_id, **other: Any) -> str:
        """`accepted`, or the error."""
        try:
            await self.judge.require(entry(url, **other), model)
        except FabstirError as fault:
            return str(fault)
        finally:
            await self._source.close()
        return "accepted"


async def test_a_machine_that_the_policy_allows_is_accepted(tmp_path: Path) -> None:
    """With a fresh nonce each time; another account, key or model than the registered ones is not."""
    renter = Renter(tmp_path)
    async with serving(World(), attester=attester()) as served:
        assert await renter.says(served.url) == "accepted"
        assert await renter.says(served.url + "/") == "accepted"
        assert "host_mismatch" in await renter.says(served.url, host=Address(b"\x01" * 20))
        assert "key_mismatch" in await renter.says(served.url, key=Hash32(b"\x01" * 32))
        assert "model_mismatch" in await renter.says(served.url, model=ModelId(b"\x01" * 32))


async def test_whatever_is_wrong_with_the_machine_is_the_hosts_fault(tmp_path: Path) -> None:
    """`attestation_refused` with the reason, so that the next host is asked."""
    renter = Renter(tmp_path)
    async with serving(World(), attester=attester(mr_td=b"\x12" * 48)) as served:
        said = await renter.says(served.url)
    assert said.startswith("attestation_refused") and "measurement" in said


async def test_a_host_that_does_not_answer_is_unreachable(tmp_path: Path) -> None:
    """None offered, or nobody there."""
    renter = Renter(tmp_path)
    async with serving(World()) as served:
        url = served.url
        assert "host_unreachable: " in (said := await renter.says(url)) and "answered 404" in said
    assert "host_unreachable" in await renter.says(url)


@pytest.mark.parametrize("name", ["policy", "collateral"])
async def test_files_that_are_missing_are_the_renters_own_fault(tmp_path: Path, name: str) -> None:
    """No host is blamed for them, and none is asked."""
    renter = Renter(tmp_path)
    getattr(renter, name).unlink()
    assert "config_invalid" in await renter.says("http://127.0.0.1:9")
    renter.policy.write_text("{}{")
    assert "config_invalid" in await renter.says("http://127.0.0.1:9")


async def test_it_is_there_where_both_files_are_named(tmp_path: Path) -> None:
    """With one of them there is nothing to verify with."""
    for policy, collateral in ((None, None), (tmp_path, None), (None, tmp_path), (tmp_path, tmp_path)):
        section = RenterSection(attestation_policy=policy, attestation_collateral=collateral)
        async with renter_attestations(Config(renter=section)) as judge:
            assert (judge is not None) is (policy is not None and collateral is not None)
