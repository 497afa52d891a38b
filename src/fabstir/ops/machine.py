"""Looks at this machine: psutil for processor, memory and disk, NVIDIA's library for GPUs where the extra `nvidia` is installed.

Never raises: what cannot be read is 0, and why no GPU is shown is said. Measures nothing by itself; whoever asks pays.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

from fabstir.ports.machine import Gpu, MachineState

FRESH_SECONDS: Final = 2.0


class SystemMachine:
    """As `fabstir.ports.machine.Machine`. Memory: the last look."""

    def __init__(self, directory: Path, monotonic: Callable[[], float]) -> None:
        """`directory`: whose disk is watched."""
        self._directory = directory
        self._monotonic = monotonic
        self._node = psutil.Process()
        self._nvml, self._no_gpus = _library()
        self._last: tuple[float, MachineState] | None = None
        self._one = threading.Lock()
        psutil.cpu_percent()  # the first look has nothing to compare with

    def look(self) -> MachineState:
        """See the port."""
        with self._one:
            now = self._monotonic()
            if self._last is None or now - self._last[0] >= FRESH_SECONDS:
                self._last = (now, self._see())
            return self._last[1]

    def _see(self) -> MachineState:
        memory = psutil.virtual_memory()
        free = total = 0
        with contextlib.suppress(OSError):
            disk = psutil.disk_usage(str(self._directory))
            free, total = disk.free, disk.total
        gpus, why = self._gpus()
        return MachineState(
            cpu=psutil.cpu_percent() / 100,
            memory_available=min(memory.available, _group_left()),
            memory_total=memory.total,
            resident_node=self._node.memory_info().rss,
            resident_children=_resident(self._node),
            disk_free=free,
            disk_total=total,
            gpus=gpus,
            no_gpus=why,
        )

    def _gpus(self) -> tuple[tuple[Gpu, ...], str]:
        if self._nvml is None:
            return (), self._no_gpus
        try:
            return tuple(_gpu(self._nvml, index) for index in range(self._nvml.nvmlDeviceGetCount())), ""
        except self._nvml.NVMLError as fault:
            return (), f"NVIDIA's driver does not answer: {fault}"


def _group_left(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes until the kernel ends a process of our control group; as good as endless where there is no limit."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        cache = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, int(limit) - used + int(cache["inactive_file"])) if limit != "max" else sys.maxsize
    except (OSError, ValueError, KeyError):
        return sys.maxsize


def _resident(node: psutil.Process) -> int:
    """Children that end meanwhile count nothing."""
    total = 0
    for child in node.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += child.memory_info().rss
    return total


def _library() -> tuple[Any, str]:
    try:
        import pynvml  # noqa: PLC0415 - an extra
    except ImportError:
        return None, "nvidia-ml-py is not installed (extra `nvidia`)"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as fault:
        return None, f"no NVIDIA driver: {fault}"
    return pynvml, ""


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name, memory = nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        index=index,
        name=name.decode() if isinstance(name, bytes) else name,
        busy=nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        memory_used=memory.used,
        memory_total=memory.total,
        temperature=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
    )
