"""Segments through their lives: growing, frozen, a graph, lists. Whatever tier a point is in, a search finds it with the same score."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.vectors.conftest import DIMENSION, SMALL, clustered, nearest

from fabstir.domain.errors import FabstirError, error
from fabstir.ports.vectors import Search
from fabstir.protocol.vectors.collection import describe
from fabstir.testing.clock import ManualClock
from fabstir.vectors import storing
from fabstir.vectors.database import VectorDatabase

COUNT = 14_000
VECTORS = clustered(COUNT)
QUERIES = clustered(60, seed=1)
RARE = {"must": [{"key": "t", "match": {"value": 7}}]}
COMMON = {"must": [{"key": "t", "range": {"lt": 50}}]}


async def fill(database: VectorDatabase, metric: str = "cosine", precision: str = "f32") -> None:
    await database.create(describe("notes", DIMENSION, metric, precision=precision))
    for at in range(0, COUNT, 500):
        rows = range(at, at + 500)
        await database.upsert("notes", rows, VECTORS[at : at + 500], [{"t": row % 100} for row in rows])


async def kinds(database: VectorDatabase) -> dict[str, int]:
    """Rows by kind of segment."""
    found: dict[str, int] = {}
    for segment in (await database.stats("notes")).segments:
        found[segment.kind] = found.get(segment.kind, 0) + segment.rows
    return found


async def recall(database: VectorDatabase, among: list[int], how: Search) -> float:
    """Of the ten nearest."""
    hits = 0
    for query in QUERIES:
        true = {among[row] for row in nearest(VECTORS[among], query)}
        hits += len(true & {int(hit.id) for hit in await database.search("notes", query, how)})
    return hits / (10 * len(QUERIES))


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
async def test_every_tier_is_searched_on_one_scale(database: VectorDatabase, metric: str) -> None:
    """Lists, graphs, and what still grows; nothing is lost on the way, and all that is found has its exact score."""
    await fill(database, metric)
    await database.collection("notes").maintain()
    there = await kinds(database)
    assert {"ivf", "hnsw", "active"} <= set(there) and sum(there.values()) == COUNT
    everything = list(range(COUNT))
    assert await recall(database, everything, Search(exact=True)) == 1.0
    assert await recall(database, everything, Search()) >= 0.99
    for hit in await database.search("notes", QUERIES[0], Search(limit=50)):
        row = VECTORS[int(hit.id)]
        true = np.linalg.norm(row - QUERIES[0]) if metric == "euclidean" else row @ QUERIES[0]
        assert hit.score == pytest.approx(true, abs=1e-5)


async def test_a_selective_filter_is_answered_exactly(database: VectorDatabase) -> None:
    """One point in a hundred passes; and a wide filter is answered as well as none."""
    await fill(database)
    await database.collection("notes").maintain()
    assert await recall(database, list(range(7, COUNT, 100)), Search(filter=RARE)) == 1.0
    wide = [row for row in range(COUNT) if row % 100 < 50]
    assert await recall(database, wide, Search(filter=COMMON)) >= 0.99


async def test_filters_follow_what_grows(database: VectorDatabase) -> None:
    """At every size of the growing segment, all that passes is found and nothing else."""
    await database.create(describe("notes", DIMENSION))
    for last in range(77, 1_025, 77):
        rows = range(last - 77, last)
        await database.upsert("notes", rows, VECTORS[: len(rows)], [{"t": row % 100} for row in rows])
        hits = await database.search("notes", QUERIES[0], Search(filter=RARE, limit=100))
        assert sorted(int(hit.id) for hit in hits) == list(range(7, last, 100))


async def test_half_precision_is_exact_in_its_own_numbers(database: VectorDatabase) -> None:
    """Before and after a segment is stored."""
    await fill(database, precision="f16")
    before = await database.search("notes", QUERIES[0], Search(exact=True, limit=50))
    await database.collection("notes").maintain()
    after = await database.search("notes", QUERIES[0], Search(exact=True, limit=50))
    assert [(hit.id, hit.score) for hit in before] == [(hit.id, hit.score) for hit in after]
    assert await recall(database, list(range(COUNT)), Search()) >= 0.99


async def test_everything_becomes_historical_when_asked(database: VectorDatabase) -> None:
    """One segment, with all that is there; filters that were indexed while it grew still answer."""
    await fill(database)
    assert await recall(database, list(range(7, COUNT, 100)), Search(filter=RARE)) == 1.0
    await database.collection("notes").migrate()
    segments = (await database.stats("notes")).segments
    assert [(each.kind, each.rows) for each in segments] == [("ivf", COUNT), ("active", 0)]
    assert await recall(database, list(range(COUNT)), Search()) >= 0.99
    assert await recall(database, list(range(7, COUNT, 100)), Search(filter=RARE)) == 1.0


async def test_tiers_can_be_searched_apart(database: VectorDatabase) -> None:
    """What came last is recent."""
    await fill(database)
    await database.collection("notes").maintain()
    recent = await database.search("notes", QUERIES[0], Search(historical=False, limit=100))
    historical = await database.search("notes", QUERIES[0], Search(recent=False, limit=100))
    assert min(int(hit.id) for hit in recent) > max(int(hit.id) for hit in historical)


async def test_age_moves_points_too(tmp_path: Path, clock: ManualClock) -> None:
    """A week after they came, however few they are."""
    database = await VectorDatabase.open(tmp_path / "vectors", clock, SMALL)
    await database.create(describe("notes", DIMENSION))
    await database.upsert("notes", range(1_500), VECTORS[:1_500])
    await database.upsert("notes", range(1_500, 1_600), VECTORS[1_500:1_600])
    await clock.advance(8 * 86_400)
    await database.collection("notes").maintain()
    tiers = {segment.tier: segment.rows for segment in (await database.stats("notes")).segments}
    assert tiers == {"historical": 1_500, "recent": 100}
    await database.close()


async def test_deletions_and_updates_hold_through_every_rebuild(tmp_path: Path, clock: ManualClock) -> None:
    """Also those that come while it runs: nothing that was deleted comes back, and an update shows its newest vector alone."""
    database = await VectorDatabase.open(tmp_path / "vectors", clock, SMALL)
    await fill(database)
    collection = database.collection("notes")
    rebuilding = asyncio.create_task(collection.maintain())
    gone = list(range(0, COUNT, 3))
    for at in range(0, len(gone), 500):
        await database.delete("notes", gone[at : at + 500])
    await database.upsert("notes", [1, 2], VECTORS[[100, 101]])
    await rebuilding
    await collection.maintain()
    stats = await database.stats("notes")
    assert stats.points == COUNT - len(gone) == sum(each.rows - each.deleted for each in stats.segments)
    assert all(each.deleted <= 0.2 * each.rows for each in stats.segments if each.kind != "active")
    left = [row for row in range(COUNT) if row % 3 and row not in (1, 2)]
    assert await recall(database, left, Search(exact=True)) == 1.0
    [hit, *_] = await database.search("notes", VECTORS[101], Search(exact=True))
    assert hit.id in (2, 101)
    await database.close()
    again = await VectorDatabase.open(tmp_path / "vectors", clock, SMALL)
    assert (await again.stats("notes")).points == stats.points
    assert await recall(again, left, Search(exact=True)) == 1.0
    await again.close()


async def test_a_rebuild_does_not_hold_up_writers_and_searches(tmp_path: Path, clock: ManualClock) -> None:
    """While it is stopped in the middle, everything else goes on, in the thread of the loop and beside it."""
    entered, released = threading.Event(), threading.Event()

    def slow(*arguments):
        entered.set()
        released.wait()
        return storing.rebuild(*arguments)

    database = await VectorDatabase.open(tmp_path / "vectors", clock, SMALL, slow)
    await fill(database)
    await asyncio.to_thread(entered.wait)
    await database.upsert("notes", ["new"], QUERIES[:1])
    await database.delete("notes", [0])
    [hit, *_] = await database.search("notes", QUERIES[0])
    assert hit.id == "new" and (await database.stats("notes")).points == COUNT
    released.set()
    await database.close()


async def test_a_rebuild_that_fails_is_told_and_tried_again(tmp_path: Path, clock: ManualClock) -> None:
    """Everything is served meanwhile."""
    full = True

    def failing(*arguments):
        if full:
            raise error("vectors_full", "as the test asks")
        return storing.rebuild(*arguments)

    database = await VectorDatabase.open(tmp_path / "vectors", clock, SMALL, failing)
    await fill(database)
    with pytest.raises(FabstirError, match="vectors_full"):
        await database.collection("notes").maintain()
    assert "vectors_full" in database.problems()["notes"][0]
    assert await recall(database, list(range(COUNT)), Search()) == 1.0
    full = False
    await database.collection("notes").maintain()
    assert "hnsw" in await kinds(database) and not database.problems()
    await database.close()


async def test_writers_wait_where_more_comes_than_can_be_indexed(tmp_path: Path, clock: ManualClock) -> None:
    """So that a search never scans more than the bound, nor memory grows beyond it."""
    policy = msgspec.structs.replace(SMALL, backlog_rows=4_096)
    database = await VectorDatabase.open(tmp_path / "vectors", clock, policy)
    await fill(database)
    frozen = database.collection("notes").contents.frozen
    assert sum(each.rows for each in frozen if each.kind == "exact" and each.tier == "recent") <= 4_096 + 1_024
    await database.close()
