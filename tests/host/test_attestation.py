"""A host that attests itself: what it ties together, how many may ask at once, and when it offers it at all."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.proofs.attesting import BINDING, Machine, reasons, verified

from fabstir.bootstrap.attestation import make_attester
from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32
from fabstir.host.attestation import WAITING, Attester
from fabstir.ops.config import AttestationSection, Config
from fabstir.proofs.attestation.configfs import ConfigfsTdx
from fabstir.protocol.attestation import Expected, Format
from fabstir.testing.attestation import MemoryReports

ON = msgspec.structs.replace(Config(), attestation=AttestationSection(provider="tdx-configfs"))


def tdx_machine(**how: Any) -> ConfigfsTdx:
    """A provider whose kernel signs in the tests' hierarchy."""
    return ConfigfsTdx(MemoryReports(lambda data: Machine(report_data=data, **how).quote()))


async def attester(config: Config = ON, provider: ConfigfsTdx | None = None) -> Attester | None:
    """As the host makes it."""
    chosen = tdx_machine() if provider is None else provider
    return await make_attester(config, BINDING.host, BINDING.key, BINDING.model_id, chosen)


async def test_the_whole_way_from_a_nonce_to_a_verdict() -> None:
    """What a host answers is accepted by who asked, and by nobody who asked something else."""
    made = await attester()
    assert made is not None
    claim = await made.claim(BINDING.nonce)
    assert claim.binding == BINDING
    expected = Expected(nonce=BINDING.nonce, host=BINDING.host, key=BINDING.key, model_id=BINDING.model_id)
    assert verified(claim, expected=expected).accepted
    other = await made.claim(Hash32(bytes(32)))
    assert reasons(verified(other, expected=expected)) == ["nonce_mismatch"]
    relabelled = msgspec.structs.replace(other, binding=BINDING)
    assert reasons(verified(relabelled, expected=expected)) == ["report_data"]


async def test_a_host_offers_it_only_where_a_provider_is_named() -> None:
    """The default names none."""
    assert await attester(Config()) is None


async def test_a_host_whose_machine_cannot_attest_does_not_start() -> None:
    """Found out at the start, by the operator, and not by the first renter who asks."""
    with pytest.raises(FabstirError) as refused:
        await attester(provider=tdx_machine(version=5))
    assert refused.value.code == "attestation_unavailable"


async def test_only_so_many_renters_wait() -> None:
    """The quoting enclave is slow and anybody may ask: one at a time, the surplus is refused and may try again."""
    may_go = asyncio.Event()
    under_way: list[bytes] = []

    class Slow:
        format = Format.TDX_QUOTE_4

        async def quote(self, report_data: bytes) -> bytes:
            under_way.append(report_data)
            await may_go.wait()
            return report_data

    made = Attester(Slow(), BINDING.host, BINDING.key, BINDING.model_id)
    waiting = [asyncio.create_task(made.claim(Hash32(bytes([n]) * 32))) for n in range(WAITING)]
    await asyncio.sleep(0)
    assert (len(under_way), repr(made)) == (1, f"<Attester tdx-quote-4 waiting={WAITING}>")
    with pytest.raises(FabstirError) as refused:
        await made.claim(BINDING.nonce)
    assert (refused.value.code, refused.value.retryable) == ("capacity", True)
    waiting[1].cancel()
    may_go.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert len(under_way) == WAITING - 1
    assert (await made.claim(BINDING.nonce)).quote == BINDING.report_data
