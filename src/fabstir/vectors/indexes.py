"""The two indexes that a frozen segment may have: a graph (usearch, bf16) for what is recent, lists (faiss, 8 bits) for what is old.

An index only proposes rows; their ranks are always computed from the vectors. How far it has to look for that is measured when it is
built: a sample of points near its own rows is searched with more and more effort until the ten nearest are among the proposals, and
effort and recall are kept with it. Building takes seconds and runs in a thread for it. A graph's search uses working memory of the
graph's own, so that one search at a time is in it. Never decides which kind is built (`protocol.vectors.plan`).
"""

from __future__ import annotations

import threading
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from fabstir.domain.errors import error
from fabstir.protocol.vectors.collection import Metric
from fabstir.protocol.vectors.plan import Kind
from fabstir.vectors.native import faiss, usearch
from fabstir.vectors.scoring import Query, Rows, Vectors

ENOUGH: Final = 0.995
SAMPLE: Final = 128
STEP: Final = 0.7
"""How far the queries of the sample are from rows, in distances between neighbours: a search is rarely for a row itself."""
NEAREST: Final = 10
CANDIDATES: Final = 50
"""Proposals while measuring; a search for ten asks for as many (`candidates_for`)."""
SLICE: Final = 1_024
"""Rows that enter an index in one call: the longest time for which anything else waits."""
CONNECTIVITY: Final = 16
BREADTH_OF_BUILD: Final = 96
_GRAPH_EFFORTS: Final = (64, 96, 128, 192, 256, 384, 512)
_LIST_EFFORTS: Final = (8, 12, 16, 24, 32, 48, 64, 96, 128)
TRAINING_ROUNDS: Final = 10
ROWS_PER_LIST: Final = 39
"""For training; faiss warns below."""


class RowIndex(Protocol):
    """Proposes rows."""

    effort: int
    recall: float

    def propose(self, query: Query, count: int, effort: int | None = None) -> Rows:
        """About `count` rows, in any order."""
        ...

    def to_bytes(self) -> bytes:
        """What `load` reads."""
        ...


def candidates_for(limit: int) -> int:
    """Proposals for a search of `limit`: four times as many and a few, so that rounding inside the index loses nothing."""
    return 4 * limit + 10


class Graph:
    """Hierarchical navigable small world."""

    def __init__(self, index: Any, effort: int = _GRAPH_EFFORTS[0], recall: float = 0.0) -> None:
        self._index = index
        self._turn = threading.Lock()
        self.effort = effort
        self.recall = recall

    def propose(self, query: Query, count: int, effort: int | None = None) -> Rows:
        with self._turn:
            self._index.expansion_search = max(effort or self.effort, count)
            found = self._index.search(query, count, threads=1)
        return np.asarray(found.keys, np.int64)

    def to_bytes(self) -> bytes:
        return bytes(self._index.save())


class Lists:
    """Inverted lists of 8-bit vectors."""

    def __init__(self, index: Any, effort: int = _LIST_EFFORTS[0], recall: float = 0.0) -> None:
        self._index = index
        self.effort = effort
        self.recall = recall

    def propose(self, query: Query, count: int, effort: int | None = None) -> Rows:
        how = faiss().SearchParametersIVF(nprobe=min(effort or self.effort, self._index.nlist))
        found = self._index.search(query[None], count, params=how)[1][0]
        return np.asarray(found[found >= 0], np.int64)

    def to_bytes(self) -> bytes:
        return bytes(faiss().serialize_index(self._index).tobytes())


def build(kind: Kind, metric: Metric, vectors: Vectors) -> RowIndex | None:
    """None for `exact`. Takes seconds."""
    if kind == "exact":
        return None
    index: RowIndex = _graph(metric, vectors) if kind == "hnsw" else _lists(metric, vectors)
    _measure(index, metric, vectors, _GRAPH_EFFORTS if kind == "hnsw" else _LIST_EFFORTS)
    return index


def load(kind: Kind, content: bytes, rows: int, effort: int, recall: float) -> RowIndex:
    """From `to_bytes`. Raises LocalFault (`vectors_corrupt`)."""
    try:
        if kind == "hnsw":
            graph = usearch().Index.restore(content)
            count, index = len(graph), _as_index(Graph(graph, effort, recall))
        else:
            lists = faiss().deserialize_index(np.frombuffer(content, np.uint8))
            count, index = lists.ntotal, _as_index(Lists(lists, effort, recall))
    except (RuntimeError, ValueError, TypeError) as cause:
        raise error("vectors_corrupt", f"an index that cannot be read: {cause}") from cause
    if count != rows:
        raise error("vectors_corrupt", f"an index of {count} rows for {rows} vectors")
    return index


def _as_index(index: RowIndex) -> RowIndex:
    return index


def _graph(metric: Metric, vectors: Vectors) -> Graph:
    index = usearch().Index(
        ndim=vectors.shape[1],
        metric="l2sq" if metric == "euclidean" else "ip",
        dtype="bf16",
        connectivity=CONNECTIVITY,
        expansion_add=BREADTH_OF_BUILD,
        expansion_search=_GRAPH_EFFORTS[0],
    )
    for at in range(0, len(vectors), SLICE):
        part = np.ascontiguousarray(vectors[at : at + SLICE], np.float32)
        index.add(np.arange(at, at + len(part), dtype=np.uint64), part, threads=1)
    return Graph(index)


def _lists(metric: Metric, vectors: Vectors) -> Lists:
    library = faiss()
    rows, dimension = vectors.shape
    count = max(1, min(4_096, int(2 * rows**0.5), rows // ROWS_PER_LIST))
    kind = library.METRIC_L2 if metric == "euclidean" else library.METRIC_INNER_PRODUCT
    coarse = library.IndexFlatL2(dimension) if metric == "euclidean" else library.IndexFlatIP(dimension)
    index = library.IndexIVFScalarQuantizer(coarse, dimension, count, library.ScalarQuantizer.QT_8bit, kind)
    index.cp.niter = TRAINING_ROUNDS
    index.cp.max_points_per_centroid = 64
    chosen = np.random.default_rng(0).choice(rows, min(rows, 64 * count), replace=False)
    index.train(np.ascontiguousarray(vectors[np.sort(chosen)], np.float32))
    for at in range(0, rows, SLICE):
        index.add(np.ascontiguousarray(vectors[at : at + SLICE], np.float32))
    return Lists(index)


def _measure(index: RowIndex, metric: Metric, vectors: Vectors, efforts: tuple[int, ...]) -> None:
    """Sets effort and recall."""
    chosen = np.random.default_rng(1).choice(len(vectors), min(SAMPLE, len(vectors)), replace=False)
    rows = np.asarray(vectors[np.sort(chosen)], np.float32)
    around = _nearest(metric, vectors, rows)
    queries = rows + STEP * (vectors[around[:, 0]] - vectors[around[:, 1]]).astype(np.float32)
    truth = _nearest(metric, vectors, queries)
    for effort in efforts:
        found = (index.propose(query, CANDIDATES, effort) for query in queries)
        hits = sum(len(np.intersect1d(rows, true)) for rows, true in zip(found, truth, strict=True))
        index.effort, index.recall = effort, hits / truth.size
        if index.recall >= ENOUGH:
            return


def _nearest(metric: Metric, vectors: Vectors, queries: npt.NDArray[np.float32]) -> Rows:
    """The true neighbours of each query, in no order."""
    ranks = np.empty((len(queries), len(vectors)), np.float32)
    for at in range(0, len(vectors), SLICE):
        part = np.asarray(vectors[at : at + SLICE], np.float32)
        products = queries @ part.T
        if metric == "euclidean":
            products = 2 * products - np.einsum("ij,ij->i", part, part)
        ranks[:, at : at + len(part)] = products
    count = min(NEAREST, len(vectors))
    return np.argpartition(ranks, ranks.shape[1] - count, axis=1)[:, -count:]
