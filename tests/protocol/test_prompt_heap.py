"""The heap with lazy deletion against a sorted list, and its bound of memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fabstir.protocol.prompt_heap import LazyHeap

steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 8), st.integers(-3, 3)),
        st.tuples(st.just("remove"), st.integers(0, 8), st.just(0)),
        st.tuples(st.just("pop"), st.just(0), st.just(0)),
    ),
    max_size=200,
)


@given(steps=steps)
def test_it_is_a_sorted_list(steps: list[tuple[str, int, int]]) -> None:
    """Push, move, remove and pop in any order: always the smallest, and among equals the one that came first."""
    heap: LazyHeap[int] = LazyHeap()
    model: dict[int, tuple[float, int]] = {}
    for turn, (verb, member, key) in enumerate(steps):
        match verb:
            case "push":
                heap.push(key, member)
                model[member] = (key, turn)
            case "remove":
                heap.remove(member)
                model.pop(member, None)
            case _:
                first = min(model, key=model.__getitem__, default=None)
                expected = None if first is None else (model.pop(first)[0], first)
                assert heap.pop() == expected
        assert len(heap) == len(model)
        assert all(member in heap for member in model)
        first = min(model, key=model.__getitem__, default=None)
        assert heap.peek() == (None if first is None else (model[first][0], first))


def test_memory_is_bounded() -> None:
    """A thousand members that move a hundred times each leave at most twice their number of entries."""
    heap: LazyHeap[int] = LazyHeap()
    for turn in range(100):
        for member in range(1_000):
            heap.push((member * turn) % 1_000, member)
            assert len(heap._heap) <= 2 * len(heap) + 64
    for member in range(1_000):
        heap.remove(member)
    assert len(heap) == 0 and len(heap._heap) <= 64
    assert repr(heap).startswith("<LazyHeap 0 members")
