"""Claim: over endpoints where a fifth of all calls fail, every send is confirmed once. The peer is web3.py with a retry loop.

N sends at once, through two proxies that fail 20 % of the calls: half of these before the node heard of them, half after it did what was
asked. Counted by the chain: the balance of each send's own target says whether its money came once, twice or never. The peer sends one
after the other, so that it need not share out nonces: it takes the nonce from the node, signs, sends, waits for the receipt, and does
all of it again when a call fails; web3.py's own retries are on.
"""

from __future__ import annotations

import asyncio
import random
import time
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import web
from common import main
from eth_account import Account
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3.exceptions import Web3Exception

from fabstir.chain.anvil import find_anvil
from fabstir.chain.devnet import CHAIN_ID, DEV_KEYS, Devnet
from fabstir.chain.outbox import Outbox
from fabstir.chain.rpc import JsonRpc, quantity
from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Address, to_hex
from fabstir.ops import logging, paths
from fabstir.ops.clock import SystemClock
from fabstir.ops.config import LogSection
from fabstir.protocol.signing import SigningKey, keccak
from fabstir.testing.journal import MemoryJournal

RATE = 0.2
AMOUNT = 7
ATTEMPTS = 8
"""How often the peer tries one send."""
PAUSE_SECONDS = 0.02
RECEIPT_SECONDS = 5.0
"""How long the peer waits for one receipt; the devnet makes a block for each transaction at once."""


class FailingProxy:
    """A JSON-RPC proxy: a share of the calls is refused, or answered by a broken connection after the node has served it."""

    def __init__(self, target: str, seed: int) -> None:
        self._target = target
        self._random = random.Random(seed)
        self.calls = self.failed = 0

    async def __aenter__(self) -> FailingProxy:
        application = web.Application()
        application.router.add_post("/", self._serve)
        self._client = aiohttp.ClientSession()
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _serve(self, request: web.Request) -> web.Response:
        fails, early = self._random.random() < RATE, self._random.random() < 0.5
        self.calls += 1
        self.failed += fails
        body = await request.read()
        if fails and early:
            return web.Response(status=503)
        async with self._client.post(self._target, data=body, headers={"content-type": "application/json"}) as answer:
            content = await answer.read()
        if fails and request.transport is not None:
            request.transport.abort()
        return web.Response(body=content, content_type="application/json")


def target_of(run: str, number: int) -> Address:
    """An account that nobody else pays."""
    return Address(keccak(f"{run} {number}".encode())[:20])


async def _tally(url: str, run: str, count: int) -> dict[str, int]:
    """What the chain says: how many sends came once, more than once, never."""
    rpc = JsonRpc([url], SystemClock())
    try:
        asked = (rpc.request("eth_getBalance", to_hex(target_of(run, n)), "latest") for n in range(count))
        times = [quantity(balance) // AMOUNT for balance in await asyncio.gather(*asked)]
    finally:
        await rpc.close()
    return {"once": times.count(1), "twice": sum(n > 1 for n in times), "never": times.count(0)}


async def _ours(url: str, count: int) -> dict[str, Any]:
    async with FailingProxy(url, 1) as one, FailingProxy(url, 2) as two:
        rpc = JsonRpc([one.url, two.url], SystemClock(), cooldown=0.05)
        outbox = Outbox(rpc, MemoryJournal(), SigningKey(DEV_KEYS[1]), SystemClock(), chain_id=CHAIN_ID)

        async def send(number: int) -> bool:
            try:
                await outbox.send(f"pay {number}", target_of("ours", number), b"", AMOUNT)
            except FabstirError:
                return False
            return True

        began = time.perf_counter()
        confirmed = sum(await asyncio.gather(*map(send, range(count))))
        seconds = time.perf_counter() - began
        await outbox.close()
        await rpc.close()
        calls, failed = one.calls + two.calls, one.failed + two.failed
    return {"confirmed": confirmed, "s": seconds, "calls": calls, "failed": failed, **await _tally(url, "ours", count)}


async def _peer(url: str, count: int) -> dict[str, Any]:
    account = Account.from_key(DEV_KEYS[2])
    async with FailingProxy(url, 3) as one, FailingProxy(url, 4) as two:
        ends = [AsyncWeb3(AsyncHTTPProvider(proxy.url)) for proxy in (one, two)]

        async def once(web3: Any, number: int) -> None:
            fee = (await web3.eth.get_block("latest"))["baseFeePerGas"] * 2 + 10**6
            transaction = {
                "to": web3.to_checksum_address(target_of("peer", number)), "value": AMOUNT, "gas": 21_000, "chainId": CHAIN_ID,
                "maxFeePerGas": fee, "maxPriorityFeePerGas": 10**6,
                "nonce": await web3.eth.get_transaction_count(account.address, "pending"),
            }  # fmt: skip
            sent = await web3.eth.send_raw_transaction(account.sign_transaction(transaction).raw_transaction)
            await web3.eth.wait_for_transaction_receipt(sent, timeout=RECEIPT_SECONDS, poll_latency=0.1)

        async def send(number: int) -> bool:
            for attempt in range(ATTEMPTS):
                try:
                    await once(ends[attempt % 2], number)
                except (aiohttp.ClientError, Web3Exception, OSError):
                    await asyncio.sleep(PAUSE_SECONDS)
                else:
                    return True
            return False

        began = time.perf_counter()
        confirmed = sum([await send(number) for number in range(count)])
        seconds = time.perf_counter() - began
        for end in ends:
            await end.provider.disconnect()
    return {"confirmed": confirmed, "s": seconds, **await _tally(url, "peer", count)}


async def _run(count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    async with Devnet(await find_anvil(paths.cache_dir())) as net:
        return await _ours(net.url, count), await _peer(net.url, count)


def measure(quick: bool) -> dict[str, Any]:
    """Both on one fresh chain, one after the other."""
    logging.configure(LogSection(level="error"))
    count = 100 if quick else 500
    ours, peer = asyncio.run(_run(count))
    wrong = {"ours": ours["twice"] + ours["never"], "peer": peer["twice"] + peer["never"]}
    return {
        "claim": "with a fifth of all calls failing, every send is confirmed and paid exactly once",
        "ours": wrong["ours"],
        "peer": wrong["peer"],
        "ratio": round(wrong["ours"] / wrong["peer"], 3) if wrong["peer"] else None,
        "unit": "sends paid twice or never",
        "n": count,
        "confirmed": ours["confirmed"],
        "duplicated": ours["twice"],
        "lost": ours["never"],
        "calls": ours["calls"],
        "calls_failed": ours["failed"],
        "duration_s": round(ours["s"], 2),
        "peer_confirmed": peer["confirmed"],
        "peer_duplicated": peer["twice"],
        "peer_lost": peer["never"],
        "peer_duration_s": round(peer["s"], 2),
    }


if __name__ == "__main__":
    main(measure, __doc__ or "")
