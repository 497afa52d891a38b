"""How a platform is rated by what Intel publishes: the right level, the worst part, and no level invented."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from tests.proofs.attesting import (
    ISSUER,
    MODULE,
    PCK,
    ROOT,
    Machine,
    Published,
    changed,
    enclave_level,
    level,
    reasons,
    sgx_extension,
    verified,
)

from fabstir.protocol.attestation_policy import AttestationPolicy, TcbStatus

ANY = AttestationPolicy(any_image=True, minimum="OutOfDateConfigurationNeeded")
LEVELS = (
    level("UpToDate", sgx=3, pcesvn=11, tdx=(0, 0, 2), tcbDate="2026-05-01T00:00:00Z"),
    level("SWHardeningNeeded", sgx=2, pcesvn=11, tdx=(0, 0, 2), tcbDate="2025-05-01T00:00:00Z", advisoryIDs=["SA-1"]),
    level("OutOfDate", sgx=1, pcesvn=5, tdx=(0, 0, 1), tcbDate="2024-05-01T00:00:00Z", advisoryIDs=["SA-1", "SA-2"]),
)


def platform(components: tuple[int, ...] = (3,) * 16, pce_svn: int = 11, **machine: Any) -> Machine:
    """A machine on a platform with these numbers."""
    return Machine(chain=(changed(PCK, sgx=sgx_extension(components, pce_svn)), ISSUER, ROOT), **machine)


def rated(machine: Machine, published: Published) -> str:
    """Its status, or why there is none."""
    verdict = verified(machine.claim(), published, ANY)
    return verdict.authentic.tcb_status.name if verdict.authentic is not None else reasons(verdict)[0]


@pytest.mark.parametrize(
    ("machine", "status"),
    [
        (platform(), "UpToDate"),
        (platform((9,) * 16, 99), "UpToDate"),
        (platform((3,) * 15 + (2,)), "SWHardeningNeeded"),
        (platform((2,) + (3,) * 15), "SWHardeningNeeded"),
        (platform(pce_svn=10), "OutOfDate"),
        (platform(tee_tcb_svn=bytes([5, 1, 1]) + bytes(13)), "OutOfDate"),
        (platform((0,) + (9,) * 15), "tcb_unknown"),
        (platform(pce_svn=4), "tcb_unknown"),
        (platform(tee_tcb_svn=bytes([5, 1, 0]) + bytes(13)), "tcb_unknown"),
    ],
)
def test_the_first_level_that_is_reached_in_every_component_counts(machine: Machine, status: str) -> None:
    """One component below a level, and it is not reached, however far above it the others are."""
    assert rated(machine, Published(levels=LEVELS)) == status
    assert rated(machine, Published(levels=LEVELS[::-1])) == status


def test_components_of_the_module_are_rated_by_its_identity_where_it_has_a_version() -> None:
    """With a version the first two TDX components are not compared with the levels; without one they are."""
    published = Published(levels=(level("UpToDate", tdx=(9, 9, 2)),))
    assert rated(Machine(tee_tcb_svn=bytes([5, 1, 2]) + bytes(13)), published) == "UpToDate"
    assert rated(Machine(tee_tcb_svn=bytes([5, 0, 2]) + bytes(13)), published) == "tcb_unknown"
    unversioned = Published(levels=(level("UpToDate", tdx=(5, 0, 2)),))
    assert rated(Machine(tee_tcb_svn=bytes([5, 0, 2]) + bytes(13)), unversioned) == "UpToDate"
    assert rated(Machine(tee_tcb_svn=bytes([4, 0, 2]) + bytes(13)), unversioned) == "tcb_unknown"


@pytest.mark.parametrize(
    ("machine", "module", "reason"),
    [
        (Machine(tee_tcb_svn=bytes([5, 7, 2]) + bytes(13)), {}, "tdx_module"),
        (Machine(tee_tcb_svn=bytes([3, 1, 2]) + bytes(13)), {}, "tdx_module"),
        (Machine(mr_signer_seam=b"\x01" * 48), {}, "tdx_module"),
        (Machine(tee_tcb_svn=bytes([5, 0, 2]) + bytes(13), mr_signer_seam=b"\x01" * 48), {}, "tdx_module"),
        (Machine(seam_attributes=b"\x01" + bytes(7)), {}, "tdx_module"),
        (Machine(), {"attributes": "00"}, "tdx_module"),
    ],
)
def test_a_module_that_intel_does_not_list_is_refused(machine: Machine, module: dict[str, str], reason: str) -> None:
    """Another version, another signer, other attributes, older than every level."""
    assert rated(machine, Published(module={**MODULE, **module})) == reason


@pytest.mark.parametrize(
    ("machine", "published"),
    [
        (Machine(qe_signer=bytes(32)), Published()),
        (Machine(qe_product=1), Published()),
        (Machine(qe_misc=b"\x01\0\0\0"), Published()),
        (Machine(qe_attributes=bytes.fromhex("13000000000000000700000000000000")), Published()),
        (Machine(qe_attributes=bytes.fromhex("15000000000000000700000000000000")), Published()),
        (Machine(qe_attributes=bytes.fromhex("11010000000000000700000000000000")), Published()),
        (Machine(qe_svn=3), Published()),
        (Machine(), Published(qe_levels=())),
    ],
)
def test_another_quoting_enclave_than_intels_is_refused(machine: Machine, published: Published) -> None:
    """Signer, product, MISCSELECT, attributes (debug first of all), version."""
    if machine.qe_attributes[0] == 0x15:
        assert rated(machine, published) == "UpToDate", "bit 2 is outside the mask"
    else:
        assert rated(machine, published) == "qe_identity"


def test_a_quoting_enclave_in_debug_mode_is_refused_even_if_its_identity_allows_it() -> None:
    """Its key could be read out; no list of Intel's is needed to know that."""
    open_to_debug = Published(qe={"attributesMask": "00" * 16})
    assert rated(Machine(), open_to_debug) == "UpToDate"
    debug = Machine(qe_attributes=bytes.fromhex("13000000000000000700000000000000"))
    assert rated(debug, open_to_debug) == "qe_identity"


@pytest.mark.parametrize(("svn", "status"), [(9, "UpToDate"), (4, "UpToDate"), (3, "OutOfDate"), (1, "qe_identity")])
def test_the_best_level_that_an_enclave_reaches_counts(svn: int, status: str) -> None:
    """Whatever their order in the file."""
    levels = (enclave_level("UpToDate", isvsvn=4), enclave_level("OutOfDate", isvsvn=2))
    for order in (levels, levels[::-1]):
        assert rated(Machine(qe_svn=svn), Published(qe_levels=order)) == status


def test_miscselect_is_a_number_and_not_a_string_of_bytes() -> None:
    """Its first byte in the report is the last one in Intel's JSON."""
    published = Published(qe={"miscselect": "00000001"})
    assert rated(Machine(qe_misc=b"\x01\0\0\0"), published) == "UpToDate"
    assert rated(Machine(qe_misc=b"\0\0\0\x01"), published) == "qe_identity"


@pytest.mark.parametrize("part", ["levels", "module_levels", "qe_levels"])
@pytest.mark.parametrize("status", [status.name for status in TcbStatus])
def test_a_platform_is_as_bad_as_its_worst_part(part: str, status: str) -> None:
    """Platform, module and quoting enclave: any of them can be what is old, and the verdict says so."""
    entry = level(status, advisoryIDs=["SA-9"]) if part == "levels" else enclave_level(status, advisoryIDs=["SA-9"])
    parts: dict[str, Any] = {part: (entry,)}
    published = replace(Published(), **parts)
    verdict = verified(Machine().claim(), published, ANY)
    assert verdict.authentic is not None
    assert verdict.authentic.tcb_status.name == status
    assert verdict.authentic.advisories == ("SA-9",)
    assert reasons(verdict) == (["tcb_revoked"] if status == "Revoked" else [])


def test_the_oldest_date_of_the_parts_is_told() -> None:
    """As Intel writes it."""
    verdict = verified(
        Machine().claim(), Published(qe_levels=(enclave_level("UpToDate", tcbDate="2020-02-02T00:00:00Z"),))
    )
    assert verdict.authentic is not None
    assert datetime.fromisoformat(verdict.authentic.tcb_date).year == 2020


def test_by_default_only_what_is_up_to_date_is_accepted() -> None:
    """Whoever accepts less says so in the policy."""
    published = Published(levels=(level("SWHardeningNeeded", advisoryIDs=["SA-1"]),))
    verdict = verified(Machine().claim(), published)
    assert reasons(verdict) == ["tcb_status"]
    assert "SA-1" in verdict.failures[0].detail
