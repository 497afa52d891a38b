"""The kernel's directory of TSM reports, in memory: a machine that can attest itself, or cannot; and a judge of such machines.

Implements `fabstir.ports.attestation.ReportEntries` with the kernel's rules: files exist with their directory, each write counts, and the
quote is made when it is read. The quotes come from whoever makes the fake. Memory: one request each, until it is removed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from fabstir.domain.errors import error
from fabstir.domain.ids import Address, ModelId
from fabstir.ports.chain import HostEntry


class MemoryReports:
    """`make(report data)` is the quote; `provider` is who the kernel says makes it."""

    def __init__(self, make: Callable[[bytes], bytes], provider: bytes = b"tdx_guest\n") -> None:
        self._make = make
        self.provider = provider
        self.entries: dict[str, list[bytes]] = {}
        """What was written to each entry."""
        self.generation: bytes | None = None
        """Where set, the kernel says so instead of counting."""

    def __repr__(self) -> str:
        return f"<MemoryReports entries={len(self.entries)}>"

    def create(self, name: str) -> None:
        """A name is taken once."""
        if name in self.entries:
            raise FileExistsError(errno.EEXIST, "exists", name)
        self.entries[name] = []

    def write(self, name: str, attribute: str, data: bytes) -> None:
        """Only `inblob` can be written."""
        if attribute != "inblob":
            raise PermissionError(errno.EACCES, "read only", attribute)
        self.entries[name].append(data)

    def read(self, name: str, attribute: str) -> bytes:
        """`outblob` needs a question first."""
        written = self.entries[name]
        if attribute == "provider":
            return self.provider
        if attribute == "generation":
            return f"{len(written)}\n".encode() if self.generation is None else self.generation
        if not written:
            raise OSError(errno.EINVAL, "no inblob", attribute)
        return self._make(written[-1])

    def remove(self, name: str) -> None:
        """With its files."""
        del self.entries[name]


class MemoryJudge:
    """`fabstir.ports.attestation.HostAttestations` without quotes: refuses whom the test names. Memory: who was asked."""

    def __init__(self, *refused: Address) -> None:
        self.refused = set(refused)
        self.asked: list[tuple[Address, ModelId]] = []

    def __repr__(self) -> str:
        return f"<MemoryJudge [test double] asked={len(self.asked)}>"

    async def require(self, entry: HostEntry, model: ModelId) -> None:
        """As the port says."""
        self.asked.append((entry.address, model))
        if entry.address in self.refused:
            raise error("attestation_refused", "refused by the test")
