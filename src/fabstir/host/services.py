"""What every session of a node shares: handed to each actor as one."""

from __future__ import annotations

from typing import NamedTuple

from fabstir.host.fingerprinting import Fingerprinting
from fabstir.host.jobs import JobBook
from fabstir.host.shelf import Shelf
from fabstir.ops.metrics import Metrics
from fabstir.ports.chain import MarketChain
from fabstir.ports.clock import Clock
from fabstir.ports.spans import Spans


class Services(NamedTuple):
    """What every session of a node shares."""

    shelf: Shelf
    chain: MarketChain
    book: JobBook
    clock: Clock
    metrics: Metrics
    fingerprinting: Fingerprinting | None = None
    """None: none are made."""
    spans: Spans | None = None
    """None: nothing is traced."""
