"""The transcript: what was served, as hashes. Both sides compute it from the same tokens; receipts and vouchers sign its
head.

    salt_i   = SHA-256("fabstir/salt/1" | salt | i)
    record_i = SHA-256("fabstir/record/2" | salt_i | i | token | logprob | temperature | top_p | k | (id, logprob) * k)
    head_0   = SHA-256("fabstir/job/1"  | chain | market | job | host | model)
    head    := SHA-256("fabstir/turn/1" | head | message_index | tokens | request_hash)      at the start of each answer
    head    := SHA-256("fabstir/token/1"| head | record_i)                                   for each token

Integers are big-endian: index, ids and counts u32, k u8, chain u64, log-probabilities i32 in micro-nats, the sampler's
temperature u16 in thousandths (65535: the draw was shaped by more than that) and its top_p u32 in millionths. The salt
(32 random bytes for each connection) is known to host and renter and never written to the host's disk, so that the
records there cannot be searched for what was said; each record has a salt of its own, so that one can be opened and the others stay closed.
SHA-256 because every SDK and the EVM has it (golden vectors: tests/protocol/vectors/transcript.json).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

import msgspec

from fabstir.domain.ids import Address, Hash32, JobId, ModelId
from fabstir.domain.money import Tokens
from fabstir.domain.terms import Terms
from fabstir.protocol.signing import Market, job_id

SALT_TAG: Final = b"fabstir/salt/1"
RECORD_TAG: Final = b"fabstir/record/2"
JOB_TAG: Final = b"fabstir/job/1"
TURN_TAG: Final = b"fabstir/turn/1"
TOKEN_TAG: Final = b"fabstir/token/1"
MAX_TOP: Final = 20
MIN_LOGPROB: Final = -(2**31)


class TokenRecord(msgspec.Struct, frozen=True, array_like=True):
    """What is committed about one generated token. Log-probabilities are of the raw softmax, before the sampler, in micro-nats
    (round(ln p * 1e6), <= 0, floored at -2**31)."""

    token: int
    logprob: int
    top: tuple[tuple[int, int], ...] = ()
    """The k most likely (token id, log-probability), best first; at most MAX_TOP."""


class Sampler(msgspec.Struct, frozen=True, array_like=True):
    """What a token was drawn with, as its record says it."""

    temperature: int
    """Thousandths; 0 is always the likeliest token."""
    top_p: int
    """Millionths."""

    @classmethod
    def of(cls, temperature: float, top_p: float) -> Sampler:
        """Of a request. A temperature above 0 never becomes 0, nor a top_p."""
        return cls(max(round(temperature * 1_000), temperature > 0), max(round(top_p * 1_000_000), 1))


SHAPED: Final = Sampler(65_535, 1_000_000)
"""Of a token whose draw was shaped by more than temperature and nucleus: by penalties, biases or a prescribed form. No temperature is that
high (a prompt's is at most 5), so that whoever checks a record by its sampler, on chain too, asks of this one only what holds for every
draw: its log-probabilities are those of one distribution."""


def record_salt(salt: Hash32, index: int) -> bytes:
    """The salt of one record: with it and the record's fields anyone can check that one, and no other."""
    return sha256(SALT_TAG + salt + struct.pack(">I", index)).digest()


def record_preimage(salt: Hash32, index: int, record: TokenRecord, sampler: Sampler) -> bytes:
    """What is hashed, 67 bytes and 8 for each of `top`; secret as long as the token is."""
    fields = (index, record.token, record.logprob, sampler.temperature, sampler.top_p, len(record.top))
    pairs = b"".join(struct.pack(">Ii", token, logprob) for token, logprob in record.top)
    return RECORD_TAG + record_salt(salt, index) + struct.pack(">IIiHIB", *fields) + pairs


def record_digest(salt: Hash32, index: int, record: TokenRecord, sampler: Sampler) -> bytes:
    """32 bytes. `index` counts the job's tokens from 0."""
    return sha256(record_preimage(salt, index, record, sampler)).digest()


def job_head(market: Market, terms: Terms) -> Hash32:
    """The head before the first token: binds chain, contract, job, host and model."""
    return _job_head(market.chain_id, market.address, job_id(terms), terms.host, terms.model_id)


def _job_head(chain: int, market: Address, job: JobId, host: Address, model: ModelId) -> Hash32:
    return Hash32(sha256(JOB_TAG + struct.pack(">Q", chain) + market + job + host + model).digest())


def turn_head(head: Hash32, message_index: int, tokens: Tokens, request: Hash32) -> Hash32:
    """The head at the start of an answer: binds what was asked (`request_hash`)."""
    return Hash32(sha256(TURN_TAG + head + struct.pack(">II", message_index, tokens) + request).digest())


def extend(head: Hash32, records: Iterable[bytes]) -> Hash32:
    """The head after `records` (digests)."""
    for record in records:
        head = Hash32(sha256(TOKEN_TAG + head + record).digest())
    return head


def request_hash(salt: Hash32, encoded: bytes) -> Hash32:
    """Salted hash of the canonical encoding of a prompt and its sampling parameters (`messages.canonical`)."""
    return Hash32(sha256(b"fabstir/request/1" + salt + encoded).digest())


class Transcript:
    """The running transcript of one side: count and head. Rewinds to a receipt's position, never further.

    Memory: two hashes; the records themselves belong to the caller.
    """

    __slots__ = ("head", "tokens")

    def __init__(self, head: Hash32, tokens: Tokens) -> None:
        self.head = head
        self.tokens = tokens

    def begin_turn(self, message_index: int, request: Hash32) -> None:
        """Bind the next tokens to what was asked."""
        self.head = turn_head(self.head, message_index, self.tokens, request)

    def append(self, salt: Hash32, records: Iterable[TokenRecord], sampler: Sampler) -> list[bytes]:
        """Take `records` in; returns their digests."""
        digests: list[bytes] = []
        for record in records:
            digest = record_digest(salt, self.tokens, record, sampler)
            self.take(digest)
            digests.append(digest)
        return digests

    def take(self, digest: bytes) -> None:
        """Take in one record by its digest."""
        self.head = Hash32(sha256(TOKEN_TAG + self.head + digest).digest())
        self.tokens = Tokens(self.tokens + 1)

    def __repr__(self) -> str:
        return f"<Transcript {self.tokens} tokens, head {self.head.hex()[:8]}>"
