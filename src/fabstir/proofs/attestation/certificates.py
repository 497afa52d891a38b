"""Certificates and revocation lists of Intel's key hierarchy: a chain of a known shape, up to a key that is pinned.

Decides whether a chain holds: the root's key, signatures, names, rights, dates, revocation. It is stricter than X.509 in general: the
number of certificates and the name of each one's role are given, keys are P-256 and signatures SHA-256, and a critical extension that is
not understood ends it. Never fetches anything, never looks into the system's certificate store. Raises AttestationFault.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from fabstir.protocol.attestation import AttestationFault, Reason

INTEL_SGX_ROOT: Final = bytes.fromhex(
    "040ba9c4c0c0c86193a3fe23d6b02cda10a8bbd4e88e48b4458561a36e705525f5"
    "67918e2edc88e40d860bd0cc4ee26aacc988e505a953558c453f6b0904ae7394"
)
"""The public key of *Intel SGX Root CA*, which all of this rests on; valid until the end of 2049. Intel publishes it as
IntelSGXRootCA.der."""

ROOT_ROLE: Final = "Intel SGX Root CA"
PCK_ROLE: Final = "Intel SGX PCK Certificate"
PCK_ISSUER_ROLES: Final = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
TCB_ROLE: Final = "Intel SGX TCB Signing"

MAX_PEM: Final = 16_384
_PEM: Final = re.compile(rb"(?:-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\r\n]+-----END CERTIFICATE-----[\r\n]*){1,4}")
_MALFORMED: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,
)
"""What the library raises at certificates that it cannot read, some of it only when a part is looked at."""


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """A chain that holds, leaf first."""

    certificates: tuple[x509.Certificate, ...]
    valid_until: int

    @property
    def leaf(self) -> x509.Certificate:
        """What was to be shown."""
        return self.certificates[0]


def signature_holds(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    """Whether `signature`, r and s of 32 bytes each, is `key`'s over the SHA-256 of `data`."""
    if len(signature) != 64:
        return False
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    try:
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def p256_point(point: bytes) -> ec.EllipticCurvePublicKey | None:
    """The key whose uncompressed point is `point` (65 bytes); None where it is not on the curve."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        return None


def p256_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """The key in `certificate`. Raises AttestationFault where it is of another kind."""
    with _read("the key of a certificate"):
        key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise AttestationFault(Reason.CERTIFICATE_MALFORMED, "a certificate's key is not on P-256")
    return key


def read_chain(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in `pem`, with nothing between them; zeros at the end are what quoting services append."""
    text = pem.rstrip(b"\0")
    if len(text) > MAX_PEM or not _PEM.fullmatch(text):
        raise AttestationFault(Reason.CERTIFICATE_MALFORMED, "this is no chain of 1 to 4 certificates in PEM")
    with _read("a chain of certificates"):
        return tuple(x509.load_pem_x509_certificates(text))


def verify_chain(pem: bytes, roles: tuple[tuple[str, ...], ...], root: bytes, now: datetime) -> Chain:
    """The chain in `pem`, whose certificates have the names in `roles`, leaf first, and which ends in the key `root`."""
    chain = read_chain(pem)
    if len(chain) != len(roles):
        raise AttestationFault(Reason.CERTIFICATE_CHAIN, f"the chain has {len(chain)} certificates, not {len(roles)}")
    if p256_key(chain[-1]).public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) != root:
        raise AttestationFault(Reason.CERTIFICATE_ROOT, "the chain does not end in the pinned root key")
    for depth, (certificate, allowed) in enumerate(zip(chain, roles, strict=True)):
        with _read("a certificate"):
            _require_role(certificate, allowed)
            _require_rights(certificate, depth)
            _require_issuer(certificate, chain[min(depth + 1, len(chain) - 1)])
            _require_dates(certificate, now)
    return Chain(
        certificates=chain,
        valid_until=min(int(certificate.not_valid_after_utc.timestamp()) for certificate in chain),
    )


def verify_revocations(der: bytes, issuer: x509.Certificate, checked: x509.Certificate, now: datetime) -> int:
    """Look `checked` up in the list of its `issuer`; when the list ends, Unix seconds."""
    with _read("a revocation list", Reason.COLLATERAL_MALFORMED):
        revocations = x509.load_der_x509_crl(der)
        if revocations.issuer != issuer.subject:
            raise AttestationFault(Reason.COLLATERAL_FOREIGN, f"a revocation list is of {_name(revocations.issuer)}")
        if any(extension.critical for extension in revocations.extensions):
            raise AttestationFault(Reason.COLLATERAL_MALFORMED, "a revocation list is partial in a way not read here")
        if revocations.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
            raise AttestationFault(Reason.COLLATERAL_SIGNATURE, "a revocation list is not signed with ECDSA, SHA-256")
        if not revocations.is_signature_valid(p256_key(issuer)):
            raise AttestationFault(Reason.COLLATERAL_SIGNATURE, "a revocation list is not signed by its issuer")
        begin, end = revocations.last_update_utc, revocations.next_update_utc
        if end is None or not begin <= now <= end:
            raise AttestationFault(Reason.COLLATERAL_EXPIRED, f"a revocation list: {begin} to {end}, now {now}")
        if revocations.get_revoked_certificate_by_serial_number(checked.serial_number) is not None:
            raise AttestationFault(Reason.CERTIFICATE_REVOKED, f"{_name(checked.subject)} is revoked")
        return int(end.timestamp())


@contextmanager
def _read(part: str, reason: Reason = Reason.CERTIFICATE_MALFORMED) -> Iterator[None]:
    try:
        yield
    except _MALFORMED as wrong:
        raise AttestationFault(reason, f"{part} cannot be read: {wrong}") from wrong


def _name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else "a name without exactly one common name"


def _require_role(certificate: x509.Certificate, allowed: tuple[str, ...]) -> None:
    name = _name(certificate.subject)
    if name not in allowed:
        raise AttestationFault(Reason.CERTIFICATE_CHAIN, f"{name!r} stands where {' or '.join(allowed)} belongs")


def _require_rights(certificate: x509.Certificate, depth: int) -> None:
    """A leaf may sign data, an issuer certificates; `depth` is how many certificates are below it."""
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    issues = depth > 0
    if constraints.ca is not issues or not (usage.key_cert_sign if issues else usage.digital_signature):
        raise AttestationFault(
            Reason.CERTIFICATE_CHAIN, f"{_name(certificate.subject)} lacks the right that its place needs"
        )
    if constraints.path_length is not None and constraints.path_length < depth - 1:
        raise AttestationFault(
            Reason.CERTIFICATE_CHAIN, f"{_name(certificate.subject)} allows fewer certificates below it"
        )
    known = (x509.BasicConstraints.oid, x509.KeyUsage.oid)
    for extension in extensions:
        if extension.critical and extension.oid not in known:
            raise AttestationFault(
                Reason.CERTIFICATE_CHAIN, f"extension {extension.oid.dotted_string} is not understood"
            )


def _require_issuer(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """The root is its own issuer."""
    if certificate.issuer != issuer.subject:
        raise AttestationFault(Reason.CERTIFICATE_CHAIN, f"{_name(certificate.subject)} was issued by somebody else")
    try:
        p256_key(issuer).verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise AttestationFault(
            Reason.CERTIFICATE_CHAIN, f"the signature of {_name(certificate.subject)} does not hold"
        ) from None


def _require_dates(certificate: x509.Certificate, now: datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now <= end:
        raise AttestationFault(Reason.CERTIFICATE_EXPIRED, f"{_name(certificate.subject)}: {begin} to {end}, now {now}")
