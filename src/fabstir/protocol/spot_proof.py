"""A proof of the circuit `spot` as it goes on chain, and everything about it that needs no pairing.

    proof = abi.encode((words[10], first, denominator, record, tracePath, dots[4], rowPaths, halo2))

`words` are what the statement is the hash of, so that contract and reader learn from the statement itself which model is meant and
which token was drawn: the rows of another model lead to another root. The points of hidden state and rows are not repeated; they
are the head of the halo2 proof. `judge` says what `EzklSpotVerifier` says before it asks the generated verifier, but for what the record
says of its sampler (`sampling`), which both ask too. Pure.
"""

from __future__ import annotations

from typing import Final

import msgspec
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError

from fabstir.domain.ids import Hash32, ModelId
from fabstir.protocol import head_tree, spot
from fabstir.protocol.commitments import CHECKPOINT_TOKENS
from fabstir.protocol.model_identity import HeadCommitment
from fabstir.protocol.padded_tree import HASH, root_of
from fabstir.protocol.sampling import drawn_within_bounds, read_record
from fabstir.protocol.signing import keccak

HALO2_BYTES: Final = 3936
"""Length of every proof of this circuit."""
WORDS: Final = 10
_POINT: Final = head_tree.POINT
_TYPE: Final = f"(bytes32[{WORDS}],uint32,int64,bytes,bytes,int256[{spot.ROWS}],bytes,bytes)"


class SpotProof(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a proof."""

    words: bytes
    """`commitments.statement_words`: chain, market, job, host, model, root, tokens, tokens before, tokens of the checkpoint, circuit."""
    first: int
    """Index in the job of the checkpoint's first record."""
    denominator: int
    record: bytes
    trace_path: bytes
    """Siblings of the opened trace."""
    dots: tuple[int, ...]
    row_paths: bytes
    """Siblings of the rows, one path after the other, all of one length."""
    halo2: bytes

    @property
    def model_id(self) -> ModelId:
        """Which model's rows must be shown."""
        return ModelId(Hash32(self.words[4 * HASH : 5 * HASH]))

    def position(self, seed: Hash32) -> int:
        """Place in the checkpoint of the token that the seed picks; negative where it is in an earlier one."""
        return position_of(self.words, seed)

    def point(self, tensor: int) -> bytes:
        """KZG point of the hidden state (0) or of a row (1 to 4): the circuit's first tensor is the context."""
        return self.halo2[(tensor + 1) * _POINT : (tensor + 2) * _POINT]

    def encoded(self) -> bytes:
        """As the adapter contract decodes it. Raises ValueError where a part does not fit its type."""
        words = [self.words[at : at + HASH] for at in range(0, len(self.words), HASH)]
        parts = (
            words, self.first, self.denominator, self.record, self.trace_path, list(self.dots), self.row_paths, self.halo2
        )  # fmt: skip
        try:
            return encode([_TYPE], [parts])
        except EncodingError as fault:
            raise ValueError(str(fault)) from fault


def position_of(words: bytes, seed: Hash32) -> int:
    """Place in the checkpoint of the token that the seed picks, where the statement's words are these."""
    tokens, before = (int.from_bytes(words[at * HASH : (at + 1) * HASH], "big") for at in (6, 7))
    return int.from_bytes(seed, "big") % max(tokens, 1) - before


def records_of(words: bytes) -> int:
    """Tokens of the opened checkpoint."""
    return int.from_bytes(words[8 * HASH : 9 * HASH], "big")


def decoded(encoded: bytes) -> SpotProof | None:
    """The parts, or None where `encoded` is not exactly what `SpotProof.encoded` makes."""
    try:
        (parts,) = decode([_TYPE], encoded)
    except (DecodingError, OverflowError, ValueError):
        return None
    words, first, denominator, record, trace_path, dots, row_paths, halo2 = parts
    proof = SpotProof(
        words=b"".join(words),
        first=first,
        denominator=denominator,
        record=record,
        trace_path=trace_path,
        dots=tuple(dots),
        row_paths=row_paths,
        halo2=halo2,
    )
    return proof if proof.encoded() == encoded else None


def judge(statement: Hash32, seed: Hash32, commitment: Hash32, proof: SpotProof, head: HeadCommitment) -> str:
    """Why the adapter contract refuses, or an empty text where only the pairing is left to check. `head` is the registered one of
    `proof.model_id`."""
    if len(proof.words) != WORDS * HASH or keccak(proof.words) != statement:
        return "the words are not those of the statement"
    if len(proof.halo2) != HALO2_BYTES or len(proof.dots) != spot.ROWS:
        return "not a proof of this circuit"
    return _judge_trace(seed, commitment, proof) or _judge_rows(seed, proof, head)


def _judge_trace(seed: Hash32, commitment: Hash32, proof: SpotProof) -> str:
    position, records = proof.position(seed), records_of(proof.words)
    if not 0 <= position < records <= CHECKPOINT_TOKENS:
        return "the drawn token is not in this checkpoint"
    try:
        record = read_record(proof.record)
        sound = drawn_within_bounds(record, record.sampler) and record.index == proof.first + position
    except (ValueError, IndexError):
        sound = False
    if not sound:
        return "the record is not the drawn one, or its sampler cannot have drawn its token"
    if (
        len(proof.trace_path) != HASH * (records - 1).bit_length()
    ):  # a shorter or longer one could lead to a second leaf for this token
        return "the path of the trace has not the length of its tree"
    leaf = spot.leaf_of(spot.record_digest(proof.record), proof.point(0), proof.denominator)
    if spot.commitment_of(proof.first, root_of(position, leaf, proof.trace_path)) != commitment:
        return "the trace is not the committed one"
    return ""


def _judge_rows(seed: Hash32, proof: SpotProof, head: HeadCommitment) -> str:
    try:
        rows = spot.checked_rows(proof.record, seed)
    except ValueError as fault:
        return str(fault)
    if len(proof.row_paths) % (spot.ROWS * HASH):
        return "the paths of the rows have no common length"
    length = len(proof.row_paths) // spot.ROWS
    for place, row in enumerate(rows):
        path = proof.row_paths[place * length : (place + 1) * length]
        leaf = head_tree.leaf(row.token, proof.point(place + 1))
        if row.token >= head.rows or root_of(row.token, leaf, path) != head.root:
            return f"row {row.token} is not the registered one"
        if not spot.tolerated(spot.error_of(proof.dots[place], row, proof.denominator, head.scale), head.scale):
            return f"the logit of token {row.token} is not what the head makes of the hidden state"
    return ""
