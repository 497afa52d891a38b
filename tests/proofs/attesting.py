"""A hierarchy of keys as Intel has one, with a root of the tests' own, and quotes and collateral signed in it.

Everything takes the way of the real thing, byte for byte; only the root differs, which a test hands to the verifier by name. Whatever
can be wrong is an argument, so that a test changes one thing and leaves every signature that it does not mean to break intact.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from fabstir.domain.ids import Address, Hash32, ModelId
from fabstir.proofs.attestation.certificates import PCK_ISSUER_ROLES, PCK_ROLE, ROOT_ROLE, TCB_ROLE
from fabstir.proofs.attestation.pck import SGX_EXTENSIONS
from fabstir.proofs.attestation.quote import QE_VENDOR_INTEL
from fabstir.proofs.attestation.tdx import TdxVerifier
from fabstir.protocol.attestation import AttestationClaim, Binding, Expected, Format, WireClaim
from fabstir.protocol.attestation_policy import AttestationPolicy, AttestationVerdict, Image
from fabstir.testing.clock import ManualClock

NOW: Final = datetime(2027, 1, 15, 8, 0, 0, tzinfo=UTC)
FMSPC: Final = bytes.fromhex("50806f000000")
QE_SIGNER: Final = bytes(range(32))
AUTHENTICATION: Final = bytes(range(32))
MR_TD: Final = b"\x11" * 48
RTMR: Final = tuple(bytes([n]) * 48 for n in range(4))
SEPT_VE_DISABLE: Final = 1 << 28
BINDING: Final = Binding(
    format=Format.TDX_QUOTE_4,
    host=Address(b"\x0a" * 20),
    key=Hash32(b"\x0b" * 32),
    model_id=ModelId(b"\x0c" * 32),
    nonce=Hash32(b"\x0d" * 32),
)
POLICY: Final = AttestationPolicy(images=(Image(mr_td=MR_TD.hex(), rtmr1=RTMR[1].hex()),))
Key = ec.EllipticCurvePrivateKey


@cache
def key(name: str) -> Key:
    """The key called `name`, the same in every run. Signatures are deterministic, too."""
    return ec.derive_private_key(int.from_bytes(sha256(name.encode()).digest(), "big") >> 1, ec.SECP256R1())


def point(of: Key) -> bytes:
    """The public half, 65 bytes."""
    return of.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def sign(by: Key, data: bytes) -> bytes:
    """r and s, 32 bytes each."""
    r, s = decode_dss_signature(by.sign(data, ec.ECDSA(SHA256(), deterministic_signing=True)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def element(tag: int, content: bytes) -> bytes:
    """One element of DER."""
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    return bytes([tag, 0x82]) + len(content).to_bytes(2, "big") + content


def pair(suffix: bytes, value: bytes) -> bytes:
    """One field of the SGX extension."""
    return element(0x30, element(0x06, bytes.fromhex("2a864886f84d010d01") + suffix) + value)


def number(value: int) -> bytes:
    """A DER integer."""
    return element(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def sgx_extension(
    components: tuple[int, ...] = (3,) * 16, pce_svn: int = 11, fmspc: bytes = FMSPC, more: bytes = b""
) -> bytes:
    """What Intel says of a platform in its certificate, and `more` fields."""
    svns = b"".join(pair(bytes([2, n + 1]), number(svn)) for n, svn in enumerate(components))
    tcb = element(0x30, svns + pair(b"\x02\x11", number(pce_svn)) + pair(b"\x02\x12", element(0x04, bytes(16))))
    return element(
        0x30,
        pair(b"\x01", element(0x04, bytes(16)))
        + pair(b"\x02", tcb)
        + pair(b"\x03", element(0x04, bytes(2)))
        + pair(b"\x04", element(0x04, fmspc))
        + more,
    )


@dataclass(frozen=True)
class Certificate:
    """One certificate, with everything that can be wrong with it."""

    name: str
    key: Key
    issuer: str
    issuer_key: Key
    issues: bool = False
    may_sign: bool = True
    path_length: int | None = None
    begin: datetime = NOW - timedelta(days=100)
    end: datetime = NOW + timedelta(days=1000)
    serial: int = 7
    sgx: bytes | None = None
    critical: bool = False
    """With a critical extension that nobody knows."""
    signs_all: bool = False
    """Data and certificates, whatever its place is."""

    def build(self) -> x509.Certificate:
        """Signed."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(self.name))
            .issuer_name(_name(self.issuer))
            .public_key(self.key.public_key())
            .serial_number(self.serial)
            .not_valid_before(self.begin)
            .not_valid_after(self.end)
            .add_extension(x509.BasicConstraints(ca=self.issues, path_length=self.path_length), critical=True)
            .add_extension(self._usage(), critical=True)
        )
        if self.sgx is not None:
            builder = builder.add_extension(x509.UnrecognizedExtension(SGX_EXTENSIONS, self.sgx), critical=False)
        if self.critical:
            unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
            builder = builder.add_extension(unknown, critical=True)
        return builder.sign(self.issuer_key, SHA256(), ecdsa_deterministic=True)

    def _usage(self) -> x509.KeyUsage:
        return _usage(
            self.signs_all or (self.issues and self.may_sign),
            self.signs_all or (not self.issues and self.may_sign),
        )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(certificates: bool, data: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=data,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


ROOT_KEY: Final = key("root")
ISSUER_KEY: Final = key("issuer")
PCK_KEY: Final = key("pck")
TCB_KEY: Final = key("tcb")
ATTESTATION_KEY: Final = key("attestation")

ROOT: Final = Certificate(ROOT_ROLE, ROOT_KEY, ROOT_ROLE, ROOT_KEY, issues=True, path_length=1, serial=1)
ISSUER: Final = Certificate(PCK_ISSUER_ROLES[0], ISSUER_KEY, ROOT_ROLE, ROOT_KEY, issues=True, path_length=0, serial=2)
PCK: Final = Certificate(PCK_ROLE, PCK_KEY, PCK_ISSUER_ROLES[0], ISSUER_KEY, serial=3, sgx=sgx_extension())
SIGNER: Final = Certificate(TCB_ROLE, TCB_KEY, ROOT_ROLE, ROOT_KEY, serial=4)


def pem(*chain: Certificate) -> bytes:
    """A chain, leaf first."""
    return b"".join(certificate.build().public_bytes(Encoding.PEM) for certificate in chain)


@dataclass(frozen=True)
class Machine:
    """A virtual machine on a platform, and what its quote says."""

    binding: Binding = BINDING
    report_data: bytes | None = None
    """Unset: that of the binding."""
    attributes: int = SEPT_VE_DISABLE
    mr_td: bytes = MR_TD
    rtmr: tuple[bytes, ...] = RTMR
    tee_tcb_svn: bytes = bytes([5, 1, 2]) + bytes(13)
    mr_signer_seam: bytes = bytes(48)
    seam_attributes: bytes = bytes(8)
    version: int = 4
    key_type: int = 2
    tee: int = 0x81
    vendor: bytes = QE_VENDOR_INTEL
    qe_attributes: bytes = bytes.fromhex("11000000000000000700000000000000")
    qe_misc: bytes = bytes(4)
    qe_signer: bytes = QE_SIGNER
    qe_product: int = 2
    qe_svn: int = 4
    qe_report_data: bytes | None = None
    chain: tuple[Certificate, ...] = (PCK, ISSUER, ROOT)
    attestation_key: Key = ATTESTATION_KEY
    qe_signed_by: Key = PCK_KEY
    signed_by: Key = ATTESTATION_KEY

    @property
    def signed(self) -> bytes:
        """Header and TD report."""
        header = (
            self.version.to_bytes(2, "little") + self.key_type.to_bytes(2, "little") + self.tee.to_bytes(4, "little")
        )
        header += bytes(4) + self.vendor + bytes(20)
        report = self.tee_tcb_svn + bytes(48) + self.mr_signer_seam + self.seam_attributes
        report += self.attributes.to_bytes(8, "little") + bytes(8) + self.mr_td + bytes(3 * 48) + b"".join(self.rtmr)
        return header + report + (self.binding.report_data if self.report_data is None else self.report_data)

    @property
    def qe_report(self) -> bytes:
        """384 bytes."""
        named = sha256(point(self.attestation_key)[1:] + AUTHENTICATION).digest() + bytes(32)
        report = bytes(16) + self.qe_misc + bytes(28) + self.qe_attributes + bytes(64) + self.qe_signer + bytes(96)
        report += self.qe_product.to_bytes(2, "little") + self.qe_svn.to_bytes(2, "little") + bytes(60)
        return report + (self.qe_report_data or named)

    def quote(self) -> bytes:
        """The quote as a machine hands it out."""
        chain = pem(*self.chain) + b"\0"
        inner = self.qe_report + sign(self.qe_signed_by, self.qe_report)
        inner += len(AUTHENTICATION).to_bytes(2, "little") + AUTHENTICATION
        inner += (5).to_bytes(2, "little") + len(chain).to_bytes(4, "little") + chain
        data = sign(self.signed_by, self.signed) + point(self.attestation_key)[1:]
        data += (6).to_bytes(2, "little") + len(inner).to_bytes(4, "little") + inner
        return self.signed + len(data).to_bytes(4, "little") + data + bytes(70)

    def claim(self) -> AttestationClaim:
        """What the host says, with the quote."""
        return AttestationClaim(binding=self.binding, quote=self.quote())


def level(status: str, sgx: int = 3, pcesvn: int = 11, tdx: tuple[int, ...] = (0, 0, 2), **more: Any) -> dict[str, Any]:
    """One level of platforms."""
    components = [{"svn": sgx}] * 16
    return {
        "tcb": {
            "sgxtcbcomponents": components,
            "pcesvn": pcesvn,
            "tdxtcbcomponents": [{"svn": svn} for svn in (*tdx, *(0,) * (16 - len(tdx)))],
        },
        "tcbDate": "2026-05-01T00:00:00Z",
        "tcbStatus": status,
        **more,
    }


def enclave_level(status: str, isvsvn: int = 4, **more: Any) -> dict[str, Any]:
    """One level of a module or an enclave."""
    return {"tcb": {"isvsvn": isvsvn}, "tcbDate": "2026-06-01T00:00:00Z", "tcbStatus": status, **more}


def stamp(when: datetime) -> str:
    """As Intel writes a time."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


MODULE: Final = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}


@dataclass(frozen=True)
class Published:
    """What Intel publishes, with everything that can be wrong with it."""

    levels: tuple[dict[str, Any], ...] = (level("UpToDate"), level("OutOfDate", sgx=1, pcesvn=5, tdx=()))
    module_levels: tuple[dict[str, Any], ...] = (enclave_level("UpToDate"),)
    module: dict[str, Any] = field(default_factory=lambda: dict(MODULE))
    qe_levels: tuple[dict[str, Any], ...] = (enclave_level("UpToDate"),)
    fmspc: bytes = FMSPC
    begin: datetime = NOW - timedelta(days=3)
    end: datetime = NOW + timedelta(days=27)
    qe_end: datetime = NOW + timedelta(days=26)
    crl_begin: datetime = NOW - timedelta(days=3)
    crl_hash: SHA256 | SHA384 = field(default_factory=SHA256)
    crl_partial: bool = False
    """With the critical extension that says which certificates a list is about."""
    qe_begin: datetime = NOW - timedelta(days=3)
    qe: dict[str, Any] = field(default_factory=dict)
    """Fields of the QE identity that differ."""
    crl_end: datetime = NOW + timedelta(days=25)
    revoked: tuple[int, ...] = ()
    revoked_by_root: tuple[int, ...] = ()
    signer: tuple[Certificate, ...] = (SIGNER, ROOT)
    signed_by: Key = TCB_KEY
    crl_name: str = PCK_ISSUER_ROLES[0]
    crl_signed_by: Key = ISSUER_KEY
    root_crl_signed_by: Key = ROOT_KEY
    info: dict[str, Any] = field(default_factory=dict)
    """Fields of the TCB info that differ."""

    def revocations(self, name: str, by: Key, serials: tuple[int, ...]) -> str:
        """A list, as hexadecimal."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(_name(name))
        builder = builder.last_update(self.crl_begin).next_update(self.crl_end)
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(self.crl_begin).build()
            builder = builder.add_revoked_certificate(entry)
        if self.crl_partial:
            partial = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
            builder = builder.add_extension(partial, critical=True)
        return builder.sign(by, self.crl_hash, ecdsa_deterministic=True).public_bytes(Encoding.DER).hex()

    def tcb_info(self) -> str:
        """JSON as it is signed."""
        return json.dumps(
            {
                "id": "TDX",
                "version": 3,
                "issueDate": stamp(self.begin),
                "nextUpdate": stamp(self.end),
                "fmspc": self.fmspc.hex().upper(),
                "pceId": "0000",
                "tcbType": 0,
                "tcbEvaluationDataNumber": 18,
                "tdxModule": self.module,
                "tdxModuleIdentities": [{"id": "TDX_01", **self.module, "tcbLevels": self.module_levels}],
                "tcbLevels": self.levels,
                **self.info,
            }
        )

    def qe_identity(self) -> str:
        """JSON as it is signed."""
        return json.dumps(
            {
                "id": "TD_QE",
                "version": 2,
                "issueDate": stamp(self.qe_begin),
                "nextUpdate": stamp(self.qe_end),
                "tcbEvaluationDataNumber": 18,
                "miscselect": "00000000",
                "miscselectMask": "FFFFFFFF",
                "attributes": "11000000000000000000000000000000",
                "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
                "mrsigner": QE_SIGNER.hex().upper(),
                "isvprodid": 2,
                "tcbLevels": self.qe_levels,
                **self.qe,
            }
        )

    def fields(self) -> dict[str, str]:
        """The file as a mapping."""
        chain = pem(*self.signer).decode()
        tcb_info, qe_identity = self.tcb_info(), self.qe_identity()
        return {
            "root_ca_crl": self.revocations(ROOT_ROLE, self.root_crl_signed_by, self.revoked_by_root),
            "pck_crl": self.revocations(self.crl_name, self.crl_signed_by, self.revoked),
            "pck_crl_issuer_chain": pem(ISSUER, ROOT).decode(),
            "tcb_info_issuer_chain": chain,
            "tcb_info": tcb_info,
            "tcb_info_signature": sign(self.signed_by, tcb_info.encode()).hex(),
            "qe_identity_issuer_chain": chain,
            "qe_identity": qe_identity,
            "qe_identity_signature": sign(self.signed_by, qe_identity.encode()).hex(),
        }

    def file(self) -> bytes:
        """The file."""
        return json.dumps(self.fields()).encode()


def changed(certificate: Certificate, **changes: Any) -> Certificate:
    """`certificate` with something wrong."""
    return replace(certificate, **changes)


def verifier(now: datetime = NOW, root: bytes | None = None) -> TdxVerifier:
    """With the tests' root and a clock that stands still."""
    return TdxVerifier(ManualClock(now.timestamp()), root=point(ROOT_KEY) if root is None else root)


def verified(
    claim: AttestationClaim,
    published: Published | bytes | None = None,
    policy: AttestationPolicy = POLICY,
    expected: Expected | None = None,
    now: datetime = NOW,
) -> AttestationVerdict:
    """The verdict, with everything well unless it is given."""
    published = Published() if published is None else published
    collateral = published if isinstance(published, bytes) else published.file()
    return verifier(now).verify(claim, collateral, policy, expected or Expected(nonce=BINDING.nonce))


def reasons(verdict: AttestationVerdict) -> list[str]:
    """Names of what is wrong."""
    return [failure.reason.value for failure in verdict.failures]


def claim_file(claim: AttestationClaim) -> bytes:
    """The claim as the host sends it."""
    return json.dumps(
        {
            name: getattr(WireClaim.of(claim, base64.b64encode(claim.quote).decode()), name)
            for name in WireClaim.__struct_fields__
        }
    ).encode()
