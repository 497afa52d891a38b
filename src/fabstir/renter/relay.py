"""Asks a host over HTTP to send a signed payment to the contract: `POST /v1/jobs`, `POST /v1/jobs/{id}/top-up`.

The answer is a stranger's. Whatever it is, the signed transfer may be sent until it expires, so no answer proves that nothing was
paid; `fabstir.renter.paying` asks the chain. A refusal becomes `relay_refused`, never the code that the host chose.
"""

from __future__ import annotations

from typing import Final, Protocol

import aiohttp
import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import JobId, to_hex
from fabstir.protocol.messages import Error
from fabstir.protocol.relay import Relayed, RelayOpening, RelayTopUp

TIMEOUT_SECONDS: Final = 90.0
"""A transaction is mined within a few seconds; a fee that has to be raised takes a minute."""
MAX_ANSWER_BYTES: Final = 1 << 14

_error: Final = msgspec.json.Decoder(Error)
_relayed: Final = msgspec.json.Decoder(Relayed)


class Relay(Protocol):
    """Somebody with ETH. Raises Refused (`relay_refused`), Interrupted (`host_unreachable`)."""

    async def open(self, url: str, opening: RelayOpening) -> None:
        """The host at `url` says that the job is open."""
        ...

    async def top_up(self, url: str, job: JobId, topping_up: RelayTopUp) -> None:
        """It says that the deposit is there."""
        ...


class HttpRelay:
    """`Relay` over HTTP. Holds one connection pool from the first question until `close`."""

    def __init__(self, timeout: float = TIMEOUT_SECONDS) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<HttpRelay {'open' if self._session else 'closed'}>"

    async def open(self, url: str, opening: RelayOpening) -> None:
        """See `Relay`."""
        await self._post(url.rstrip("/") + "/v1/jobs", msgspec.json.encode(opening))

    async def top_up(self, url: str, job: JobId, topping_up: RelayTopUp) -> None:
        """See `Relay`."""
        await self._post(f"{url.rstrip('/')}/v1/jobs/{to_hex(job)}/top-up", msgspec.json.encode(topping_up))

    async def close(self) -> None:
        """Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, url: str, body: bytes) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        headers = {"content-type": "application/json"}
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                status, text = answer.status, await _read(answer)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as broken:
            raise error("host_unreachable", f"POST /v1/jobs: {type(broken).__name__}") from broken
        if status != 201:
            raise error("relay_refused", _said(status, text))
        try:
            _relayed.decode(text)
        except msgspec.MsgspecError as unreadable:
            raise error("relay_refused", f"POST /v1/jobs: {unreadable}"[:200]) from unreadable


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """As much as an answer may have; more is cut off, and then not understood."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            break
    return bytes(body[:MAX_ANSWER_BYTES])


def _said(status: int, text: bytes) -> str:
    try:
        fault = _error.decode(text)
    except msgspec.MsgspecError:
        return f"POST /v1/jobs answered {status}"
    return f"the host said {fault.code}: {fault.detail or fault.message}"[:300]
