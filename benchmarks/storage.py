"""Claim: durable storage by content costs what the disk costs. 4 KiB put on the local disk, median milliseconds until it is synced under
its name, against the same four system calls by hand (write aside, fsync, rename, fsync of the directory).

Both sides take turns, file by file, on the same disk. Besides: each backend's put and get at the median and the 95th percentile (the
S3 server is moto's, in a thread of this process, so its figures are mostly moto's), and files by path on the disk: a put there is
the sealed content, the sealed directory and the signed pointer, each synced. `drive_at_once_*`: puts that wait together share a
directory and a pointer. `large_*`: 64 MiB, encrypted and synced. Wall time, since waiting for the disk is what is measured.
"""

from __future__ import annotations

import asyncio
import logging
import os
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import main
from moto.server import ThreadedMotoServer
from obstore.store import MemoryStore

from fabstir.ports.storage import BlobBackend
from fabstir.protocol.storage.blob_id import hash_of
from fabstir.protocol.storage.keys import Identity
from fabstir.storage.s5.disk import DiskStorage
from fabstir.storage.s5.drive import Drive
from fabstir.storage.s5.objects import ObjectStorage, S3Place
from fabstir.testing.clock import ManualClock

SIZE = 4096
LARGE = 64 << 20


def by_hand(root: Path, content: bytes) -> None:
    """What the disk backend promises, without anything else."""
    name = hash_of(content).hex()
    aside, path = root / "aside", root / name[:2] / name
    path.parent.mkdir(exist_ok=True)
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


async def timed(act: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    await act()
    return (time.perf_counter() - began) * 1e3


def spread(name: str, samples: list[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    return {
        f"{name}_p50_ms": round(statistics.median(samples), 3),
        f"{name}_p95_ms": round(statistics.quantiles(samples, n=20)[-1], 3),
    }


async def against_hand(root: Path, count: int) -> tuple[float, float]:
    """Medians of the disk backend and of the calls by hand, taking turns."""
    storage, hand = DiskStorage(root / "ours"), root / "hand"
    hand.mkdir()
    ours, peer = [], []
    for _ in range(count):
        content = os.urandom(SIZE)
        ours.append(await timed(lambda: storage.put(content)))  # noqa: B023 (awaited at once)
        peer.append(await timed(lambda: asyncio.to_thread(by_hand, hand, content)))  # noqa: B023
    return statistics.median(ours), statistics.median(peer)


async def backend(name: str, blobs: BlobBackend, count: int) -> dict[str, float]:
    """Put and get of 4 KiB, one after the other."""
    contents = [os.urandom(SIZE) for _ in range(count)]
    puts = [await timed(lambda: blobs.put(content)) for content in contents]  # noqa: B023
    gets = [await timed(lambda: blobs.get(hash_of(content))) for content in contents]  # noqa: B023
    return spread(f"{name}_put", puts) | spread(f"{name}_get", gets)


async def by_path(root: Path, count: int) -> dict[str, float]:
    """A drive on the disk."""
    storage = DiskStorage(root)
    drive = Drive(Identity.of(os.urandom(16)).root(), storage, storage, ManualClock())
    content = os.urandom(SIZE)
    puts = [await timed(lambda: drive.put(f"notes/{number}", content)) for number in range(count)]  # noqa: B023
    gets = [await timed(lambda: drive.get(f"notes/{number}")) for number in range(count)]  # noqa: B023
    together = await timed(lambda: asyncio.gather(*(drive.put(f"many/{number}", content) for number in range(500))))
    large = os.urandom(LARGE)
    put, get = await timed(lambda: drive.put("large", large)), await timed(lambda: drive.get("large"))
    await drive.close()
    return {
        **spread("drive_put", puts),
        **spread("drive_get", gets),
        "drive_at_once_puts_per_s": round(500 / together * 1e3),
        "large_put_mib_per_s": round(64 / put * 1e3),
        "large_get_mib_per_s": round(64 / get * 1e3),
    }


@contextmanager
def s3_server() -> Iterator[S3Place]:
    """A real S3 protocol, spoken by a server in this process."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        with urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bench", method="PUT"), timeout=10):
            pass
        yield S3Place("bench", f"http://{host}:{port}", "us-east-1", "key", "secret", allow_http=True)
    finally:
        server.stop()


async def measured(quick: bool, s3: S3Place) -> dict[str, Any]:
    count = 200 if quick else 1_000
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        root = Path(directory)
        ours, peer = await against_hand(root, count)
        figures = await backend("disk", DiskStorage(root / "disk"), count)
        figures |= await backend("memory", ObjectStorage(MemoryStore()), count)
        figures |= await backend("s3_moto", ObjectStorage(s3.open()), count // 4)
        figures |= await by_path(root / "drive", count // 2)
    return {
        "claim": "median ms of a durable put of 4 KiB on the disk, against the same system calls by hand",
        "ours": round(ours, 3),
        "peer": round(peer, 3),
        "ratio": round(ours / peer, 2),
        "unit": "ms",
        "n": count,
        **figures,
    }


def measure(quick: bool) -> dict[str, Any]:
    """Everything, in the file system of the working directory: a temporary directory may be in memory."""
    with s3_server() as s3:
        return asyncio.run(measured(quick, s3))


if __name__ == "__main__":
    main(measure, (__doc__ or "").partition("\n")[0])
