"""The Merkle back end of proofs: a tree over a checkpoint's record digests, the positions that a challenge picks, and the proof that
opens them.

    leaf       = keccak256(2 | digest)                 each tag and number a word of 32 bytes
    node       = keccak256(3 | left | right)
    empty leaf = keccak256(4)                          up to the next power of two
    commitment = keccak256(5 | records | root)
    j-th draw  = keccak256(6 | statement | seed | j) mod (j + 1), for j from records - 16 to records - 1
    proof      = records u16 | opened records, by ascending position | siblings, 32 bytes each

A draw takes the position that it names or, where that one is taken, j (Floyd): 16 different ones of `records`, every choice as likely as
every other. Siblings go level by level from the leaves, left to right, without those that are opened themselves or have only empty
leaves below them; so there is exactly one proof for a challenge. An opened record is its digest (circuit `bind`) or what the digest is
the SHA-256 of, without the tag (circuit `sample`). Pure; bit by bit `contracts/src/RecordTree.sol` and the two verifiers over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from fabstir.domain.ids import Hash32
from fabstir.protocol.commitments import CHECKPOINT_TOKENS
from fabstir.protocol.sampling import drawn_within_bounds, read_record, record_length
from fabstir.protocol.signing import keccak
from fabstir.protocol.transcript import RECORD_TAG

OPENED: Final = 16
"""Records that a proof opens; all where there are not more. A checkpoint with a share f of bad records is caught with 1 - (1 - f)^16."""
DIGEST: Final = 32

LEAF: Final = 2
NODE: Final = 3
EMPTY: Final = 4
COMMITMENT: Final = 5
DRAW: Final = 6

BIND_CIRCUIT: Final = Hash32(sha256(b"fabstir/merkle-bind/1").digest())
"""Circuit id of `bind` over this tree. There is no key to hash, so it is the hash of the version's name: another rule, another name."""
SAMPLE_CIRCUIT: Final = Hash32(sha256(b"fabstir/merkle-sample/1").digest())
"""Circuit id of `sample`. Its commitments are those of `bind`."""

Reader = Callable[[bytes, list[int]], tuple[list[bytes], bytes]]
"""(bytes from the first opened record on, positions) -> (their digests, the bytes after them). Raises ValueError or IndexError where a
record must not stand. One for each circuit."""


class _Node(NamedTuple):
    position: int
    hash: Hash32


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _leaf(digest: bytes) -> Hash32:
    return keccak(_word(LEAF) + digest)


def _node(left: Hash32, right: Hash32) -> Hash32:
    return keccak(_word(NODE) + left + right)


def _commitment(records: int, root: Hash32) -> Hash32:
    return keccak(_word(COMMITMENT) + _word(records) + root)


def _levels(digests: Sequence[bytes]) -> list[list[Hash32]]:
    """From the leaves to the root; what is right of the last record's ancestor is not stored."""
    row, empty = [_leaf(digest) for digest in digests], keccak(_word(EMPTY))
    levels = [row]
    while 1 << (len(levels) - 1) < len(digests):
        even = row + [empty] * (len(row) % 2)
        row = [_node(even[i], even[i + 1]) for i in range(0, len(even), 2)]
        empty = _node(empty, empty)
        levels.append(row)
    return levels


def commit(digests: Sequence[bytes]) -> Hash32:
    """The commitment to a checkpoint's record digests. Raises ValueError on a wrong number or size of them."""
    if not 1 <= len(digests) <= CHECKPOINT_TOKENS or any(len(digest) != DIGEST for digest in digests):
        raise ValueError(f"a checkpoint is 1 to {CHECKPOINT_TOKENS} digests of {DIGEST} bytes")
    return _commitment(len(digests), _levels(digests)[-1][0])


def positions(statement: Hash32, seed: Hash32, records: int) -> list[int]:
    """Which of `records` a proof must open, ascending."""
    if records <= OPENED:
        return list(range(records))
    chosen = set[int]()
    for j in range(records - OPENED, records):
        pick = int.from_bytes(keccak(_word(DRAW) + statement + seed + _word(j)), "big") % (j + 1)
        chosen.add(j if pick in chosen else pick)
    return sorted(chosen)


def open_records(digests: Sequence[bytes], at: Sequence[int], opened: Iterable[bytes]) -> bytes:
    """The proof that opens the positions `at`, whose records are `opened` in the circuit's form."""
    proof, needed = len(digests).to_bytes(2, "big") + b"".join(opened), list(at)
    for row in _levels(digests)[:-1]:
        siblings = (position ^ 1 for position in needed if position ^ 1 not in needed)
        proof += b"".join(row[sibling] for sibling in siblings if sibling < len(row))
        needed = sorted({position >> 1 for position in needed})
    return proof


def verify(statement: Hash32, seed: Hash32, commitment: Hash32, proof: bytes, reader: Reader) -> bool:
    """What the chain says to `proof`: whether it is the opening of this commitment at the positions of this challenge."""
    records = int.from_bytes(proof[:2], "big")
    if len(proof) < 2 or not 1 <= records <= CHECKPOINT_TOKENS:
        return False
    picked = positions(statement, seed, records)
    try:
        digests, siblings = reader(proof[2:], picked)
        nodes = [_Node(position, _leaf(digest)) for position, digest in zip(picked, digests, strict=True)]
        root, rest = _climb(records, nodes, siblings)
    except (ValueError, IndexError):
        return False
    return not rest and _commitment(records, root) == commitment


def _climb(records: int, nodes: list[_Node], siblings: bytes) -> tuple[Hash32, bytes]:
    """(root, siblings that were not needed). Raises ValueError where one is missing."""
    empty, level = keccak(_word(EMPTY)), 0

    def sibling() -> Hash32:
        nonlocal siblings
        if len(siblings) < DIGEST:
            raise ValueError("a sibling is missing")
        found, siblings = Hash32(siblings[:DIGEST]), siblings[DIGEST:]
        return found

    while 1 << level < records:
        waiting, above = nodes[::-1], list[_Node]()
        while waiting:
            position, node = waiting.pop()
            if position & 1:
                node = _node(sibling(), node)
            elif waiting and waiting[-1].position == position + 1:
                node = _node(node, waiting.pop().hash)
            elif (position + 1) << level >= records:
                node = _node(node, empty)
            else:
                node = _node(node, sibling())
            above.append(_Node(position >> 1, node))
        nodes, empty, level = above, _node(empty, empty), level + 1
    return nodes[0].hash, siblings


def read_bound(data: bytes, at: list[int]) -> tuple[list[bytes], bytes]:
    """Circuit `bind`: a record is its digest."""
    end = DIGEST * len(at)
    if len(data) < end:
        raise ValueError("a record is missing")
    return [data[start : start + DIGEST] for start in range(0, end, DIGEST)], data[end:]


def read_sampled(data: bytes, at: list[int]) -> tuple[list[bytes], bytes]:
    """Circuit `sample`: a record is its preimage without the tag, its token one that its sampler can have drawn, and its index as far
    from the first record's as its position, since the records of a checkpoint follow each other in the job."""
    digests, firsts = list[bytes](), set[int]()
    for position in at:
        end = record_length(data)
        record = read_record(data[:end])
        firsts.add(record.index - position)
        if not drawn_within_bounds(record, record.sampler) or len(firsts) > 1 or min(firsts) < 0:
            raise ValueError("its sampler cannot have drawn this token, or another token stands here")
        digests.append(sha256(RECORD_TAG + data[:end]).digest())
        data = data[end:]
    return digests, data
