"""A small model's head, traces of it, and statements about them, for tests of the circuit `spot`."""

from __future__ import annotations

import math
import random

from fabstir.domain.ids import Hash32, ModelId
from fabstir.ports.prover import ProofStatement
from fabstir.proofs.spot_prover import SpotProver
from fabstir.protocol import head_tree, spot
from fabstir.protocol.model_identity import HeadCommitment
from fabstir.protocol.padded_tree import PaddedTree
from fabstir.protocol.signing import keccak
from fabstir.protocol.spot import SpotVector, TokenTrace
from fabstir.protocol.transcript import RECORD_TAG, Sampler, TokenRecord, record_preimage

ROWS = 11
SALT = Hash32(b"\x5a" * 32)
CIRCUIT_WORD = Hash32(b"\xc1" * 32)


class TinyHead:
    """Rows that a seed makes, committed by a real prover."""

    def __init__(self, seed: int, width: int = 896, rows: int = ROWS) -> None:
        draw = random.Random(seed)
        self.width = width
        self.weights = [[draw.gauss(0, 0.05) for _ in range(width)] for _ in range(rows)]
        self.scale = head_tree.scale_for(max(abs(weight) for row in self.weights for weight in row))
        self._rows = [head_tree.quantised(row, self.scale) for row in self.weights]
        self._tree: PaddedTree | None = None

    async def commit(self, prover: SpotProver) -> TinyHead:
        self._tree = head_tree.tree_of(await prover.points([SpotVector(row) for row in self._rows]))
        return self

    @property
    def commitment(self) -> HeadCommitment:
        assert self._tree is not None
        return head_tree.commitment(self._tree, self.width, self.scale)

    def row(self, token: int) -> tuple[int, ...]:
        return self._rows[token]

    def path(self, token: int) -> bytes:
        assert self._tree is not None
        return self._tree.path(token)

    def trace(self, index: int, *, listed: int = 6, lie: float = 0.0, salt: Hash32 = SALT) -> TokenTrace:
        """What an honest host knows of the job's token `index`; with `lie`, every listed logit but the best is so many nats too low."""
        draw = random.Random(index)
        hidden = [draw.gauss(0, 2) for _ in range(self.width)]
        logits = [sum(a * b for a, b in zip(row, hidden, strict=True)) for row in self.weights]
        denominator = math.log(sum(math.exp(logit) for logit in logits))
        ranked = sorted(range(len(logits)), key=lambda token: -logits[token])[:listed]
        off = {token: lie * (place > 0) for place, token in enumerate(ranked)}
        top = tuple((token, round((logits[token] - denominator - off[token]) * 1e6)) for token in ranked)
        record = TokenRecord(top[0][0], top[0][1], top)
        return TokenTrace(
            hidden=spot.quantised(hidden),
            denominator=round(denominator * 1e6),
            record=record_preimage(salt, index, record, Sampler(0, 1_000_000))[len(RECORD_TAG) :],
            salt=spot.hidden_salt(salt, index),
        )


def words_of(model: ModelId, tokens: int, before: int, records: int) -> bytes:
    """Ten words as the market hashes them."""
    numbers = [n.to_bytes(32, "big") for n in (31337, 0xA11CE)]
    counts = [n.to_bytes(32, "big") for n in (tokens, before, records)]
    whose = [keccak(b"job"), (0xB0B).to_bytes(32, "big"), bytes(model), keccak(b"root")]
    return b"".join([*numbers, *whose, *counts, CIRCUIT_WORD])


def seed_for(position: int, tokens: int, nonce: int = 0) -> Hash32:
    """A seed that draws this position."""
    number = int.from_bytes(keccak(nonce.to_bytes(32, "big")), "big")
    return Hash32((number - number % tokens + position).to_bytes(32, "big"))


def statement_of(words: bytes, seed: Hash32, commitment: Hash32) -> ProofStatement:
    """The public words of a proof."""
    return ProofStatement(keccak(words), seed, commitment, words)
