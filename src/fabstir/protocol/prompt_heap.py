"""A priority queue whose members can be removed or moved in logarithmic time: a heap with lazy deletion.

A member that is removed or moved leaves a stale entry in the heap, which is skipped when it comes up; once more than half of
the entries are stale, the heap is built anew, so memory stays within twice the members. Smallest key first; equal keys in the
order in which they were pushed. Decides nothing about keys.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")
_SMALL = 64


class LazyHeap(Generic[T]):
    """Members are hashable and each is in the heap at most once."""

    __slots__ = ("_heap", "_ticket", "_tickets")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._tickets: dict[T, int] = {}
        """Member -> the ticket of its one entry that counts."""
        self._ticket = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, member: T) -> bool:
        return member in self._tickets

    def __repr__(self) -> str:
        return f"<LazyHeap {len(self)} members, {len(self._heap) - len(self)} stale>"

    def push(self, key: float, member: T) -> None:
        """Put `member` in, or move it to `key`."""
        self._ticket += 1
        self._tickets[member] = self._ticket
        heapq.heappush(self._heap, (key, self._ticket, member))
        self._compact()

    def remove(self, member: T) -> None:
        """Take `member` out; nothing happens where it is not in."""
        if self._tickets.pop(member, None) is not None:
            self._compact()

    def peek(self) -> tuple[float, T] | None:
        """The smallest key and its member."""
        heap = self._heap
        while heap:
            key, ticket, member = heap[0]
            if self._tickets.get(member) == ticket:
                return key, member
            heapq.heappop(heap)
        return None

    def pop(self) -> tuple[float, T] | None:
        """Take out the member with the smallest key."""
        found = self.peek()
        if found is not None:
            heapq.heappop(self._heap)
            del self._tickets[found[1]]
        return found

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._tickets) + _SMALL:
            self._heap = [entry for entry in self._heap if self._tickets.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)
