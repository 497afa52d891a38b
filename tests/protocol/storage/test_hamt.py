"""The tree of large directories: one shape for one content, at any size, and no more read or written than a path."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.protocol.storage.trees import Tree

from fabstir.domain.errors import FabstirError
from fabstir.protocol.storage import hamt
from fabstir.protocol.storage.hamt import EMPTY, Link, Node

KEYS = [f"key-{number}" for number in range(400)]
STEPS = st.lists(
    st.tuples(st.dictionaries(st.sampled_from(KEYS), st.none() | st.binary(max_size=3), max_size=120), st.booleans()),
    max_size=8,
)


def tree_of(values: dict[str, bytes]) -> Tree:
    tree = Tree(b"fresh")
    tree.apply(values)
    return tree


@settings(max_examples=60)
@given(STEPS)
def test_one_content_has_one_root(steps: list[tuple[dict[str, bytes | None], bool]]) -> None:
    """Batches of sets and deletes in any order, stored or not in between: the root digest of the same entries put at once."""
    tree, model = Tree(), dict[str, bytes]()
    for batch, flush in steps:
        tree.apply(batch)
        for key, value in batch.items():
            model.pop(key, None)
            if value is not None:
                model[key] = value
        if flush:
            tree.flush()
    assert tree.items() == model and tree.root.count == len(model)
    assert tree.flush() == tree_of(model).flush()
    assert len(tree.blobs) == 1 + len(tree.walk(hamt.links(tree.root)))


@given(
    st.dictionaries(st.text(max_size=8).filter(lambda text: text.isascii()), st.binary(max_size=3), max_size=90),
    st.integers(1, 40),
)
def test_pages_list_everything_once(values: dict[str, bytes], limit: int) -> None:
    """Paging in steps of any size gives each entry once, in the order of places."""
    tree = tree_of(values)
    tree.flush()
    assert tree.items(limit) == values
    assert list(tree.items(limit)) == sorted(values, key=lambda key: (hamt.place_of(key), key))


def test_a_page_goes_on_where_it_was_although_entries_come_and_go() -> None:
    """Entries that are there throughout are listed once, whatever is added or deleted between two pages."""
    tree = tree_of(dict.fromkeys(KEYS, b""))
    first = tree.walk(hamt.page(tree.root, None, 100))
    tree.apply(dict.fromkeys(KEYS[::3]) | {f"new-{number}": b"" for number in range(300)})
    rest = tree.walk(hamt.page(tree.root, first[-1][:2], 10_000))
    listed = [key for _, key, _ in first] + [key for _, key, _ in rest]
    assert len(listed) == len(set(listed))
    assert set(KEYS) - set(KEYS[::3]) <= set(listed)


def test_a_change_writes_its_path_and_reads_no_more() -> None:
    """In 60,000 entries one change loads two stored nodes, writes three, and gives up as many."""
    tree = tree_of({f"name-{number}": b"x" * 40 for number in range(60_000)})
    tree.flush()
    before = set(tree.blobs)
    tree.reads = 0
    tree.apply({"name-7": b"changed"})
    dropped = len(tree.dropped)
    tree.flush()
    assert (tree.reads, len(set(tree.blobs) - before), dropped) == (2, 3, 3)
    assert tree.get("name-7") == b"changed" and tree.get("absent") is None


def test_what_changes_nothing_writes_nothing() -> None:
    """Setting what is there and deleting what is not leaves the stored root itself."""
    tree = tree_of(dict.fromkeys(KEYS, b"v"))
    tree.flush()
    root = tree.root
    tree.apply({KEYS[0]: b"v", "absent": None})
    assert tree.root is root and not tree.dropped


def test_an_earlier_root_stays_readable() -> None:
    """Nodes are values: who holds an old root sees the old content."""
    tree = tree_of(dict.fromkeys(KEYS, b"old"))
    old = tree.root
    tree.apply(dict.fromkeys(KEYS, b"new"))
    assert tree.walk(hamt.lookup(old, KEYS[5])) == b"old"


def test_golden_roots() -> None:
    """Fixed digests: the empty tree, one entry, and 1,000 entries."""
    digests = [tree_of({f"{n}": str(n).encode() for n in range(size)}).flush().hex() for size in (0, 1, 1_000)]
    assert digests == GOLDEN


def test_sixty_equal_bits_are_no_endless_descent() -> None:
    """More keys in one place than a slot holds: they stay inline at the bottom."""
    crowd = tuple((0, f"{number:03}", b"") for number in range(40))
    root = Tree().walk(hamt.apply(EMPTY, list(crowd), []))
    assert root.count == 40
    emptied = Tree().walk(hamt.apply(root, [(place, key, None) for place, key, _ in crowd], []))
    assert emptied.count == 0 and emptied.digest() == EMPTY.digest()


@given(st.data())
def test_a_damaged_node_is_refused(chance: st.DataObject) -> None:
    """Any flipped byte of a stored node: `storage_encoding`, never another tree."""
    tree = tree_of(dict.fromkeys(KEYS, b"v"))
    tree.flush()
    assert tree.root.link
    data = bytearray(tree.blobs[tree.root.link.place])
    data[chance.draw(st.integers(0, len(data) - 1))] ^= chance.draw(st.integers(1, 255))
    try:
        node = hamt.decode(bytes(data), tree.root.link)
    except FabstirError as refused:
        if refused.code != "storage_encoding":
            raise
        return
    # The digest covers what children are, not where they lie: a wrong place is found when the child is read.
    assert node.digest() == tree.root.link.digest


def test_a_node_that_lies_about_its_count_loses_nothing() -> None:
    """Where deleting would fold a child that has children of its own, it is refused."""
    link = Link(hamt.EMPTY.digest(), hamt.EMPTY.digest())
    liar = Node(3, (link, link), 2)
    root = Node(1, (liar,), 2)
    with pytest.raises(FabstirError) as caught:
        Lying(hamt.Node(1, (((0, "a", b""), (0, "b", b"")),), 2)).walk(hamt.apply(root, [(0, "a", None)], []))
    assert caught.value.code == "storage_encoding"


class Lying(Tree):
    """Gives one node for every link."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def walk(self, steps):
        try:
            links = next(steps)
            while True:
                links = steps.send([self._node for _ in links])
        except StopIteration as done:
            return done.value


def test_random_order_of_single_changes() -> None:
    """One entry at a time, in a shuffled order, half of them deleted again: the same root."""
    chance = random.Random(7)
    wanted = {f"k{number}": bytes([number % 7]) for number in range(600)}
    moves: list[dict[str, bytes | None]] = [{key: value} for key, value in wanted.items()]
    moves += [{f"gone{number}": b""} for number in range(600)]
    chance.shuffle(moves)
    tree = Tree()
    for move in moves:
        tree.apply(move)
    tree.flush()
    for number in range(600):
        tree.apply({f"gone{number}": None})
    assert tree.flush() == tree_of(wanted).flush()


GOLDEN = [
    "5d7a63a46d0d4023c9df555b77a2de4bb09d3ca3c2acaa11735c6b716f4a3bfc",
    "9245bba8457abe730799d7b7361ea8030e86ce9d4586014eabaf2a76b123fe0c",
    "d91c5d7e49097474ea108a4a05ea55508a327c3f60c94d2bfa5fc782dc3a354b",
]
