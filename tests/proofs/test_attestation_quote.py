"""Quotes as bytes: read where they are whole, refused by name where they are not, whatever the bytes are."""

from __future__ import annotations

import contextlib
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proofs.attesting import BINDING, MR_TD, NOW, RTMR, Machine, Published, verifier

from fabstir.proofs.attestation.quote import SIGNED, parse_quote
from fabstir.protocol.attestation import MAX_QUOTE, AttestationFault, Reason

PADDING = 70


@cache
def whole() -> bytes:
    """One quote for this file, without the zeros at its end."""
    return Machine().quote()[:-PADDING]


@cache
def collateral() -> bytes:
    """What belongs to it."""
    return Published().file()


def reason(data: bytes) -> Reason | None:
    """Why `data` is no quote; None where it is read."""
    try:
        parse_quote(data)
    except AttestationFault as fault:
        return fault.failure.reason
    return None


def test_a_quote_is_read() -> None:
    """Every field that is used later is at its place."""
    machine = Machine(attributes=0x1234567890, qe_product=0x0102, qe_svn=0x0304)
    quote = parse_quote(machine.quote())
    found = quote.td.measurements
    assert (found.mr_td, found.rtmr, found.attributes) == (MR_TD, RTMR, 0x1234567890)
    assert found.report_data == BINDING.report_data
    assert (quote.td.tee_tcb_svn, quote.signed) == (machine.tee_tcb_svn, machine.signed)
    assert (quote.qe.isv_prod_id, quote.qe.isv_svn, quote.qe.raw) == (0x0102, 0x0304, machine.qe_report)
    assert (quote.qe.mr_signer, quote.qe.attributes) == (machine.qe_signer, machine.qe_attributes)
    assert quote.pck_chain.startswith(b"-----BEGIN CERTIFICATE-----")


def test_a_quote_that_is_cut_off_anywhere_is_truncated() -> None:
    """At no length is a part of a quote taken for a quote."""
    data = whole()
    lengths = [*range(0, SIGNED + 800, 7), *range(SIGNED + 800, len(data), 97), len(data) - 1]
    assert {reason(data[:length]) for length in lengths} == {Reason.QUOTE_TRUNCATED}


def test_bytes_after_the_end_are_refused_unless_they_are_zero() -> None:
    """Quoting services hand out buffers that are longer than the quote; anything else is none of theirs."""
    assert reason(whole()) is None
    assert reason(whole() + bytes(70)) is None
    assert reason(whole() + bytes(70) + b"\x01") is Reason.QUOTE_TRAILING


def test_a_quote_is_bounded() -> None:
    """Zeros count: what is too long is not looked at."""
    assert reason(whole() + bytes(MAX_QUOTE - len(whole()))) is None
    assert reason(whole() + bytes(MAX_QUOTE - len(whole()) + 1)) is Reason.QUOTE_OVERSIZE


@pytest.mark.parametrize("at", [SIGNED, SIGNED + 4 + 128 + 2, SIGNED + 4 + 128 + 6 + 384 + 64])
@pytest.mark.parametrize("by", [-1, 1, 1000])
def test_every_length_must_be_that_of_its_part(at: int, by: int) -> None:
    """Of the signature data, the certification data and the authentication data: neither shorter nor longer."""
    width = 2 if at == SIGNED + 4 + 128 + 6 + 384 + 64 else 4
    data = bytearray(whole())
    stated = int.from_bytes(data[at : at + width], "little")
    data[at : at + width] = max(0, stated + by).to_bytes(width, "little")
    assert reason(bytes(data)) in (Reason.QUOTE_TRUNCATED, Reason.QUOTE_TRAILING, Reason.QUOTE_UNSUPPORTED)


OUTER, INNER = SIGNED, SIGNED + 4 + 128 + 2
"""Where the lengths of the signature data and of the certification data are."""


@pytest.mark.parametrize("lengths", [(OUTER,), (OUTER, INNER)])
def test_a_part_has_nothing_behind_what_is_in_it(lengths: tuple[int, ...]) -> None:
    """A byte more, with lengths that fit: room for something that nobody looks at."""
    data = bytearray(whole() + b"\x07")
    for at in lengths:
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], "little") + 1).to_bytes(4, "little")
    assert reason(bytes(data)) is Reason.QUOTE_TRAILING


@pytest.mark.parametrize(
    "machine",
    [
        Machine(version=3),
        Machine(version=5),
        Machine(key_type=3),
        Machine(tee=0),
        Machine(vendor=bytes(16)),
    ],
)
def test_another_kind_of_quote_is_refused_by_name(machine: Machine) -> None:
    """SGX, version 5, P-384 and other vendors' quoting enclaves: not read as if they were ours."""
    assert reason(machine.quote()) is Reason.QUOTE_UNSUPPORTED


@pytest.mark.parametrize("at", [SIGNED + 4 + 128, SIGNED + 4 + 128 + 6 + 384 + 64 + 2 + 32])
def test_other_certification_data_is_refused_by_name(at: int) -> None:
    """A quote must bring its certificate chain; an encrypted platform id is not looked up anywhere."""
    data = bytearray(whole())
    data[at] ^= 1
    assert reason(bytes(data)) is Reason.QUOTE_UNSUPPORTED


@given(st.binary(max_size=4096))
def test_no_bytes_at_all_raise_anything_else(data: bytes) -> None:
    """Alone, and behind a header that is right."""
    reason(data)
    reason(whole()[: SIGNED + 4] + data)


@given(st.data())
def test_a_quote_with_bytes_changed_never_raises_anything_else(data: st.DataObject) -> None:
    """Down to the certificates inside: a verdict or a named fault, whatever was changed, cut or put in."""
    quote = bytearray(whole())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(quote) - 1))
        quote[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with contextlib.suppress(AttestationFault):
        verifier(NOW).authenticate(bytes(quote), collateral())


def test_a_quote_with_other_authentication_data_is_read() -> None:
    """Its length is not fixed; what it must hash to is looked at elsewhere."""
    data = whole()
    at = SIGNED + 4 + 128 + 6 + 384 + 64
    shorter = data[:at] + b"\0\0" + data[at + 2 + 32 :]
    resized = bytearray(shorter)
    for place in (SIGNED, SIGNED + 4 + 128 + 2):
        stated = int.from_bytes(resized[place : place + 4], "little") - 32
        resized[place : place + 4] = stated.to_bytes(4, "little")
    assert parse_quote(bytes(resized)).qe_authentication == b""
