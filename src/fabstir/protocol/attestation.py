"""Attestation: what a quote of a trusted execution environment must be tied to, and how the outcome of looking at one is told.

A quote is a statement of a CPU maker's key about a virtual machine, with 64 bytes that the machine chose (`report_data`). Here:

    report_data = SHA-512("fabstir/attestation/1" | u8 n | format (n) | host (20) | key (32) | model id (32) | nonce (32))

so that a quote of another host, key, model or question is worth nothing. `key` is the node's X25519 key that content is sealed for, as
in its registration; zeros where it has none. The nonce is the renter's, fresh for each question: without one that the renter drew, a
quote says only that the machine was in that state at some time.

Decides which formats exist and which of them are verified. Never parses a quote and does no cryptography but the hash: that is
`fabstir.proofs.attestation`; what a renter demands of a machine is `fabstir.protocol.attestation_policy`.
Specification: docs/explanation/attestation.md.
"""

from __future__ import annotations

from enum import Enum
from hashlib import sha512
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, Hash32, ModelId, from_hex, to_hex
from fabstir.protocol.messages import Hex20, Hex32

DOMAIN: Final = b"fabstir/attestation/1"
NONCE: Final = 32
MAX_QUOTE: Final = 16_384
"""Bytes. A TDX quote with its certificates has about 5,000."""
Base64Quote = Annotated[str, Meta(max_length=(MAX_QUOTE + 2) // 3 * 4)]


class Format(Enum):
    """Every kind of attestation that has a name here, verified or not."""

    TDX_QUOTE_4 = "tdx-quote-4"
    """Intel TDX, quote version 4, ECDSA P-256, certificate chain in the quote."""
    SEV_SNP = "sev-snp"
    """AMD SEV-SNP. Not verified here."""
    NVIDIA_GPU = "nvidia-gpu"
    """NVIDIA GPUs in confidential mode. Not verified here."""


VERIFIED: Final = frozenset({Format.TDX_QUOTE_4})


def verified_format(name: str) -> Format:
    """The format called `name`. Raises Refused (`attestation_unsupported`) where it has no name here or no verifier."""
    try:
        known = Format(name)
    except ValueError:
        raise error("attestation_unsupported", f"{name!r} is no format of attestation") from None
    if known not in VERIFIED:
        raise error("attestation_unsupported", f"{name} has no verifier in this version")
    return known


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """What one quote is tied to."""

    format: Format
    host: Address
    key: Hash32
    model_id: ModelId
    nonce: Hash32

    @property
    def report_data(self) -> bytes:
        """The 64 bytes that the quote must contain."""
        name = self.format.value.encode()
        fixed = self.host + self.key + self.model_id + self.nonce
        return sha512(DOMAIN + bytes([len(name)]) + name + fixed).digest()


class AttestationClaim(msgspec.Struct, frozen=True, kw_only=True):
    """What a host says, and the quote that is to show it."""

    binding: Binding
    quote: bytes


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the renter knows from elsewhere: the terms, the registration, the question it asked. None: not compared."""

    nonce: Hash32 | None = None
    host: Address | None = None
    key: Hash32 | None = None
    model_id: ModelId | None = None


class WireClaim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A claim as JSON: `GET /v1/attestation` answers with it, and `fabstir verify attestation` reads it."""

    format: str
    host: Hex20
    key: Hex32
    model_id: Hex32
    nonce: Hex32
    quote: Base64Quote
    """Base64."""

    @classmethod
    def of(cls, claim: AttestationClaim, encoded_quote: str) -> WireClaim:
        """`claim` as text; the caller encodes the quote."""
        bound = claim.binding
        return cls(
            format=bound.format.value,
            host=to_hex(bound.host),
            key=to_hex(bound.key),
            model_id=to_hex(bound.model_id),
            nonce=to_hex(bound.nonce),
            quote=encoded_quote,
        )

    def binding(self) -> Binding:
        """What the claim says it is tied to. Raises Refused (`attestation_unsupported`)."""
        return Binding(
            format=verified_format(self.format),
            host=Address(from_hex(self.host, 20)),
            key=Hash32(from_hex(self.key, 32)),
            model_id=ModelId(from_hex(self.model_id, 32)),
            nonce=Hash32(from_hex(self.nonce, NONCE)),
        )


class Reason(Enum):
    """Why an attestation is not accepted, in the order in which it is looked at."""

    NONCE_MISMATCH = "nonce_mismatch"
    """The claim answers another question than the one that was asked."""
    HOST_MISMATCH = "host_mismatch"
    KEY_MISMATCH = "key_mismatch"
    MODEL_MISMATCH = "model_mismatch"
    QUOTE_OVERSIZE = "quote_oversize"
    QUOTE_TRUNCATED = "quote_truncated"
    QUOTE_TRAILING = "quote_trailing"
    """Bytes after the end that are not zero, or a part that is longer than what is in it."""
    QUOTE_UNSUPPORTED = "quote_unsupported"
    """Another version, key type, TEE, quoting enclave or kind of certification data than the format's."""
    COLLATERAL_MALFORMED = "collateral_malformed"
    COLLATERAL_EXPIRED = "collateral_expired"
    """Outside the dates that TCB info, QE identity or a revocation list say."""
    COLLATERAL_SIGNATURE = "collateral_signature"
    COLLATERAL_FOREIGN = "collateral_foreign"
    """It is for another platform or another kind of TEE."""
    CERTIFICATE_MALFORMED = "certificate_malformed"
    CERTIFICATE_ROOT = "certificate_root"
    """The chain does not end in the pinned root."""
    CERTIFICATE_CHAIN = "certificate_chain"
    """A signature, a name or a right in the chain is wrong."""
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_REVOKED = "certificate_revoked"
    QE_SIGNATURE = "qe_signature"
    """The platform's certificate did not sign the report of the quoting enclave."""
    QE_BINDING = "qe_binding"
    """The report of the quoting enclave does not name the attestation key."""
    QE_IDENTITY = "qe_identity"
    """It is not Intel's quoting enclave."""
    QUOTE_SIGNATURE = "quote_signature"
    """The attestation key did not sign the quote."""
    TDX_MODULE = "tdx_module"
    """The TDX module is not one that Intel lists."""
    TCB_UNKNOWN = "tcb_unknown"
    """The platform is below every level that Intel lists."""
    REPORT_DATA = "report_data"
    """The quote is not tied to what the claim says."""
    TD_DEBUG = "td_debug"
    """The virtual machine's memory can be read and changed from outside."""
    TD_ATTRIBUTES = "td_attributes"
    """It can be profiled or moved from outside, or its memory taken away, or has a feature that is not known here."""
    TCB_REVOKED = "tcb_revoked"
    TCB_STATUS = "tcb_status"
    """The platform is worse than the policy allows."""
    MEASUREMENT = "measurement"
    """What runs in the virtual machine is not on the policy's list."""
    POLICY_EMPTY = "policy_empty"
    """The policy names no measurement, so that any program at all would pass."""


class Failure(msgspec.Struct, frozen=True):
    """One reason, and what was found."""

    reason: Reason
    detail: str


class AttestationFault(Exception):
    """Ends a verification. Raised and caught within it, at its border it becomes a `Failure` of the verdict."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.failure: Final = Failure(reason, detail)
        super().__init__(reason.value, detail)


def differences(binding: Binding, expected: Expected) -> tuple[Failure, ...]:
    """Where a claim speaks of something else than what the renter asked about."""
    pairs = (
        (Reason.NONCE_MISMATCH, "nonce", binding.nonce, expected.nonce),
        (Reason.HOST_MISMATCH, "host", binding.host, expected.host),
        (Reason.KEY_MISMATCH, "key", binding.key, expected.key),
        (Reason.MODEL_MISMATCH, "model", binding.model_id, expected.model_id),
    )
    return tuple(
        Failure(reason, f"the claim's {name} is {to_hex(found)}, expected {to_hex(wanted)}")
        for reason, name, found, wanted in pairs
        if wanted is not None and found != wanted
    )
