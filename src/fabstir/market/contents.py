"""Sealed content and prompt jobs at a host, over HTTP: bounded in time and size, never followed elsewhere.

The answers are a stranger's: a blob is checked against its name by the caller, an error is one of our catalogue or
`host_unreachable`. Decides nothing.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final, Protocol

import aiohttp
import msgspec

from fabstir.domain.errors import CATALOGUE, FabstirError, error
from fabstir.domain.ids import Hash32, to_hex
from fabstir.domain.prompts import Cid, PromptId
from fabstir.protocol.http_signing import Answer, Request, verify_answer
from fabstir.protocol.messages import Error
from fabstir.protocol.prompt_wire import WireProgress, WireVoucher
from fabstir.protocol.sealed import MAX_CONTENT

TIMEOUT_SECONDS: Final = 30.0
MAX_BLOB_BYTES: Final = MAX_CONTENT + MAX_CONTENT // 8 + (16 << 10)
MAX_ANSWER_BYTES: Final = 1 << 16

_fault: Final = msgspec.json.Decoder(Error)
_progress: Final = msgspec.json.Decoder(WireProgress)


class Contents(Protocol):
    """What a renter asks of a host about prompt jobs. Raises `host_unreachable`, or what the host said."""

    async def upload(self, url: str, cid: Cid, content: bytes) -> None:
        """Leave a sealed prompt there."""
        ...

    async def download(self, url: str, cid: Cid) -> bytes:
        """Sealed content; not checked against its name."""
        ...

    async def voucher(self, url: str, prompt: PromptId, voucher: WireVoucher) -> None:
        """Hand over the signature for an answer."""
        ...

    async def progress(self, url: str, prompt: PromptId, node: Hash32) -> WireProgress:
        """Where the host is with it, signed by its `node` (of its offer)."""
        ...


class HttpContents:
    """`Contents` over HTTP. Holds one connection pool from the first question until `close`."""

    def __init__(self, now: Callable[[], float], timeout: float = TIMEOUT_SECONDS) -> None:
        """`now`: Unix seconds."""
        self._now = now
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<HttpContents {'open' if self._session else 'closed'}>"

    async def upload(self, url: str, cid: Cid, content: bytes) -> None:
        """Raises `host_unreachable`, `blob_quota`, `prompts_off`, ..."""
        await self._ask("PUT", url, f"/v1/blobs/{to_hex(cid)}", content)

    async def download(self, url: str, cid: Cid) -> bytes:
        """Raises `host_unreachable`, `blob_missing`, ..."""
        return await self._ask("GET", url, f"/v1/blobs/{to_hex(cid)}", most=MAX_BLOB_BYTES)

    async def voucher(self, url: str, prompt: PromptId, voucher: WireVoucher) -> None:
        """Raises `host_unreachable`, `voucher_invalid`, `job_closed`, ..."""
        await self._ask("POST", url, f"/v1/prompts/{to_hex(prompt)}/voucher", msgspec.json.encode(voucher))

    async def progress(self, url: str, prompt: PromptId, node: Hash32) -> WireProgress:
        """Raises `host_unreachable`, `prompt_unknown`, `message_malformed`, `answer_untrusted`."""
        body = await self._ask("GET", url, f"/v1/prompts/{to_hex(prompt)}", node=node)
        try:
            return _progress.decode(body)
        except msgspec.MsgspecError as unreadable:
            raise error("message_malformed", str(unreadable)[:200]) from unreadable

    async def close(self) -> None:
        """Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(
        self,
        method: str,
        url: str,
        path: str,
        data: bytes | None = None,
        *,
        most: int = MAX_ANSWER_BYTES,
        node: Hash32 | None = None,
    ) -> bytes:
        """`node` signs the answer; None: what is asked for says itself whether it is right, or nothing hangs on it."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        given = None if data is None else io.BytesIO(data)
        try:
            async with self._session.request(
                method, url.rstrip("/") + path, data=given, allow_redirects=False
            ) as answer:
                body = await _read(answer, most)
                status, headers = answer.status, {name.lower(): value for name, value in answer.headers.items()}
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as broken:
            raise error("host_unreachable", f"{method} {path[:20]}: {type(broken).__name__}") from broken
        if node is not None:
            verify_answer(node, Answer(Request(method, path), status, headers), body, self._now())
        if status >= 300:
            raise _refusal(status, body)
        return body


def _refusal(status: int, body: bytes) -> FabstirError:
    try:
        said = _fault.decode(body)
    except msgspec.MsgspecError:
        return error("host_unreachable", f"the host answered {status}")
    return error(said.code if said.code in CATALOGUE else "host_unreachable", said.detail[:200])


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    body = bytearray()
    async for piece in answer.content.iter_chunked(1 << 16):
        body += piece
        if len(body) > most:
            raise error("message_malformed", f"more than {most} bytes")
    return bytes(body)
