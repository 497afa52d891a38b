"""What Intel publishes beside certificates: TCB info, the identity of the quoting enclave, revocation lists. Here it is read and verified.

The file is the JSON that Intel's quote libraries and the tools around them exchange (`QuoteCollateral`, version 3): signed JSON as text,
chains as PEM, lists and signatures as hexadecimal. It comes from whoever wants to; nothing in it is believed before its signature,
its chain and its dates are verified. Fetches nothing. Raises AttestationFault (`collateral_*`, `certificate_*`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from cryptography import x509
from msgspec import Meta

from fabstir.proofs.attestation.certificates import (
    ROOT_ROLE,
    TCB_ROLE,
    p256_key,
    signature_holds,
    verify_chain,
    verify_revocations,
)
from fabstir.protocol.attestation import AttestationFault, Reason

MAX_COLLATERAL: Final = 1 << 20
"""Bytes. Intel's are below 30,000."""
Byte = Annotated[int, Meta(ge=0, le=255)]
Short = Annotated[int, Meta(ge=0, le=0xFFFF)]
Sixteen = Meta(min_length=16, max_length=16)
Hex = Annotated[str, Meta(pattern=r"^([0-9a-fA-F]{2})*\Z")]
Status = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
]


class Collateral(msgspec.Struct, frozen=True, kw_only=True):
    """The file. Other fields are let through and not read: the chain of the PCK's list is the one in the quote."""

    root_ca_crl: Hex
    pck_crl: Hex
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: Hex
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: Hex


class Component(msgspec.Struct, frozen=True):
    """One security version number."""

    svn: Byte


class Components(msgspec.Struct, frozen=True, rename={"sgx": "sgxtcbcomponents", "tdx": "tdxtcbcomponents"}):
    """What a platform must have at least."""

    sgx: Annotated[tuple[Component, ...], Sixteen]
    tdx: Annotated[tuple[Component, ...], Sixteen]
    pcesvn: Short


class PlatformLevel(
    msgspec.Struct, frozen=True, rename={"date": "tcbDate", "status": "tcbStatus", "advisories": "advisoryIDs"}
):
    """One level of platforms and how it is rated."""

    tcb: Components
    date: str
    status: Status
    advisories: tuple[str, ...] = ()


class Svn(msgspec.Struct, frozen=True):
    """What a module or an enclave must have at least."""

    isvsvn: Short


class EnclaveLevel(
    msgspec.Struct, frozen=True, rename={"date": "tcbDate", "status": "tcbStatus", "advisories": "advisoryIDs"}
):
    """One level of a module or an enclave and how it is rated."""

    tcb: Svn
    date: str
    status: Status
    advisories: tuple[str, ...] = ()


class Module(msgspec.Struct, frozen=True, rename={"attributes_mask": "attributesMask"}):
    """Who signed the TDX module, and its attributes."""

    mrsigner: Hex
    attributes: Hex
    attributes_mask: Hex


class ModuleIdentity(Module, frozen=True, rename={"attributes_mask": "attributesMask", "levels": "tcbLevels"}):
    """The same for one version of the module, with its levels."""

    id: str
    levels: tuple[EnclaveLevel, ...]


class TcbInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What Intel says of all platforms of one kind."""

    id: Literal["TDX"]
    version: Literal[3]
    issue_date: str
    next_update: str
    fmspc: Hex
    pce_id: Hex
    tcb_type: Literal[0]
    tdx_module: Module
    tdx_module_identities: tuple[ModuleIdentity, ...] = ()
    tcb_levels: tuple[PlatformLevel, ...]


class QeIdentity(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What Intel says of the enclave that signs quotes of TDX."""

    id: Literal["TD_QE"]
    version: Literal[2, 3]
    issue_date: str
    next_update: str
    miscselect: Hex
    miscselect_mask: Hex
    attributes: Hex
    attributes_mask: Hex
    mrsigner: Hex
    isvprodid: Short
    tcb_levels: tuple[EnclaveLevel, ...]


Signed = TypeVar("Signed", TcbInfo, QeIdentity)


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """Collateral of which every signature and date holds."""

    tcb_info: TcbInfo
    qe_identity: QeIdentity
    valid_until: int


def read_collateral(data: bytes) -> Collateral:
    """The file in `data`. Nothing of it is verified yet."""
    if len(data) > MAX_COLLATERAL:
        raise AttestationFault(Reason.COLLATERAL_MALFORMED, f"{len(data)} bytes, at most {MAX_COLLATERAL} are read")
    try:
        return msgspec.json.decode(data, type=Collateral)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise AttestationFault(Reason.COLLATERAL_MALFORMED, f"the collateral: {wrong}") from wrong


def verify_collateral(given: Collateral, pck: tuple[x509.Certificate, ...], root: bytes, now: datetime) -> Verified:
    """What `given` says, for a platform whose verified chain is `pck`, leaf first."""
    leaf, issuer, top = pck
    root_crl = bytes.fromhex(given.root_ca_crl)
    ends = [
        verify_revocations(bytes.fromhex(given.pck_crl), issuer, leaf, now),
        verify_revocations(root_crl, top, issuer, now),
    ]
    signed: list[tuple[str, str, str]] = [
        (given.tcb_info, given.tcb_info_signature, given.tcb_info_issuer_chain),
        (given.qe_identity, given.qe_identity_signature, given.qe_identity_issuer_chain),
    ]
    for text, signature, pem in signed:
        chain = verify_chain(pem.encode(), ((TCB_ROLE,), (ROOT_ROLE,)), root, now)
        ends += [chain.valid_until, verify_revocations(root_crl, chain.certificates[-1], chain.leaf, now)]
        if not signature_holds(p256_key(chain.leaf), bytes.fromhex(signature), text.encode()):
            raise AttestationFault(Reason.COLLATERAL_SIGNATURE, "TCB info or QE identity is not signed by Intel")
    tcb_info, tcb_end = _dated(given.tcb_info, TcbInfo, now)
    qe_identity, qe_end = _dated(given.qe_identity, QeIdentity, now)
    return Verified(tcb_info=tcb_info, qe_identity=qe_identity, valid_until=min(*ends, tcb_end, qe_end))


def _dated(text: str, kind: type[Signed], now: datetime) -> tuple[Signed, int]:
    try:
        found = msgspec.json.decode(text, type=kind)
        begin, end = _date(found.issue_date), _date(found.next_update)
    except (msgspec.DecodeError, ValueError) as wrong:
        raise AttestationFault(Reason.COLLATERAL_MALFORMED, f"{kind.__name__}: {wrong}") from wrong
    if not begin <= now <= end:
        raise AttestationFault(Reason.COLLATERAL_EXPIRED, f"{kind.__name__}: {begin} to {end}, now {now}")
    return found, int(end.timestamp())


def _date(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
