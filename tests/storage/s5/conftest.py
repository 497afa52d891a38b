"""Backends to run the contract on, and a server of S3 for the whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from obstore.store import MemoryStore
from tests.storage.s5 import s3_server
from tests.storage.s5.backends import Backend

from fabstir.storage.s5.disk import DiskStorage
from fabstir.storage.s5.mirror import MirroredBlobs, MirroredRegistry
from fabstir.storage.s5.objects import ObjectStorage


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with s3_server.serving() as endpoint:
        yield endpoint


def _disk(tmp_path: Path, request: pytest.FixtureRequest) -> Backend:
    storage = DiskStorage(tmp_path / "store")
    return Backend(storage, storage, lambda blob: tmp_path / "store" / "blobs" / blob.hex()[:2] / blob.hex())


def _memory(tmp_path: Path, request: pytest.FixtureRequest) -> Backend:
    storage = ObjectStorage(MemoryStore(), "some/where/")
    return Backend(storage, storage)


def _s3(tmp_path: Path, request: pytest.FixtureRequest) -> Backend:
    endpoint: str = request.getfixturevalue("s3_endpoint")
    storage = ObjectStorage(s3_server.new_bucket(endpoint).open(), "renter/")
    return Backend(storage, storage)


def _mirror(tmp_path: Path, request: pytest.FixtureRequest) -> Backend:
    first, second = DiskStorage(tmp_path / "first"), ObjectStorage(MemoryStore())
    return Backend(MirroredBlobs(first, second), MirroredRegistry(first, second))


MAKERS: dict[str, Callable[[Path, pytest.FixtureRequest], Backend]] = {
    "disk": _disk,
    "memory": _memory,
    "s3": _s3,
    "mirror": _mirror,
}


@pytest.fixture(params=["disk", "memory", pytest.param("s3", marks=pytest.mark.real), "mirror"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return MAKERS[request.param](tmp_path, request)
