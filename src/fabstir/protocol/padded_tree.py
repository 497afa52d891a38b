"""A plain Merkle tree: node = keccak256(left | right), and 32 zero bytes stand where there is no right one.

Its leaves are hashes of more than 64 bytes (`head_tree`, `spot`), so that no node passes for a leaf. Bit by bit `PaddedTree.sol`. Pure.
"""

from __future__ import annotations

from typing import Final

from fabstir.domain.ids import Hash32
from fabstir.protocol.signing import keccak

HASH: Final = 32
_NOTHING: Final = bytes(HASH)


class PaddedTree:
    """The whole tree. Memory: 64 bytes for each leaf."""

    def __init__(self, leaves: bytes) -> None:
        """`leaves`: 32 bytes each, in order. Raises ValueError where there is none or a part of one."""
        if not leaves or len(leaves) % HASH:
            raise ValueError("a tree has whole leaves")
        self._levels = [leaves]
        while len(self._levels[-1]) > HASH:
            below = self._levels[-1]
            pairs = (below[at : at + 2 * HASH] for at in range(0, len(below), 2 * HASH))
            self._levels.append(b"".join(keccak(pair.ljust(2 * HASH, b"\0")) for pair in pairs))

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0]) // HASH

    @property
    def root(self) -> Hash32:
        """The hash of all."""
        return Hash32(self._levels[-1])

    def path(self, place: int) -> bytes:
        """The siblings of a leaf, from below. Raises IndexError."""
        if not 0 <= place < self.size:
            raise IndexError(f"leaf {place} of {self.size}")
        siblings = ((level, (place >> depth) ^ 1) for depth, level in enumerate(self._levels[:-1]))
        return b"".join(level[at * HASH : (at + 1) * HASH] or _NOTHING for level, at in siblings)


def root_of(place: int, leaf: bytes, path: bytes) -> bytes:
    """The root that a path leads to, as the contract climbs it."""
    node = leaf
    for depth in range(len(path) // HASH):
        sibling = path[depth * HASH : (depth + 1) * HASH]
        node = keccak(sibling + node) if (place >> depth) & 1 else keccak(node + sibling)
    return node
