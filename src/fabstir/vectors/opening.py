"""A collection from its files: the manifest, the segments it names, and the log since, replayed.

What cannot be whole is refused by name (`vectors_corrupt`: a manifest or segment that changed or is missing, a log with damage before its
end, a gap). A torn frame at the end of the last file of the log was never acknowledged: it is kept beside (`wal-<number>.torn`), cut
off, and told in the statistics. Files that nobody names, left by a crash between two steps, are removed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from fabstir.domain.errors import error
from fabstir.protocol.vectors import log, manifest
from fabstir.protocol.vectors.collection import CollectionSpec
from fabstir.protocol.vectors.log import Reading
from fabstir.protocol.vectors.manifest import Manifest
from fabstir.vectors import files, storing
from fabstir.vectors.contents import Contents
from fabstir.vectors.wal import path_of


class Opened(msgspec.Struct, frozen=True):
    """A collection in memory, and where its log goes on."""

    contents: Contents
    number: int
    size: int
    sequence: int
    first_sequences: dict[int, int]
    """Of each file of the log."""
    manifest: Manifest
    """As it was read."""
    torn: str
    """What was cut off, in words; empty for nothing."""


def make(directory: Path, spec: CollectionSpec) -> None:
    """An empty collection, there at once or not at all."""
    aside = begin(directory)
    finish(directory, aside, Manifest(spec, (), 1, 1, 0, "", ""))


def begin(directory: Path) -> Path:
    """Where the files of a collection are gathered; what is left of an earlier attempt goes."""
    aside = directory.with_name(f".{directory.name}.new")
    files.remove(aside)
    with files.translated():
        aside.mkdir(mode=0o700)
    return aside


def finish(directory: Path, aside: Path, first: Manifest) -> None:
    """The collection is there when it returns."""
    files.write(path_of(aside, first.wal_from), b"")
    files.write(aside / "manifest", manifest.encode(first))
    with files.translated():
        aside.rename(directory)
        files.sync(directory.parent)


def open_collection(directory: Path) -> Opened:
    """Takes as long as hashing its files and replaying its log. Raises `vectors_corrupt`."""
    now = manifest.decode(files.read(directory / "manifest"), f"{directory.name}/manifest")
    if now.spec.name != directory.name:
        raise error("vectors_corrupt", f"{directory.name}/manifest is that of {now.spec.name}")
    _clear(directory, now)
    frozen = [storing.load(directory, now.spec, entry) for entry in now.segments]
    contents = Contents(now.spec, frozen, now.wal_from)
    numbers = sorted(int(path.name[4:]) for path in directory.glob("wal-*") if path.name[4:].isdecimal())
    if numbers != list(range(now.wal_from, now.wal_from + len(numbers))) or not numbers:
        raise error("vectors_corrupt", f"{directory.name}: files of the log are missing from {now.wal_from} on")
    sequence, firsts, torn, size = now.sequence, dict[int, int](), "", 0
    for number in numbers:
        firsts[number] = sequence
        if number != now.wal_from:
            contents.rotate(number)
        reading, length = _read(path_of(directory, number), sequence)
        for frame in reading.frames:
            for operation in frame.operations:
                contents.apply(operation)
        sequence, size = sequence + len(reading.frames), reading.good
        if length > reading.good:
            if number != numbers[-1]:
                raise error("vectors_corrupt", f"{directory.name}/wal-{number}: cut off at byte {reading.good}")
            torn = _cut(path_of(directory, number), reading.good)
    return Opened(contents, numbers[-1], size, sequence, firsts, now, torn)


def _read(path: Path, sequence: int) -> tuple[Reading, int]:
    data = files.read(path)
    return log.read(data, f"{path.parent.name}/{path.name}", sequence), len(data)


def _cut(path: Path, good: int) -> str:
    data = files.read(path)
    files.write(path.with_name(f"{path.name}.torn"), data[good:])
    files.write(path, data[:good])
    return f"{path.name}: {len(data) - good} bytes at the end were torn and never acknowledged; kept beside it"


def _clear(directory: Path, now: Manifest) -> None:
    for path in files.hashed(directory):
        if path.name not in now.files():
            files.remove(path)
    for path in directory.iterdir():
        if path.name.endswith(".aside") or (path.name[4:].isdecimal() and int(path.name[4:]) < now.wal_from):
            files.remove(path)
