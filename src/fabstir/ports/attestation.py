"""Where quotes of this machine come from, the kernel's interface below that, and who judges those of other machines."""

from __future__ import annotations

from typing import Protocol

from fabstir.domain.ids import ModelId
from fabstir.ports.chain import HostEntry
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


class HostAttestations(Protocol):
    """Asks hosts what they run in, and judges the answer by what the renter demands."""

    async def require(self, entry: HostEntry, model: ModelId) -> None:
        """Have the host attest itself, with a fresh nonce, for its account, its registered key and `model`. Raises PeerFault
        (`attestation_refused`, `request_invalid`), Refused (`attestation_unsupported`), Interrupted (`host_unreachable`), LocalFault
        (`config_invalid`)."""
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
