"""Monitoring of the machine: what is there is shown, what is not is said, and what runs short is named."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from fabstir.host.health import MachinePart
from fabstir.ops.machine import SystemMachine
from fabstir.testing.clock import ManualClock
from fabstir.testing.machine import CALM


class NvmlError(Exception):
    """As the library's."""


def library(**changes: object) -> SimpleNamespace:
    """NVIDIA's library, for one GPU."""
    made = SimpleNamespace(
        NVMLError=NvmlError,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda _handle: b"H100",
        nvmlDeviceGetMemoryInfo=lambda _handle: SimpleNamespace(used=5, total=9),
        nvmlDeviceGetUtilizationRates=lambda _handle: SimpleNamespace(gpu=50),
        nvmlDeviceGetTemperature=lambda _handle, _kind: 61,
    )
    vars(made).update(changes)
    return made


def no_driver() -> None:
    raise NvmlError("Driver Not Loaded")


def test_this_machine_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real figures of processor, memory and disk; asked again at once, the same ones."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    clock = ManualClock()
    machine = SystemMachine(tmp_path, clock.monotonic)
    seen = machine.look()
    assert 0 <= seen.cpu <= 1 and 0 < seen.memory_available < seen.memory_total
    assert seen.resident_node > 1 << 20 and 0 < seen.disk_free < seen.disk_total
    assert (seen.gpus, seen.no_gpus) == ((), "nvidia-ml-py is not installed (extra `nvidia`)")
    assert machine.look() is seen


@pytest.mark.parametrize(
    ("given", "count", "why"),
    [
        (library(), 1, ""),
        (library(nvmlInit=no_driver), 0, "no NVIDIA driver: Driver Not Loaded"),
        (library(nvmlDeviceGetCount=no_driver), 0, "NVIDIA's driver does not answer: Driver Not Loaded"),
    ],
)
def test_gpus_are_seen_or_it_is_said_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: SimpleNamespace, count: int, why: str
) -> None:
    """A library without a driver, and a driver that goes away, stop nothing."""
    monkeypatch.setitem(sys.modules, "pynvml", given)
    seen = SystemMachine(tmp_path / "gone", ManualClock().monotonic).look()
    assert (len(seen.gpus), seen.no_gpus, seen.disk_total) == (count, why, 0)
    if count:
        (gpu,) = seen.gpus
        assert (gpu.name, gpu.busy, gpu.memory_used, gpu.temperature) == ("H100", 0.5, 5, 61)


def test_what_runs_short_is_named() -> None:
    """Memory and disk, each with what is left."""
    assert MachinePart.of(CALM).status == "ok"
    short = msgspec.structs.replace(CALM, memory_available=100 << 20, disk_free=3 << 20)
    part = MachinePart.of(short)
    assert part.status == "strained"
    assert part.reason == "100 MiB of memory left, 3 MiB of disk left under host.data_dir"
