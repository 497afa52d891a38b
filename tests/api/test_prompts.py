"""Prompt jobs behind the real server: what is uploaded, downloaded, told and signed, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.host.prompt_world import SESSION, PromptWorld

from fabstir.api.app import host_app
from fabstir.api.prompts import MAX_BLOB_BYTES
from fabstir.api.server import listen, serve, url_of
from fabstir.domain.errors import FabstirError
from fabstir.domain.ids import Hash32, to_hex
from fabstir.domain.prompts import PromptId
from fabstir.domain.terms import ProofPolicy
from fabstir.market.contents import HttpContents
from fabstir.protocol.prompt_log import Stage
from fabstir.protocol.prompt_order_log import AnswerSigned
from fabstir.protocol.prompt_signing import prompt_id
from fabstir.protocol.prompt_wire import WireVoucher
from fabstir.protocol.sealed import cid
from fabstir.protocol.signing import Market

QUESTION = "count 20"


class Client:
    """Speaks HTTP to the host."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = url

    async def ask(self, method: str, path: str, data: bytes | None = None, last: str = "") -> tuple[int, Any]:
        """Status, and the body: JSON where it is."""
        headers = {"last-event-id": last} if last else {}
        async with self.http.request(
            method, self.url + path, data=io.BytesIO(data) if data is not None else None, headers=headers
        ) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if "json" in answer.content_type else body


@contextlib.asynccontextmanager
async def served(world: PromptWorld, *, desk: bool = True) -> AsyncIterator[Client]:
    """`world`'s host behind a server."""
    await world.register()
    async with world.life():
        listener = listen("127.0.0.1", 0)
        app = host_app(world.node, max_connections=8, desk=world.desk if desk else None)
        running = asyncio.create_task(
            serve(app, listener, max_message_bytes=1 << 20, stop=asyncio.Event(), drain=world.node.drain)
        )
        try:
            async with aiohttp.ClientSession() as http:
                yield Client(http, url_of(listener))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_whole_job_over_http(tmp_path: Path) -> None:
    """Upload, post, watch, download, sign: the host is paid by the voucher."""
    world = PromptWorld(tmp_path)
    async with served(world) as client:
        terms, sealed = world.seal(QUESTION, policy=ProofPolicy.FALLBACK)
        assert (await client.ask("PUT", f"/v1/blobs/{to_hex(cid(sealed))}", sealed))[0] == 204
        prompt = await world.post(terms)
        await world.until(lambda: bool(world.events(prompt)) and world.ledger(prompt).stage is Stage.SETTLING)
        status, told = await client.ask("GET", f"/v1/prompts/{to_hex(prompt)}")
        assert (status, told["stage"], told["prompt"]) == (200, "settling", to_hex(prompt))
        epoch = told["position"].partition("-")[0]
        _, stream = await client.ask("GET", f"/v1/prompts/{to_hex(prompt)}/events?after={epoch}-3")
        lines = [json.loads(line[6:]) for line in stream.decode().splitlines() if line.startswith("data: ")]
        assert [line["stage"] for line in lines] == ["made", "stored", "completing", "completed", "settling"]
        _, again = await client.ask("GET", f"/v1/prompts/{to_hex(prompt)}/events", last="1-1")
        assert b'"lagged":true' in again
        ledger = world.ledger(prompt)
        assert ledger.completed is not None and ledger.head is not None
        done = ledger.completed.completion
        status, result = await client.ask("GET", f"/v1/blobs/{to_hex(done.result_cid)}")
        assert (status, cid(result)) == (200, done.result_cid)
        amount = world.desk._cases[prompt].owed
        market = Market(world.renter.info.chain_id, world.renter.info.market)
        signature = SESSION.sign(market.voucher_digest(done.job, amount, done.tokens, ledger.head))
        voucher = WireVoucher.of(AnswerSigned(done.tokens, amount, ledger.head, signature, 0.0))
        path = f"/v1/prompts/{to_hex(prompt)}/voucher"
        assert (await client.ask("POST", path, msgspec.json.encode(voucher)))[0] == 204
        await world.until(lambda: world.settled(prompt))


async def test_what_is_refused(tmp_path: Path) -> None:
    """Content in the clear, under a wrong name, too large or beyond the quota; ids that are none; jobs that nobody knows: each has its
    status and its code, and nothing is stored."""
    world = PromptWorld(tmp_path)
    async with served(world) as client:
        terms, sealed = world.seal(QUESTION)
        name, unknown, big = to_hex(cid(sealed)), "0x" + "00" * 32, b"FSB1" + bytes(1 << 20)
        refusals = [
            ("PUT", f"/v1/blobs/{name}", b"in the clear", 400, "seal_invalid"),
            ("PUT", f"/v1/blobs/{unknown}", sealed, 400, "blob_mismatch"),
            ("PUT", f"/v1/blobs/{name}", b"FSB1" + bytes(MAX_BLOB_BYTES), 413, "request_invalid"),
            ("PUT", f"/v1/blobs/{to_hex(cid(big))}", big, 507, "blob_quota"),
            ("PUT", "/v1/blobs/none", sealed, 400, "request_invalid"),
            ("GET", f"/v1/blobs/{name}", None, 404, "blob_missing"),
            ("GET", f"/v1/prompts/{unknown}", None, 404, "prompt_unknown"),
            ("GET", f"/v1/prompts/{unknown}/events", None, 404, "prompt_unknown"),
            ("GET", f"/v1/prompts/{to_hex(prompt_id(terms))}/events?after=x", None, 400, "request_invalid"),
            ("POST", f"/v1/prompts/{unknown}/voucher", b"{}", 400, "request_invalid"),
        ]
        for method, path, data, status, code in refusals:
            found, said = await client.ask(method, path, data)
            assert isinstance(said, dict), (method, path, found, said)
            assert (found, said["code"]) == (status, code), (method, path)
        assert world.desk.stores.uploads.aged(1e12) == ()


@pytest.mark.parametrize("path", ["/v1/blobs/0x00", "/v1/prompts/0x00"])
async def test_a_host_without_a_desk_says_so(tmp_path: Path, path: str) -> None:
    """`prompts_off`, whatever is asked."""
    async with served(PromptWorld(tmp_path), desk=False) as client:
        status, said = await client.ask("GET", path)
        assert (status, said["code"]) == (404, "prompts_off")


async def test_how_a_job_gets_on_is_believed_where_the_node_signed_it(tmp_path: Path) -> None:
    """Over the network, refusals too; another node's word is none."""
    world = PromptWorld(tmp_path)
    async with served(world) as client:
        contents = HttpContents(world.node.clock.now)
        terms, sealed = world.seal(QUESTION, policy=ProofPolicy.FALLBACK)
        await contents.upload(client.url, cid(sealed), sealed)
        prompt, node = await world.post(terms), world.node.node_key.public
        await world.until(lambda: bool(world.events(prompt)))
        assert (await contents.progress(client.url, prompt, node)).prompt == to_hex(prompt)
        with pytest.raises(FabstirError, match="prompt_unknown"):
            await contents.progress(client.url, PromptId(bytes(32)), node)
        with pytest.raises(FabstirError, match="answer_untrusted"):
            await contents.progress(client.url, prompt, Hash32(bytes(32)))
        await contents.close()
