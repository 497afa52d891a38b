"""The machine that a node runs on, as monitoring sees it: processor, memory, disk, GPUs."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU."""

    index: int
    name: str
    busy: float
    """0 to 1: part of the last moment in which something was computed."""
    memory_used: int
    """Bytes."""
    memory_total: int
    temperature: int
    """Degrees Celsius."""


class MachineState(msgspec.Struct, frozen=True, kw_only=True):
    """One look."""

    cpu: float
    """0 to 1 over all cores, since the look before."""
    memory_available: int
    """Bytes that can be had without swapping."""
    memory_total: int
    resident_node: int
    """Bytes in memory of this process."""
    resident_children: int
    """Bytes in memory of the processes that it started: engines, provers."""
    disk_free: int
    """Bytes on the disk of the data directory."""
    disk_total: int
    gpus: tuple[Gpu, ...] = ()
    no_gpus: str = ""
    """Why none is shown."""


class Machine(Protocol):
    """Whoever can look."""

    def look(self) -> MachineState:
        """Blocks for some milliseconds; never raises. Looks again at most every two seconds."""
        ...
