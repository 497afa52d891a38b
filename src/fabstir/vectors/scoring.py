"""How good rows are for a query: one number for each, higher is better, the same in every segment of a collection.

A scan ranks all rows by one product with the matrix. For distances that product cancels digits of rows that are close, so the best of a
scan are ranked again by their differences. Half precision is widened in slices, so that no second copy of a segment is made. The products
are numpy's own loops, not BLAS: as quick for one query, and BLAS's threads wait for each other on a busy machine (17 ms for 0.2).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fabstir.protocol.vectors.collection import Metric

Rows = npt.NDArray[np.int64]
Ranks = npt.NDArray[np.float32]
Query = npt.NDArray[np.float32]
Vectors = npt.NDArray[Any]

SLICE: Final = 8_192
_MARGIN: Final = 16
"""How many more than asked for are ranked again where a scan cancels digits."""


def ranks_of(metric: Metric, vectors: Vectors, rows: Rows, query: Query) -> Ranks:
    """Of some rows, exactly."""
    if len(rows) <= SLICE:
        return _exactly(metric, np.asarray(vectors[rows], np.float32), query)
    slices = [rows[at : at + SLICE] for at in range(0, len(rows), SLICE)]
    return np.concatenate([_exactly(metric, np.asarray(vectors[part], np.float32), query) for part in slices])


def scan(
    metric: Metric, vectors: Vectors, allowed: npt.NDArray[np.bool_], query: Query, limit: int
) -> tuple[Rows, Ranks]:
    """The best of all rows that are allowed, best first."""
    ranks = np.empty(len(vectors), np.float32)
    for at in range(0, len(vectors), SLICE):
        part = np.asarray(vectors[at : at + SLICE], np.float32)
        if metric == "euclidean":
            ranks[at : at + SLICE] = 2 * np.einsum("ij,j->i", part, query) - np.einsum("ij,ij->i", part, part)
        else:
            ranks[at : at + SLICE] = np.einsum("ij,j->i", part, query)
    ranks[np.logical_not(allowed)] = -np.inf
    if metric != "euclidean":
        return best(np.arange(len(ranks)), ranks, limit)
    rows, found = best(np.arange(len(ranks)), ranks, limit + _MARGIN)
    rows = np.sort(rows[found > -np.inf])
    return best(rows, ranks_of(metric, vectors, rows, query), limit)


def best(rows: Rows, ranks: Ranks, limit: int) -> tuple[Rows, Ranks]:
    """The `limit` highest, best first, without those at minus infinity."""
    if len(ranks) > limit:
        chosen = np.argpartition(ranks, len(ranks) - limit)[-limit:]
        rows, ranks = rows[chosen], ranks[chosen]
    order = np.argsort(-ranks, kind="stable")
    rows, ranks = rows[order], ranks[order]
    real = int(np.searchsorted(-ranks, np.inf))
    return rows[:real], ranks[:real]


def score_of(metric: Metric, rank: float) -> float:
    """What a person is told: the product, or the distance."""
    return max(-rank, 0.0) ** 0.5 if metric == "euclidean" else rank


def _exactly(metric: Metric, part: npt.NDArray[np.float32], query: Query) -> Ranks:
    if metric == "euclidean":
        difference = part - query
        return np.asarray(-np.einsum("ij,ij->i", difference, difference), np.float32)
    return np.asarray(np.einsum("ij,j->i", part, query), np.float32)
