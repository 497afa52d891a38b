"""When segments are rebuilt: what is small is searched exactly, what is recent has a graph, what is old or much has lists.

A collection is one growing segment and any number of frozen ones. `next_task` looks at the frozen ones and names the next rebuild, or
None. Rules, first that applies:

1. a segment of which more than a fifth is deleted is rebuilt without them;
2. rows above `recent_rows` among the recent, and segments older than `recent_seconds`, become historical, oldest first, and take with
   them historical segments that are at most four times larger, so that there are O(log n) of these and most stay as they are;
3. exact segments above `exact_rows` become a graph, oldest first;
4. more than `many` small segments become one.

Pure; a shell builds and reports back. Sizes: research/store.md, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

Kind = Literal["exact", "hnsw", "ivf"]
Tier = Literal["recent", "historical"]

MIN_INDEXED: Final = 2_048
"""Below this a graph or lists cost more than they save: a scan takes 0.1 ms."""


class Policy(msgspec.Struct, frozen=True):
    """Bounds, in rows and seconds."""

    active_rows: int = 4_096
    exact_rows: int = 20_000
    """Up to here a collection is searched exactly: recall 1, any filter, about a millisecond."""
    graph_rows: int = 16_384
    """Rows of one graph at most: its build is the longest single piece of work in the background."""
    recent_rows: int = 32_768
    recent_seconds: float = 7 * 86_400
    segment_rows: int = 262_144
    """No segment becomes larger: it bounds one rebuild, one upload, and one blob."""
    dead_share: float = 0.2
    many: int = 8
    backlog_rows: int = 131_072
    """Frozen rows that wait for an index; above, writers wait."""


class SegmentFacts(msgspec.Struct, frozen=True):
    """What the plan knows of a frozen segment, oldest first in every list of them."""

    number: int
    kind: Kind
    tier: Tier
    rows: int
    dead: int
    newest: float
    """Unix seconds of its youngest row."""
    stored: bool = True
    """Whether it has files of its own; otherwise it is in the log alone."""

    @property
    def live(self) -> int:
        """Rows that are not deleted."""
        return self.rows - self.dead


class Task(msgspec.Struct, frozen=True):
    """Make one segment out of some."""

    sources: tuple[int, ...]
    kind: Kind
    tier: Tier
    why: Literal["compact", "age", "size", "graph", "merge", "store", "ask"]


def next_task(segments: Sequence[SegmentFacts], policy: Policy, now: float) -> Task | None:
    """The next rebuild, None where all is well."""
    return (
        _compact(segments, policy)
        or _retire(segments, policy, now)
        or _graph(segments, policy)
        or _merge(segments, policy)
    )


def backlog(segments: Sequence[SegmentFacts]) -> int:
    """Recent rows that are still scanned."""
    return sum(each.rows for each in segments if each.kind == "exact" and each.tier == "recent")


def store_task(segments: Sequence[SegmentFacts]) -> Task | None:
    """Files for what is in the log alone, as it is: for a copy elsewhere."""
    sources = tuple(each.number for each in segments if not each.stored)
    return Task(sources, "exact", "recent", "store") if sources else None


def migration(segments: Sequence[SegmentFacts], policy: Policy) -> Task | None:
    """The next step towards everything being historical, in as few segments as their bound allows. None when it is."""
    group, total = list[SegmentFacts](), 0
    for each in (*segments, None):
        if group and (each is None or total + each.live > policy.segment_rows):
            if len(group) > 1 or group[0].tier == "recent":
                return Task(
                    tuple(one.number for one in group), kind_for("historical", total, "ivf"), "historical", "ask"
                )
            group, total = [], 0
        if each is not None:
            group.append(each)
            total += each.live
    return None


def kind_for(tier: Tier, rows: int, wanted: Kind) -> Kind:
    """What few rows become, whatever was wanted."""
    if rows < MIN_INDEXED:
        return "exact"
    return wanted if tier == "recent" else "ivf"


def _compact(segments: Sequence[SegmentFacts], policy: Policy) -> Task | None:
    for each in segments:
        if each.dead > policy.dead_share * each.rows:
            return Task((each.number,), kind_for(each.tier, each.live, each.kind), each.tier, "compact")
    return None


def _retire(segments: Sequence[SegmentFacts], policy: Policy, now: float) -> Task | None:
    recent = [each for each in segments if each.tier == "recent"]
    over = sum(each.live for each in recent) - policy.recent_rows
    by_size = over > 0 and sum(each.live for each in segments) > policy.exact_rows
    leaving: list[SegmentFacts] = []
    left = over + policy.recent_rows // 2 if by_size else 0
    for each in recent:
        old = now - each.newest > policy.recent_seconds
        taken = sum(one.live for one in leaving)
        if (taken < left or old) and (not leaving or taken + each.live <= policy.segment_rows):
            leaving.append(each)
    if not leaving:
        return None
    total = sum(each.live for each in leaving)
    sources = list(leaving)
    for each in sorted((one for one in segments if one.tier == "historical"), key=lambda one: one.live):
        if each.live <= 4 * total and total + each.live <= policy.segment_rows:
            sources.append(each)
            total += each.live
    kind = kind_for("historical", total, "ivf")
    return Task(_numbers(segments, sources), kind, "historical", "size" if by_size else "age")


def _graph(segments: Sequence[SegmentFacts], policy: Policy) -> Task | None:
    exact = [each for each in segments if each.kind == "exact" and each.tier == "recent"]
    if sum(each.live for each in segments) <= policy.exact_rows:
        return None
    if sum(each.live for each in exact) < policy.graph_rows // 2:
        return None
    sources, total = list[SegmentFacts](), 0
    for each in exact:
        if sources and total + each.live > policy.graph_rows:
            break
        sources.append(each)
        total += each.live
    if total < MIN_INDEXED:
        return None
    return Task(_numbers(segments, sources), "hnsw", "recent", "graph")


def _merge(segments: Sequence[SegmentFacts], policy: Policy) -> Task | None:
    """Small ones of one tier, which many copies and restarts leave behind."""
    for tier in ("recent", "historical"):
        small = [
            each
            for each in segments
            if each.tier == tier and each.kind == "exact" and each.live < policy.active_rows // 2
        ]
        if len(small) > policy.many:
            total = sum(each.live for each in small)
            return Task(_numbers(segments, small), kind_for(small[0].tier, total, "exact"), small[0].tier, "merge")
    return None


def _numbers(segments: Sequence[SegmentFacts], chosen: Sequence[SegmentFacts]) -> tuple[int, ...]:
    """In the order of the segments, so that rows stay in the order in which they came."""
    return tuple(each.number for each in segments if each in chosen)
