"""A map of any size from text to bytes, kept as blobs of some kilobytes: a hash array mapped trie whose shape depends on nothing
but its content.

A key's place is BLAKE3(key), five bits a level. A slot of a node holds at most 32 entries inline; more become a node of their own,
and when deletions leave 32 or fewer they are inline again. Hence the same entries give the same tree and the same root digest,
whatever the order, the batches and the deletions on the way. A node is encoded in two forms: the canonical one, in which a child is
its digest, gives the digest; the stored one has beside each digest the place of the child (the hash of its sealed blob, which
differs each time it is written, so that a node that was replaced can be deleted without another's being meant).

Nodes are values; a change makes new ones along its path. Nothing is read or written here: what needs a stored node yields its links
and is sent the nodes (`Walk`), and `store` yields each new node, children first, and is sent its place.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Final, TypeVar

import cbor2
import msgspec
from blake3 import blake3

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.protocol.storage import cbor
from fabstir.protocol.storage.blob_id import HASH

BITS: Final = 5
BUCKET: Final = 32
"""Entries that a slot holds inline. 5 and 32 give nodes of 5 to 60 kB: the size of a round trip (research: store, section 2)."""
_MASK: Final = (1 << BITS) - 1
_HASH_BITS: Final = 64
_MAX_DEPTH: Final = _HASH_BITS // BITS
"""Where the bits are used up a slot holds any number. That takes 33 keys with 60 equal bits: nobody makes those."""

Entry = tuple[int, str, bytes]
"""The key's place, the key, the value; compared in this order."""
Bucket = tuple[Entry, ...]
Change = tuple[int, str, bytes | None]
"""None deletes."""
Placed = TypeVar("Placed", Entry, Change, tuple[int, str])


class Link(msgspec.Struct, frozen=True):
    """A stored node: what it is, and where."""

    digest: Hash32
    place: Hash32

    def __bytes__(self) -> bytes:
        return self.digest + self.place

    @classmethod
    def of(cls, data: object) -> Link:
        """From its 64 bytes. Raises PeerFault (`storage_encoding`)."""
        if not isinstance(data, bytes) or len(data) != 2 * HASH:
            raise error("storage_encoding", "no link to a node")
        return cls(Hash32(data[:HASH]), Hash32(data[HASH:]))


class Node:
    """A node. Changed only by `store`, which sets `link` once."""

    __slots__ = ("bitmap", "children", "count", "link")

    def __init__(self, bitmap: int, children: tuple[Child, ...], count: int) -> None:
        """Children in the order of their slots, which are the bits of `bitmap`; `count` entries in all."""
        self.bitmap: Final = bitmap
        self.children: Final = children
        self.count: Final = count
        self.link: Link | None = None

    def __repr__(self) -> str:
        return f"<Node of {self.count} entries, {len(self.children)} slots, {'stored' if self.link else 'new'}>"

    def digest(self) -> Hash32:
        """What it is. Its children have to be stored or inline."""
        return Hash32(blake3(_encode(self, canonical=True)).digest())


Child = Bucket | Link | Node
Result = TypeVar("Result")
Walk = Generator[tuple[Link, ...], list[Node], Result]
"""Yields links, is sent their nodes, returns what was asked."""

EMPTY: Final = Node(0, (), 0)


def place_of(key: str) -> int:
    """64 bits of BLAKE3, most significant first."""
    return int.from_bytes(blake3(key.encode()).digest(8), "big")


def changes_of(values: Mapping[str, bytes | None]) -> list[Change]:
    """What `apply` takes: sorted by place."""
    return sorted(((place_of(key), key, value) for key, value in values.items()), key=lambda change: change[:2])


def lookup(root: Node, key: str) -> Walk[bytes | None]:
    """The value of a key, or None."""
    place, node = place_of(key), root
    for depth in range(_MAX_DEPTH + 1):
        bit = 1 << _slot(place, depth)
        if not node.bitmap & bit:
            return None
        child = node.children[(node.bitmap & (bit - 1)).bit_count()]
        if isinstance(child, Link):
            [child] = yield (child,)
        if not isinstance(child, Node):
            return next((value for _, found, value in child if found == key), None)
        node = child
    raise error("storage_encoding", "a tree that is deeper than its hash")


def lookup_many(root: Node, keys: list[tuple[int, str]], depth: int = 0) -> Walk[dict[str, bytes]]:
    """The values of those keys (sorted, each with its place) that are there. Reads every node on the way once."""
    groups = [(_child(root, slot), group) for slot, group in _by_slot(keys, depth)]
    wanted = [child for child, _ in groups if isinstance(child, Link)]
    loaded = dict(zip(wanted, (yield tuple(wanted)), strict=True)) if wanted else {}
    found: dict[str, bytes] = {}
    for child, group in groups:
        below = loaded[child] if isinstance(child, Link) else child
        if isinstance(below, Node):
            found |= yield from lookup_many(below, group, depth + 1)
        elif below:
            names = {key for _, key in group}
            found |= {key: value for _, key, value in below if key in names}
    return found


def apply(root: Node, changes: list[Change], dropped: list[Link], depth: int = 0) -> Walk[Node]:
    """The tree with `changes` (from `changes_of`). `dropped` receives the links of stored nodes that are no longer part of it."""
    groups = list(_by_slot(changes, depth))
    wanted = [child for child in (_child(root, slot) for slot, _ in groups) if isinstance(child, Link)]
    loaded = dict(zip(wanted, (yield tuple(wanted)), strict=True)) if wanted else {}
    slots: dict[int, Child] = dict(zip(_slots(root.bitmap), root.children, strict=True))
    changed, count = False, root.count
    for slot, group in groups:
        old = slots.get(slot, ())
        if isinstance(old, Link):
            old = loaded[old]
        if isinstance(old, Node):
            new: Child = yield from apply(old, group, dropped, depth + 1)
            if new is old:
                continue
            new = _collapsed(new) if isinstance(new, Node) else new
        else:
            merged = _merged(old, group)
            if merged == old:
                continue
            new = _built(merged, depth + 1)
        changed, count = True, count + _count(new) - _count(old)
        if new:
            slots[slot] = new
        else:
            slots.pop(slot, None)
    if not changed:
        return root
    if root.link:
        dropped.append(root.link)
    ordered = sorted(slots)
    return Node(sum(1 << slot for slot in ordered), tuple(slots[slot] for slot in ordered), count)


def page(root: Node, after: tuple[int, str] | None, limit: int, depth: int = 0, prefix: int = 0) -> Walk[list[Entry]]:
    """At most `limit` entries in the order of their places, from the first one after `after` on."""
    found: list[Entry] = []
    shift = max(_HASH_BITS - BITS * (depth + 1), 0)
    for slot, child in zip(_slots(root.bitmap), root.children, strict=True):
        here = prefix << BITS | slot
        if after and depth < _MAX_DEPTH and (here + 1) << shift <= after[0]:
            continue
        below = (yield (child,))[0] if isinstance(child, Link) else child
        if isinstance(below, Node):
            found += yield from page(below, after, limit - len(found), depth + 1, here)
        else:
            found += [entry for entry in below if after is None or entry[:2] > after][: limit - len(found)]
        if len(found) >= limit:
            break
    return found


def links(root: Node) -> Walk[list[Link]]:
    """Every stored node below `root`."""
    found = [child for child in root.children if isinstance(child, Link)]
    for node in (yield tuple(found)) if found else []:
        found += yield from links(node)
    return found


def store(root: Node) -> Generator[Node, Hash32, Node]:
    """The same tree, stored: `root` itself where it is, else a node whose children are links or inline."""
    if root.link:
        return root
    children: list[Child] = []
    for child in root.children:
        if isinstance(child, Node):
            stored = yield from store(child)
            if stored.link is None:
                raise AssertionError("stored")
            children.append(stored.link)
        else:
            children.append(child)
    node = Node(root.bitmap, tuple(children), root.count)
    place = yield node
    node.link = Link(node.digest(), place)
    return node


def encode(node: Node) -> bytes:
    """The stored form."""
    return _encode(node, canonical=False)


def decode(data: bytes, link: Link) -> Node:
    """The node that `link` means. Raises PeerFault (`storage_encoding`) where it is not that one."""
    raw = cbor.loads(data)
    if not (isinstance(raw, list) and len(raw) == 3 and isinstance(raw[2], list)):
        raise error("storage_encoding", "no node")
    bitmap, count, children = raw
    if not (type(bitmap) is int and type(count) is int and 0 <= bitmap < 1 << (1 << BITS)):
        raise error("storage_encoding", "no node")
    if bitmap.bit_count() != len(children):
        raise error("storage_encoding", "a node with another number of children than slots")
    node = Node(bitmap, tuple(_read_child(child) for child in children), count)
    if node.digest() != link.digest or encode(node) != data:
        raise error("storage_encoding", "another node than the link means")
    node.link = link
    return node


def _encode(node: Node, *, canonical: bool) -> bytes:
    return cbor2.dumps([node.bitmap, node.count, [_written(child, canonical) for child in node.children]])


def _written(child: Child, canonical: bool) -> object:
    if isinstance(child, Node):
        raise AssertionError("a node is encoded after its children are stored")
    if isinstance(child, Link):
        return child.digest if canonical else bytes(child)
    return [[key, value] for _, key, value in child]


def _read_child(raw: object) -> Child:
    if isinstance(raw, bytes):
        return Link.of(raw)
    if not isinstance(raw, list) or not raw:
        raise error("storage_encoding", "a child that is neither link nor bucket")
    bucket: list[Entry] = []
    for pair in raw:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], bytes)):
            raise error("storage_encoding", "an entry that is no pair")
        bucket.append((place_of(pair[0]), pair[0], pair[1]))
    return tuple(bucket)


def _slot(place: int, depth: int) -> int:
    shift = _HASH_BITS - BITS * (depth + 1)
    return (place >> shift if shift >= 0 else place) & _MASK


def _slots(bitmap: int) -> Iterator[int]:
    return (slot for slot in range(1 << BITS) if bitmap >> slot & 1)


def _child(node: Node, slot: int) -> Child | None:
    if not node.bitmap >> slot & 1:
        return None
    return node.children[(node.bitmap & ((1 << slot) - 1)).bit_count()]


def _by_slot(items: list[Placed], depth: int) -> Iterator[tuple[int, list[Placed]]]:
    """Runs of one slot; `items` are sorted by place, and share the bits above `depth`."""
    start = 0
    while start < len(items):
        slot, end = _slot(items[start][0], depth), start + 1
        while end < len(items) and _slot(items[end][0], depth) == slot:
            end += 1
        yield slot, items[start:end]
        start = end


def _merged(bucket: Bucket, changes: Iterable[Change]) -> Bucket:
    entries = {entry[:2]: entry for entry in bucket}
    for place, key, value in changes:
        if value is None:
            entries.pop((place, key), None)
        else:
            entries[(place, key)] = (place, key, value)
    return tuple(entries[where] for where in sorted(entries))


def _built(entries: Bucket, depth: int) -> Bucket | Node:
    """Entries below a slot of a node at `depth` - 1: inline, or a node."""
    if len(entries) <= BUCKET or depth > _MAX_DEPTH:
        return entries
    bitmap, children = 0, []
    for slot, group in _by_slot(list(entries), depth):
        bitmap |= 1 << slot
        children.append(_built(tuple(group), depth + 1))
    return Node(bitmap, tuple(children), len(entries))


def _collapsed(node: Node) -> Child:
    """Inline again where few enough are left. Then no child is a node, since a node has more than that."""
    if node.count > BUCKET:
        return node
    if any(not isinstance(child, tuple) for child in node.children):
        raise error("storage_encoding", "a node that says fewer entries than it has")
    return tuple(entry for child in node.children if isinstance(child, tuple) for entry in child)


def _count(child: Child) -> int:
    if isinstance(child, Link):
        raise AssertionError("counted before it was loaded")
    return child.count if isinstance(child, Node) else len(child)
