"""Directories as S5 writes them."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32
from fabstir.protocol.storage import dirv1
from fabstir.protocol.storage.dirv1 import Directory, DirectoryEntry, Entry, FileEntry


def digest(fill: int) -> Hash32:
    return Hash32(bytes([fill]) * 32)


GOLDEN: list[tuple[Directory, str]] = [
    (Directory(), "846653352e70726fa0a0a0"),
    (
        Directory({"n.txt": FileEntry(digest(1), 1024)}),
        "846653352e70726fa0a0a1656e2e747874a2035820" + "01" * 32 + "04190400",
    ),
    (
        Directory({"b": FileEntry(digest(2), 5_000_000_000, "text/plain", 9), "aa": FileEntry(digest(3), 0)}),
        "846653352e70726fa0a0a2626161a2035820"
        + "03" * 32
        + "04006162a4035820"
        + "02" * 32
        + "041b000000012a05f200066a746578742f706c61696e0709",
    ),
    (
        Directory({"d": DirectoryEntry(b"\xed" + digest(4), 7), "f": FileEntry(digest(5), 1, extra={"key": b"\x06"})}),
        "846653352e70726fa0a16164a2025821ed" + "04" * 32 + "0707a16166a3035820" + "05" * 32 + "040116a1636b65794106",
    ),
]
ENTRIES: st.SearchStrategy[Entry] = st.builds(
    FileEntry,
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**64 - 1),
    st.none() | st.text(max_size=9),
    st.none() | st.integers(0, 2**40),
    st.dictionaries(st.text(max_size=4), st.binary(max_size=4), max_size=2),
) | st.builds(
    DirectoryEntry,
    st.binary(min_size=32, max_size=32).map(lambda key: b"\xed" + key),
    st.none() | st.integers(0, 2**40),
)


@pytest.mark.parametrize(("directory", "encoded"), GOLDEN)
def test_golden(directory: Directory, encoded: str) -> None:
    """Numbers ascend, names go by their UTF-8 bytes ("aa" before "b"), a large size is an integer."""
    assert dirv1.encode(directory).hex() == "5f5d" + encoded
    assert dirv1.decode(bytes.fromhex(encoded)) == dirv1.decode(bytes.fromhex("5f5d" + encoded)) == directory


@given(st.dictionaries(st.text(max_size=6), ENTRIES, max_size=6), st.randoms(use_true_random=False))
def test_directories_survive_and_have_one_encoding(entries: dict[str, Entry], chance) -> None:
    """Read back equal, and written the same, whatever order the entries came in."""
    names = list(entries)
    chance.shuffle(names)
    encoded = dirv1.encode(Directory(entries))
    assert dirv1.encode(Directory({name: entries[name] for name in names})) == encoded
    assert dirv1.decode(encoded).entries == entries
    for entry in entries.values():
        assert dirv1.decode_entry(dirv1.encode_entry(entry)) == entry


def test_what_other_clients_write_is_read() -> None:
    """Names in the order of a locale, sizes as floats, and fields that we do not know, which are written again as they were."""
    other = cbor2.dumps(
        [
            "S5.pro",
            {},
            {},
            {"b": {3: bytes(32), 4: 5e9, 9: [[1, "x"]], 23: {3: bytes(32), 4: 1}}, "a": {3: bytes(32), 4: 1}},
        ]
    )
    read = dirv1.decode(b"\x5f\x5d" + other)
    found = read.entries["b"]
    assert isinstance(found, FileEntry) and found.size == 5_000_000_000
    assert dirv1.decode(dirv1.encode(read)) == read


@pytest.mark.parametrize(
    "raw",
    [
        ["FS5.io", {}, {}, {}],
        ["S5.pro", {}, {}],
        ["S5.pro", {}, {}, []],
        ["S5.pro", {}, {}, {"a": {4: 1}}],
        ["S5.pro", {}, {}, {"a": {3: bytes(31), 4: 1}}],
        ["S5.pro", {}, {}, {"a": {3: bytes(32), 4: -1}}],
        ["S5.pro", {}, {}, {"a": {3: bytes(32), 4: 1.5}}],
        ["S5.pro", {}, {}, {"a": {3: bytes(32), 4: 1, 6: 7}}],
        ["S5.pro", {}, {}, {"a": {3: bytes(32), 4: 1, "x": 7}}],
        ["S5.pro", {}, {}, {1: {3: bytes(32), 4: 1}}],
        ["S5.pro", {}, {"a": {2: bytes(33)}}, {}],
        ["S5.pro", {}, {"a": {}}, {}],
        ["S5.pro", {}, {"a": {2: b"\xed" + bytes(32)}}, {"a": {3: bytes(32), 4: 1}}],
        7,
    ],
)
def test_what_is_no_directory_is_refused(raw: object) -> None:
    """Another magic, missing parts, entries that are incomplete or of other types, a name twice."""
    with pytest.raises(FabstirError) as caught:
        dirv1.decode(cbor2.dumps(raw))
    assert caught.value.code == "storage_encoding"


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """No input raises anything else."""
    for read in (dirv1.decode, dirv1.decode_entry):
        try:
            read(data)
        except FabstirError as refused:
            if refused.code != "storage_encoding":
                raise
