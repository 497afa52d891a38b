"""HTTP to one inference server: requests in, decoded answers out, faults translated. Decides nothing about what is said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from fabstir.domain.errors import error
from fabstir.engines.server_errors import refusal, translated

STALL_SECONDS: Final = 300.0
"""A stream that is silent for longer is given up. llama.cpp reports progress while it evaluates a prompt and pings every 30 s."""
HEALTH_SECONDS: Final = 2.0
JSON_TYPE: Final = {"Content-Type": "application/json"}

Answer = TypeVar("Answer")


class ServerSession:
    """One server, over TCP or a UNIX socket. Owns its aiohttp session; `close` it."""

    def __init__(self, base_url: str, api_key: str, unix_socket: str = "") -> None:
        """`base_url` without the `/v1`. On a UNIX socket its host name means nothing."""
        self._base = base_url.rstrip("/")
        # Connections are not reused: a pooled one that the server closed meanwhile fails the next request.
        connector: aiohttp.BaseConnector
        if unix_socket:
            connector = aiohttp.UnixConnector(unix_socket, limit=0, force_close=True)
        else:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._http = aiohttp.ClientSession(
            connector=connector,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=STALL_SECONDS),
        )

    def __repr__(self) -> str:
        return f"<ServerSession {self._base}{' closed' if self._http.closed else ''}>"

    async def close(self) -> None:
        """Running requests end with `engine_gone`. Idempotent."""
        await self._http.close()

    async def answers(self) -> bool:
        """Whether the server says that it is ready. Never raises."""
        if self._http.closed:
            return False
        timeout = aiohttp.ClientTimeout(total=HEALTH_SECONDS)
        try:
            async with self._http.get(self._base + "/health", timeout=timeout) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    async def look(self, path: str, kind: type[Answer]) -> Answer | None:
        """What is at `path`; None where the server shows nothing of that kind there."""
        self._require_open()
        with translated():
            async with self._http.get(self._base + path) as response:
                body = await response.read()
        try:
            return msgspec.json.decode(body, type=kind) if response.status == 200 else None
        except msgspec.DecodeError:
            return None

    async def ask(self, path: str, body: dict[str, Any], kind: type[Answer]) -> Answer:
        """The answer to `body`. Raises as `post`."""
        async with self.post(path, body) as response:
            return msgspec.json.decode(await response.read(), type=kind)

    @asynccontextmanager
    async def post(self, path: str, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful answer to `body`, not yet read; faults while it is read are translated too."""
        self._require_open()
        with translated():
            data = msgspec.json.encode(body)
            async with self._http.post(self._base + path, data=data, headers=JSON_TYPE) as response:
                if response.status != 200:
                    raise refusal(response.status, await response.read())
                yield response

    def _require_open(self) -> None:
        if self._http.closed:
            raise error("engine_gone", "stopped")
