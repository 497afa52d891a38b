"""The Merkle-sum tree against a reference of its own: every token opens to its checkpoint, and nothing else opens at all."""

from __future__ import annotations

from itertools import accumulate
from typing import Final

import msgspec
import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.ids import Address, Hash32, JobId
from fabstir.domain.money import Tokens
from fabstir.protocol.commitments import (
    CHECKPOINT_TOKENS,
    MAX_PATH,
    Checkpoint,
    SumNode,
    SumPath,
    challenge_seed,
    challenged_position,
    commitment_root,
    open_path,
    root_of_path,
    statement_hash,
    tree_root,
)
from fabstir.protocol.signing import Market
from tests.protocol.market import terms

words = st.binary(min_size=32, max_size=32).map(Hash32)
sizes = st.integers(1, CHECKPOINT_TOKENS) | st.sampled_from([1, CHECKPOINT_TOKENS])
trees = st.lists(st.builds(Checkpoint, words, sizes.map(Tokens)), min_size=1, max_size=21).map(tuple)
Tree = tuple[Checkpoint, ...]


def reference_root(tree: Tree) -> tuple[bytes, int]:
    """From the decision record: leaves keccak(0, commitment, tokens), inner nodes keccak(1, left, tokens, right, tokens), an odd node moves
    up. By recursion over the largest power of two, not row by row."""
    if len(tree) == 1:
        types = ["uint8", "bytes32", "uint32"]
        return keccak(encode(types, [0, tree[0].commitment, tree[0].tokens])), tree[0].tokens
    middle = 1 << (len(tree) - 1).bit_length() - 1
    left, right = reference_root(tree[:middle]), reference_root(tree[middle:])
    types = ["uint8", "bytes32", "uint32", "bytes32", "uint32"]
    return keccak(encode(types, [1, *left, *right])), left[1] + right[1]


@given(tree=trees)
def test_the_root_is_the_references(tree: Tree) -> None:
    """Hash and sum, for every shape of tree."""
    root = tree_root(tree)
    assert (root.hash, root.tokens) == reference_root(tree)


@given(tree=trees, data=st.data())
def test_every_position_opens_to_its_checkpoint(tree: Tree, data: st.DataObject) -> None:
    """The one that holds it, at the bounds too; the path leads to the root and counts the tokens before."""
    starts = [0, *accumulate(checkpoint.tokens for checkpoint in tree)]
    index = data.draw(st.integers(0, len(tree) - 1))
    inside = st.integers(starts[index], starts[index + 1] - 1)
    position = data.draw(inside | st.sampled_from([starts[index], starts[index + 1] - 1]))
    path = open_path(tree, position)
    assert (path.index, path.checkpoint, path.tokens_before) == (index, tree[index], starts[index])
    assert root_of_path(path) == (tree_root(tree), starts[index])
    assert len(path.siblings) <= MAX_PATH == 32


@given(tree=trees, data=st.data(), by=st.integers(1, 255))
def test_a_changed_path_leads_nowhere(tree: Tree, data: st.DataObject, by: int) -> None:
    """Another commitment, count, sibling, side or order: another root, another sum, or another place."""
    path = open_path(tree, data.draw(st.integers(0, tree_root(tree).tokens - 1)))
    right = root_of_path(path)
    own = path.checkpoint
    count = Tokens(own.tokens + by)
    changed = [
        msgspec.structs.replace(path, checkpoint=Checkpoint(_flip(own.commitment, by), own.tokens)),
        msgspec.structs.replace(path, checkpoint=Checkpoint(own.commitment, count)),
        msgspec.structs.replace(path, siblings=(*path.siblings, SumNode(Hash32(bytes(32)), Tokens(by)))),
    ]
    for at, node in enumerate(path.siblings):
        for other in (
            msgspec.structs.replace(node, hash=_flip(node.hash, by)),
            msgspec.structs.replace(node, tokens=Tokens(node.tokens + by)),
            msgspec.structs.replace(node, left=not node.left),
        ):
            changed.append(
                msgspec.structs.replace(path, siblings=(*path.siblings[:at], other, *path.siblings[at + 1 :]))
            )
        changed.append(msgspec.structs.replace(path, siblings=path.siblings[:at] + path.siblings[at + 1 :]))
    for wrong in changed:
        assert root_of_path(wrong) != right  # equal neighbours change places, and lie elsewhere then


def _flip(value: Hash32, by: int) -> Hash32:
    return Hash32(bytes([value[0] ^ by]) + value[1:])


@given(tree=trees, more=st.integers(0, 300))
def test_there_is_nothing_outside_the_tree(tree: Tree, more: int) -> None:
    """A position before the first or after the last token opens nothing."""
    for position in (-1 - more, tree_root(tree).tokens + more):
        with pytest.raises(ValueError, match="outside"):
            open_path(tree, position)


@pytest.mark.parametrize("tokens", [[], [0], [CHECKPOINT_TOKENS + 1], [1, 0], [5, CHECKPOINT_TOKENS + 1]])
def test_a_tree_of_nothing_is_none(tokens: list[int]) -> None:
    """No checkpoints, an empty one or one that is too large."""
    tree = tuple(Checkpoint(Hash32(bytes(32)), Tokens(count)) for count in tokens)
    with pytest.raises(ValueError, match="1 to 256 tokens"):
        tree_root(tree)


@given(words, words, words)
def test_root_and_seed_are_the_contracts(tree: Hash32, head: Hash32, block: Hash32) -> None:
    """keccak(abi.encode(treeRoot, head)) and keccak(abi.encode(blockhash, id, root))."""
    root = commitment_root(tree, head)
    assert root == keccak(encode(["bytes32", "bytes32"], [tree, head]))
    seed = challenge_seed(block, JobId(head), root)
    assert seed == keccak(encode(["bytes32"] * 3, [block, head, root]))


@given(seed=words, tokens=st.integers(1, 2**32 - 2))
def test_the_position_is_the_seed_modulo_the_tokens(seed: Hash32, tokens: int) -> None:
    """So every token is drawn with the same probability (the bias of 2**-224 is nobody's gain)."""
    assert challenged_position(seed, Tokens(tokens)) == int(seed.hex(), 16) % tokens


STATEMENT: Final = ["uint256", "address", "bytes32", "address", "bytes32", "bytes32", "uint32", "uint32", "uint32", "bytes32"]  # fmt: skip


@given(chain=st.integers(1, 2**64), market=st.binary(min_size=20, max_size=20), job=words, root=words, circuit=words,
       tokens=st.integers(1, 2**32 - 2), before=st.integers(0, 2**32 - 2), own=sizes)  # fmt: skip
def test_the_statement_is_the_contracts(
    chain: int, market: bytes, job: bytes, root: Hash32, circuit: Hash32, tokens: int, before: int, own: int
) -> None:
    """keccak(abi.encode(...)) of everything that a proof is bound to."""
    agreed = terms()
    path = SumPath(0, Checkpoint(Hash32(bytes(32)), Tokens(own)), Tokens(before), ())
    where = Market(chain, Address(market))
    values = [chain, "0x" + market.hex(), job, "0x" + agreed.host.hex(), agreed.model_id, root, tokens, before, own, circuit]  # fmt: skip
    assert statement_hash(where, agreed, JobId(job), root, Tokens(tokens), path, circuit) == keccak(
        encode(STATEMENT, values)
    )


def test_a_tree_as_deep_as_a_job_needs() -> None:
    """A job of 100,000 tokens is 391 checkpoints; its paths are 9 long, those of the last seven shorter."""
    tree = tuple(Checkpoint(Hash32(n.to_bytes(32, "big")), Tokens(256 if n < 390 else 160)) for n in range(391))
    assert tree_root(tree).tokens == 100_000
    assert [len(open_path(tree, at).siblings) for at in (0, 98_303, 98_304, 99_840)] == [9, 9, 5, 4]
