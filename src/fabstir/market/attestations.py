"""Asks a host over HTTP what it runs in: `GET /v1/attestation?nonce=`, bounded in time and size. Verifies nothing."""

from __future__ import annotations

from typing import Final

import aiohttp

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32, to_hex
from fabstir.market.offers import read_bounded

TIMEOUT_SECONDS: Final = 15.0
"""A quote is made while we wait, and others may wait for theirs."""
MAX_CLAIM_BYTES: Final = 1 << 16


class HttpAttestations:
    """Holds one connection pool from the first question until `close`."""

    def __init__(self, timeout: float = TIMEOUT_SECONDS) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<HttpAttestations {'open' if self._session else 'closed'}>"

    async def ask(self, url: str, nonce: Hash32) -> bytes:
        """The claim as the host wrote it. Raises Interrupted (`host_unreachable`), PeerFault (`message_malformed`)."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        path = "/v1/attestation"
        try:
            address, query = url.rstrip("/") + path, {"nonce": to_hex(nonce)}
            async with self._session.get(address, params=query, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise error("host_unreachable", f"GET {path} answered {answer.status}")
                return await read_bounded(answer, MAX_CLAIM_BYTES, path)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as broken:
            raise error("host_unreachable", f"GET {path}: {type(broken).__name__}") from broken

    async def close(self) -> None:
        """Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
