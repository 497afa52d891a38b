"""Prompt jobs over HTTP: sealed content in and out, how a job gets on, and the renter's voucher.

What is uploaded is sealed and named by its hash; a host reads only what is sealed for it. Where the host has no desk
every route answers `prompts_off`. Decides nothing. Specification: docs/reference/http.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from litestar import Request, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from fabstir.api.whole_numbers import read_json
from fabstir.domain.errors import error
from fabstir.domain.ids import hash32
from fabstir.domain.prompts import Cid, PromptId
from fabstir.host.prompt_tracking import Progress
from fabstir.host.prompts import PromptDesk
from fabstir.protocol.prompt_wire import WireProgress, WireVoucher, position_of
from fabstir.protocol.sealed import MAX_CONTENT
from fabstir.protocol.signing import SIGNATURE_BYTES

MAX_BLOB_BYTES: Final = MAX_CONTENT + MAX_CONTENT // 8 + (16 << 10)
"""The longest content with its padding (at most 12 %) and the header for 255 recipients."""
MAX_VOUCHER_BYTES: Final = 4 * (SIGNATURE_BYTES + 256)
_AnyRequest = Request[Any, Any, Any]


def prompt_routes(desk: PromptDesk | None) -> list[HTTPRouteHandler]:
    """The routes of one desk."""

    @put("/v1/blobs/{cid:str}", status_code=204, request_max_body_size=MAX_BLOB_BYTES)
    async def upload(cid: FromPath[str], request: _AnyRequest) -> None:
        """Keep a sealed prompt under the BLAKE3-256 that is its name."""
        await _require(desk).upload(Cid(_id(cid)), await request.body())

    @get("/v1/blobs/{cid:str}", media_type="application/octet-stream")
    async def download(cid: FromPath[str]) -> bytes:
        """Sealed content: a result, or a prompt."""
        return await _require(desk).download(Cid(_id(cid)))

    @get("/v1/prompts/{prompt:str}")
    async def progress(prompt: FromPath[str]) -> WireProgress:
        """Where a job stands at this host."""
        tracking = _require(desk).tracking
        return WireProgress.of(tracking.status(PromptId(_id(prompt))), tracking.position)

    @get("/v1/prompts/{prompt:str}/events")
    async def events(prompt: FromPath[str], request: _AnyRequest, after: FromQuery[str] = "") -> Stream:
        """Server-sent events, each a WireProgress; from the position `after` (or `Last-Event-ID`) on, until it is over here."""
        start = after or request.headers.get("last-event-id", "")
        steps = _require(desk).tracking.follow(PromptId(_id(prompt)), position_of(start) if start else None)
        return Stream(_lines(steps), media_type="text/event-stream", headers={"cache-control": "no-store"})

    @post("/v1/prompts/{prompt:str}/voucher", status_code=204, request_max_body_size=MAX_VOUCHER_BYTES)
    async def voucher(prompt: FromPath[str], request: _AnyRequest) -> None:
        """The renter's signature over the answer: a WireVoucher."""
        try:
            given = read_json(await request.body(), WireVoucher)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as unreadable:
            raise error("request_invalid", str(unreadable)[:200]) from unreadable
        await _require(desk).voucher(PromptId(_id(prompt)), *given.values())

    return [upload, download, progress, events, voucher]


async def _lines(steps: AsyncIterator[Progress]) -> AsyncIterator[bytes]:
    async for step in steps:
        if step.change is None:
            yield b": still here\n\n"
            continue
        told = WireProgress.of(step.change, step.position, step.lagged)
        yield f"id: {told.position}\nevent: progress\ndata: ".encode() + msgspec.json.encode(told) + b"\n\n"


def _require(desk: PromptDesk | None) -> PromptDesk:
    if desk is None:
        raise error("prompts_off")
    return desk


def _id(text: str) -> bytes:
    try:
        return hash32(text)
    except ValueError as wrong:
        raise error("request_invalid", f"an id is 0x and 64 hexadecimal digits: {wrong}"[:200]) from wrong
