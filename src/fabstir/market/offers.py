"""Asks a host for its offer over HTTP: `GET /v1/offer`, bounded in time and size.

The answer is a stranger's: it must be signed by the account that it names, it is never followed elsewhere (no redirects) and never
believed further than `fabstir.market.choice` checks it against the chain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import aiohttp

from fabstir.domain.errors import error
from fabstir.protocol.offer import Offer
from fabstir.protocol.signed_offer import read_offer

TIMEOUT_SECONDS: Final = 3.0
MAX_OFFER_BYTES: Final = 1 << 18


class HttpOffers:
    """`OfferSource` over HTTP. Holds one connection pool from the first question until `close`."""

    def __init__(self, now: Callable[[], float], timeout: float = TIMEOUT_SECONDS) -> None:
        """`now`: Unix seconds."""
        self._now = now
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<HttpOffers {'open' if self._session else 'closed'}>"

    async def fetch(self, url: str) -> Offer:
        """Raises Interrupted (`host_unreachable`), PeerFault (`message_malformed`, `offer_untrusted`)."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.get(url.rstrip("/") + "/v1/offer", allow_redirects=False) as answer:
                if answer.status != 200:
                    raise error("host_unreachable", f"GET /v1/offer answered {answer.status}")
                body = await read_bounded(answer, MAX_OFFER_BYTES, "/v1/offer")
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as broken:
            raise error("host_unreachable", f"GET /v1/offer: {type(broken).__name__}") from broken
        return read_offer(body, self._now())

    async def close(self) -> None:
        """Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def read_bounded(answer: aiohttp.ClientResponse, limit: int, path: str) -> bytes:
    """The whole answer to GET `path`. Raises PeerFault (`message_malformed`) where it is longer than `limit`."""
    body = bytearray()
    async for piece in answer.content.iter_chunked(1 << 14):
        body += piece
        if len(body) > limit:
            raise error("message_malformed", f"GET {path}: more than {limit} bytes")
    return bytes(body)
