"""Whether a token record agrees with itself: can the sampler that it names have drawn its token from the log-probabilities that it states?

Necessary conditions only, true of every honest record of every engine; where a record comes from they cannot say. Integers throughout,
bit by bit those of `contracts/src/SamplingRule.sol` and `Exponential.sol`, which judge the same bytes on chain. Decides nothing about
trees and proofs; that is `openings`.
"""

from __future__ import annotations

import struct
from decimal import Context, Decimal
from typing import Final

from fabstir.protocol.transcript import MAX_TOP, Sampler, TokenRecord

ONE: Final = 1 << 128
"""A probability of 1."""
FIXED: Final = struct.Struct(">32sIIiHIB")
"""A record's bytes after its tag and before its `top`: salt, index, token, logprob, temperature, top_p, k."""
PAIR: Final = struct.Struct(">Ii")
TOLERANCE: Final = 1_000
"""In millionths of probability, for the sum of a record's probabilities and for its nucleus: log-probabilities are rounded to micro-nats
and come from a softmax in 32-bit floats, which together stay far below."""
WARMEST: Final = 1_000
"""Thousandths. llama.cpp (as we ask it) and vLLM temper before they cut the nucleus. Up to temperature 1 that nucleus lies within the one
of the raw softmax, which the record states; above it is wider, and how wide the record does not say."""

_MILLION: Final = 1_000_000
_EXACT: Final = Context(prec=60)
_POWERS: Final = tuple(
    int(_EXACT.multiply(Decimal(-(1 << bit)).scaleb(-6).exp(_EXACT), Decimal(ONE))) for bit in range(25)
)


class OpenedRecord(TokenRecord, frozen=True, array_like=True):
    """A record as it is opened on chain: what was hashed, but for the tag."""

    salt: bytes = bytes(32)
    index: int = 0
    """Of the token in its job."""
    sampler: Sampler = Sampler(0, _MILLION)


def exp_of_minus(micro_nats: int) -> int:
    """exp(-x) of whole micro-nats, in units of 2^-128. Never above the true value; less than 2^-122 under it below 2^25 micro-nats,
    and 0 from there on, where it is below 3e-15 (the proof: Exponential.sol)."""
    if micro_nats >> 25:
        return 0
    result = ONE
    for bit, power in enumerate(_POWERS):
        if micro_nats >> bit & 1:
            result = result * power >> 128
    return result


def read_record(data: bytes) -> OpenedRecord:
    """One record from its bytes after the tag. Raises ValueError where they are not exactly one."""
    if len(data) < FIXED.size or len(data) != record_length(data):
        raise ValueError("not the bytes of one record")
    salt, index, token, logprob, temperature, top_p, _ = FIXED.unpack_from(data)
    top = tuple(PAIR.iter_unpack(data[FIXED.size :]))
    return OpenedRecord(token, logprob, top, salt, index, Sampler(temperature, top_p))


def record_length(data: bytes) -> int:
    """Bytes of the record that `data` begins with, by its own count. Raises IndexError where the count lies beyond the end."""
    return FIXED.size + PAIR.size * data[FIXED.size - 1]


def drawn_within_bounds(record: TokenRecord, sampler: Sampler) -> bool:
    """What is checked, in this order:

    - at most MAX_TOP listed tokens, none twice, best first; no log-probability above 0, no top_p outside (0, 1];
    - the drawn token is listed with its own log-probability, or is not likelier than the last listed one;
    - the probabilities add up to at most 1 (TOLERANCE);
    - at temperature 0 it is the likeliest: its log-probability is that of the first listed token;
    - at temperatures up to 1 it is in the nucleus: the listed tokens that are strictly likelier hold less than top_p (TOLERANCE).
    """
    ids, logprobs = [token for token, _ in record.top], [logprob for _, logprob in record.top]
    if not 0 < sampler.top_p <= _MILLION or len(ids) > MAX_TOP or len(set(ids)) != len(ids):
        return False
    if max([record.logprob, *logprobs]) > 0 or logprobs != sorted(logprobs, reverse=True):
        return False
    listed = dict(record.top).get(record.token)
    if (listed != record.logprob) if listed is not None else logprobs and record.logprob > logprobs[-1]:
        return False
    total = sum(exp_of_minus(-logprob) for logprob in logprobs)
    total += exp_of_minus(-record.logprob) if listed is None else 0
    if total * _MILLION > ONE * (_MILLION + TOLERANCE):
        return False
    if sampler.temperature == 0:
        return bool(logprobs) and record.logprob == logprobs[0]
    above = sum(exp_of_minus(-logprob) for logprob in logprobs if logprob > record.logprob)
    return sampler.temperature > WARMEST or above * _MILLION < ONE * (sampler.top_p + TOLERANCE)
