"""Asks the Linux kernel for a TDX quote of this virtual machine, through configfs (`/sys/kernel/config/tsm/report`, Linux 6.7).

Specification: Documentation/ABI/testing/configfs-tsm in the kernel's sources. Works only inside a TDX virtual machine whose hypervisor
offers quotes; everywhere else, and where the kernel makes another format than the one that is verified here, it is
`attestation_unavailable`, and nothing is made up instead. Never verifies what it gets beyond its form: whoever asks does that.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import Final

from fabstir.domain.errors import FabstirError, error
from fabstir.ports.attestation import ReportEntries
from fabstir.proofs.attestation.quote import parse_quote
from fabstir.protocol.attestation import AttestationFault, Format

TSM_REPORTS: Final = Path("/sys/kernel/config/tsm/report")
TDX_GUEST: Final = b"tdx_guest"
"""What the kernel's TDX driver calls itself in the file `provider`."""
REPORT_DATA: Final = 64


class ConfigfsEntries:
    """The kernel's directory. Implements `fabstir.ports.attestation.ReportEntries`."""

    def __init__(self, directory: Path = TSM_REPORTS) -> None:
        self._directory = directory

    def create(self, name: str) -> None:
        """mkdir."""
        (self._directory / name).mkdir()

    def write(self, name: str, attribute: str, data: bytes) -> None:
        """In one call to the kernel: two writes would be two questions."""
        handle = os.open(self._directory / name / attribute, os.O_WRONLY)
        try:
            written = os.write(handle, data)
        finally:
            os.close(handle)
        if written != len(data):
            raise OSError(f"{attribute} took {written} of {len(data)} bytes")

    def read(self, name: str, attribute: str) -> bytes:
        """To the end."""
        return (self._directory / name / attribute).read_bytes()

    def remove(self, name: str) -> None:
        """rmdir; the kernel removes the files."""
        (self._directory / name).rmdir()


class ConfigfsTdx:
    """Quotes of this machine. Implements `fabstir.ports.attestation.QuoteProvider`. No state; each quote is a request of its own."""

    format: Final = Format.TDX_QUOTE_4

    def __init__(self, entries: ReportEntries | None = None) -> None:
        self._entries: ReportEntries = ConfigfsEntries() if entries is None else entries

    async def quote(self, report_data: bytes) -> bytes:
        """Of version 4, with `report_data` in it. Raises LocalFault (`attestation_unavailable`)."""
        return await asyncio.to_thread(self._quote, report_data)

    def _quote(self, report_data: bytes) -> bytes:
        if len(report_data) != REPORT_DATA:
            raise ValueError(f"report data has {REPORT_DATA} bytes")
        name = f"fabstir-{os.getpid()}-{secrets.token_hex(8)}"
        try:
            self._entries.create(name)
            try:
                quote = self._ask(name, report_data)
            finally:
                self._entries.remove(name)
        except OSError as refused:
            raise _unavailable(f"the kernel's interface {TSM_REPORTS}: {refused}") from refused
        return _as_asked(quote, report_data)

    def _ask(self, name: str, report_data: bytes) -> bytes:
        """The kernel counts writes in `generation`, so that an answer to somebody else's question is noticed."""
        provider = self._entries.read(name, "provider").strip()
        if provider != TDX_GUEST:
            raise _unavailable(f"the kernel's reports are of {provider.decode(errors='replace')!r}, not of TDX")
        before = self._generation(name)
        self._entries.write(name, "inblob", report_data)
        quote = self._entries.read(name, "outblob")
        writes = self._generation(name) - before
        if writes != 1:
            raise _unavailable(f"{writes} questions were asked at once through one entry")
        return quote

    def _generation(self, name: str) -> int:
        text = self._entries.read(name, "generation").strip()
        if not text.isdigit():
            raise _unavailable("the kernel's `generation` is no number")
        return int(text)


def _unavailable(detail: str) -> FabstirError:
    return error("attestation_unavailable", detail)


def _as_asked(quote: bytes, report_data: bytes) -> bytes:
    try:
        found = parse_quote(quote).td.measurements.report_data
    except AttestationFault as fault:
        raise _unavailable(f"the machine's quote is not read here: {fault.failure.detail}") from fault
    if found != report_data:
        raise _unavailable("the machine's quote answers another question")
    return quote
