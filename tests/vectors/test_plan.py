"""The plan: which segments are rebuilt into what, and that it always comes to rest."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fabstir.protocol.vectors.plan import Policy, SegmentFacts, Task, migration, next_task, store_task

POLICY = Policy()
NOW = 10_000_000.0
DAY = 86_400.0


def segment(number: int, rows: int, kind="exact", tier="recent", dead: int = 0, age: float = 0.0) -> SegmentFacts:
    return SegmentFacts(number, kind, tier, rows, dead, NOW - age)


def test_few_rows_are_left_alone() -> None:
    """Up to the bound a collection is searched exactly."""
    assert next_task([segment(number, 4_096) for number in range(4)], POLICY, NOW) is None


def test_above_the_bound_the_oldest_become_a_graph() -> None:
    """As many as one graph takes."""
    task = next_task([segment(number, 4_096) for number in range(6)], POLICY, NOW)
    assert task == Task((0, 1, 2, 3), "hnsw", "recent", "graph")


def test_what_is_too_much_becomes_historical_oldest_first() -> None:
    """Half of the bound stays recent, so that the next rows do not move it at once."""
    task = next_task([segment(number, 16_384, "hnsw") for number in range(3)], POLICY, NOW)
    assert task == Task((0, 1), "ivf", "historical", "size")


def test_what_is_old_becomes_historical() -> None:
    """Even where it is little, which is then searched exactly."""
    task = next_task([segment(0, 4_096, age=8 * DAY), segment(1, 4_096)], POLICY, NOW)
    assert task == Task((0,), "ivf", "historical", "age")
    task = next_task([segment(0, 100, age=8 * DAY)], POLICY, NOW)
    assert task == Task((0,), "exact", "historical", "age")


def test_everything_becomes_historical_when_asked() -> None:
    """In segments up to their bound; what is so already stays."""
    facts = [segment(0, 200_000, "ivf", "historical"), segment(1, 100_000), segment(2, 50_000, "hnsw"), segment(3, 9)]
    assert migration(facts, POLICY) == Task((1, 2, 3), "ivf", "historical", "ask")
    assert migration([facts[0], segment(4, 150_009, "ivf", "historical")], POLICY) is None
    assert migration([segment(5, 10)], POLICY) == Task((5,), "exact", "historical", "ask")
    assert migration([], POLICY) is None


def test_much_larger_historical_segments_stay_as_they_are() -> None:
    """What lies on the drive is not sent again for a few rows."""
    old = [segment(0, 250_000, "ivf", "historical"), segment(1, 80_000, "ivf", "historical")]
    task = next_task([*old, *(segment(number, 16_384, "hnsw") for number in (2, 3, 4))], POLICY, NOW)
    assert task == Task((1, 2, 3), "ivf", "historical", "size")


def test_a_fifth_of_deletions_is_compacted() -> None:
    """In the tier where it is."""
    worn = segment(0, 30_000, "ivf", "historical", dead=6_001)
    assert next_task([worn], POLICY, NOW) == Task((0,), "ivf", "historical", "compact")
    assert next_task([msgspec.structs.replace(worn, dead=6_000)], POLICY, NOW) is None


def test_many_small_segments_become_one() -> None:
    """Which many copies and restarts leave."""
    assert next_task([segment(number, 10) for number in range(8)], POLICY, NOW) is None
    assert next_task([segment(number, 10) for number in range(9)], POLICY, NOW) == Task(
        tuple(range(9)), "exact", "recent", "merge"
    )


def test_what_is_in_the_log_alone_can_be_stored() -> None:
    """For a copy."""
    facts = [segment(0, 10), msgspec.structs.replace(segment(1, 10), stored=False)]
    assert store_task(facts) == Task((1,), "exact", "recent", "store")
    assert store_task(facts[:1]) is None


FACTS = st.builds(
    lambda kind, rows, dead, age: (kind, rows, int(rows * dead), age),
    st.sampled_from([("exact", "recent"), ("hnsw", "recent"), ("ivf", "historical"), ("exact", "historical")]),
    st.integers(1, 300_000),
    st.floats(0, 1),
    st.floats(0, 20 * DAY),
)


@given(st.lists(FACTS, max_size=20))
def test_the_plan_comes_to_rest(facts: list) -> None:
    """A rebuild never asks for itself again, whatever there is: the work ends, and every living row is kept."""
    segments = [
        SegmentFacts(number, kind[0], kind[1], rows, dead, NOW - age)
        for number, (kind, rows, dead, age) in enumerate(facts)
    ]
    living = sum(each.live for each in segments)
    for step in range(100):
        task = next_task(segments, POLICY, NOW)
        if task is None:
            break
        sources = [each for each in segments if each.number in task.sources]
        rows = sum(each.live for each in sources)
        new = SegmentFacts(1_000 + step, task.kind, task.tier, rows, 0, max(each.newest for each in sources))
        position = max(segments.index(each) for each in sources)
        segments[position] = new
        segments = [each for each in segments if each not in sources and each.live]
    else:
        raise AssertionError("it never rests")
    assert sum(each.live for each in segments) == living
