"""Where quotes of this machine come from, and the kernel's interface below that."""

from __future__ import annotations

from typing import Protocol

from fabstir.protocol.attestation import Format


class QuoteProvider(Protocol):
    """Something on this machine that vouches for it."""

    @property
    def format(self) -> Format:
        """Of the quotes that it makes."""
        ...

    async def quote(self, report_data: bytes) -> bytes:
        """A quote with these 64 bytes in it. Raises LocalFault (`attestation_unavailable`)."""
        ...


class ReportEntries(Protocol):
    """Linux' configfs directory of TSM reports: a subdirectory is one request, its files are question and answer.

    Every call may raise OSError, as the kernel does.
    """

    def create(self, name: str) -> None:
        """Make the subdirectory; the kernel fills it with files."""
        ...

    def write(self, name: str, attribute: str, data: bytes) -> None:
        """Write one file."""
        ...

    def read(self, name: str, attribute: str) -> bytes:
        """Read one file; reading `outblob` makes the quote."""
        ...

    def remove(self, name: str) -> None:
        """Take the subdirectory away, with its files."""
        ...
