"""What Intel wrote about a platform into its PCK certificate: security version numbers and the kind of platform.

Reads extension 1.2.840.113741.1.13.1 (Intel, *SGX PCK Certificate and Certificate Revocation List Profile*): a sequence of pairs of an
identifier and a value, in DER. The certificate's signature is verified before; this still reads nothing beyond its bounds.
Raises AttestationFault (`certificate_malformed`).
"""

from __future__ import annotations

from typing import Final

import msgspec
from cryptography import x509

from fabstir.protocol.attestation import AttestationFault, Reason

SGX_EXTENSIONS: Final = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_PREFIX: Final = bytes.fromhex("2a864886f84d010d01")
"""The same identifier as DER encodes it; those of its parts append to it."""
_SEQUENCE, _OBJECT, _INTEGER, _OCTETS = 0x30, 0x06, 0x02, 0x04
_TCB, _PCE_ID, _FMSPC = b"\x02", b"\x03", b"\x04"
_PCE_SVN: Final = b"\x02\x11"
COMPONENTS: Final = 16


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """One platform, as its PCK certificate describes it."""

    fmspc: bytes
    pce_id: bytes
    pce_svn: int
    components: tuple[int, ...]
    """Security version numbers of microcode, firmware and the like."""


def platform_of(pck: x509.Certificate) -> Platform:
    """The platform that `pck` was issued for."""
    try:
        value = pck.extensions.get_extension_for_oid(SGX_EXTENSIONS).value
    except (x509.ExtensionNotFound, ValueError) as wrong:
        raise _malformed("it has no SGX extension") from wrong
    if not isinstance(value, x509.UnrecognizedExtension):
        raise _malformed("its SGX extension has another kind")
    fields = _pairs(_only(value.value, _SEQUENCE))
    tcb = _pairs(_typed(fields, _TCB, _SEQUENCE))
    fmspc, pce_id = _typed(fields, _FMSPC, _OCTETS), _typed(fields, _PCE_ID, _OCTETS)
    if len(fmspc) != 6 or len(pce_id) != 2:
        raise _malformed("FMSPC or PCE-ID has another length")
    return Platform(
        fmspc=fmspc,
        pce_id=pce_id,
        pce_svn=_number(tcb, _PCE_SVN, 0xFFFF),
        components=tuple(_number(tcb, bytes([2, n]), 0xFF) for n in range(1, COMPONENTS + 1)),
    )


def _malformed(detail: str) -> AttestationFault:
    return AttestationFault(Reason.CERTIFICATE_MALFORMED, f"the PCK certificate: {detail}")


def _next(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element of `data`, and what follows it."""
    if len(data) < 2:
        raise _malformed("an element is cut off")
    tag, length, at = data[0], data[1], 2
    if length & 0x80:
        width = length & 0x7F
        if not 1 <= width <= 2 or len(data) < at + width:
            raise _malformed("an element has a length that is not read")
        length, at = int.from_bytes(data[at : at + width], "big"), at + width
    if len(data) < at + length:
        raise _malformed("an element reaches beyond its whole")
    return tag, data[at : at + length], data[at + length :]


def _only(data: bytes, wanted: int) -> bytes:
    tag, content, rest = _next(data)
    if tag != wanted or rest:
        raise _malformed("an element is of another kind or has company")
    return content


def _pairs(data: bytes) -> dict[bytes, tuple[int, bytes]]:
    """Tag and content of each value, by the end of its identifier. The first of two with one name would win, so two are refused."""
    found: dict[bytes, tuple[int, bytes]] = {}
    while data:
        tag, pair, data = _next(data)
        name_tag, name, value = _next(pair)
        if tag != _SEQUENCE or name_tag != _OBJECT or not name.startswith(_PREFIX):
            raise _malformed("an element of the SGX extension is no pair")
        value_tag, content, rest = _next(value)
        if rest or name[len(_PREFIX) :] in found:
            raise _malformed("an element of the SGX extension is given twice")
        found[name[len(_PREFIX) :]] = (value_tag, content)
    return found


def _typed(fields: dict[bytes, tuple[int, bytes]], name: bytes, wanted: int) -> bytes:
    tag, content = fields.get(name, (0, b""))
    if tag != wanted:
        raise _malformed(f"field {name.hex()} of the SGX extension is missing or of another kind")
    return content


def _number(fields: dict[bytes, tuple[int, bytes]], name: bytes, most: int) -> int:
    content = _typed(fields, name, _INTEGER)
    number = int.from_bytes(content, "big", signed=True) if content else -1
    if not 0 <= number <= most:
        raise _malformed(f"field {name.hex()} of the SGX extension is out of range")
    return number
