"""Epochs: one commitment, one challenge and one proof for many sessions of one host. Pure mathematics, mirrors `EpochProofs.sol`.

A session's leaf names its job, what was served in it and how much; the tree over the leaves is the Merkle-sum tree of
`fabstir.protocol.commitments`, so a challenge by token position goes through the epoch's tree and the session's own in
one piece. `place_all` gives every session its way to the root, which is all that is needed later to open or to redeem
it: no session depends on what is known of another one. Decides nothing about when an epoch is worth while
(`settlement_plan`). Decision record: docs/decisions/0006-epoch-proofs.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

from fabstir.domain.ids import Address, Hash32, JobId
from fabstir.domain.money import Tokens
from fabstir.domain.terms import Terms
from fabstir.protocol.commitments import SumNode, SumPath, commitment_root, inner, siblings_of, sum_levels
from fabstir.protocol.signing import keccak

SESSION: Final = 2
"""Tag of a session's leaf; 0 and 1 are checkpoints and inner nodes."""
MOST_TOKENS: Final = 2**32 - 1
DIGEST_BITS: Final = 216


class EpochSession(msgspec.Struct, frozen=True):
    """What an epoch says of one session: `tokens` of `job`, `head` is what the renter signed at that count."""

    job: JobId
    tree_root: Hash32
    head: Hash32
    tokens: Tokens


class EpochPlace(msgspec.Struct, frozen=True):
    """A session in an epoch, with its way to the root."""

    session: EpochSession
    root: Hash32
    total: Tokens
    """Tokens of the epoch."""
    width: int
    """Sessions of the epoch."""
    index: int
    before: Tokens
    """Tokens of the sessions on its left."""
    siblings: tuple[SumNode, ...]


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def session_leaf(session: EpochSession) -> SumNode:
    """The leaf: its weight is the session's tokens."""
    root = commitment_root(session.tree_root, session.head)
    return SumNode(keccak(_word(SESSION) + session.job + root + _word(session.tokens)), session.tokens)


def place_all(sessions: Sequence[EpochSession]) -> tuple[EpochPlace, ...]:
    """The epoch over these sessions, in this order. Raises ValueError on no sessions, a session without tokens, or too many tokens."""
    if not sessions or any(session.tokens < 1 for session in sessions):
        raise ValueError("an epoch needs sessions with tokens")
    levels = sum_levels([session_leaf(session) for session in sessions])
    root = levels[-1][0]
    if root.tokens > MOST_TOKENS:
        raise ValueError("the contract counts an epoch's tokens in 32 bits")
    places, before = [], 0
    for index, session in enumerate(sessions):
        way = siblings_of(levels, index)
        places.append(EpochPlace(session, root.hash, root.tokens, len(sessions), index, Tokens(before), way))
        before += session.tokens
    return tuple(places)


def commitment_digest(root: Hash32, total: Tokens) -> int:
    """What the contract keeps of a commitment: the low 216 bits."""
    return int.from_bytes(keccak(root + _word(total)), "big") % (1 << DIGEST_BITS)


def epoch_seed(chain_id: int, contract: Address, host: Address, root: Hash32, block_hash: Hash32) -> Hash32:
    """The challenge, fixed by a block that did not exist at commitment."""
    return keccak(block_hash + _word(chain_id) + bytes(12) + contract + bytes(12) + host + root)


def drawn(places: Sequence[EpochPlace], position: int) -> EpochPlace | None:
    """Whose session holds token `position` of the epoch; None where that session is not among `places`."""
    return next((p for p in places if p.before <= position < p.before + p.session.tokens), None)


def epoch_statement(
    chain_id: int, contract: Address, terms: Terms, place: EpochPlace, path: SumPath, circuit_id: Hash32
) -> Hash32:
    """What the proof is bound to."""
    return keccak(epoch_words(chain_id, contract, terms, place, path, circuit_id))


def epoch_words(
    chain_id: int, contract: Address, terms: Terms, place: EpochPlace, path: SumPath, circuit_id: Hash32
) -> bytes:
    """What the statement is the hash of: ten words, at the places where `commitments.statement_words` has those of a single job."""
    return (
        _word(chain_id)
        + bytes(12)
        + contract
        + place.session.job
        + bytes(12)
        + terms.host
        + terms.model_id
        + place.root
        + _word(place.total)
        + _word(place.before + path.tokens_before)
        + _word(path.checkpoint.tokens)
        + circuit_id
    )


def covering_path(places: Sequence[EpochPlace]) -> bytes:
    """What `covers` needs beside the sessions themselves, packed: their number and places, then the siblings that are not among
    them. `places`: of one epoch, by rising index. Raises ValueError where they are not."""
    if not places or any(a.index >= b.index or a.root != b.root for a, b in pairwise(places)):
        raise ValueError("sessions of one epoch, in its order")
    packed = places[0].width.to_bytes(4, "big") + b"".join(p.index.to_bytes(4, "big") for p in places)
    row = [(place.index, place.siblings) for place in places]
    width = places[0].width
    while width > 1:
        above: list[tuple[int, tuple[SumNode, ...]]] = []
        taken = {index for index, _ in row}
        for index, way in row:
            sibling, rest = index ^ 1, way
            if sibling < width:
                rest = way[1:]
                if sibling not in taken:
                    packed += way[0].hash + way[0].tokens.to_bytes(4, "big")
            if not above or above[-1][0] != index // 2:
                above.append((index // 2, rest))
        row, width = above, (width + 1) // 2
    return packed


def covers(root: Hash32, total: Tokens, sessions: Sequence[EpochSession], path: bytes) -> bool:
    """Whether the contract finds all these sessions in the proven epoch (`root`, `total`). A path that is too short is a revert there."""
    if not sessions or len(path) < 4 * (len(sessions) + 1):
        return False
    places = [int.from_bytes(path[4 * n + 4 : 4 * n + 8], "big") for n in range(len(sessions))]
    row = [(at, session_leaf(session)) for at, session in zip(places, sessions, strict=True)]
    width, used = int.from_bytes(path[:4], "big"), 4 * (len(sessions) + 1)
    while width > 1:
        above: list[tuple[int, SumNode]] = []
        todo = list(row)
        while todo:
            at, node = todo.pop(0)
            sibling = at ^ 1
            if sibling < width and todo and todo[0][0] == sibling:
                node = inner(node, todo.pop(0)[1])
            elif sibling < width:
                piece = path[used : used + 36]
                if len(piece) < 36:
                    return False
                other = SumNode(Hash32(piece[:32]), Tokens(int.from_bytes(piece[32:], "big")))
                node = inner(other, node) if at & 1 else inner(node, other)
                used += 36
            above.append((at // 2, node))
        row, width = above, (width + 1) // 2
    found = row[0][1]
    return len(row) == 1 and used == len(path) and (found.hash, found.tokens) == (root, total)
