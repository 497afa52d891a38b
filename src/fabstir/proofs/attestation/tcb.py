"""Rates an authentic platform by what Intel says: its quoting enclave, its TDX module, its security version numbers.

Decides by the rules of Intel's reference verifier, with collateral that is verified already. Two rules are easy to get wrong. Levels are
looked at best first, and the first one that the platform reaches in *every* component counts. And where the TDX module has a version
of its own (second byte of TEE TCB SVN above zero), the first two TDX components are rated by that version's identity instead.
Raises AttestationFault.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fabstir.proofs.attestation.collateral import Component, EnclaveLevel, Module, PlatformLevel, QeIdentity, TcbInfo
from fabstir.proofs.attestation.pck import Platform
from fabstir.proofs.attestation.quote import QeReport, TdReport
from fabstir.protocol.attestation import AttestationFault, Reason
from fabstir.protocol.attestation_policy import TcbStatus, worst

SGX_DEBUG = 0x02
"""In the first byte of an enclave's attributes."""


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """How a platform is kept."""

    status: TcbStatus
    date: str
    advisories: tuple[str, ...]


def rate(platform: Platform, td: TdReport, qe: QeReport, tcb_info: TcbInfo, qe_identity: QeIdentity) -> Rating:
    """The status of the whole, which is that of its worst part, with the advisories of all parts and the oldest date."""
    _require_same_kind(platform, tcb_info)
    levels: list[PlatformLevel | EnclaveLevel] = [_quoting_enclave(qe, qe_identity), _platform(platform, td, tcb_info)]
    module = _module(td, tcb_info)
    if module is not None:
        levels.append(module)
    advisories = dict.fromkeys(advisory for level in levels for advisory in level.advisories)
    return Rating(
        status=worst(*(TcbStatus[level.status] for level in levels)),
        date=min(level.date for level in levels),
        advisories=tuple(advisories),
    )


def _require_same_kind(platform: Platform, tcb_info: TcbInfo) -> None:
    if bytes.fromhex(tcb_info.fmspc) != platform.fmspc or bytes.fromhex(tcb_info.pce_id) != platform.pce_id:
        raise AttestationFault(
            Reason.COLLATERAL_FOREIGN,
            f"the TCB info is for FMSPC {tcb_info.fmspc.lower()}, the platform is {platform.fmspc.hex()}",
        )


def _quoting_enclave(qe: QeReport, identity: QeIdentity) -> EnclaveLevel:
    if qe.attributes[0] & SGX_DEBUG:
        raise AttestationFault(Reason.QE_IDENTITY, "the quoting enclave runs with the debug attribute")
    same = (
        qe.mr_signer == bytes.fromhex(identity.mrsigner)
        and qe.isv_prod_id == identity.isvprodid
        # MISCSELECT is a number: little-endian in the report, most significant digit first in Intel's JSON
        and _masked(qe.misc_select[::-1], identity.miscselect, identity.miscselect_mask)
        and _masked(qe.attributes, identity.attributes, identity.attributes_mask)
    )
    if not same:
        raise AttestationFault(Reason.QE_IDENTITY, "the quoting enclave is not the one that Intel describes")
    return _enclave_level(identity.tcb_levels, qe.isv_svn, Reason.QE_IDENTITY)


def _masked(found: bytes, expected: str, mask: str) -> bool:
    wanted, bits = bytes.fromhex(expected), bytes.fromhex(mask)
    if not len(found) == len(wanted) == len(bits):
        return False
    return all(a & m == b & m for a, b, m in zip(found, wanted, bits, strict=True))


def _enclave_level(levels: Iterable[EnclaveLevel], svn: int, missing: Reason) -> EnclaveLevel:
    best_first = sorted(levels, key=lambda level: level.tcb.isvsvn, reverse=True)
    for level in best_first:
        if svn >= level.tcb.isvsvn:
            return level
    raise AttestationFault(missing, f"security version {svn} is below every level that Intel lists")


def _module(td: TdReport, tcb_info: TcbInfo) -> EnclaveLevel | None:
    svn, version = td.tee_tcb_svn[0], td.tee_tcb_svn[1]
    if version == 0:
        _require_module(td, tcb_info.tdx_module)
        return None
    wanted = f"TDX_{version:02X}"
    for identity in tcb_info.tdx_module_identities:
        if identity.id.upper() == wanted:
            _require_module(td, identity)
            return _enclave_level(identity.levels, svn, Reason.TDX_MODULE)
    raise AttestationFault(Reason.TDX_MODULE, f"Intel lists no {wanted} for this platform")


def _require_module(td: TdReport, module: Module) -> None:
    if td.mr_signer_seam != bytes.fromhex(module.mrsigner):
        raise AttestationFault(Reason.TDX_MODULE, "the TDX module was signed by somebody else")
    if not _masked(td.seam_attributes, module.attributes, module.attributes_mask):
        raise AttestationFault(Reason.TDX_MODULE, f"the TDX module has attributes {td.seam_attributes.hex()}")


def _platform(platform: Platform, td: TdReport, tcb_info: TcbInfo) -> PlatformLevel:
    first = 2 if td.tee_tcb_svn[1] else 0
    best_first = sorted(
        tcb_info.tcb_levels,
        key=lambda level: (_svns(level.tcb.sgx), _svns(level.tcb.tdx), level.tcb.pcesvn),
        reverse=True,
    )
    for level in best_first:
        reached = (
            platform.pce_svn >= level.tcb.pcesvn
            and _at_least(platform.components, _svns(level.tcb.sgx))
            and _at_least(td.tee_tcb_svn[first:], _svns(level.tcb.tdx)[first:])
        )
        if reached:
            return level
    raise AttestationFault(Reason.TCB_UNKNOWN, "the platform is below every level that Intel lists")


def _svns(components: Iterable[Component]) -> tuple[int, ...]:
    return tuple(component.svn for component in components)


def _at_least(found: Iterable[int], wanted: Iterable[int]) -> bool:
    return all(have >= need for have, need in zip(found, wanted, strict=True))
