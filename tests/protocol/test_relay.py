"""Whether a host spends gas on a renter's signed payment: one refusal for each thing that can be wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32, JobId
from fabstir.domain.money import BaseUnits
from fabstir.domain.terms import JobState, Terms, salt_for
from fabstir.protocol.authorization import authorization_digest, top_up_nonce
from fabstir.protocol.relay import RelayOpening, RelayTopUp, Transfer, check_opening, check_top_up, transfer_of
from fabstir.protocol.signing import SigningKey, job_id
from tests.protocol.test_admission import ARBITER, MARKET, NOW, OFFER, STRANGER, TERMS, WEI

RENTER, DEPOSIT = STRANGER, BaseUnits(20_000)
OPEN = JobState(deposit=BaseUnits(50_000))


def transfer(
    terms: Terms = TERMS,
    amount: int = DEPOSIT,
    seconds: int = 300,
    key: SigningKey = RENTER,
    nonce: Hash32 | None = None,
    **signed: Any,
) -> Transfer:
    """What a renter sends; `signed` is what its signature says instead."""
    until = int(NOW) + seconds
    facts: dict[str, Any] = {"token": terms.token, "amount": BaseUnits(amount), "market": MARKET.address} | signed
    digest = authorization_digest(
        MARKET.chain_id,
        facts["token"],
        terms.renter,
        facts["market"],
        facts["amount"],
        until,
        nonce or Hash32(job_id(terms)),
    )
    return Transfer(terms=terms, amount=BaseUnits(amount), valid_before=until, signature=key.sign(digest))


def opened(one: Transfer, job: JobId | None = None) -> str:
    try:
        check_opening(one, job or job_id(one.terms), OFFER, NOW)
    except FabstirError as fault:
        return fault.code
    return "sent"


def topped_up(one: Transfer, state: JobState = OPEN) -> str:
    try:
        check_top_up(one, job_id(one.terms), state, OFFER, NOW)
    except FabstirError as fault:
        return fault.code
    return "sent"


def change(**changes: Any) -> Terms:
    return msgspec.structs.replace(TERMS, **changes)


@pytest.mark.parametrize(
    ("one", "outcome"),
    [
        (transfer(), "sent"),
        (transfer(seconds=60), "sent"),
        (transfer(seconds=59), "authorization_invalid"),
        (transfer(seconds=7_200), "sent"),
        (transfer(seconds=7_201), "authorization_invalid"),
        (transfer(seconds=-1), "authorization_invalid"),
        (transfer(key=SigningKey(b"\x09" * 32)), "authorization_invalid"),
        (transfer(amount=30_000), "sent"),
        (transfer(nonce=Hash32(bytes(32))), "authorization_invalid"),
        (transfer(market=ARBITER), "authorization_invalid"),
        (transfer(token=ARBITER), "authorization_invalid"),
        (msgspec.structs.replace(transfer(), amount=BaseUnits(20_001)), "authorization_invalid"),
        (msgspec.structs.replace(transfer(), signature=bytes(65)), "authorization_invalid"),
        (transfer(amount=19_999), "relay_refused"),
        (transfer(amount=9_999), "job_terms_unacceptable"),
        (transfer(change(**WEI), 10**15), "relay_off"),
        (transfer(change(host=ARBITER)), "job_foreign"),
        (transfer(change(bond=BaseUnits(1))), "job_terms_unacceptable"),
        (transfer(change(arbiter=STRANGER.address)), "job_terms_unacceptable"),
        (transfer(change(expires_at=int(NOW) + 10)), "job_expired"),
        (transfer(change(salt=salt_for(ARBITER, bytes(8)))), "authorization_invalid"),
    ],
)
def test_an_opening_is_sent_or_refused_by_name(one: Transfer, outcome: str) -> None:
    """As admission would refuse the job later, and everything that the contract or the token would refuse, before gas is spent."""
    assert opened(one) == outcome


def test_the_terms_must_be_those_of_the_job() -> None:
    """The host does not open what it would not recognise."""
    assert opened(transfer(), JobId(bytes(32))) == "job_terms_mismatch"


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (OPEN, "sent"),
        (JobState(), "job_unknown"),
        (JobState(deposit=BaseUnits(50_000), closed=True), "job_closed"),
        (JobState(deposit=BaseUnits(50_000), closing_at=int(NOW) + 900), "job_closed"),
        (JobState(deposit=BaseUnits(50_001)), "authorization_invalid"),
    ],
)
def test_a_top_up_is_for_one_deposit_of_an_open_job(state: JobState, outcome: str) -> None:
    """At any other deposit the nonce is another one, so that nothing is added twice."""
    nonce = top_up_nonce(job_id(TERMS), OPEN.deposit)
    assert topped_up(transfer(nonce=nonce), state) == outcome


def test_a_top_up_of_another_hosts_job_is_not_sent() -> None:
    """Nor one that is not worth its gas."""
    foreign = change(host=ARBITER)
    assert topped_up(transfer(foreign, nonce=top_up_nonce(job_id(foreign), OPEN.deposit))) == "job_foreign"
    over = change(expires_at=int(NOW) + 299)
    assert topped_up(transfer(over, nonce=top_up_nonce(job_id(over), OPEN.deposit))) == "job_expired"
    assert topped_up(transfer(amount=19_999, nonce=top_up_nonce(job_id(TERMS), OPEN.deposit))) == "relay_refused"


def test_as_text_and_back() -> None:
    """Both messages, through JSON."""
    one = transfer()
    opening = RelayOpening.of(one.terms, one.amount, one.valid_before, one.signature)
    adding = RelayTopUp.of(one.terms, one.amount, one.valid_before, one.signature)
    assert transfer_of(msgspec.json.decode(msgspec.json.encode(opening), type=RelayOpening)) == one
    assert transfer_of(msgspec.json.decode(msgspec.json.encode(adding), type=RelayTopUp)) == one
