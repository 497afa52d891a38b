"""`POST /v1/jobs` and `POST /v1/jobs/{id}/top-up`: a renter's signed payment, which the host sends to the contract.

Reads the body, bounded, and hands it on; what is sent and what is refused is `fabstir.host.relay`. Specification:
docs/reference/http.md.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler

from fabstir.api.whole_numbers import read_json
from fabstir.domain.errors import error
from fabstir.domain.ids import JobId, from_hex
from fabstir.host.node import HostNode
from fabstir.protocol.relay import Relayed, RelayOpening, RelayTopUp

MAX_BODY_BYTES: Final = 1 << 13
"""Terms, two numbers and a signature are 1,100 bytes."""

T = TypeVar("T")


def relay_routes(node: HostNode) -> list[HTTPRouteHandler]:
    """The two routes of one node."""

    @post("/v1/jobs", status_code=201, request_max_body_size=MAX_BODY_BYTES)
    async def open_job(request: Request[Any, Any, Any]) -> Relayed:
        return await node.relay.open(_read(RelayOpening, await request.body()))

    @post("/v1/jobs/{job:str}/top-up", status_code=201, request_max_body_size=MAX_BODY_BYTES)
    async def top_up_job(request: Request[Any, Any, Any]) -> Relayed:
        return await node.relay.top_up(_job(str(request.path_params["job"])), _read(RelayTopUp, await request.body()))

    return [open_job, top_up_job]


def _read(kind: type[T], body: bytes) -> T:
    try:
        return read_json(body, kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as unreadable:
        raise error("message_malformed", str(unreadable)[:200]) from unreadable


def _job(text: str) -> JobId:
    try:
        return JobId(from_hex(text, 32))
    except ValueError as wrong:
        raise error("message_malformed", f"job id: {wrong}") from wrong
