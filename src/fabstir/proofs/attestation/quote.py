"""Reads a TDX quote of version 4 into its parts. Believes nothing: whether a signature holds is decided elsewhere.

Layout (Intel, *TDX DCAP Quoting Library API*, appendix 3; integers little-endian):

    header (48) | TD report (584) | u32 n | signature data (n) | zeros
    signature data = signature (64) | attestation key (64) | u16 6 | u32 n | QE certification data (n)
    QE certification data = QE report (384) | signature (64) | u16 n | QE authentication data (n) | u16 5 | u32 n | PEM chain (n)

Every length is checked against what is there, in both directions: a part may neither reach beyond its whole nor leave bytes of it
over. Zeros after the end are let through, since quoting services hand out fixed buffers; they are not part of the quote.
Raises AttestationFault with a `quote_*` reason, and nothing else, whatever the bytes are.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from fabstir.protocol.attestation import MAX_QUOTE, AttestationFault, Reason
from fabstir.protocol.attestation_policy import TdMeasurements

HEADER: Final = 48
TD_REPORT: Final = 584
SIGNED: Final = HEADER + TD_REPORT
"""What the attestation key signs."""
SIGNATURE: Final = 64
POINT: Final = 64
QE_REPORT: Final = 384

VERSION: Final = 4
ECDSA_P256: Final = 2
TEE_TDX: Final = 0x81
QE_VENDOR_INTEL: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
CERTIFICATION_QE_REPORT: Final = 6
CERTIFICATION_PCK_CHAIN: Final = 5


class TdReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the TDX module says of the virtual machine."""

    tee_tcb_svn: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes
    measurements: TdMeasurements


class QeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the CPU says of the enclave that signed the quote."""

    raw: bytes
    misc_select: bytes
    attributes: bytes
    mr_signer: bytes
    isv_prod_id: int
    isv_svn: int
    report_data: bytes


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """A quote in its parts."""

    signed: bytes
    td: TdReport
    signature: bytes
    attestation_key: bytes
    qe: QeReport
    qe_signature: bytes
    qe_authentication: bytes
    pck_chain: bytes


class _Reader:
    """Takes parts off the front of `data`. `name` is the whole, for messages."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._at, self._name = data, 0, name

    def take(self, length: int, part: str) -> bytes:
        left = len(self._data) - self._at
        if length > left:
            raise AttestationFault(
                Reason.QUOTE_TRUNCATED, f"{part} needs {length} bytes, {left} are left of the {self._name}"
            )
        self._at += length
        return self._data[self._at - length : self._at]

    def number(self, width: int, part: str) -> int:
        return int.from_bytes(self.take(width, part), "little")

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at, "the rest")

    def end(self) -> None:
        left = len(self._data) - self._at
        if left:
            raise AttestationFault(Reason.QUOTE_TRAILING, f"{left} bytes are left over of the {self._name}")


def parse_quote(data: bytes) -> Quote:
    """The parts of the quote in `data`. Raises AttestationFault."""
    if len(data) > MAX_QUOTE:
        raise AttestationFault(Reason.QUOTE_OVERSIZE, f"{len(data)} bytes, at most {MAX_QUOTE} are read")
    reader = _Reader(data, "quote")
    header = reader.take(HEADER, "header")
    _require_tdx_4(header)
    report = reader.take(TD_REPORT, "TD report")
    signature_data = reader.take(reader.number(4, "length of the signature data"), "signature data")
    if reader.rest().strip(b"\0"):
        raise AttestationFault(Reason.QUOTE_TRAILING, "bytes that are not zero follow the quote")
    return _with_signature_data(header + report, signature_data)


def _require_tdx_4(header: bytes) -> None:
    version, key_type, tee = struct.unpack_from("<HHI", header)
    for name, found, wanted in (
        ("version", version, VERSION),
        ("attestation key type", key_type, ECDSA_P256),
        ("TEE type", tee, TEE_TDX),
    ):
        if found != wanted:
            raise AttestationFault(Reason.QUOTE_UNSUPPORTED, f"{name} is {found}, read is {wanted}")
    if header[12:28] != QE_VENDOR_INTEL:
        raise AttestationFault(Reason.QUOTE_UNSUPPORTED, f"the quoting enclave is of vendor {header[12:28].hex()}")


def _with_signature_data(signed: bytes, data: bytes) -> Quote:
    reader = _Reader(data, "signature data")
    signature = reader.take(SIGNATURE, "signature")
    attestation_key = reader.take(POINT, "attestation key")
    inner = _Reader(_certification(reader, CERTIFICATION_QE_REPORT), "QE certification data")
    reader.end()
    qe_report = inner.take(QE_REPORT, "QE report")
    qe_signature = inner.take(SIGNATURE, "signature of the QE report")
    qe_authentication = inner.take(inner.number(2, "length of the QE authentication data"), "QE authentication data")
    pck_chain = _certification(inner, CERTIFICATION_PCK_CHAIN)
    inner.end()
    return Quote(
        signed=signed,
        td=_td_report(signed[HEADER:]),
        signature=signature,
        attestation_key=attestation_key,
        qe=_qe_report(qe_report),
        qe_signature=qe_signature,
        qe_authentication=qe_authentication,
        pck_chain=pck_chain,
    )


def _certification(reader: _Reader, wanted: int) -> bytes:
    kind = reader.number(2, "type of the certification data")
    if kind != wanted:
        raise AttestationFault(Reason.QUOTE_UNSUPPORTED, f"certification data of type {kind}, read is {wanted}")
    return reader.take(reader.number(4, "length of the certification data"), "certification data")


def _td_report(data: bytes) -> TdReport:
    reader = _Reader(data, "TD report")
    tee_tcb_svn = reader.take(16, "TEE TCB SVN")
    mr_seam, mr_signer_seam = reader.take(48, "MRSEAM"), reader.take(48, "MRSIGNERSEAM")
    seam_attributes = reader.take(8, "SEAM attributes")
    attributes, xfam = reader.number(8, "TD attributes"), reader.number(8, "XFAM")
    mr_td, config_id, owner, owner_config = (
        reader.take(48, name) for name in ("MRTD", "MRCONFIGID", "MROWNER", "MROWNERCONFIG")
    )
    rtmr0, rtmr1, rtmr2, rtmr3 = (reader.take(48, f"RTMR{n}") for n in range(4))
    measurements = TdMeasurements(
        mr_td=mr_td,
        rtmr=(rtmr0, rtmr1, rtmr2, rtmr3),
        mr_config_id=config_id,
        mr_owner=owner,
        mr_owner_config=owner_config,
        mr_seam=mr_seam,
        attributes=attributes,
        xfam=xfam,
        report_data=reader.take(64, "report data"),
    )
    return TdReport(
        tee_tcb_svn=tee_tcb_svn,
        mr_signer_seam=mr_signer_seam,
        seam_attributes=seam_attributes,
        measurements=measurements,
    )


def _qe_report(data: bytes) -> QeReport:
    isv_prod_id, isv_svn = struct.unpack_from("<HH", data, 256)
    return QeReport(
        raw=data,
        misc_select=data[16:20],
        attributes=data[48:64],
        mr_signer=data[128:160],
        isv_prod_id=isv_prod_id,
        isv_svn=isv_svn,
        report_data=data[320:384],
    )
