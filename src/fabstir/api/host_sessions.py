"""Sessions over HTTP, for renters without a WebSocket: begin or resume, acknowledge receipts, top up, look, end.

The bodies are the session protocol's own messages (docs/reference/protocol.md); what they may do is decided where it is decided for
every connection. Decides nothing. Specification: docs/reference/http.md.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from fabstir.api.host_answers import require_json, session_of
from fabstir.api.whole_numbers import read_message
from fabstir.domain.errors import error
from fabstir.host.http_session import HttpSession, SessionView
from fabstir.host.http_sessions import HttpSessions
from fabstir.host.node import HostNode
from fabstir.protocol.messages import (
    PaymentReceived,
    Receipt,
    ReceiptAck,
    SessionEnd,
    SessionInit,
    SessionReady,
    SessionResume,
)

AnyRequest = Request[Any, Any, Any]


class SessionOpened(msgspec.Struct, frozen=True, kw_only=True):
    """The session stands."""

    token: str
    """For `Authorization: Bearer`. Whoever has it can spend the job's deposit at this host, at most W tokens beyond your vouchers."""
    ready: SessionReady
    receipt: Receipt | None = None
    """Of tokens before, to be acknowledged first."""


def session_routes(node: HostNode, sessions: HttpSessions) -> list[HTTPRouteHandler]:
    """The routes of one node."""
    most = node.settings.max_message_bytes

    @post("/v1/sessions", status_code=201, request_max_body_size=most)
    async def begin(request: AnyRequest) -> SessionOpened:
        """Begin or resume a session."""
        require_json(request)
        hello = read_message(await request.body())
        if not isinstance(hello, SessionInit | SessionResume):
            raise error("message_out_of_order", "session_init or session_resume begins a session")
        token, session, ready = await sessions.open(hello)
        return SessionOpened(token=token, ready=ready, receipt=session.receipt)

    @get("/v1/sessions/{session_id:str}")
    async def look(session_id: FromPath[str], request: AnyRequest) -> SessionView:
        """Where a session stands, and the receipt that waits."""
        return sessions.view(_named(session_id, session_of(request, sessions)))

    @post("/v1/sessions/{session_id:str}/receipts", status_code=200, request_max_body_size=most)
    async def acknowledge(session_id: FromPath[str], request: AnyRequest) -> SessionView:
        """Acknowledge a receipt; a stream that waits for it goes on."""
        session = _named(session_id, session_of(request, sessions))
        voucher = read_message(await request.body())
        if not isinstance(voucher, ReceiptAck):
            raise error("message_out_of_order", "a receipt_ack is expected here")
        await session.acknowledge(voucher)
        return sessions.view(session)

    @post("/v1/sessions/{session_id:str}/deposit", status_code=200)
    async def deposit(session_id: FromPath[str], request: AnyRequest) -> PaymentReceived:
        """The job was topped up on chain: look there."""
        return await _named(session_id, session_of(request, sessions)).deposit_changed()

    @delete("/v1/sessions/{session_id:str}", status_code=200)
    async def end(session_id: FromPath[str], request: AnyRequest) -> SessionEnd:
        """End the session and let the host settle."""
        return await _named(session_id, session_of(request, sessions)).end()

    return [begin, look, acknowledge, deposit, end]


def _named(session_id: str, session: HttpSession) -> HttpSession:
    if session_id != session.ready.session_id:
        raise error("session_unauthorized", f"the token stands for session {session.ready.session_id}")
    return session
