"""A real S3 server of this machine, in a thread: moto's, which keeps conditions and signatures' form, though not the disk."""

from __future__ import annotations

import itertools
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer

from fabstir.storage.s5.objects import S3Place

_BUCKETS = itertools.count(1)


@contextmanager
def serving() -> Iterator[str]:
    """Its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def new_bucket(endpoint: str) -> S3Place:
    """An empty bucket."""
    name = f"bucket-{next(_BUCKETS)}"
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT"), timeout=10):
        pass
    return S3Place(name, endpoint, "us-east-1", "key", "secret", allow_http=True, timeout=5)
