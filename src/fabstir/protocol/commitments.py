"""The Merkle-sum tree of checkpoints, the challenge, and the statement that a proof is about.

A checkpoint covers 1 to 256 consecutive tokens; its leaf holds the commitment and the count. Inner nodes add the
counts, so the root says how many tokens the whole covers, and a challenge by *token position* hits each token with the
same probability whatever the checkpoints' sizes are. The contract verifies one path, the sums and one proof
(`JobMarketplace.submitProof`); everything here mirrors it bit by bit. Decision record:
docs/decisions/0003-merkle-sum-tree-and-token-challenge.md.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fabstir.domain.ids import Hash32, JobId
from fabstir.domain.money import Tokens
from fabstir.domain.terms import Terms
from fabstir.protocol.signing import Market, keccak

CHECKPOINT_TOKENS: Final = 256
"""Largest number of records in one checkpoint: the width of the `bind` circuit (256 tokens prove in 0.15 CPU-s, research)."""
MAX_PATH: Final = 32
LEAF: Final = 0
INNER: Final = 1


class Checkpoint(msgspec.Struct, frozen=True):
    """One closed checkpoint."""

    commitment: Hash32
    tokens: Tokens


class SumNode(msgspec.Struct, frozen=True):
    """A node with the tokens below it; as a sibling on a path, `left` says on which side it stands."""

    hash: Hash32
    tokens: Tokens
    left: bool = False


class SumPath(msgspec.Struct, frozen=True):
    """The way from the challenged checkpoint to the root."""

    index: int
    checkpoint: Checkpoint
    tokens_before: Tokens
    siblings: tuple[SumNode, ...]


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _leaf(checkpoint: Checkpoint) -> SumNode:
    return SumNode(keccak(_word(LEAF) + checkpoint.commitment + _word(checkpoint.tokens)), checkpoint.tokens)


def inner(left: SumNode, right: SumNode) -> SumNode:
    """The node above two others."""
    digest = keccak(_word(INNER) + left.hash + _word(left.tokens) + right.hash + _word(right.tokens))
    return SumNode(digest, Tokens(left.tokens + right.tokens))


def _levels(checkpoints: tuple[Checkpoint, ...]) -> list[list[SumNode]]:
    if not checkpoints or not all(1 <= c.tokens <= CHECKPOINT_TOKENS for c in checkpoints):
        raise ValueError(f"a tree needs checkpoints of 1 to {CHECKPOINT_TOKENS} tokens")
    return sum_levels([_leaf(checkpoint) for checkpoint in checkpoints])


def sum_levels(row: list[SumNode]) -> list[list[SumNode]]:
    """All rows of the tree over `row`, the root last. An odd node moves up as it is."""
    levels = [row]
    while len(levels[-1]) > 1:
        row = levels[-1]
        paired = [inner(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)]
        levels.append(paired + row[len(paired) * 2 :])
    return levels


def siblings_of(levels: list[list[SumNode]], at: int) -> tuple[SumNode, ...]:
    """The way from leaf `at` to the root."""
    siblings: list[SumNode] = []
    for row in levels[:-1]:
        sibling = at ^ 1
        if sibling < len(row):
            siblings.append(msgspec.structs.replace(row[sibling], left=sibling < at))
        at //= 2
    return tuple(siblings)


def tree_root(checkpoints: tuple[Checkpoint, ...]) -> SumNode:
    """The root: its `tokens` is the sum of all. An odd node moves up as it is. Raises ValueError on no or bad checkpoints."""
    return _levels(checkpoints)[-1][0]


def commitment_root(tree: Hash32, head: Hash32) -> Hash32:
    """What `commitProof` stores: the tree together with the transcript's head."""
    return keccak(tree + head)


def challenge_seed(block_hash: Hash32, job: JobId, root: Hash32) -> Hash32:
    """The challenge, fixed by a block that did not exist at commitment."""
    return keccak(block_hash + job + root)


def challenged_position(seed: Hash32, tokens: Tokens) -> int:
    """The token position that the seed points to."""
    return int.from_bytes(seed, "big") % tokens


def open_path(checkpoints: tuple[Checkpoint, ...], position: int) -> SumPath:
    """The path to the checkpoint that holds token `position`. Raises ValueError where there is none."""
    levels = _levels(checkpoints)
    before, index = 0, 0
    while index < len(checkpoints) and before + checkpoints[index].tokens <= position:
        before += checkpoints[index].tokens
        index += 1
    if position < 0 or index == len(checkpoints):
        raise ValueError("position outside the tree")
    return SumPath(index, checkpoints[index], Tokens(before), siblings_of(levels, index))


def root_of_path(path: SumPath) -> tuple[SumNode, Tokens]:
    """(root, tokens before the checkpoint) as the contract reconstructs them."""
    node, before = _leaf(path.checkpoint), 0
    for sibling in path.siblings:
        if sibling.left:
            before += sibling.tokens
            node = inner(sibling, node)
        else:
            node = inner(node, sibling)
    return node, Tokens(before)


def statement_hash(
    market: Market, terms: Terms, job: JobId, root: Hash32, tokens: Tokens, path: SumPath, circuit_id: Hash32
) -> Hash32:
    """The statement that the proof is bound to; the contract computes the same from its own storage and the terms."""
    return keccak(statement_words(market, terms, job, root, tokens, path, circuit_id))


def statement_words(
    market: Market, terms: Terms, job: JobId, root: Hash32, tokens: Tokens, path: SumPath, circuit_id: Hash32
) -> bytes:
    """What the statement is the hash of, ten words; a proof that speaks of the model carries them (`spot_proof`)."""
    return (
        _word(market.chain_id)
        + bytes(12)
        + market.address
        + job
        + bytes(12)
        + terms.host
        + terms.model_id
        + root
        + _word(tokens)
        + _word(path.tokens_before)
        + _word(path.checkpoint.tokens)
        + circuit_id
    )
