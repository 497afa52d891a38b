"""A machine that is as a test wants it."""

from __future__ import annotations

from fabstir.ports.machine import Gpu, MachineState

CALM = MachineState(
    cpu=0.25,
    memory_available=6 << 30,
    memory_total=8 << 30,
    resident_node=100 << 20,
    resident_children=900 << 20,
    disk_free=50 << 30,
    disk_total=100 << 30,
    gpus=(Gpu(index=0, name="test", busy=0.5, memory_used=1 << 30, memory_total=4 << 30, temperature=60),),
)


class StillMachine:
    """As `fabstir.ports.machine.Machine`; shows `state`."""

    def __init__(self, state: MachineState = CALM) -> None:
        self.state = state

    def look(self) -> MachineState:
        """What it was given."""
        return self.state
