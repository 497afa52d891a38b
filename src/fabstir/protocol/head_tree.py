"""The rows of a model's output head as integers, and the tree over their KZG points.

    row  = round(weight * 2^scale), sixteen bits; `scale` is the largest at which no weight of the head overflows
    leaf = keccak256(row number | x | y)          32 bytes each; x and y of the row's point, big-endian

The number stands in the leaf, so that a row cannot be shown as another. Whoever has the weights makes the same root. Pure:
computing a point needs ezkl (`fabstir.proofs`), reading a row a file (`fabstir.models`). The contract's side is `EzklSpotVerifier`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fabstir.protocol.model_identity import HeadCommitment
from fabstir.protocol.padded_tree import PaddedTree
from fabstir.protocol.signing import keccak

POINT: Final = 64
"""Bytes of a curve point."""
WEIGHT_LIMIT: Final = 2**15 - 1
MAX_SCALE: Final = 30
"""Weights below 2^-15 throughout would ask for more; no head is like that."""


def scale_for(largest: float) -> int:
    """The scale of a head whose largest weight (by absolute value) is this. Raises ValueError where none fits."""
    if not 0 < largest < WEIGHT_LIMIT:  # false of NaN too
        raise ValueError(f"no scale for weights up to {largest}")
    return next(s for s in range(MAX_SCALE, -1, -1) if round(largest * 2**s) <= WEIGHT_LIMIT)


def quantised(weights: Sequence[float], scale: int) -> tuple[int, ...]:
    """One row as integers. Raises ValueError where the scale is too large for it."""
    values = tuple(round(weight * 2**scale) for weight in weights)
    if any(abs(value) > WEIGHT_LIMIT for value in values):
        raise ValueError("a weight does not fit the scale of its head")
    return values


def leaf(row: int, point: bytes) -> bytes:
    """Of one row."""
    return keccak(row.to_bytes(32, "big") + point)


def tree_of(points: bytes) -> PaddedTree:
    """The tree over the points of all rows, 64 bytes each, in order. Takes seconds for a large vocabulary. Raises ValueError."""
    if len(points) % POINT:
        raise ValueError("a head has whole points")
    rows = range(len(points) // POINT)
    return PaddedTree(b"".join(leaf(row, points[row * POINT : (row + 1) * POINT]) for row in rows))


def commitment(tree: PaddedTree, width: int, scale: int) -> HeadCommitment:
    """What the registry gets to know."""
    return HeadCommitment(root=tree.root, rows=tree.size, width=width, scale=scale)
