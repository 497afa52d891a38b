"""What is signed equals what eth_account, eth_abi and OpenZeppelin make of the same words; a signature says who, or nothing."""

from __future__ import annotations

from typing import Any, Final

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak as reference_keccak
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.ids import Address, Hash32, JobId, ModelId, SessionId
from fabstir.domain.money import BaseUnits, PricePerMTok, Tokens
from fabstir.domain.terms import ProofPolicy, Terms
from fabstir.protocol.signing import SECP256K1_HALF_ORDER, Market, SigningKey, compact, job_id, keccak, recover

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
DOMAIN: Final = [
    ("name", "string"),
    ("version", "string"),
    ("chainId", "uint256"),
    ("verifyingContract", "address"),
]
CLOSE: Final = [("jobId", "bytes32"), ("amount", "uint96"), ("tokens", "uint32")]
VOUCHER: Final = [*CLOSE, ("transcript", "bytes32")]
RECEIPT: Final = [*CLOSE, ("tokensIn", "uint32"), ("transcript", "bytes32")]
FINGERPRINTS: Final = [
    ("jobId", "bytes32"),
    *((name, "uint32") for name in ("messageIndex", "first", "tokens")),
    ("transcript", "bytes32"),
    ("digest", "bytes32"),
]
AUTH: Final = [("jobId", "bytes32"), ("sessionId", "string"), ("issuedAt", "uint64"), ("nonce", "bytes32")]

words = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20)
amounts = st.integers(0, 2**96 - 1)
counts = st.integers(0, 2**32 - 1)
markets = st.builds(Market, st.integers(1, 2**64 - 1), addresses.map(Address))
keys = st.integers(1, ORDER - 1).map(lambda n: SigningKey(n.to_bytes(32, "big")))
all_terms = st.builds(
    Terms,
    renter=addresses,
    signer=addresses,
    host=addresses,
    token=addresses,
    arbiter=addresses,
    price=st.integers(0, 2**96 - 1).map(PricePerMTok),
    bond=amounts.map(BaseUnits),
    expires_at=st.integers(0, 2**40 - 1),
    challenge=counts,
    exposure=counts.map(Tokens),
    policy=st.sampled_from(ProofPolicy),
    model_id=words.map(ModelId),
    salt=words,
)


def reference(market: Market, name: str, fields: list[tuple[str, str]], message: dict[str, Any]) -> bytes:
    """The digest that eth_account signs for the same typed data."""
    typed = {
        "types": {
            "EIP712Domain": [{"name": n, "type": t} for n, t in DOMAIN],
            name: [{"name": n, "type": t} for n, t in fields],
        },
        "primaryType": name,
        "domain": {
            "name": "FabstirMarket",
            "version": "2",
            "chainId": market.chain_id,
            "verifyingContract": "0x" + market.address.hex(),
        },
        "message": message,
    }
    signable = encode_typed_data(full_message=typed)
    return bytes(reference_keccak(b"\x19" + signable.version + signable.header + signable.body))


@given(market=markets, job=words, amount=amounts, tokens=counts, tokens_in=counts, head=words)
def test_vouchers_and_receipts_are_typed_data(
    market: Market, job: bytes, amount: int, tokens: int, tokens_in: int, head: bytes
) -> None:
    """Both equal eth_account's digest, and differ from each other: a receipt is no voucher."""
    facts = (JobId(job), BaseUnits(amount), Tokens(tokens))
    message = {"jobId": job, "amount": amount, "tokens": tokens, "transcript": head}
    voucher = market.voucher_digest(*facts, Hash32(head))
    receipt = market.receipt_digest(*facts, Tokens(tokens_in), Hash32(head))
    assert voucher == reference(market, "Voucher", VOUCHER, message)
    assert receipt == reference(market, "Receipt", RECEIPT, message | {"tokensIn": tokens_in})
    assert voucher != receipt


@given(market=markets, job=words, amount=amounts, tokens=counts)
def test_closes_are_typed_data(market: Market, job: bytes, amount: int, tokens: int) -> None:
    """As the contract's `closeDigest`."""
    message = {"jobId": job, "amount": amount, "tokens": tokens}
    digest = market.close_digest(JobId(job), BaseUnits(amount), Tokens(tokens))
    assert digest == reference(market, "Close", CLOSE, message)


@given(
    market=markets,
    job=words,
    places=st.tuples(counts, counts, counts),
    head=words,
    made=st.lists(st.binary(max_size=258)),
)
def test_fingerprints_are_typed_data(
    market: Market, job: bytes, places: tuple[int, int, int], head: bytes, made: list[bytes]
) -> None:
    """Of the answer's place, and of the fingerprints as EIP-712 has a list of bytes: none can be moved, cut or joined."""
    index, first, tokens = places
    listed = keccak(b"".join(map(keccak, made)))
    digest = market.fingerprints_digest(JobId(job), index, Tokens(first), Tokens(tokens), Hash32(head), tuple(made))
    message = {
        "jobId": job,
        "messageIndex": index,
        "first": first,
        "tokens": tokens,
        "transcript": head,
        "digest": listed,
    }
    assert digest == reference(market, "Fingerprints", FINGERPRINTS, message)


@given(market=markets, job=words, session=st.text(), issued_at=st.integers(0, 2**64 - 1), nonce=words)
def test_session_authorisations_are_typed_data(
    market: Market, job: bytes, session: str, issued_at: int, nonce: bytes
) -> None:
    """With the session's id as text."""
    message = {"jobId": job, "sessionId": session, "issuedAt": issued_at, "nonce": nonce}
    digest = market.session_auth_digest(JobId(job), SessionId(session), issued_at, Hash32(nonce))
    assert digest == reference(market, "SessionAuth", AUTH, message)


@given(market=markets, job=words, index=counts, tokens=counts, prompt_tokens=counts, reason=st.text(), head=words)
def test_ends_of_answers_are_typed_data(
    market: Market, job: bytes, index: int, tokens: int, prompt_tokens: int, reason: str, head: bytes
) -> None:
    """Counts, reason and head of one answer."""
    fields = [
        ("jobId", "bytes32"), ("messageIndex", "uint32"), ("tokens", "uint32"), ("promptTokens", "uint32"),
        ("finishReason", "string"), ("transcript", "bytes32"),
    ]  # fmt: skip
    values = (job, index, tokens, prompt_tokens, reason, head)
    message = {name: value for (name, _), value in zip(fields, values, strict=True)}
    digest = market.response_digest(JobId(job), index, Tokens(tokens), prompt_tokens, reason, Hash32(head))
    assert digest == reference(market, "Response", fields, message)


@given(market=markets, what=words, valid_until=st.integers(0, 2**64 - 1))
def test_the_words_of_an_account_for_offer_and_node_are_typed_data(
    market: Market, what: bytes, valid_until: int
) -> None:
    """Of one shape, and never to be taken for each other."""
    offer, node = (digest(Hash32(what), valid_until) for digest in (market.offer_digest, market.node_digest))
    until = ("validUntil", "uint64")
    assert offer == reference(
        market, "Offer", [("offer", "bytes32"), until], {"offer": what, "validUntil": valid_until}
    )
    assert node == reference(
        market, "Node", [("nodeKey", "bytes32"), until], {"nodeKey": what, "validUntil": valid_until}
    )
    assert offer != node


@given(terms=all_terms)
def test_a_job_is_the_hash_of_its_terms(terms: Terms) -> None:
    """keccak(abi.encode(terms)), thirteen words in the contract's order."""
    types = ["address"] * 5 + ["uint96", "uint96", "uint40", "uint32", "uint32", "uint8", "bytes32", "bytes32"]
    values = [
        "0x" + terms.renter.hex(),
        "0x" + terms.signer.hex(),
        "0x" + terms.host.hex(),
        "0x" + terms.token.hex(),
        "0x" + terms.arbiter.hex(),
        terms.price,
        terms.bond,
        terms.expires_at,
        terms.challenge,
        terms.exposure,
        int(terms.policy),
        terms.model_id,
        terms.salt,
    ]
    assert job_id(terms) == reference_keccak(encode(types, values))


@given(key=keys, digest=words)
def test_a_signature_says_who_signed(key: SigningKey, digest: bytes) -> None:
    """65 bytes, low s, v 27 or 28, the same each time; eth_account recovers the same address from it."""
    signature = key.sign(Hash32(digest))
    assert len(signature) == 65 and signature[64] in (27, 28)
    assert int.from_bytes(signature[32:64], "big") <= SECP256K1_HALF_ORDER
    assert signature == key.sign(Hash32(digest))
    assert recover(Hash32(digest), signature) == key.address
    theirs = Account._recover_hash(digest, signature=signature)
    assert bytes.fromhex(theirs[2:]) == key.address


@given(key=keys, digest=words)
def test_two_words_say_the_same(key: SigningKey, digest: bytes) -> None:
    """EIP-2098: r, then s with the parity of v in the bit that a low s leaves free. Nothing is lost."""
    signature = key.sign(Hash32(digest))
    r, vs = compact(signature)
    assert len(r) == len(vs) == 32
    s = int.from_bytes(vs, "big")
    assert signature == r + word(s % 2**255) + bytes([27 + (s >> 255)])


@given(secret=st.integers(1, ORDER - 1), digest=words)
def test_signatures_are_those_of_eth_account(secret: int, digest: bytes) -> None:
    """Deterministic by RFC 6979, so that two implementations sign the same bytes."""
    raw = secret.to_bytes(32, "big")
    assert Account.unsafe_sign_hash(digest, raw).signature == SigningKey(raw).sign(Hash32(digest))


@given(key=keys, digest=words, other=words, bit=st.integers(0, 64 * 8 - 1))
def test_anything_else_was_signed_by_nobody_or_somebody_else(
    key: SigningKey, digest: bytes, other: bytes, bit: int
) -> None:
    """Another digest or one changed bit never recovers the signer."""
    signature = bytearray(key.sign(Hash32(digest)))
    if other != digest:
        assert recover(Hash32(other), bytes(signature)) != key.address
    signature[bit // 8] ^= 1 << bit % 8
    assert recover(Hash32(digest), bytes(signature)) != key.address


KEY: Final = SigningKey(b"\x07" * 32)
DIGEST: Final = keccak(b"digest")
GOOD: Final = KEY.sign(DIGEST)
R, S, V = GOOD[:32], int.from_bytes(GOOD[32:64], "big"), GOOD[64]


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        GOOD[:64],
        GOOD + b"\0",
        bytes(65),
        bytes(64) + b"\x1b",
        R + word(S) + bytes([V - 27]),
        R + word(S) + bytes([V + 2]),
        R + word(S) + b"\xff",
        R + word(ORDER - S) + bytes([55 - V]),  # the other root: as valid on the curve, refused as malleable
        R + word(SECP256K1_HALF_ORDER + 1) + bytes([V]),
        R + word(0) + bytes([V]),
        R + word(ORDER) + bytes([V]),
        word(0) + word(S) + bytes([V]),
        word(ORDER) + word(S) + bytes([V]),
    ],
)
def test_a_malformed_signature_is_nobodys(signature: bytes) -> None:
    """Wrong length, wrong v, zero, out of range, or high s: what OpenZeppelin's ECDSA refuses."""
    assert recover(DIGEST, signature) is None


@pytest.mark.parametrize(
    "signature", [b"", GOOD[:64], GOOD + b"\0", R + word(S) + b"\x1d", R + word(ORDER - S) + bytes([55 - V])]
)
def test_what_has_no_two_words_is_refused(signature: bytes) -> None:
    """Of a high s the free bit is taken: it would turn into another signature."""
    with pytest.raises(ValueError, match="low s"):
        compact(signature)


@pytest.mark.parametrize("v", [29, 30])
@pytest.mark.parametrize("r", range(1, 9))
def test_points_beyond_the_order_are_nobodys(r: int, v: int) -> None:
    """libsecp256k1 knows two more recovery ids, which the EVM does not: with a small r they would name somebody."""
    assert recover(DIGEST, word(r) + word(S) + bytes([v])) is None


def test_the_highest_low_s_is_taken() -> None:
    """The bound is exactly half of the order: s on it recovers somebody."""
    assert SECP256K1_HALF_ORDER == ORDER // 2
    assert recover(DIGEST, R + word(SECP256K1_HALF_ORDER) + bytes([V])) is not None


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        (bytes(32), "greater than 0"),
        (word(ORDER), "greater than 0"),
        (b"\x07" * 31, "32 bytes"),
        (b"\0" + b"\x07" * 32, "32 bytes"),
    ],
)
def test_bad_keys_are_refused(secret: bytes, says: str) -> None:
    """Zero, everything from the order on, and what has not 32 bytes is no private key."""
    with pytest.raises(ValueError, match=says):
        SigningKey(secret)


def test_a_key_never_shows_its_secret() -> None:
    """The repr names the address."""
    assert repr(KEY) == f"<SigningKey 0x{KEY.address.hex()}>"
    assert "07" * 8 not in repr(KEY)
    assert KEY.address == bytes.fromhex(Account.from_key(b"\x07" * 32).address[2:])
