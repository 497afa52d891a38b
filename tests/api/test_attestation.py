"""Attestation over HTTP: a nonce in, a claim out, and plain refusals."""

from __future__ import annotations

import base64

import msgspec
import pytest
from tests.api.served import Served, serving
from tests.host.world import World
from tests.proofs.attesting import BINDING, Machine

from fabstir.domain.ids import to_hex
from fabstir.host.attestation import Attester
from fabstir.proofs.attestation.configfs import ConfigfsTdx
from fabstir.protocol.attestation import WireClaim
from fabstir.testing.attestation import MemoryReports

NONCE = to_hex(BINDING.nonce)


async def test_a_claim_is_answered() -> None:
    """With the nonce that was asked, and a quote that is tied to all of it."""
    provider = ConfigfsTdx(MemoryReports(lambda data: Machine(report_data=data).quote()))
    attester = Attester(provider, BINDING.host, BINDING.key, BINDING.model_id)
    async with serving(World(), attester=attester) as served:
        status, said = await served.get(f"/v1/attestation?nonce={NONCE}")
        assert status == 200
        wire = msgspec.convert(said, WireClaim)
        assert wire.binding() == BINDING
        assert base64.b64decode(wire.quote) == Machine().quote()
        for nonce in ("", "0x12", NONCE[2:], f"{NONCE[:-1]}g"):
            status, said = await served.get(f"/v1/attestation?nonce={nonce}")
            assert (status, said["code"]) == (400, "request_invalid")
        status, said = await served.get("/v1/attestation")
        assert status == 400


@pytest.mark.parametrize("query", ["", f"?nonce={NONCE}"])
async def test_a_host_that_offers_none_says_so(served: Served, query: str) -> None:
    """`attestation_off`, once it is asked properly."""
    status, said = await served.get(f"/v1/attestation{query}")
    assert (status, said["code"]) == ((404, "attestation_off") if query else (400, "request_invalid"))
