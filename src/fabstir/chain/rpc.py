"""JSON-RPC over several endpoints in a fixed order of preference.

An endpoint that cannot be reached, answers 5xx or 429, or reports a fault of its own is passed over and rests for a
while, as long as its Retry-After says; one that serves another chain is never used. An answer about the call itself (a
revert, a bad nonce) is final and never retried elsewhere. Raises `chain_unreachable` when nobody answers,
`chain_mismatch` when all serve another chain, `RpcError` (inside this package) for an endpoint's final error. Does not
know what it carries: fees, nonces and reverts are decided by its callers. Who lags or lies: `survey`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from fabstir.domain.errors import FabstirError, error
from fabstir.ports.chain import EndpointState
from fabstir.ports.clock import Clock

ENDPOINT_FAULTS: Final = frozenset({-32603, -32005, -32097, 429})
"""Internal error, limit exceeded, busy, rate limit: about the endpoint, not about the call."""

ROUNDS: Final = 4
"""How often the whole list is tried; with the pauses between, a restart of a local node is survived."""
FIRST_PAUSE: Final = 0.1
"""Seconds after the first round; doubles."""
LONGEST_WAIT: Final = 10.0
"""Seconds that a request waits for endpoints that asked for patience; a longer Retry-After is `chain_unreachable` at once."""
LONGEST_SHUT: Final = 300.0
"""Seconds: no Retry-After is believed beyond this."""
RECHECK_CHAIN: Final = 60.0
"""Seconds until an endpoint that served another chain is asked again which one it serves."""


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

    def __init__(self, words: str, retry_after: str = "") -> None:
        super().__init__(words)
        self.retry_after: Final = retry_after
        """The header, as it came."""


class WrongChain(EndpointDown):
    """One endpoint serves another chain."""


class Endpoint:
    """One URL. Use one endpoint for calls that must see the same chain."""

    def __init__(self, url: str, client: _Client) -> None:
        self._url = url
        self._client = client
        self.resting_until = 0.0
        """Asked only where no other answers."""
        self.shut_until = 0.0
        """Not asked at all: it said so (Retry-After), or it serves another chain."""
        self.lagging = False
        """Its head is behind the others': asked after them."""
        self.right_chain = False
        """It said which chain it serves since it last failed."""
        self.state = "ready"
        """The word for health; what `resting_until` and `lagging` say takes precedence where it is `ready`."""
        self.reason = ""
        """Why it is not ready, without path and credentials."""
        self.head = 0
        """Newest block that it named."""
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
                retry_after = response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as cause:
            raise EndpointDown(f"{self.label}: {type(cause).__name__} {cause}".rstrip()) from cause
        if status >= 500 or status == 429:
            raise EndpointDown(f"{self.label}: HTTP {status}", retry_after)
        try:
            result = self._result(json.loads(raw))
        except ValueError as cause:
            raise EndpointDown(f"{self.label}: HTTP {status}, not JSON") from cause
        self._note_head(method, params, result)
        return result

    def _note_head(self, method: str, params: tuple[object, ...], result: Any) -> None:
        if method == "eth_blockNumber":
            self.head = quantity(result)
        elif method == "eth_getBlockByNumber" and params[0] == "latest" and result is not None:
            self.head = quantity(result["number"])

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
        self._closed = False

    def session(self) -> aiohttp.ClientSession:
        """Raises EndpointDown once it is closed: whoever asks then would leave a connection behind."""
        if self._closed:
            raise EndpointDown("this client is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout))
        return self._session

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None


class JsonRpc:
    """Memory: one entry for each URL. Concurrency: any number of requests; aiohttp keeps at most 100 connections."""

    def __init__(
        self,
        urls: Sequence[str],
        clock: Clock,
        *,
        chain_id: int | None = None,
        timeout: float = 10.0,
        cooldown: float = 5.0,
    ) -> None:
        """`timeout` bounds one request to one endpoint; a failed endpoint rests `cooldown` seconds unless all are failing.

        With `chain_id` every endpoint says which chain it serves before it is used, and again after each failure.
        """
        if not urls:
            raise error("config_invalid", detail="chain.rpc_urls is empty")
        self._client = _Client(timeout)
        self._clock = clock
        self._cooldown = cooldown
        self._chain_id = chain_id
        self.endpoints: Final = tuple(Endpoint(url, self._client) for url in urls)

    def __repr__(self) -> str:
        return f"<JsonRpc {', '.join(f'{state.name} {state.state}' for state in self.describe())}>"

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def describe(self) -> tuple[EndpointState, ...]:
        """How each endpoint is, in the configured order. Asks nobody."""
        return tuple(self._describe(index, endpoint) for index, endpoint in enumerate(self.endpoints))

    def _describe(self, index: int, endpoint: Endpoint) -> EndpointState:
        now, state = self._clock.monotonic(), endpoint.state
        if state == "ready" and endpoint.resting_until > now:
            state = "resting"
        elif state == "ready" and endpoint.lagging:
            state = "lagging"
        elif state != "ready" and max(endpoint.shut_until, endpoint.resting_until) <= now:
            state = "unproven"
        reason = "" if state == "ready" else endpoint.reason
        return EndpointState(name=f"{index} {endpoint.label}", state=state, reason=reason, block=endpoint.head)

    def preferred(self) -> list[Endpoint]:
        """In the configured order: ready ones, then lagging ones, then resting ones, then those that are not to be asked."""
        now = self._clock.monotonic()
        return sorted(self.endpoints, key=lambda e: (e.shut_until > now, e.resting_until > now, e.lagging))

    def rest(self, endpoint: Endpoint, cause: Exception | None = None) -> None:
        """Prefer the others for a while; after `cause`, as long as it demands."""
        now = self._clock.monotonic()
        endpoint.resting_until = now + self._cooldown
        endpoint.right_chain = False
        if cause is not None:
            endpoint.reason = str(cause)
        if isinstance(cause, WrongChain):
            endpoint.state, endpoint.shut_until = "wrong_chain", now + RECHECK_CHAIN
        elif isinstance(cause, EndpointDown) and (wanted := _seconds(cause.retry_after, self._clock.now())):
            endpoint.state, endpoint.shut_until = "rate_limited", now + min(wanted, LONGEST_SHUT)

    def distrust(self, endpoint: Endpoint, reason: str) -> None:
        """It said what cannot be true: prefer the others for a while, and say why."""
        self.rest(endpoint, EndpointDown(f"{endpoint.label}: {reason}"))
        endpoint.state = "untrue"

    async def request(self, method: str, *params: object) -> Any:
        """The result from the first endpoint that gives one. Raises RpcError, `chain_unreachable`, `chain_mismatch`."""
        pause = 0.0
        for _ in range(ROUNDS):
            wait = max(pause, self._shut_for())
            if wait > LONGEST_WAIT:
                break
            if wait:
                await self._clock.sleep(wait)
            pause = pause * 2 or FIRST_PAUSE
            for endpoint in self._open():
                try:
                    result = await self.ask(endpoint, method, *params)
                except EndpointDown as cause:
                    self.rest(endpoint, cause)
                else:
                    self._recovered(endpoint)
                    return result
        raise self._nobody(method)

    async def ask(self, endpoint: Endpoint, method: str, *params: object) -> Any:
        """One endpoint's result, once it has said which chain it serves. Raises RpcError, EndpointDown."""
        if self._chain_id is not None and not endpoint.right_chain:
            served = quantity(await endpoint.request("eth_chainId"))
            if served != self._chain_id:
                raise WrongChain(f"{endpoint.label}: serves chain {served}, wanted {self._chain_id}")
            endpoint.right_chain = True
        return await endpoint.request(method, *params)

    async def pick(self) -> Endpoint:
        """The endpoint for several calls that must see one chain. Raises as `request` does."""
        endpoint = self.preferred()[0]
        unproven = self._chain_id is not None and not endpoint.right_chain
        if unproven or endpoint.shut_until > self._clock.monotonic():
            await self.request("eth_chainId")
        return self.preferred()[0]

    async def everywhere(self, method: str, *params: object) -> list[Any]:
        """The results of all endpoints that give one: for questions where one endpoint's silence proves nothing."""
        asked = [*self._open()]
        answers = await asyncio.gather(*(self.ask(e, method, *params) for e in asked), return_exceptions=True)
        for endpoint, answer in zip(asked, answers, strict=True):
            if isinstance(answer, WrongChain):
                self.rest(endpoint, answer)
            elif isinstance(answer, BaseException) and not isinstance(answer, EndpointDown | RpcError):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    def _open(self) -> list[Endpoint]:
        return [endpoint for endpoint in self.preferred() if endpoint.shut_until <= self._clock.monotonic()]

    def _shut_for(self) -> float:
        """Seconds until the first endpoint may be asked."""
        return max(0.0, min(endpoint.shut_until for endpoint in self.endpoints) - self._clock.monotonic())

    @staticmethod
    def _recovered(endpoint: Endpoint) -> None:
        endpoint.resting_until = endpoint.shut_until = 0.0
        endpoint.state = "ready"

    def _nobody(self, method: str) -> FabstirError:
        reasons = "; ".join(endpoint.reason for endpoint in self.endpoints)
        if all(endpoint.state == "wrong_chain" for endpoint in self.endpoints):
            return error("chain_mismatch", detail=reasons)
        return error("chain_unreachable", detail=f"{method}: {reasons}")


def _seconds(retry_after: str, now: float) -> float:
    """What a Retry-After header asks for: seconds or a date; 0 where it asks for nothing."""
    if retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now)
    except ValueError:
        return 0.0


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
