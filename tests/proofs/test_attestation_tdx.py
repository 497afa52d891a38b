"""The chain of reasons from the pinned root to the claim: break one link and the verdict says which."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import cache
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from tests.proofs.attesting import (
    BINDING,
    ISSUER,
    MR_TD,
    NOW,
    PCK,
    POLICY,
    ROOT,
    SIGNER,
    Certificate,
    Machine,
    Published,
    changed,
    element,
    key,
    pair,
    pem,
    point,
    reasons,
    sgx_extension,
    sign,
    verified,
    verifier,
)

from fabstir.domain.ids import Address, Hash32
from fabstir.proofs.attestation.certificates import INTEL_SGX_ROOT, p256_point, read_chain, signature_holds
from fabstir.proofs.attestation.tdx import TdxVerifier
from fabstir.protocol.attestation import AttestationClaim, AttestationFault, Binding, Expected, Reason
from fabstir.protocol.attestation_policy import AttestationPolicy, Image, TcbStatus
from fabstir.testing.clock import ManualClock

BODY = (0, 48, 64, 112, 160, 168, 176, 184, 232, 280, 328, 376, 424, 472, 520, 568, 632)
"""Where each field of header and TD report begins, and where the last one ends."""
STRANGER = key("stranger")


def wrong(machine: Machine | AttestationClaim, published: Published | bytes | None = None, **more: Any) -> list[str]:
    """The reasons, where there must be some."""
    verdict = verified(machine if isinstance(machine, AttestationClaim) else machine.claim(), published, **more)
    assert not verdict.accepted
    return reasons(verdict)


def other(field: str) -> Binding:
    """The binding with one field changed."""
    value = getattr(BINDING, field)
    return msgspec.structs.replace(BINDING, **{field: bytes([value[0] ^ 1]) + value[1:]})


@cache
def genuine() -> AttestationClaim:
    """One claim, made once."""
    return Machine().claim()


def test_a_genuine_machine_is_accepted() -> None:
    """Every signature, date, level and measurement is right; the verdict says until when."""
    verdict = verified(Machine().claim())
    assert verdict.accepted and verdict.fresh
    shown = verdict.require()
    assert shown.tcb_status is TcbStatus.UpToDate
    assert shown.measurements.mr_td == MR_TD
    assert shown.fmspc == "50806f000000"
    assert shown.valid_until == int((NOW + timedelta(days=25)).timestamp())


def test_the_product_trusts_intels_root_and_nobody_else() -> None:
    """Without an argument the root is Intel's, so that the tests' hierarchy is worth nothing."""
    verdict = TdxVerifier(ManualClock(NOW.timestamp())).verify(
        Machine().claim(), Published().file(), POLICY, Expected()
    )
    assert reasons(verdict) == ["certificate_root"]
    assert p256_point(INTEL_SGX_ROOT) is not None


@pytest.mark.parametrize(("begin", "end"), tuple(pairwise(BODY)))
def test_a_change_anywhere_in_the_signed_part_is_seen(begin: int, end: int) -> None:
    """First and last byte of every field of header and report, with the signature as it was."""
    claim = Machine().claim()
    for at in (begin, end - 1):
        quote = bytearray(claim.quote)
        quote[at] ^= 0x40
        found = wrong(AttestationClaim(binding=claim.binding, quote=bytes(quote)))
        assert found in (["quote_signature"], ["quote_unsupported"])


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (636, "quote_signature"),
        (699, "quote_signature"),
        (700, "qe_binding"),
        (763, "qe_binding"),
        (770, "qe_signature"),
        (770 + 320, "qe_signature"),
        (770 + 383, "qe_signature"),
        (770 + 384, "qe_signature"),
        (770 + 447, "qe_signature"),
        (770 + 450, "qe_binding"),
        (770 + 481, "qe_binding"),
    ],
)
def test_a_change_in_each_part_of_the_signature_data_is_seen(at: int, reason: str) -> None:
    """Signature, attestation key, report of the quoting enclave, its signature, its authentication data: first and last byte."""
    claim = Machine().claim()
    quote = bytearray(claim.quote)
    quote[at] ^= 0x01
    assert wrong(AttestationClaim(binding=claim.binding, quote=bytes(quote))) == [reason]


def _encoded(chain: bytes) -> list[bytes]:
    """The certificates as they are signed; none where they cannot be read."""
    try:
        return [certificate.public_bytes(Encoding.DER) for certificate in read_chain(chain)]
    except AttestationFault:
        return []


@given(st.data())
def test_a_change_in_the_certificates_of_a_quote_is_never_accepted(data: st.DataObject) -> None:
    """Any character of the encoded certificates replaced by another one: the chain, or what it signs, does not hold."""
    claim = genuine()
    text = claim.quote.index(b"-----BEGIN")
    at = data.draw(st.integers(text, claim.quote.rindex(b"-----END") - 1))
    quote = bytearray(claim.quote)
    quote[at] = data.draw(st.integers(0, 255))
    if _encoded(bytes(quote[text:])) == _encoded(claim.quote[text:]):
        return  # the same certificates in another spelling: line breaks, and bits of base64 that stand for nothing
    found = wrong(AttestationClaim(binding=claim.binding, quote=bytes(quote)))
    assert found[0].startswith(("certificate_", "qe_", "collateral_foreign"))


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (Machine(signed_by=STRANGER), "quote_signature"),
        (Machine(attestation_key=STRANGER, signed_by=STRANGER, qe_report_data=bytes(64)), "qe_binding"),
        (Machine(qe_signed_by=STRANGER), "qe_signature"),
    ],
)
def test_each_key_must_be_vouched_for_by_the_one_above(machine: Machine, reason: str) -> None:
    """A quote, an attestation key or a quoting enclave of somebody else's, with signatures that hold for themselves."""
    assert wrong(machine) == [reason]


def test_the_hash_of_the_attestation_key_fills_half_and_the_rest_is_zero() -> None:
    """The other half of the report data belongs to nobody."""
    named = Machine().qe_report[320:352]
    assert wrong(Machine(qe_report_data=named + b"\x01" + bytes(31))) == ["qe_binding"]


YEAR = timedelta(days=365)
OLD = {"begin": NOW - 2 * YEAR, "end": NOW - timedelta(seconds=1)}
YOUNG = {"begin": NOW + timedelta(seconds=1), "end": NOW + YEAR}
OTHER_ROOT = Certificate(ROOT.name, STRANGER, ROOT.name, STRANGER, issues=True, path_length=1)


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        ((changed(PCK, **OLD), ISSUER, ROOT), "certificate_expired"),
        ((PCK, changed(ISSUER, **OLD), ROOT), "certificate_expired"),
        ((PCK, ISSUER, changed(ROOT, **OLD)), "certificate_expired"),
        ((changed(PCK, **YOUNG), ISSUER, ROOT), "certificate_expired"),
        ((PCK, changed(ISSUER, issuer_key=STRANGER), OTHER_ROOT), "certificate_root"),
        ((PCK, changed(ISSUER, issuer_key=STRANGER), ROOT), "certificate_chain"),
        ((changed(PCK, issuer_key=STRANGER), ISSUER, ROOT), "certificate_chain"),
        ((PCK, ISSUER, changed(ROOT, issuer_key=STRANGER)), "certificate_chain"),
        ((changed(PCK, issuer="Somebody"), ISSUER, ROOT), "certificate_chain"),
        ((changed(PCK, name="Somebody"), ISSUER, ROOT), "certificate_chain"),
        ((PCK, changed(ISSUER, name="Intel SGX TCB Signing"), ROOT), "certificate_chain"),
        ((changed(PCK, issues=True), ISSUER, ROOT), "certificate_chain"),
        ((changed(PCK, issues=True, signs_all=True), ISSUER, ROOT), "certificate_chain"),
        ((changed(PCK, may_sign=False), ISSUER, ROOT), "certificate_chain"),
        ((PCK, changed(ISSUER, issues=False, path_length=None), ROOT), "certificate_chain"),
        ((PCK, changed(ISSUER, may_sign=False), ROOT), "certificate_chain"),
        ((PCK, ISSUER, changed(ROOT, path_length=0)), "certificate_chain"),
        ((changed(PCK, critical=True), ISSUER, ROOT), "certificate_chain"),
        ((PCK, ISSUER), "certificate_chain"),
        ((PCK,), "certificate_chain"),
        ((ISSUER, PCK, ROOT), "certificate_chain"),
        ((PCK, ISSUER, ISSUER, ROOT), "certificate_chain"),
        ((PCK, ISSUER, ROOT, ROOT), "certificate_chain"),
        ((changed(PCK, sgx=None), ISSUER, ROOT), "certificate_malformed"),
        ((changed(PCK, sgx=sgx_extension()[:-1]), ISSUER, ROOT), "certificate_malformed"),
        ((changed(PCK, sgx=sgx_extension() + b"\0"), ISSUER, ROOT), "certificate_malformed"),
        ((changed(PCK, sgx=b"\x30\x00"), ISSUER, ROOT), "certificate_malformed"),
    ],
)
def test_a_chain_that_is_wrong_in_one_thing_is_refused(chain: tuple[Certificate, ...], reason: str) -> None:
    """Dates, root, signatures, names, roles, rights, path length, order, extensions: each on its own."""
    assert wrong(Machine(chain=chain)) == [reason]


def test_a_chain_is_certificates_and_nothing_else() -> None:
    """No text before, between or behind them, where other parsers might see another certificate."""
    chain = pem(PCK, ISSUER, ROOT)
    assert len(read_chain(chain + bytes(3))) == 3
    for bad in (b"x" + chain, chain + b"x", chain.replace(b"\n-----BEGIN", b"\n \n-----BEGIN", 2), b"", chain * 2):
        with pytest.raises(AttestationFault) as fault:
            read_chain(bad)
        assert fault.value.failure.reason is Reason.CERTIFICATE_MALFORMED


def test_a_key_of_another_curve_is_refused() -> None:
    """P-256 only: nothing else stands in Intel's hierarchy."""
    other = ec.generate_private_key(ec.SECP384R1())
    assert wrong(Machine(chain=(changed(PCK, key=other), ISSUER, ROOT))) == ["certificate_malformed"]


FIELD = pair(b"\x09", element(0x04, bytes(4)))


@pytest.mark.parametrize(
    "value",
    [
        sgx_extension(fmspc=bytes(5)),
        sgx_extension(fmspc=bytes(7)),
        sgx_extension(components=(256,) + (3,) * 15),
        sgx_extension(pce_svn=0x10000),
        sgx_extension(more=pair(b"\x04", element(0x04, bytes(6)))),
        sgx_extension(more=FIELD[:-5] + b"\x05" + bytes(4)),
        sgx_extension(more=FIELD[:-1]),
        sgx_extension(more=element(0x31, FIELD[2:])),
        sgx_extension(more=b"\x30"),
    ],
)
def test_an_sgx_extension_that_is_wrong_in_one_thing_is_refused(value: bytes) -> None:
    """Lengths, ranges, a field twice, an element beyond its whole, another kind of element; with a field that is not known it is read."""
    assert verified(Machine(chain=(changed(PCK, sgx=sgx_extension(more=FIELD)), ISSUER, ROOT)).claim()).accepted
    assert wrong(Machine(chain=(changed(PCK, sgx=value), ISSUER, ROOT))) == ["certificate_malformed"]


@given(st.binary(max_size=300))
def test_an_sgx_extension_of_any_bytes_is_refused_by_name(value: bytes) -> None:
    """Even were it signed: nothing is read beyond its bounds."""
    assert wrong(Machine(chain=(changed(PCK, sgx=value), ISSUER, ROOT))) == ["certificate_malformed"]


@pytest.mark.parametrize(
    ("published", "reason"),
    [
        (Published(revoked=(PCK.serial,)), "certificate_revoked"),
        (Published(revoked_by_root=(ISSUER.serial,)), "certificate_revoked"),
        (Published(revoked_by_root=(SIGNER.serial,)), "certificate_revoked"),
        (Published(crl_end=NOW - timedelta(seconds=1)), "collateral_expired"),
        (Published(end=NOW - timedelta(seconds=1)), "collateral_expired"),
        (Published(qe_end=NOW - timedelta(seconds=1)), "collateral_expired"),
        (Published(begin=NOW + timedelta(seconds=1)), "collateral_expired"),
        (Published(crl_begin=NOW + timedelta(seconds=1)), "collateral_expired"),
        (Published(qe_begin=NOW + timedelta(seconds=1)), "collateral_expired"),
        (Published(crl_hash=SHA384()), "collateral_signature"),
        (Published(crl_partial=True), "collateral_malformed"),
        (Published(qe={"id": "QE"}), "collateral_malformed"),
        (Published(signed_by=STRANGER), "collateral_signature"),
        (Published(crl_signed_by=STRANGER), "collateral_signature"),
        (Published(root_crl_signed_by=STRANGER), "collateral_signature"),
        (Published(crl_name="Intel SGX PCK Processor CA"), "collateral_foreign"),
        (Published(fmspc=bytes(6)), "collateral_foreign"),
        (Published(info={"pceId": "0001"}), "collateral_foreign"),
        (Published(info={"id": "SGX"}), "collateral_malformed"),
        (Published(info={"version": 2}), "collateral_malformed"),
        (Published(info={"tcbLevels": [{}]}), "collateral_malformed"),
        (Published(info={"nextUpdate": "tomorrow"}), "collateral_malformed"),
        (Published(signer=(changed(SIGNER, issuer_key=STRANGER), OTHER_ROOT)), "certificate_root"),
        (Published(signer=(changed(SIGNER, **OLD), ROOT)), "certificate_expired"),
        (Published(signer=(PCK, ISSUER, ROOT), signed_by=key("pck")), "certificate_chain"),
        (Published(signer=(changed(ISSUER), ROOT), signed_by=key("issuer")), "certificate_chain"),
    ],
)
def test_collateral_that_is_wrong_in_one_thing_is_refused(published: Published, reason: str) -> None:
    """Revoked, too old, too young, of somebody else, for another platform, of another kind; a platform's own key signs none."""
    assert wrong(Machine(), published) == [reason]


@pytest.mark.parametrize("field", [name for name in Published().fields() if name != "pck_crl_issuer_chain"])
def test_every_field_of_the_collateral_counts(field: str) -> None:
    """Missing, empty or changed by one character, it is refused; a file without one of them is no collateral."""
    fields = Published().fields()
    without = {name: value for name, value in fields.items() if name != field}
    assert wrong(Machine(), json.dumps(without).encode()) == ["collateral_malformed"]
    assert wrong(Machine(), json.dumps({**fields, field: ""}).encode())[0].startswith(("coll", "certificate_malformed"))
    middle = len(fields[field]) // 2
    other = "1" if fields[field][middle] != "1" else "2"
    edited = fields[field][:middle] + other + fields[field][middle + 1 :]
    assert wrong(Machine(), json.dumps({**fields, field: edited}).encode())


@given(st.binary(max_size=200))
def test_collateral_of_any_bytes_is_refused_by_name(data: bytes) -> None:
    """It comes from whoever wants to."""
    assert wrong(Machine(), data) == ["collateral_malformed"]
    assert wrong(Machine(), b'{"tcb_info": "\xee' + data) == ["collateral_malformed"]


def test_collateral_is_bounded() -> None:
    """A file that is too large is not parsed."""
    assert wrong(Machine(), Published().file() + b" " * (1 << 20)) == ["collateral_malformed"]


@pytest.mark.parametrize("field", ["host", "key", "model_id", "nonce"])
def test_a_quote_made_for_something_else_is_refused(field: str) -> None:
    """A genuine quote of another host, key, model or question, with a claim that says it is for this one: replay gets nowhere."""
    elsewhere = Machine(binding=other(field))
    assert wrong(AttestationClaim(binding=BINDING, quote=elsewhere.quote())) == ["report_data"]


def test_an_honest_claim_about_another_host_or_question_is_refused() -> None:
    """Tied to its own claim, but not to what the renter asked about."""
    claim = Machine().claim()
    other_question = verified(claim, expected=Expected(nonce=Hash32(bytes(32))))
    assert reasons(other_question) == ["nonce_mismatch"] and not other_question.fresh
    assert reasons(verified(claim, expected=Expected(host=Address(bytes(20))))) == ["host_mismatch"]
    unasked = verified(claim, expected=Expected(host=BINDING.host))
    assert unasked.accepted and not unasked.fresh


def test_a_debug_machine_is_refused_by_every_policy() -> None:
    """Its quote is genuine; its memory is open."""
    anything = AttestationPolicy(any_image=True, minimum="OutOfDateConfigurationNeeded")
    verdict = verified(Machine(attributes=1 << 28 | 1).claim(), policy=anything)
    assert reasons(verdict) == ["td_debug"]
    assert verdict.authentic is not None


def test_a_program_that_is_not_on_the_list_is_refused() -> None:
    """With what was found, so that a person can compare."""
    verdict = verified(Machine(mr_td=b"\xee" * 48).claim())
    assert reasons(verdict) == ["measurement"]
    assert "ee" * 48 in verdict.failures[0].detail
    assert reasons(verified(Machine(rtmr=(b"\xee" * 48,) * 4).claim())) == ["measurement"]
    image = Image(mr_td="ee" * 48)
    assert verified(Machine(mr_td=b"\xee" * 48).claim(), policy=AttestationPolicy(images=(image,))).accepted


def test_a_signature_of_zeros_or_of_another_length_never_holds() -> None:
    """The classic of ECDSA verifiers, and lengths that the callers do not produce."""
    public = key("pck").public_key()
    good = sign(key("pck"), b"x")
    for bad in (bytes(64), b"", bytes(63), b"\xff" * 64, sign(STRANGER, b"x"), good[:32] + b"\0" + good[32:]):
        assert not signature_holds(public, bad, b"x")
    assert signature_holds(public, good, b"x")
    assert p256_point(b"\x04" + bytes(64)) is None
    assert p256_point(point(STRANGER)) is not None


def test_the_verdict_depends_on_the_clock_and_nothing_else() -> None:
    """The last second in which all of it is valid, and the next one."""
    claim, file = Machine().claim(), Published().file()
    last = NOW + timedelta(days=25)
    assert verified(claim, file, now=last).accepted
    assert reasons(verified(claim, file, now=last + timedelta(seconds=1))) == ["collateral_expired"]
    with pytest.raises(AttestationFault):
        verifier(NOW - 3 * YEAR).authenticate(claim.quote, file)
