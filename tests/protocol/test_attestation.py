"""What a quote is tied to, and what a policy allows; without a quote."""

from __future__ import annotations

from hashlib import sha512
from typing import Any

import msgspec
import pytest

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Address, Hash32, ModelId
from fabstir.protocol.attestation import (
    VERIFIED,
    AttestationClaim,
    Binding,
    Expected,
    Format,
    Reason,
    WireClaim,
    differences,
    verified_format,
)
from fabstir.protocol.attestation_policy import (
    REGISTERS,
    AttestationPolicy,
    AttestationVerdict,
    Authentic,
    Image,
    TcbStatus,
    TdMeasurements,
    appraise,
    read_policy,
    worst,
)

BINDING = Binding(
    format=Format.TDX_QUOTE_4,
    host=Address(b"\x01" * 20),
    key=Hash32(b"\x02" * 32),
    model_id=ModelId(b"\x03" * 32),
    nonce=Hash32(b"\x04" * 32),
)
MEASURED = TdMeasurements(
    mr_td=b"\x11" * 48,
    rtmr=(b"\x00" * 48, b"\x01" * 48, b"\x02" * 48, b"\x03" * 48),
    mr_config_id=b"\xc1" * 48,
    mr_owner=b"\xc2" * 48,
    mr_owner_config=b"\xc3" * 48,
    mr_seam=bytes(48),
    attributes=1 << 28,
    xfam=0,
    report_data=BINDING.report_data,
)
FOUND = Authentic(
    measurements=MEASURED,
    tcb_status=TcbStatus.UpToDate,
    tcb_date="2026-05-01T00:00:00Z",
    advisories=(),
    fmspc="50806f000000",
    valid_until=1_900_000_000,
)
IMAGE = Image(mr_td="11" * 48)


def judged(policy: AttestationPolicy | None = None, status: TcbStatus | None = None, **measured: Any) -> list[str]:
    found = msgspec.structs.replace(FOUND, measurements=msgspec.structs.replace(MEASURED, **measured))
    if status is not None:
        found = msgspec.structs.replace(found, tcb_status=status, advisories=("INTEL-SA-01036",))
    return [each.reason.value for each in appraise(BINDING, found, policy or AttestationPolicy(images=(IMAGE,)))]


def test_the_report_data_is_what_the_specification_says() -> None:
    """64 bytes: SHA-512 over domain, format with its length, host, key, model and nonce, in this order."""
    told = b"fabstir/attestation/1" + b"\x0btdx-quote-4" + b"\x01" * 20 + b"\x02" * 32 + b"\x03" * 32 + b"\x04" * 32
    assert BINDING.report_data == sha512(told).digest()
    assert BINDING.report_data.hex().startswith("734a2e343d6edb1868ba46d11f598d24")


@pytest.mark.parametrize("field", ["host", "key", "model_id", "nonce"])
def test_each_thing_that_a_quote_is_tied_to_counts(field: str) -> None:
    """A quote for another host, key, model or question has another report data, whichever bit differs."""
    value = getattr(BINDING, field)
    others = {
        msgspec.structs.replace(BINDING, **{field: value[:n] + bytes([value[n] ^ 1]) + value[n + 1 :]}).report_data
        for n in range(len(value))
    }
    assert len(others) == len(value)
    assert BINDING.report_data not in others


def test_only_the_format_that_has_a_verifier_is_taken() -> None:
    """The others are refused by name, and so is what has no name."""
    assert verified_format("tdx-quote-4") is Format.TDX_QUOTE_4
    for name in ("sev-snp", "nvidia-gpu", "tdx-quote-5", ""):
        with pytest.raises(FabstirError) as refused:
            verified_format(name)
        assert refused.value.code == "attestation_unsupported"
        assert name in refused.value.detail
    assert {Format.TDX_QUOTE_4} == VERIFIED


def test_a_claim_survives_the_wire() -> None:
    """What is read is what was written, and a claim of a format without a verifier is refused when it is read."""
    wire = WireClaim.of(AttestationClaim(binding=BINDING, quote=b"q"), "cQ==")
    read = msgspec.json.decode(msgspec.json.encode(wire), type=WireClaim)
    assert read.binding() == BINDING
    with pytest.raises(FabstirError) as refused:
        msgspec.structs.replace(wire, format="sev-snp").binding()
    assert refused.value.code == "attestation_unsupported"


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        (Expected(nonce=Hash32(bytes(32))), Reason.NONCE_MISMATCH),
        (Expected(host=Address(bytes(20))), Reason.HOST_MISMATCH),
        (Expected(key=Hash32(bytes(32))), Reason.KEY_MISMATCH),
        (Expected(model_id=ModelId(bytes(32))), Reason.MODEL_MISMATCH),
    ],
)
def test_a_claim_about_something_else_is_named(expected: Expected, reason: Reason) -> None:
    """Each expectation is compared, and what is not expected is not."""
    assert [each.reason for each in differences(BINDING, expected)] == [reason]
    assert differences(BINDING, Expected()) == ()


def test_a_machine_that_fits_is_accepted() -> None:
    """Tied, on the list, up to date, not in debug mode."""
    assert judged() == []


def test_a_policy_that_names_no_image_accepts_nothing() -> None:
    """What is forgotten is refused; to let any program pass one has to say so."""
    assert judged(AttestationPolicy()) == ["policy_empty"]
    assert judged(AttestationPolicy(any_image=True)) == []


@pytest.mark.parametrize("register", REGISTERS)
def test_each_register_that_an_image_names_must_fit(register: str) -> None:
    """One register that differs is another program; of several images one is enough."""
    right = {"mr_td": "11" * 48, **{f"rtmr{n}": f"{n:02x}" * 48 for n in range(4)}}
    right |= {"mr_config_id": "c1" * 48, "mr_owner": "c2" * 48, "mr_owner_config": "c3" * 48}
    assert set(right) == set(REGISTERS)
    assert judged(AttestationPolicy(images=(Image(**right),))) == []
    wrong = Image(**{**right, register: "ee" * 48})
    assert judged(AttestationPolicy(images=(wrong,))) == ["measurement"]
    assert judged(AttestationPolicy(images=(wrong, Image(**right)))) == []


def test_no_policy_allows_debug() -> None:
    """The memory of a machine in debug mode is open. Nor one that can be moved or profiled, or that lacks SEPT_VE_DISABLE."""
    anything = AttestationPolicy(any_image=True, minimum="OutOfDateConfigurationNeeded")
    assert judged(anything, attributes=1 << 28 | 1) == ["td_debug"]
    harmless = {27, 28, 30, 31, 63}
    for bit in range(1, 64):
        wanted = [] if bit in harmless else ["td_attributes"]
        assert judged(anything, attributes=1 << 28 | 1 << bit) == wanted
    assert judged(anything, attributes=0) == ["td_attributes"]


@pytest.mark.parametrize("minimum", [status for status in TcbStatus if status is not TcbStatus.Revoked])
@pytest.mark.parametrize("status", TcbStatus)
def test_a_platform_worse_than_the_policy_allows_is_refused(minimum: TcbStatus, status: TcbStatus) -> None:
    """Every pair of both; a revoked platform under every policy."""
    wanted = [] if status <= minimum else ["tcb_status"]
    if status is TcbStatus.Revoked:
        wanted = ["tcb_revoked"]
    assert judged(AttestationPolicy(images=(IMAGE,), minimum=minimum.name), status) == wanted


def test_an_advisory_that_is_not_allowed_is_refused() -> None:
    """A policy may let an old platform pass for what it is known to suffer from, and no more."""
    old = AttestationPolicy(images=(IMAGE,), minimum="OutOfDate", advisories_allowed=("INTEL-SA-01036",))
    assert judged(old, TcbStatus.OutOfDate) == []
    assert judged(msgspec.structs.replace(old, advisories_allowed=()), TcbStatus.OutOfDate) == ["tcb_status"]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    """A person need not try again for each."""
    found = judged(AttestationPolicy(), TcbStatus.Revoked, attributes=1, report_data=bytes(64))
    assert found == ["report_data", "td_debug", "tcb_revoked", "policy_empty"]


@pytest.mark.parametrize(
    ("statuses", "whole"),
    [
        ("UpToDate", "UpToDate"),
        ("UpToDate SWHardeningNeeded", "SWHardeningNeeded"),
        ("SWHardeningNeeded ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"),
        ("UpToDate OutOfDate", "OutOfDate"),
        ("ConfigurationNeeded OutOfDate", "OutOfDateConfigurationNeeded"),
        ("ConfigurationAndSWHardeningNeeded OutOfDate", "OutOfDateConfigurationNeeded"),
        ("OutOfDateConfigurationNeeded Revoked", "Revoked"),
    ],
)
def test_a_platform_is_as_good_as_its_parts_together(statuses: str, whole: str) -> None:
    """Old and badly configured is both; revoked is revoked."""
    assert worst(*(TcbStatus[name] for name in statuses.split())) is TcbStatus[whole]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"minimum": "Revoked"}',
        b'{"minimum": "Best"}',
        b'{"images": [{"mr_td": "11"}]}',
        b'{"images": [{"mr_td": "' + b"AA" * 48 + b'"}]}',
        b'{"image": []}',
        b'{"allow_debug": true}',
        b'{"minimum": "\xee"}',
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_when_it_is_read(text: bytes) -> None:
    """A misspelt key never makes a policy laxer."""
    with pytest.raises(FabstirError) as refused:
        read_policy(text)
    assert refused.value.code == "request_invalid"


def test_a_policy_is_read() -> None:
    """What the page shows."""
    read = read_policy(b'{"images": [{"mr_td": "' + b"11" * 48 + b'"}], "minimum": "SWHardeningNeeded"}')
    assert read == AttestationPolicy(images=(IMAGE,), minimum="SWHardeningNeeded")


def test_who_needs_an_attestation_gets_what_it_shows_or_an_error() -> None:
    """`require` hands out nothing that was not accepted."""
    good = AttestationVerdict(binding=BINDING, failures=(), authentic=FOUND, fresh=True)
    assert good.accepted and good.require() is FOUND
    for bad in (
        msgspec.structs.replace(good, authentic=None),
        msgspec.structs.replace(good, failures=appraise(BINDING, FOUND, AttestationPolicy())),
    ):
        assert not bad.accepted
        with pytest.raises(FabstirError) as refused:
            bad.require()
        assert refused.value.code == "attestation_refused"
