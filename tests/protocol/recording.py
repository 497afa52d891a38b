"""Records as an engine would make them, and ways to spoil a proof. For the tests of openings, of the Merkle prover and of its contracts."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from hashlib import sha256

from fabstir.domain.ids import Hash32
from fabstir.protocol import openings
from fabstir.protocol.transcript import RECORD_TAG, Sampler, TokenRecord, record_preimage

SALT = Hash32(b"\x5a" * 32)
STATEMENT = Hash32(bytes(range(255, 223, -1)))
SEED = Hash32(bytes(range(224, 256)))
GREEDY = Sampler(0, 1_000_000)
WARM = Sampler(800, 950_000)


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities."""
    top = max(logits)
    weights = [math.exp(logit - top) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def drawn(chance: random.Random, sampler: Sampler, k: int, vocabulary: int = 60) -> TokenRecord:
    """One token as llama.cpp (as we ask it) and vLLM draw it: temper, cut the nucleus, draw; log-probabilities of the raw softmax."""
    logits = [chance.gauss(0, 3) for _ in range(vocabulary)]
    raw = [round(math.log(p) * 1e6) for p in softmax(logits)]
    order = sorted(range(vocabulary), key=lambda token: -logits[token])
    token = order[0]
    if sampler.temperature:
        tempered = softmax([logit * 1_000 / sampler.temperature for logit in logits])
        kept, mass = list[int](), 0.0
        for candidate in order:
            if mass >= sampler.top_p / 1e6:
                break
            kept.append(candidate)
            mass += tempered[candidate]
        token = chance.choices(kept, [tempered[candidate] for candidate in kept])[0]
    return TokenRecord(token, raw[token], tuple((candidate, raw[candidate]) for candidate in order[:k]))


def preimages_of(count: int, sampler: Sampler = WARM, k: int = 5, first: int = 0) -> list[bytes]:
    """Of `count` honest records, from index `first` of their job on."""
    chance = random.Random(count)
    return [record_preimage(SALT, first + i, drawn(chance, sampler, k), sampler) for i in range(count)]


def digests_of(preimages: Sequence[bytes]) -> list[bytes]:
    """What a checkpoint commits to."""
    return [sha256(preimage).digest() for preimage in preimages]


def bind_proof(digests: Sequence[bytes], statement: Hash32 = STATEMENT, seed: Hash32 = SEED) -> bytes:
    """The proof of circuit `bind`."""
    at = openings.positions(statement, seed, len(digests))
    return openings.open_records(digests, at, [digests[position] for position in at])


def sample_proof(preimages: Sequence[bytes], statement: Hash32 = STATEMENT, seed: Hash32 = SEED) -> bytes:
    """The proof of circuit `sample`."""
    at = openings.positions(statement, seed, len(preimages))
    return openings.open_records(digests_of(preimages), at, [preimages[i][len(RECORD_TAG) :] for i in at])


def spoiled(proof: bytes, record: int) -> Iterator[tuple[str, bytes]]:
    """Every way to spoil a proof whose opened records have `record` bytes each: bits, lengths, order."""
    for at in [*range(0, min(len(proof), 2 + 2 * record)), *range(2 + 2 * record, len(proof), 13)]:
        yield f"bit of byte {at}", proof[:at] + bytes([proof[at] ^ 1 << at % 8]) + proof[at + 1 :]
    for length in {0, 1, 2, 33, len(proof) // 2, len(proof) - 32, len(proof) - 1} - {len(proof)}:
        yield f"cut to {length}", proof[: max(length, 0)]
    yield "one byte more", proof + b"\0"
    yield "one sibling more", proof + bytes(32)
    if len(proof) >= 2 + 2 * record:
        one, two = proof[2 : 2 + record], proof[2 + record : 2 + 2 * record]
        yield "reordered", proof[:2] + two + one + proof[2 + 2 * record :]
        yield "one twice", proof[:2] + one + one + proof[2 + 2 * record :]
    yield "one record more", (int.from_bytes(proof[:2], "big") + 1).to_bytes(2, "big") + proof[2:]
    yield "no records", bytes(2) + proof[2:]
    yield "too many records", (257).to_bytes(2, "big") + proof[2:]
