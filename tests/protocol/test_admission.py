"""Admission: a fitting job passes, and every way not to fit has its own named error."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import ZERO_ADDRESS, Address, Hash32, JobId, ModelId, SessionId, to_hex
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import JobState, ProofPolicy, Terms
from fabstir.protocol.admission import check, check_auth
from fabstir.protocol.messages import SessionAuth
from fabstir.protocol.offer import ModelOffer, Offer, Payment, TokenPrice, WireOffer
from fabstir.protocol.signing import Market, SigningKey, job_id

NOW: Final = 1_800_000_000.0
HOST, SESSION, STRANGER = SigningKey(b"\1" * 32), SigningKey(b"\2" * 32), SigningKey(b"\3" * 32)
USDC = Address(b"\x0a" * 20)
MODEL, OTHER = ModelId(b"\x0b" * 32), ModelId(b"\x0e" * 32)
ARBITER = Address(b"\x0d" * 20)
WEI = {"token": ZERO_ADDRESS, "price": PricePerMTok(80_000_000_000_000), "bond": BaseUnits(2 * 10**12)}
MARKET = Market(31337, Address(b"\x0c" * 20))
OFFER = Offer(
    host=HOST.address,
    market=MARKET,
    models=(
        ModelOffer(
            name="tiny",
            model_id=MODEL,
            prices=(
                TokenPrice(USDC, PricePerMTok(200_000)),
                TokenPrice(ZERO_ADDRESS, PricePerMTok(80_000_000_000_000)),
            ),
            context_size=4096,
        ),
        ModelOffer(
            name="usdc-only", model_id=OTHER, prices=(TokenPrice(USDC, PricePerMTok(200_000)),), context_size=4096
        ),
    ),
    payments=(
        Payment(token=USDC, min_deposit=BaseUnits(10_000), bond_min=BaseUnits(50_000), relayed_from=BaseUnits(20_000)),
        Payment(token=ZERO_ADDRESS, min_deposit=BaseUnits(10**12), bond_min=BaseUnits(2 * 10**12)),
    ),
    arbiters=(ARBITER,),
    exposure_max=Tokens(256),
    challenge_min=900,
    challenge_max=7_200,
    min_seconds_left=300,
    policies=(ProofPolicy.REQUIRED,),
    max_message_bytes=1 << 20,
    max_answer_tokens=4096,
)
TERMS = Terms(
    renter=STRANGER.address,
    signer=SESSION.address,
    host=HOST.address,
    token=USDC,
    price=PricePerMTok(200_000),
    expires_at=int(NOW) + 3600,
    challenge=900,
    exposure=Tokens(64),
    policy=ProofPolicy.REQUIRED,
    model_id=MODEL,
    salt=Hash32(bytes(32)),
)
STATE = JobState(deposit=BaseUnits(1_000_000))


def _code(terms: Terms = TERMS, state: JobState = STATE, acknowledged: int | None = None) -> str:
    """The error that admission gives, or `admitted`."""
    try:
        check(terms, job_id(terms), state, OFFER, NOW, None if acknowledged is None else Tokens(acknowledged))
    except FabstirError as fault:
        return fault.code
    return "admitted"


def test_a_job_that_fits_the_offer_is_admitted() -> None:
    """Every bound is inclusive: terms made exactly from the offer pass."""
    exact = msgspec.structs.replace(TERMS, exposure=Tokens(256), expires_at=int(NOW) + 300)
    assert _code(exact, JobState(deposit=BaseUnits(10_000))) == "admitted"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"host": STRANGER.address}, "job_foreign"),
        ({"model_id": ModelId(bytes(32))}, "job_foreign"),
        ({"token": STRANGER.address}, "job_foreign"),
        (WEI | {"model_id": OTHER}, "job_foreign"),
        (WEI | {"price": PricePerMTok(79_999_999_999_999)}, "job_foreign"),
        (WEI | {"bond": BaseUnits(2 * 10**12 - 1)}, "job_terms_unacceptable"),
        (WEI, "job_terms_unacceptable"),  # the deposit, below
        ({"bond": BaseUnits(49_999)}, "job_terms_unacceptable"),
        ({"bond": BaseUnits(50_000)}, "admitted"),
        ({"arbiter": STRANGER.address}, "job_terms_unacceptable"),
        ({"arbiter": ARBITER}, "admitted"),
        ({"challenge": 7_200}, "admitted"),
        ({"challenge": 7_201}, "job_terms_unacceptable"),
        ({"price": PricePerMTok(199_999)}, "job_foreign"),
        ({"price": PricePerMTok(0)}, "job_foreign"),
        ({"price": PricePerMTok(200_001)}, "admitted"),
        ({"exposure": Tokens(257)}, "job_terms_unacceptable"),
        ({"exposure": Tokens(0)}, "job_terms_unacceptable"),
        ({"challenge": 899}, "job_terms_unacceptable"),
        ({"policy": ProofPolicy.FALLBACK}, "job_terms_unacceptable"),
        ({"expires_at": int(NOW) + 299}, "job_expired"),
        ({"expires_at": int(NOW) - 1}, "job_expired"),
    ],
)
def test_each_term_that_does_not_fit_is_named(change: dict[str, Any], code: str) -> None:
    """One changed field of good terms is refused by its own code; paying more than asked is welcome."""
    assert _code(msgspec.structs.replace(TERMS, **change)) == code


@pytest.mark.parametrize(
    ("change", "deposit", "words"),
    [
        ({"token": STRANGER.address}, 10**6, "is not taken here for this model"),
        ({"price": PricePerMTok(1)}, 10**6, "price 1, at least 200000"),
        ({"bond": BaseUnits(1)}, 10**6, "bond 1, at least 50000"),
        ({"arbiter": STRANGER.address}, 10**6, "accepted: 0x0d0d"),
        ({"challenge": 7_201}, 10**6, "challenge 7201, 900 to 7200 s"),
        ({}, 9_999, "deposit 9999, at least 10000"),
        (WEI, 10**12 - 1, "deposit 999999999999, at least 1000000000000"),
    ],
)
def test_a_refusal_names_what_was_given_and_the_bound(change: dict[str, Any], deposit: int, words: str) -> None:
    """So that a renter can open the next job right."""
    terms = msgspec.structs.replace(TERMS, **change)
    with pytest.raises(FabstirError, match=words):
        check(terms, job_id(terms), JobState(deposit=BaseUnits(deposit)), OFFER, NOW)


def test_a_job_in_coins_is_admitted_at_its_own_bounds() -> None:
    """Price, bond and deposit are those of the currency."""
    assert _code(msgspec.structs.replace(TERMS, **WEI), JobState(deposit=BaseUnits(10**12))) == "admitted"


def test_a_known_job_outlives_its_currency() -> None:
    """A host that takes no ETH any more still serves the jobs in ETH that it admitted."""
    no_coins = msgspec.structs.replace(OFFER, payments=OFFER.payments[:1])
    terms = msgspec.structs.replace(TERMS, **WEI)
    state = JobState(deposit=BaseUnits(10**15))
    check(terms, job_id(terms), state, no_coins, NOW, Tokens(1))
    with pytest.raises(FabstirError, match="job_foreign"):
        check(terms, job_id(terms), state, no_coins, NOW)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (JobState(), "job_unknown"),
        (JobState(deposit=BaseUnits(1_000_000), closed=True), "job_closed"),
        (JobState(closed=True), "job_closed"),
        (JobState(deposit=BaseUnits(1_000_000), closing_at=int(NOW) + 900), "job_closed"),
        (JobState(deposit=BaseUnits(9_999)), "job_terms_unacceptable"),
        (JobState(deposit=BaseUnits(1_000_000), signed=Tokens(5_000_004)), "deposit_exhausted"),
        (JobState(deposit=BaseUnits(1_000_000), signed=Tokens(5_000_003)), "admitted"),
    ],
)
def test_each_state_on_chain_that_does_not_fit_is_named(state: JobState, code: str) -> None:
    """What the contract says about the job decides; 1,000,000 base units at 0.2 a token pay for 5,000,004 tokens (floor)."""
    assert _code(state=state) == code


def test_a_known_job_keeps_what_was_agreed() -> None:
    """After a change of price and bounds the host still serves the jobs that it admitted, but never another host's or model's."""
    cheap = msgspec.structs.replace(TERMS, price=PricePerMTok(1), exposure=Tokens(999), policy=ProofPolicy.FALLBACK)
    assert _code(cheap) == "job_foreign"
    assert _code(cheap, acknowledged=0) == "admitted"
    assert _code(cheap, JobState(deposit=BaseUnits(1)), acknowledged=0) == "admitted"
    assert _code(msgspec.structs.replace(cheap, model_id=ModelId(bytes(32))), acknowledged=0) == "job_foreign"


def test_a_deposit_that_is_all_acknowledged_admits_nobody() -> None:
    """One token that is served and not acknowledged still lets the renter in, to acknowledge it."""
    assert _code(acknowledged=5_000_004) == "deposit_exhausted"
    assert _code(acknowledged=5_000_003) == "admitted"


def test_terms_of_another_job_are_refused() -> None:
    """The job id is the hash of the terms."""
    with pytest.raises(FabstirError, match="job_terms_mismatch"):
        check(TERMS, JobId(bytes(32)), STATE, OFFER, NOW)


def _auth(
    key: SigningKey = SESSION, *, issued_at: int = int(NOW), session: str = "chat", nonce: int = 1
) -> SessionAuth:
    number = Hash32(nonce.to_bytes(32, "big"))
    digest = MARKET.session_auth_digest(job_id(TERMS), SessionId(session), issued_at, number)
    return SessionAuth(issued_at=issued_at, nonce=to_hex(number), signature=to_hex(key.sign(digest)))


@pytest.mark.parametrize("age", [0, 120, -120])
def test_a_fresh_signature_of_the_session_key_is_good(age: int) -> None:
    """Two minutes of difference between both clocks are allowed, either way."""
    check_auth(MARKET, job_id(TERMS), SessionId("chat"), _auth(issued_at=int(NOW) - age), SESSION.address, NOW)


@pytest.mark.parametrize(
    "auth",
    [
        _auth(STRANGER),
        _auth(issued_at=int(NOW) - 121),
        _auth(issued_at=int(NOW) + 121),
        _auth(session="another"),
        msgspec.structs.replace(_auth(), nonce=to_hex(bytes(32))),
        msgspec.structs.replace(_auth(), issued_at=int(NOW) + 1),
        msgspec.structs.replace(_auth(), signature=to_hex(bytes(65))),
    ],
    ids=["stranger", "old", "ahead", "session", "nonce", "issued_at", "signature"],
)
def test_everything_in_the_authorisation_is_signed(auth: SessionAuth) -> None:
    """Another key, another time, another session or one changed field: `session_unauthorized`."""
    with pytest.raises(FabstirError, match="session_unauthorized"):
        check_auth(MARKET, job_id(TERMS), SessionId("chat"), auth, SESSION.address, NOW)


def test_the_authorisation_is_for_one_job_on_one_market() -> None:
    """A signature for another job or another contract opens nothing here."""
    other = Market(31337, Address(b"\x0d" * 20))
    for market, job in ((MARKET, JobId(bytes(32))), (other, job_id(TERMS))):
        with pytest.raises(FabstirError, match="session_unauthorized"):
            check_auth(market, job, SessionId("chat"), _auth(), SESSION.address, NOW)


def test_the_published_offer_is_the_one_that_is_checked() -> None:
    """As text and back nothing is lost, also through JSON; a policy of a newer host is left out, not misread."""
    text = msgspec.json.decode(msgspec.json.encode(WireOffer.of(OFFER)), type=WireOffer)
    assert text.offer() == OFFER
    newer = msgspec.structs.replace(text, policies=("required", "optimistic"))
    assert newer.offer().policies == (ProofPolicy.REQUIRED,)
