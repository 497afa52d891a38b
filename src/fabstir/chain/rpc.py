"""JSON-RPC over several endpoints in a fixed order of preference.

An endpoint that cannot be reached, answers 5xx or 429, or reports a fault of its own is passed over and rests for a
while; an answer about the call itself (a revert, a bad nonce) is final and never retried elsewhere. Raises
`chain_unreachable` when nobody answers, `RpcError` (inside this package) for an endpoint's final error. Does not know
what it carries: fees, nonces and reverts are decided by its callers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from fabstir.domain.errors import error
from fabstir.ports.clock import Clock

ENDPOINT_FAULTS: Final = frozenset({-32603, -32005, -32097, 429})
"""Internal error, limit exceeded, busy, rate limit: about the endpoint, not about the call."""

ROUNDS: Final = 4
"""How often the whole list is tried; with the pauses between, a restart of a local node is survived."""
FIRST_PAUSE: Final = 0.1
"""Seconds after the first round; doubles."""


class RpcError(Exception):
    """An endpoint's final answer to one call is an error."""

    def __init__(self, code: int, message: str, data: bytes = b"", endpoint: str = "") -> None:
        super().__init__(code, message)
        self.code: Final = code
        self.message: Final = message
        self.data: Final = data
        """What the EVM returned on a revert; empty otherwise."""
        self.endpoint: Final = endpoint

    @property
    def reverted(self) -> bool:
        """The EVM refused, not the node."""
        return bool(self.data) or "revert" in self.message.lower()


class EndpointDown(Exception):
    """One endpoint gave no usable answer."""


class Endpoint:
    """One URL. Use one endpoint for calls that must see the same chain."""

    def __init__(self, url: str, client: _Client) -> None:
        self._url = url
        self._client = client
        self.resting_until = 0.0
        parts = urlsplit(url)
        self.label: Final = (
            f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}"
        )
        """Without path and credentials, which may hold somebody's key."""

    def __repr__(self) -> str:
        return f"<Endpoint {self.label}>"

    async def request(self, method: str, *params: object) -> Any:
        """The result. Raises RpcError, or EndpointDown where there is none."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            async with self._client.session().post(self._url, json=body) as response:
                status, raw = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as cause:
            raise EndpointDown(f"{self.label}: {type(cause).__name__} {cause}".rstrip()) from cause
        if status >= 500 or status == 429:
            raise EndpointDown(f"{self.label}: HTTP {status}")
        try:
            return self._result(json.loads(raw))
        except ValueError as cause:
            raise EndpointDown(f"{self.label}: HTTP {status}, not JSON") from cause

    def _result(self, answer: Any) -> Any:
        if not isinstance(answer, dict) or not ("result" in answer or isinstance(answer.get("error"), dict)):
            raise EndpointDown(f"{self.label}: neither result nor error")
        fault = answer.get("error")
        if fault is None:
            return answer["result"]
        said = RpcError(int(fault.get("code", 0)), str(fault.get("message", "")), _data(fault.get("data")), self.label)
        if said.code in ENDPOINT_FAULTS and not said.reverted:
            raise EndpointDown(f"{self.label}: {said.message}") from said
        raise said


class _Client:
    """The HTTP session, made when first used so that a JsonRpc can be built outside the event loop."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout))
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class JsonRpc:
    """Memory: one entry for each URL. Concurrency: any number of requests; aiohttp keeps at most 100 connections."""

    def __init__(self, urls: Sequence[str], clock: Clock, *, timeout: float = 10.0, cooldown: float = 5.0) -> None:
        """`timeout` bounds one request to one endpoint; a failed endpoint rests `cooldown` seconds unless all are failing."""
        if not urls:
            raise error("config_invalid", detail="chain.rpc_urls is empty")
        self._client = _Client(timeout)
        self._clock = clock
        self._cooldown = cooldown
        self.endpoints: Final = tuple(Endpoint(url, self._client) for url in urls)

    def __repr__(self) -> str:
        now = self._clock.monotonic()
        states = (f"{e.label} {'resting' if e.resting_until > now else 'ready'}" for e in self.endpoints)
        return f"<JsonRpc {', '.join(states)}>"

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def preferred(self) -> list[Endpoint]:
        """Ready ones in the configured order, then resting ones in that order."""
        now = self._clock.monotonic()
        return sorted(self.endpoints, key=lambda endpoint: endpoint.resting_until > now)

    def rest(self, endpoint: Endpoint) -> None:
        """Prefer the others for a while."""
        endpoint.resting_until = self._clock.monotonic() + self._cooldown

    async def request(self, method: str, *params: object) -> Any:
        """The result from the first endpoint that gives one. Raises RpcError, `chain_unreachable`."""
        pause, reasons = FIRST_PAUSE, dict[str, str]()
        for attempt in range(ROUNDS):
            if attempt:
                await self._clock.sleep(pause)
                pause *= 2
            for endpoint in self.preferred():
                try:
                    result = await endpoint.request(method, *params)
                except EndpointDown as cause:
                    self.rest(endpoint)
                    reasons[endpoint.label] = str(cause)
                else:
                    endpoint.resting_until = 0.0
                    return result
        raise error("chain_unreachable", detail=f"{method}: {'; '.join(reasons.values())}")

    async def everywhere(self, method: str, *params: object) -> list[Any]:
        """The results of all endpoints that give one: for questions where one endpoint's silence proves nothing."""
        answers = await asyncio.gather(*(e.request(method, *params) for e in self.endpoints), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, EndpointDown | RpcError):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]


def _data(value: object) -> bytes:
    # geth and anvil give the revert data as a string; some proxies wrap it in an object.
    if isinstance(value, dict):
        value = value.get("data")
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            return b""
    return b""


def quantity(text: str) -> int:
    """A number as JSON-RPC writes it (`0x1a`)."""
    return int(text, 16)
