"""The stream of changes: whoever joins late, reads slowly or reconnects has the same picture as the writer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.prompts import PromptId
from fabstir.protocol.prompt_log import Stage
from fabstir.protocol.prompt_order_log import OrderStage
from fabstir.protocol.prompt_tracking import FINAL, Changes, Position, PromptTracker, Snapshot, TrackedChange


def prompt(number: int) -> PromptId:
    return PromptId(number.to_bytes(32, "big"))


class Reader:
    """Keeps a picture from what it reads."""

    def __init__(self) -> None:
        self.position: Position | None = None
        self.picture: dict[PromptId, TrackedChange] = {}
        self.sequences: list[int] = []
        self.lagged = 0

    def read(self, tracker: PromptTracker, limit: int) -> None:
        found = tracker.read(self.position, limit)
        if isinstance(found, Snapshot):
            self.picture = {change.prompt: change for change in found.jobs}
            self.lagged += found.lagged
            self.sequences = [found.position.sequence]
        else:
            assert len(found.changes) <= limit
            for change in found.changes:
                self.picture[change.prompt] = change
                self.sequences.append(change.sequence)
        self.position = found.position


@given(
    kept=st.integers(1, 12),
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from(["claimed", "running", "ended"])), max_size=120
    ),
)
def test_every_reader_gets_the_picture(kept: int, steps: list[tuple[int, int, str]]) -> None:
    """Three readers at different speeds: numbers without gaps between snapshots, and in the end the writer's own picture."""
    tracker = PromptTracker(1, kept)
    readers = [Reader() for _ in range(3)]
    for number, (who, job, stage) in enumerate(steps):
        if who == 3:
            change = tracker.publish(prompt(job), stage, float(number))
            assert change.sequence == tracker.position.sequence and tracker.status(prompt(job)) == change
        else:
            readers[who].read(tracker, limit=job + 1)
            sequences = readers[who].sequences
            assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    for reader in readers:
        while reader.position != tracker.position:
            reader.read(tracker, 256)
        assert reader.picture == {prompt(n): found for n in range(6) if (found := tracker.status(prompt(n)))}
        assert tracker.read(reader.position) == Changes((), tracker.position)


def test_who_was_never_there_gets_a_snapshot() -> None:
    """The last change of each job, oldest first; not marked as lagged."""
    tracker = PromptTracker(1)
    for number, stage in ((1, "claimed"), (2, "claimed"), (1, "running")):
        tracker.publish(prompt(number), stage, 5.0, "why")
    expected = (TrackedChange(2, prompt(2), "claimed", 5.0, "why"), TrackedChange(3, prompt(1), "running", 5.0, "why"))
    assert tracker.read(None) == Snapshot(expected, Position(1, 3), False)


def test_who_is_too_slow_is_told() -> None:
    """A reader whose next change is forgotten gets a snapshot marked so; one that is just in time does not."""
    tracker = PromptTracker(1, kept=4)
    for number in range(6):
        tracker.publish(prompt(number), "claimed", 0.0)
    just = tracker.read(Position(1, 2))
    assert isinstance(just, Changes) and [change.sequence for change in just.changes] == [3, 4, 5, 6]
    late = tracker.read(Position(1, 1))
    assert isinstance(late, Snapshot) and late.lagged and len(late.jobs) == 6


@pytest.mark.parametrize("position", [Position(2, 0), Position(1, 7), Position(1, -1)])
def test_positions_of_another_life_are_not_trusted(position: Position) -> None:
    """After a restart, or made up: a snapshot, never a gap."""
    tracker = PromptTracker(1)
    tracker.publish(prompt(1), "claimed", 0.0)
    found = tracker.read(position)
    assert isinstance(found, Snapshot) and found.lagged


@pytest.mark.parametrize(("after", "limit"), [(0, 3), (0, 256), (70, 5), (95, 3), (99, 1), (100, 1)])
def test_parts_come_in_order(after: int, limit: int) -> None:
    """From either end of what is kept, at most so many."""
    tracker = PromptTracker(1)
    for number in range(100):
        tracker.publish(prompt(number), "claimed", 0.0)
    found = tracker.read(Position(1, after), limit)
    assert isinstance(found, Changes)
    end = min(100, after + limit)
    assert [change.sequence for change in found.changes] == list(range(after + 1, end + 1))
    assert found.position == Position(1, end)


def test_memory_is_bounded() -> None:
    """Running jobs are all kept, those that are over only so far back."""
    tracker = PromptTracker(1, kept=10, finished=5)
    for number in range(100):
        tracker.publish(prompt(number), "ended", 0.0)
        tracker.publish(prompt(1_000 + number), "running", 0.0)
    found = tracker.read(None)
    assert isinstance(found, Snapshot) and len(found.jobs) == 105
    assert tracker.status(prompt(94)) is None and tracker.status(prompt(95)) is not None
    assert repr(tracker) == "<PromptTracker 200 changes, 100 running, 5 over>"
    tracker.publish(prompt(95), "running", 0.0)
    assert repr(tracker) == "<PromptTracker 201 changes, 101 running, 4 over>"


def test_a_reader_takes_something() -> None:
    """A limit of nothing would never get on."""
    with pytest.raises(ValueError, match="never gets on"):
        PromptTracker(1).read(None, 0)


def test_final_stages_are_stages() -> None:
    """The names that end a job's life are those of host and renter."""
    assert {stage.value for stage in Stage} | {stage.value for stage in OrderStage} >= FINAL
