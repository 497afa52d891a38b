"""What is signed and how: job ids, EIP-712 digests, secp256k1 signatures.

Pure: keys come in as arguments, signatures are deterministic (RFC 6979). The digests equal `eth_account`'s
`encode_typed_data` (tests/protocol/test_signing.py) and the contract's `voucherDigest`, at a fraction of their cost:
this is the hot path, one digest for each receipt and each voucher (EIP-712; research: 3758 against 1083 signatures/s).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import coincurve
import msgspec
from eth_hash.auto import keccak as _keccak

from fabstir.domain.ids import Address, Hash32, JobId, SessionId
from fabstir.domain.money import BaseUnits, Tokens
from fabstir.domain.terms import Terms

DOMAIN_NAME: Final = "FabstirMarket"
DOMAIN_VERSION: Final = "2"
SECP256K1_HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
SIGNATURE_BYTES: Final = 65
SECRET_BYTES: Final = 32


def keccak(data: bytes) -> Hash32:
    """Keccak-256, as the EVM has it."""
    return Hash32(_keccak(data))


def _type(text: str) -> bytes:
    return _keccak(text.encode())


EIP712_DOMAIN: Final = _type("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
VOUCHER: Final = _type("Voucher(bytes32 jobId,uint96 amount,uint32 tokens,bytes32 transcript)")
RECEIPT: Final = _type("Receipt(bytes32 jobId,uint96 amount,uint32 tokens,uint32 tokensIn,bytes32 transcript)")
CLOSE: Final = _type("Close(bytes32 jobId,uint96 amount,uint32 tokens)")
SESSION_AUTH: Final = _type("SessionAuth(bytes32 jobId,string sessionId,uint64 issuedAt,bytes32 nonce)")
CHANNEL: Final = _type("Channel(uint32 protocol,bytes32 renterKey,bytes32 hostKey)")
RESPONSE: Final = _type(
    "Response(bytes32 jobId,uint32 messageIndex,uint32 tokens,uint32 promptTokens,string finishReason,bytes32 transcript)"
)
FINGERPRINTS: Final = _type(
    "Fingerprints(bytes32 jobId,uint32 messageIndex,uint32 first,uint32 tokens,bytes32 transcript,bytes32 digest)"
)
OFFER: Final = _type("Offer(bytes32 offer,uint64 validUntil)")
NODE: Final = _type("Node(bytes32 nodeKey,uint64 validUntil)")


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _pad(address: Address) -> bytes:
    return bytes(12) + address


def job_id(terms: Terms) -> JobId:
    """keccak-256 of abi.encode(terms): thirteen words in the contract's field order."""
    return JobId(
        _keccak(
            _pad(terms.renter)
            + _pad(terms.signer)
            + _pad(terms.host)
            + _pad(terms.token)
            + _pad(terms.arbiter)
            + _word(terms.price)
            + _word(terms.bond)
            + _word(terms.expires_at)
            + _word(terms.challenge)
            + _word(terms.exposure)
            + _word(terms.policy)
            + terms.model_id
            + terms.salt
        )
    )


class Market(msgspec.Struct, frozen=True):
    """The contract that every signature is bound to."""

    chain_id: int
    address: Address

    @property
    def separator(self) -> bytes:
        """The EIP-712 domain separator."""
        return _separator(self.chain_id, self.address)

    def _digest(self, struct: bytes) -> Hash32:
        return Hash32(_keccak(b"\x19\x01" + self.separator + _keccak(struct)))

    def voucher_digest(self, job: JobId, amount: BaseUnits, tokens: Tokens, transcript: Hash32) -> Hash32:
        """What the renter's session key signs: *of this job, `tokens` tokens are mine to pay, and this is what they were*."""
        return self._digest(VOUCHER + job + _word(amount) + _word(tokens) + transcript)

    def receipt_digest(
        self, job: JobId, amount: BaseUnits, tokens: Tokens, tokens_in: Tokens, transcript: Hash32
    ) -> Hash32:
        """What the host signs: *so much was read and served, and this is what it was*."""
        return self._digest(RECEIPT + job + _word(amount) + _word(tokens) + _word(tokens_in) + transcript)

    def close_digest(self, job: JobId, amount: BaseUnits, tokens: Tokens) -> Hash32:
        """What the host signs to let the renter close at once."""
        return self._digest(CLOSE + job + _word(amount) + _word(tokens))

    def session_auth_digest(self, job: JobId, session: SessionId, issued_at: int, nonce: Hash32) -> Hash32:
        """What the session key signs to open a connection."""
        return self._digest(SESSION_AUTH + job + _keccak(session.encode()) + _word(issued_at) + nonce)

    def channel_digest(self, protocol: int, renter_key: Hash32, host_key: Hash32) -> Hash32:
        """What the host's account signs: *these two keys, one of them mine, make the channel of this connection*."""
        return self._digest(CHANNEL + _word(protocol) + renter_key + host_key)

    def response_digest(
        self, job: JobId, message_index: int, tokens: Tokens, prompt_tokens: int, finish_reason: str, transcript: Hash32
    ) -> Hash32:
        """What the host's account signs: *this answer, which `transcript` ends, is complete, and that is why*."""
        counts = _word(message_index) + _word(tokens) + _word(prompt_tokens)
        return self._digest(RESPONSE + job + counts + _keccak(finish_reason.encode()) + transcript)

    def fingerprints_digest(
        self, job: JobId, message_index: int, first: Tokens, tokens: Tokens, transcript: Hash32, made: tuple[bytes, ...]
    ) -> Hash32:
        """What the host's account signs: *these stand for the activations of this answer*. `made` enters as EIP-712 has `bytes[]`."""
        place = job + _word(message_index) + _word(first) + _word(tokens)
        return self._digest(FINGERPRINTS + place + transcript + _keccak(b"".join(map(_keccak, made))))

    def node_digest(self, node_key: Hash32, valid_until: int) -> Hash32:
        """What the host's account signs: *until then this Ed25519 key announces for me*."""
        return self._digest(NODE + node_key + _word(valid_until))

    def offer_digest(self, offer: Hash32, valid_until: int) -> Hash32:
        """What the host's account signs: *until then this is what I offer*."""
        return self._digest(OFFER + offer + _word(valid_until))


@lru_cache(maxsize=16)
def _separator(chain_id: int, market: Address) -> bytes:
    return _keccak(EIP712_DOMAIN + _type(DOMAIN_NAME) + _type(DOMAIN_VERSION) + _word(chain_id) + _pad(market))


class SigningKey:
    """A secp256k1 private key with the address it stands for. Never printed."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is 32 bytes. Raises ValueError where it is no valid key."""
        if len(secret) != SECRET_BYTES:  # a shorter one would be padded, and be another key than was meant
            raise ValueError(f"a private key has {SECRET_BYTES} bytes")
        self._key = coincurve.PrivateKey(secret)
        self.address: Final = _address_of(self._key.public_key)

    def sign(self, digest: Hash32) -> bytes:
        """65 bytes r, s, v with low s and v in {27, 28}; deterministic."""
        raw = self._key.sign_recoverable(digest, hasher=None)
        return raw[:64] + bytes((raw[64] + 27,))

    def __repr__(self) -> str:
        return f"<SigningKey 0x{self.address.hex()}>"


def compact(signature: bytes) -> tuple[bytes, bytes]:
    """The 65 bytes of `SigningKey.sign` as two words, r and s with the parity in its top bit (EIP-2098). Raises ValueError on another
    length, parity or a high s, which has no such form."""
    high = int.from_bytes(signature[32:64], "big") > SECP256K1_HALF_ORDER
    if len(signature) != SIGNATURE_BYTES or signature[64] not in (27, 28) or high:
        raise ValueError("no signature with low s, and v in {27, 28}")
    parity = (signature[64] - 27) << 7
    return signature[:32], bytes((signature[32] | parity,)) + signature[33:64]


def _address_of(key: coincurve.PublicKey) -> Address:
    return Address(_keccak(key.format(compressed=False)[1:])[12:])


def recover(digest: Hash32, signature: bytes) -> Address | None:
    """Who signed `digest`; None where the signature is malformed or malleable (high s), as OpenZeppelin's ECDSA decides."""
    if len(signature) != SIGNATURE_BYTES or signature[64] not in (27, 28):
        return None
    if int.from_bytes(signature[32:64], "big") > SECP256K1_HALF_ORDER:
        return None
    try:
        key = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes((signature[64] - 27,)), digest, hasher=None
        )
    except Exception:
        return None
    return _address_of(key)
