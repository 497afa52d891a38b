"""The operations of a host's HTTP as data: what each takes, answers, streams and refuses. `/openapi.json` is made from here, and a test
compares it with the routes and with what they answer.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fabstir.api.dialect import Parameters
from fabstir.api.host_paid import PaidChunk, PaidCompletion, PaidError
from fabstir.api.host_sessions import SessionOpened
from fabstir.api.inference import INFERENCE, InferenceAnswer
from fabstir.api.openai_types import CHAT
from fabstir.api.routes import KeySet, ModelList
from fabstir.host.health import HostHealth, HostStanding
from fabstir.host.http_session import SessionView
from fabstir.ops.metrics import CONTENT_TYPE
from fabstir.protocol.attestation import WireClaim
from fabstir.protocol.messages import (
    Error,
    PaymentReceived,
    PaymentRequired,
    Receipt,
    ReceiptAck,
    Response,
    SessionEnd,
    SessionInit,
    SessionResume,
    StreamChunk,
)
from fabstir.protocol.prompt_wire import WireProgress, WireVoucher
from fabstir.protocol.relay import Relayed, RelayOpening, RelayTopUp
from fabstir.protocol.signed_offer import WireSignedOffer

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
EVENTS: Final = "text/event-stream"


class HostOperation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation."""

    method: str
    path: str
    about: str
    answers: tuple[Any, ...] = ()
    """Types of the body, one of them; none: no body, or one that is no JSON."""
    kind: str = JSON
    """Of the body."""
    status: int = 200
    takes: tuple[Any, ...] = ()
    """Types of the request's body, one of them."""
    parameters: Parameters | None = None
    """Of the request's body, where it is read parameter by parameter."""
    sealed: bool = False
    """The request's body is bytes."""
    query: tuple[tuple[str, str, bool], ...] = ()
    """Name, pattern, whether it must be there."""
    events: tuple[Any, ...] = ()
    """What a stream consists of, where there is one."""
    errors: tuple[int, ...] = ()
    faults: tuple[Any, ...] = (Error,)
    token: bool = False
    """Asks for a session's token."""
    operator: bool = False
    """The operator's alone."""


GUARDED: Final = (400, 403, 429, 431, 500)
"""What the guard in front of every route may say, and a fault of ours. 400: bytes that HTTP does not know."""
CHAIN: Final = (502, 503)
ASKS: Final = (*GUARDED, 401, 402, 404, 408, 409, 413, 502, 503, 504)
PROMPTS: Final = (*GUARDED, 404, 409, 410, 413, 425, 503)
HEX32: Final = "^0x[0-9a-f]{64}$"
SESSION: Final = "^[A-Za-z0-9_-]{1,64}$"
PLACES: Final = {"session_id": SESSION, "job": HEX32, "cid": HEX32, "prompt": HEX32}
"""What stands in a path."""
POSITION: Final = "^[0-9a-f]*(-[0-9]+)?$"

VIEWS: Final = (
    HostOperation(
        method="get",
        path="/health",
        about="How the host is; its parts for the operator alone. 503 with the same body where a new session would be refused.",
        answers=(HostHealth, HostStanding),
        errors=GUARDED,
    ),
    HostOperation(
        method="get",
        path="/metrics",
        about="Prometheus' text format.",
        kind=CONTENT_TYPE,
        errors=GUARDED,
        operator=True,
    ),
    HostOperation(
        method="get",
        path="/v1/models",
        about="The models that this host serves, as an OpenAI client expects them.",
        answers=(ModelList,),
        errors=GUARDED,
    ),
    HostOperation(
        method="get",
        path="/v1/offer",
        about="Everything that a renter must know to write terms that this host accepts, signed.",
        answers=(WireSignedOffer,),
        errors=GUARDED,
    ),
    HostOperation(
        method="get",
        path="/.well-known/jwks.json",
        about="The public keys of the tokens for reconnects.",
        answers=(KeySet,),
        errors=GUARDED,
    ),
    HostOperation(
        method="get",
        path="/v1/attestation",
        about="A quote that ties `nonce`, the host, its key and its model to the machine that the host runs in.",
        answers=(WireClaim,),
        query=(("nonce", HEX32, True),),
        errors=(*GUARDED, 404, 503),
    ),
)
SESSIONS: Final = (
    HostOperation(
        method="post",
        path="/v1/sessions",
        about="Begin or resume a session: `session_init` or `session_resume`, signed with the job's session key.",
        answers=(SessionOpened,),
        status=201,
        takes=(SessionInit, SessionResume),
        errors=(*ASKS, 426),
    ),
    HostOperation(
        method="get",
        path="/v1/sessions/{session_id}",
        about="Where a session stands, and the receipt that waits.",
        answers=(SessionView,),
        errors=(*GUARDED, 401, 409),
        token=True,
    ),
    HostOperation(
        method="post",
        path="/v1/sessions/{session_id}/receipts",
        about="Acknowledge a receipt by a voucher; a stream that waits for it goes on.",
        answers=(SessionView,),
        takes=(ReceiptAck,),
        errors=ASKS,
        token=True,
    ),
    HostOperation(
        method="post",
        path="/v1/sessions/{session_id}/deposit",
        about="The job was topped up on chain: look there.",
        answers=(PaymentReceived,),
        errors=ASKS,
        token=True,
    ),
    HostOperation(
        method="delete",
        path="/v1/sessions/{session_id}",
        about="End the session and let the host settle. What `close_signature` is for: `session_end` of the session protocol.",
        answers=(SessionEnd,),
        errors=ASKS,
        token=True,
    ),
    HostOperation(
        method="post",
        path="/v1/chat/completions",
        about="A chat completion in OpenAI's dialect; the field `fabstir` has records and receipts.",
        answers=(PaidCompletion,),
        parameters=CHAT,
        events=(PaidChunk, PaidError),
        errors=ASKS,
        faults=(PaidError, Error),
        token=True,
    ),
    HostOperation(
        method="post",
        path="/v1/inference",
        about="One prompt in the session protocol's words.",
        answers=(InferenceAnswer,),
        parameters=INFERENCE,
        events=(StreamChunk, Receipt, PaymentRequired, Response, Error),
        errors=ASKS,
        token=True,
    ),
)
JOBS: Final = (
    HostOperation(
        method="post",
        path="/v1/jobs",
        about="Open this job with the renter's signed transfer.",
        answers=(Relayed,),
        status=201,
        takes=(RelayOpening,),
        errors=(*ASKS,),
    ),
    HostOperation(
        method="post",
        path="/v1/jobs/{job}/top-up",
        about="Add to this job's deposit with the renter's signed transfer.",
        answers=(Relayed,),
        status=201,
        takes=(RelayTopUp,),
        errors=(*ASKS,),
    ),
)
PROMPT_JOBS: Final = (
    HostOperation(
        method="put",
        path="/v1/blobs/{cid}",
        about="Keep a sealed prompt under the BLAKE3-256 that is its name.",
        status=204,
        sealed=True,
        errors=PROMPTS,
    ),
    HostOperation(
        method="get",
        path="/v1/blobs/{cid}",
        about="Sealed content: a result, or a prompt.",
        kind=BYTES,
        errors=PROMPTS,
    ),
    HostOperation(
        method="get",
        path="/v1/prompts/{prompt}",
        about="Where a prompt job stands at this host.",
        answers=(WireProgress,),
        errors=PROMPTS,
    ),
    HostOperation(
        method="get",
        path="/v1/prompts/{prompt}/events",
        about="How a prompt job gets on, until it is over here; from the position `after` (or `Last-Event-ID`) on.",
        kind=EVENTS,
        query=(("after", "", False),),
        events=(WireProgress,),
        errors=PROMPTS,
    ),
    HostOperation(
        method="post",
        path="/v1/prompts/{prompt}/voucher",
        about="The renter's signature over the answer.",
        status=204,
        takes=(WireVoucher,),
        errors=PROMPTS,
    ),
)
OPERATIONS: Final = (*VIEWS, *SESSIONS, *JOBS, *PROMPT_JOBS)
