"""A tree whose stored nodes lie in a dict."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from blake3 import blake3

from fabstir.domain.ids import Hash32
from fabstir.protocol.storage import hamt
from fabstir.protocol.storage.hamt import EMPTY, Link, Node


class Tree:
    """Runs the generators. `salt` makes the places of two trees differ, as random nonces do."""

    def __init__(self, salt: bytes = b"") -> None:
        self.root = EMPTY
        self.blobs: dict[Hash32, bytes] = {}
        self.dropped: list[Link] = []
        self.reads = self.written = 0
        self._salt = salt

    def walk(self, steps: Generator[tuple[Link, ...], list[Node], Any]) -> Any:
        try:
            links = next(steps)
            while True:
                self.reads += len(links)
                links = steps.send([hamt.decode(self.blobs[link.place], link) for link in links])
        except StopIteration as done:
            return done.value

    def apply(self, values: Mapping[str, bytes | None]) -> None:
        self.root = self.walk(hamt.apply(self.root, hamt.changes_of(values), self.dropped))

    def get(self, key: str) -> bytes | None:
        found = self.walk(hamt.lookup(self.root, key))
        assert found is None or isinstance(found, bytes)
        return found

    def flush(self) -> Hash32:
        """Store what is new, forget it, delete what was dropped, and go on from the link."""
        root = self._stored(hamt.store(self.root))
        for link in self.dropped:
            del self.blobs[link.place]
        self.dropped.clear()
        assert root.link
        self.root = hamt.decode(self.blobs[root.link.place], root.link)
        return root.link.digest

    def _stored(self, steps: Generator[Node, Hash32, Node]) -> Node:
        try:
            node = next(steps)
            while True:
                data = hamt.encode(node)
                place = Hash32(blake3(self._salt + self.written.to_bytes(8, "big") + data).digest())
                self.written += 1
                self.blobs[place] = data
                node = steps.send(place)
        except StopIteration as done:
            root: Node = done.value
            return root

    def items(self, limit: int = 10**9) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        after = None
        while entries := self.walk(hamt.page(self.root, after, limit)):
            found |= {key: value for _, key, value in entries}
            after = entries[-1][:2]
        return found
