"""The contract of a vector index, run on the collections of this machine and on the fake that other tests use."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.vectors.conftest import DIMENSION, SMALL, clustered, nearest

from fabstir.domain.errors import FabstirError
from fabstir.ports.vectors import Search, VectorIndex
from fabstir.protocol.vectors.collection import describe
from fabstir.testing.clock import ManualClock
from fabstir.testing.vectors import MemoryIndex
from fabstir.vectors.database import VectorDatabase

VECTORS = clustered(300)
EVEN: dict[str, Any] = {"must": [{"key": "even", "match": {"value": True}}]}


@pytest.fixture(params=["memory", "disk"])
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorIndex]:
    if request.param == "memory":
        yield MemoryIndex()
        return
    database = await VectorDatabase.open(tmp_path / "vectors", ManualClock(), SMALL)
    yield database
    await database.close()


async def filled(index: VectorIndex, metric: str = "cosine") -> None:
    await index.create(describe("notes", DIMENSION, metric))
    await index.upsert("notes", range(300), VECTORS, [{"even": number % 2 == 0} for number in range(300)])


async def test_the_nearest_are_found_best_first(index: VectorIndex) -> None:
    """With their scores, which are cosines."""
    await filled(index)
    hits = await index.search("notes", 3 * VECTORS[5])
    assert [hit.id for hit in hits] == nearest(VECTORS, VECTORS[5])
    assert [hit.score for hit in hits] == pytest.approx(sorted(VECTORS @ VECTORS[5], reverse=True)[:10], abs=1e-5)


async def test_the_dot_product_takes_lengths_into_account(index: VectorIndex) -> None:
    """A longer vector in the same direction is better."""
    await index.create(describe("dots", 2, "dot"))
    await index.upsert("dots", ["short", "long"], [[1, 0], [2, 0]])
    assert [(hit.id, hit.score) for hit in await index.search("dots", [1, 1])] == [("long", 2.0), ("short", 1.0)]


async def test_distances_are_told_as_distances(index: VectorIndex) -> None:
    """The smallest first, exactly, even where they are close and far from the origin."""
    await index.create(describe("places", 2, "euclidean"))
    await index.upsert("places", ["a", "b", "c"], [[1000.25, 0], [1000, 0.5], [999, 0]])
    hits = await index.search("places", [1000, 0], Search(threshold=0.75))
    assert [(hit.id, hit.score) for hit in hits] == [("a", 0.25), ("b", 0.5)]


async def test_a_filter_leaves_what_passes(index: VectorIndex) -> None:
    """The nearest of these, as many as were asked for."""
    await filled(index)
    hits = await index.search("notes", VECTORS[5], Search(filter=EVEN, limit=7))
    assert [hit.id for hit in hits] == [2 * row for row in nearest(VECTORS[::2], VECTORS[5], 7)]
    assert all(hit.metadata == {"even": True} for hit in hits)


async def test_an_upsert_replaces_a_point_whole(index: VectorIndex) -> None:
    """Vector and metadata; within one batch the last one counts."""
    await filled(index)
    await index.upsert("notes", [5, 5], VECTORS[[7, 8]], [{"a": 1}, {"b": 2}])
    [point] = await index.get("notes", [5])
    assert point is not None and point.metadata == {"b": 2} and np.allclose(point.vector, VECTORS[8])
    assert (await index.stats("notes")).points == 300
    hits = await index.search("notes", VECTORS[8], Search(limit=300, with_vectors=True))
    assert len({hit.id for hit in hits}) == len(hits) == 300
    assert {hit.id for hit in hits[:2]} == {5, 8} and hits[0].vector is not None


async def test_what_is_deleted_is_not_found(index: VectorIndex) -> None:
    """By id and by filter; how many there were is told."""
    await filled(index)
    assert await index.delete("notes", [1, 3, 3, 1_000]) == 2
    assert await index.delete_where("notes", EVEN) == 150
    assert (await index.stats("notes")).points == 148
    assert [point and point.id for point in await index.get("notes", [1, 2, 5])] == [None, None, 5]
    assert all(int(hit.id) % 2 and hit.id not in (1, 3) for hit in await index.search("notes", VECTORS[1]))


async def test_ids_are_of_three_kinds(index: VectorIndex) -> None:
    """7 and "7" are two points."""
    await index.create(describe("ids", 2))
    number = uuid.uuid4()
    await index.upsert("ids", [7, "7", number], [[1, 0], [1, 1], [0, 1]])
    assert {hit.id for hit in await index.search("ids", [1, 1])} == {7, "7", str(number)}
    assert await index.delete("ids", [str(number).upper(), "7"]) == 2
    assert [hit.id for hit in await index.search("ids", [1, 1])] == [7]


async def test_collections_are_apart(index: VectorIndex) -> None:
    """And one that is dropped is gone."""
    await filled(index)
    await index.create(describe("other", DIMENSION))
    assert await index.search("other", VECTORS[0]) == []
    await index.drop("notes")
    assert [spec.name for spec in index.collections()] == ["other"]
    await index.create(describe("notes", 3))
    assert (await index.stats("notes")).points == 0


async def test_mistakes_have_names(index: VectorIndex) -> None:
    """And change nothing."""
    await filled(index)
    tagged = describe("tagged", DIMENSION, embedder="minilm/f32")
    await index.create(tagged)
    for code, act in (
        ("vector_collection_unknown", index.search("nowhere", VECTORS[0])),
        ("vector_collection_unknown", index.upsert("nowhere", [1], VECTORS[:1])),
        ("vector_collection_exists", index.create(describe("notes", 3))),
        ("vector_dimension", index.search("notes", [1, 2, 3])),
        ("vector_dimension", index.upsert("notes", [1], [[1, 2, 3]])),
        ("vector_invalid", index.search("notes", [float("nan")] * DIMENSION)),
        ("vector_metadata", index.upsert("notes", [1], VECTORS[:1], [{"a": "x" * 20_000}])),
        ("vector_id", index.upsert("notes", [1, -1], VECTORS[:2])),
        ("vector_batch", index.upsert("notes", [1], VECTORS[:2])),
        ("vector_filter", index.search("notes", VECTORS[0], Search(filter={"must": [{"key": "a", "like": 1}]}))),
        ("vector_filter", index.delete_where("notes", {})),
        ("vector_query", index.search("notes", VECTORS[0], Search(limit=0))),
        ("vector_embedder", index.upsert("tagged", [1], VECTORS[:1])),
        ("vector_embedder", index.search("tagged", VECTORS[0], embedder="minilm/i8")),
    ):
        with pytest.raises(FabstirError, match=f"^{code}: "):
            await act
    assert (await index.stats("notes")).points == 300 and (await index.stats("tagged")).points == 0
    await index.create(tagged)
    assert await index.upsert("tagged", [1], VECTORS[:1], embedder="minilm/f32") == 1
