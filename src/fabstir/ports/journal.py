"""The append-only log, one stream per job, and the outbox of transactions. Counts, hashes, signatures; never text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from fabstir.domain.ids import Hash32

NO_BLOCK: Final = Hash32(bytes(32))


class OutboxEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction that must happen once. Stored with its signed form before it is sent."""

    key: str
    """Names the intent, unique for ever, e.g. `redeem:0x..:4096`: asking twice for the same key sends once."""
    sender: str
    to: str
    data: bytes
    value: int = 0
    nonce: int | None = None
    raw: tuple[bytes, ...] = ()
    """Every signed form that was or may have been sent, oldest first (fee bumps share the nonce)."""
    hashes: tuple[Hash32, ...] = ()
    status: str = "planned"
    """planned, signed, mined, reverted, abandoned. `mined` and `reverted` are final: buried beyond any reorganisation."""
    block: int = 0
    """Where it was seen last; 0: in no block. A signed entry with a block has its result, and may lose it again."""
    block_hash: Hash32 = NO_BLOCK
    gas_used: int = 0
    error: str = ""
    """Why it failed; empty for a success."""
    created_at: float = 0.0


class Journal(Protocol):
    """Durable when the call returns. Raises LocalFault (`journal_failed`)."""

    async def append(self, stream: str, events: Sequence[bytes]) -> None:
        """Append all of `events` to `stream`, in one transaction."""
        ...

    async def read(self, stream: str) -> list[bytes]:
        """Every event of `stream`, oldest first."""
        ...

    async def streams(self) -> list[str]:
        """Every stream, oldest first."""
        ...


class OutboxStore(Protocol):
    """Where the transaction outbox survives a crash."""

    async def put(self, entry: OutboxEntry) -> None:
        """Insert or replace by `key`."""
        ...

    async def get(self, key: str) -> OutboxEntry | None:
        """The entry, if any."""
        ...

    async def unfinished(self) -> list[OutboxEntry]:
        """Entries that are planned or signed, oldest first."""
        ...
