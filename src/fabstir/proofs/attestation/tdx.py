"""Verifies a TDX quote from the first byte to the policy: the one way in to everything in this folder.

The chain of reasons, each step resting on the one before:

    pinned root -> PCK certificate -> report of the quoting enclave -> attestation key -> quote -> report_data -> the claim
    pinned root -> TCB signing certificate -> TCB info, QE identity -> how well the platform is kept

Decides nothing about what is allowed (`protocol.attestation_policy` does) and fetches nothing. The root is an argument so that tests
can have a hierarchy of their own; nothing in the product passes one. About a millisecond; no state, may be used from any thread.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from fabstir.ports.clock import Clock
from fabstir.proofs.attestation.certificates import (
    INTEL_SGX_ROOT,
    PCK_ISSUER_ROLES,
    PCK_ROLE,
    ROOT_ROLE,
    Chain,
    p256_key,
    p256_point,
    signature_holds,
    verify_chain,
)
from fabstir.proofs.attestation.collateral import read_collateral, verify_collateral
from fabstir.proofs.attestation.pck import platform_of
from fabstir.proofs.attestation.quote import Quote, parse_quote
from fabstir.proofs.attestation.tcb import rate
from fabstir.protocol.attestation import (
    AttestationClaim,
    AttestationFault,
    Expected,
    Failure,
    Format,
    Reason,
    differences,
    verified_format,
)
from fabstir.protocol.attestation_policy import AttestationPolicy, AttestationVerdict, Authentic, appraise

PCK_ROLES: Final = ((PCK_ROLE,), PCK_ISSUER_ROLES, (ROOT_ROLE,))


class TdxVerifier:
    """Verifies claims of the format `tdx-quote-4`."""

    def __init__(self, clock: Clock, *, root: bytes = INTEL_SGX_ROOT) -> None:
        """`root` is the uncompressed P-256 point of the key that all chains must end in."""
        self._clock = clock
        self._root = root

    def verify(
        self, claim: AttestationClaim, collateral: bytes, policy: AttestationPolicy, expected: Expected
    ) -> AttestationVerdict:
        """What there is to say of `claim`. Whatever is wrong with it or with `collateral` is in the verdict and never raised.

        Raises Refused (`attestation_unsupported`) where the claim is of another format.
        """
        if verified_format(claim.binding.format.value) is not Format.TDX_QUOTE_4:
            raise AssertionError("every verified format has its verifier")
        failures: tuple[Failure, ...] = differences(claim.binding, expected)
        authentic: Authentic | None = None
        try:
            authentic = self.authenticate(claim.quote, collateral)
            failures += appraise(claim.binding, authentic, policy)
        except AttestationFault as fault:
            failures += (fault.failure,)
        return AttestationVerdict(
            binding=claim.binding,
            failures=failures,
            authentic=authentic,
            fresh=expected.nonce is not None and expected.nonce == claim.binding.nonce,
        )

    def authenticate(self, quote: bytes, collateral: bytes) -> Authentic:
        """What an authentic quote says, whoever it is for and whatever it says. Raises AttestationFault."""
        now = datetime.fromtimestamp(int(self._clock.now()), UTC)
        parts = parse_quote(quote)
        pck = verify_chain(parts.pck_chain, PCK_ROLES, self._root, now)
        _require_signatures(parts, pck)
        known = verify_collateral(read_collateral(collateral), pck.certificates, self._root, now)
        platform = platform_of(pck.leaf)
        rating = rate(platform, parts.td, parts.qe, known.tcb_info, known.qe_identity)
        return Authentic(
            measurements=parts.td.measurements,
            tcb_status=rating.status,
            tcb_date=rating.date,
            advisories=rating.advisories,
            fmspc=platform.fmspc.hex(),
            valid_until=min(pck.valid_until, known.valid_until),
        )


def _require_signatures(quote: Quote, pck: Chain) -> None:
    """The platform vouches for the quoting enclave, the enclave for the key, the key for the quote."""
    if not signature_holds(p256_key(pck.leaf), quote.qe_signature, quote.qe.raw):
        raise AttestationFault(
            Reason.QE_SIGNATURE, "the PCK certificate did not sign the report of the quoting enclave"
        )
    named = sha256(quote.attestation_key + quote.qe_authentication).digest() + bytes(32)
    if quote.qe.report_data != named:
        raise AttestationFault(Reason.QE_BINDING, "the quoting enclave's report does not name the attestation key")
    key = p256_point(b"\x04" + quote.attestation_key)
    if key is None or not signature_holds(key, quote.signature, quote.signed):
        raise AttestationFault(Reason.QUOTE_SIGNATURE, "the attestation key did not sign this quote")
