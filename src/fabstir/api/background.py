"""Responses that are made while nobody waits: asked for with `background`, looked at by their id, cancelled by it.

Each is an answer like any other, made by `gateway_answer` and paid for in the same way; here is only what has become of it. In memory:
a gateway that ends forgets them, and what was not delivered is not paid for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog
from litestar.types import Send

from fabstir.api.dialect import Asked
from fabstir.api.gateway_answer import Desk, GatewayAnswer, Once, send_whole
from fabstir.api.gateway_errors import TooMany
from fabstir.api.gateway_guard import Client
from fabstir.api.kept_responses import KeptResponse, KeptResponses
from fabstir.api.responses_types import ResponseBody, ResponseFault
from fabstir.api.responses_writer import ResponsesWriter
from fabstir.domain.errors import FabstirError, Refused, error

MOST: Final = 64
"""Under way at the same time, those that wait for a place included."""
Make = Callable[[Send], Awaitable[bool]]
"""Makes one answer; its writer keeps it when it is complete."""

log = structlog.get_logger()


class Background:
    """Those of one gateway. Memory: a task for each that is under way."""

    def __init__(self, kept: KeptResponses) -> None:
        self._kept = kept
        self._running: dict[str, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<Background {len(self._running)} of {MOST}>"

    def begin(self, owner: str, body: ResponseBody, make: Make) -> ResponseBody:
        """Answered at once with the response as it stands. Raises Refused (`rate_limited`)."""
        if len(self._running) >= MOST:
            raise TooMany(f"{MOST} responses are being made in the background", 1)
        queued = msgspec.structs.replace(body, status="queued")
        self._kept.keep(body.id, KeptResponse(owner=owner, conversation=(), body=queued))
        task = self._running[body.id] = asyncio.create_task(self._make(owner, queued, make), name="background response")
        task.add_done_callback(lambda _: self._running.pop(body.id, None))
        return queued

    async def cancel(self, name: str, owner: str) -> msgspec.Struct:
        """The response, which goes on no further; one that is over stays as it is. Raises Refused (`response_unknown`), PeerFault
        (`request_invalid`) for one that is none of these."""
        body = self._kept.get(name, owner).body
        if not isinstance(body, ResponseBody) or not body.background:
            raise error("request_invalid", "only a response that was asked for with `background` can be cancelled")
        task = self._running.get(name)
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        return self._kept.get(name, owner).body

    async def forget(self, name: str, owner: str) -> None:
        """As if it had never been asked for. Raises Refused (`response_unknown`)."""
        self._kept.get(name, owner)
        if (task := self._running.get(name)) is not None:
            task.cancel()
            await asyncio.wait((task,))
        self._kept.forget(name, owner)

    async def _make(self, owner: str, queued: ResponseBody, make: Make) -> None:
        self._now(owner, queued, status="in_progress")
        try:
            await make(_nobody)
        except asyncio.CancelledError:
            self._now(owner, queued, status="cancelled")
        except FabstirError as fault:
            self._now(owner, queued, status="failed", error=ResponseFault(fault.code, str(fault)))
        except Exception as unforeseen:  # as for every request: the log has it, the client the code
            log.error("request_failed", exc_info=unforeseen)
            failed = error("node_failed")
            self._now(owner, queued, status="failed", error=ResponseFault(failed.code, str(failed)))

    def _now(self, owner: str, queued: ResponseBody, **changes: Any) -> None:
        """What is over stays as it is; what was forgotten, too."""
        with contextlib.suppress(Refused):
            known = self._kept.get(queued.id, owner).body
            if isinstance(known, ResponseBody) and known.status in ("queued", "in_progress"):
                body = msgspec.structs.replace(queued, **changes)
                self._kept.keep(body.id, KeptResponse(owner=owner, conversation=(), body=body))


class QueuedAnswer(GatewayAnswer):
    """The response to a request with `background`: the client has its id at once, and the answer is made afterwards."""

    def __init__(
        self,
        background: Background,
        desk: Desk,
        client: Client,
        asked: Asked,
        writer: ResponsesWriter,
        once: Once | None,
    ) -> None:
        super().__init__(desk, client, asked, writer, once)
        self._background = background
        self._owner = client.owner
        self._started = writer.started

    async def serve(self, send: Send) -> bool:
        """As it stands. Raises Refused (`rate_limited`)."""
        await send_whole(send, self._background.begin(self._owner, self._started, super().serve))
        return True


async def _nobody(_message: Any) -> None:
    """Nobody waits for the answer itself."""
