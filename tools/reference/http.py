"""docs/reference/http.md, from the routes of a host and the structures that they return."""

from __future__ import annotations

from types import UnionType
from typing import cast, get_args

from litestar import Response
from msgspec import Struct

from fabstir.api import host_operations
from fabstir.api.host_paid import Paid
from fabstir.api.host_sessions import SessionOpened
from fabstir.api.inference import InferenceAnswer, InferenceRequest
from fabstir.api.prompts import prompt_routes
from fabstir.api.routes import ModelCard, WebKey, host_routes
from fabstir.api.websocket import CLOSE_CODES, POLICY_VIOLATION
from fabstir.host import health
from fabstir.host.http_session import SessionView
from fabstir.host.node import HostNode
from fabstir.host.pool import EngineState
from fabstir.host.shelf import ModelPart
from fabstir.ports.chain import EndpointState
from fabstir.ports.machine import Gpu
from fabstir.protocol.attestation import WireClaim
from fabstir.protocol.messages import Error
from fabstir.protocol.offer import WireModelOffer, WirePayment, WireTokenPrice
from fabstir.protocol.prompt_wire import WireVoucher
from fabstir.protocol.relay import Relayed, RelayOpening, RelayTopUp
from fabstir.protocol.signed_offer import WireNode
from reference.structs import struct
from reference.table import table

INTRODUCTION = """\
# HTTP of a host

Views of one host, and what prompt jobs need. Sessions are held over the WebSocket `/v1/ws`: see [the session protocol](protocol.md).
Amounts are decimal strings in base units: 1e-6 USDC, 1 wei. `/openapi.json` has all of this for programs.

Every answer that does not stream is signed by the key `node.key` of the offer, as RFC 9421 has it: `Content-Digest` (RFC 9530,
sha-256), `Signature-Input` and `Signature` with the label `node` and the tag `fabstir`, over status, digest, content type, and method,
path and query of the request. The request's authority is left out, since proxies change it; of a base URL with a path, only what the
host sees is signed.

A host listens on this machine only, unless `api.allow_remote` and `api.operator_key` are set. It answers under IP addresses,
`localhost`, the name in `host.advertise_url` and `api.allowed_hosts`, and no web page of another origin than `api.allowed_origins`
(`origin_refused`, 403). From one address come at most `api.requests_per_minute` (429, `Retry-After`) and `api.max_per_address`
WebSockets. /metrics and all of /health are the operator's (`operator_only`): of callers on this machine, or of whoever sends
`api.operator_key`; to others /health tells `status` alone."""

WEBSOCKET = """\
### WebSocket /v1/ws

Carries [the session protocol](protocol.md), one message in each text frame. `permessage-deflate` is offered. Where there is no
room, or the host drains, the handshake is refused with 503 and an error; a plain request is 426. The host pings each 10 s."""

CLOSING = """\
The reason of a close frame is an error code, or `ended`:"""

ERRORS = """\
## Errors

Every error has this body, and the HTTP status of its code: see [errors](errors.md). Where trying again can help there is a
`Retry-After` header."""

INSIDE = (
    ModelCard,
    WireNode,
    WebKey,
    WireModelOffer,
    WireTokenPrice,
    WirePayment,
    health.EnginePart,
    ModelPart,
    EngineState,
    health.ChainPart,
    EndpointState,
    health.SendingPart,
    health.Part,
    health.MachinePart,
    Gpu,
    health.SessionsPart,
    health.ClaimsPart,
    health.PromptsPart,
)


SESSIONS = """\
## Sessions over plain HTTP

For renters without a WebSocket. The messages are those of [the session protocol](protocol.md), and so is what is decided: admission, W,
receipts, vouchers. A session is begun with a signed `session_init` or `session_resume`; from then on its token is sent as
`Authorization: Bearer`. Answers stream as server-sent events. **Receipts come in the stream, vouchers go by `POST .../receipts` while it
runs.** Who acknowledges nothing gets W tokens; the stream then waits `ack_timeout` and ends with that error, an answer in one piece has
the text so far with `finish_reason` `length` and the reason in `error`. What was served is billed either way, and the receipt waits at
`GET /v1/sessions/{session_id}`. An answer in one piece of more than W tokens therefore needs somebody who looks there and acknowledges
meanwhile.

A client that goes away has its answer cancelled. A session that is not asked anything for five minutes is let go; its job is resumed
with `session_resume`. One job is served in one place at a time (`session_in_use`); who signs anew gets a new token, and the one before
ends. Sealed channels are for the WebSocket: a host that requires them (`host.require_encryption`) answers `channel_required` here. The
requests of `/v1/chat/completions` are those of [the gateway](gateway.md); the last message is the question, the others replace the
conversation."""


def sessions() -> list[str]:
    """The operations with what they take and return."""
    parts = [SESSIONS]
    for one in host_operations.SESSIONS:
        takes = [kind.__name__ for kind in one.takes] or ([one.parameters.request.__name__] if one.parameters else [])
        told = [f"Takes {' or '.join(f'`{name}`' for name in takes)}."] if takes else []
        told += [f"Answers {one.status}: " + " or ".join(f"`{kind.__name__}`" for kind in one.answers) + "."]
        told += ["Streams " + ", ".join(f"`{kind.__name__}`" for kind in one.events) + "."] if one.events else []
        parts.append(f"### {one.method.upper()} {one.path}\n\n{one.about} {' '.join(told)}")
    inside = (SessionOpened, SessionView, InferenceRequest, InferenceAnswer, Paid)
    return [*parts, *(struct(f"### {cls.__name__}", cls) for cls in inside)]


PROMPTS = """\
## Prompt jobs

What [a prompt job](../explanation/prompts.md) needs beside the chain. A host that takes none (`host.prompt_slots` is 0) answers
`prompts_off`. `{cid}` and `{prompt}` are 0x and 64 hexadecimal digits: the BLAKE3-256 of sealed content, and the job's id."""


def prompts() -> list[str]:
    """The routes of prompt jobs, each with what it returns or its own words."""
    parts = [PROMPTS]
    for route in prompt_routes(None):
        (method,), (path,) = route.http_methods - {"HEAD"}, route.paths
        heading = f"### {method} {path.replace(':str', '')}\n\n{' '.join((route.fn.__doc__ or '').split())}"
        returned = route.parsed_fn_signature.return_type.annotation
        is_struct = isinstance(returned, type) and issubclass(returned, Struct)
        parts.append(struct(heading, returned) if is_struct else heading)
    return [*parts, struct("### WireVoucher", WireVoucher)]


RELAY = """\
## Payments of renters

A renter without ETH signs a transfer (EIP-3009) for one deposit or one top-up, and the host sends it to the contract. The body is JSON, at
most 8 KiB. The host checks it as admission would, looks whether the renter has the money, and answers 201 once the transaction is
mined; asked again it answers the same. Only deposits from `relayed_from` of the offer on; where that is 0, `relay_off`. `{job}` is the
job's id."""


def relay() -> list[str]:
    """The two routes with what they take and return."""
    return [
        RELAY,
        struct("### POST /v1/jobs", RelayOpening),
        struct("### POST /v1/jobs/{job}/top-up", RelayTopUp),
        struct("### Relayed", Relayed),
    ]


ATTESTATION = """\
## Attestation

A renter draws `nonce` (0x and 64 hexadecimal digits) and gets a quote that ties it, the host, its key and its model to the machine that the
host runs in. What it shows, and how it is verified: [attestation](../explanation/attestation.md). A host whose `attestation.provider` is
unset answers `attestation_off`."""


def render() -> str:
    """The page: routes, the structures inside them, the error."""
    parts = [INTRODUCTION, "## Routes"]
    for route in host_routes(cast("HostNode", None)):  # the routes are asked what they are, never called
        returned = route.parsed_fn_signature.return_type.annotation
        returned = get_args(returned)[0] if getattr(returned, "__origin__", None) is Response else returned
        returned = get_args(returned)[0] if isinstance(returned, UnionType) else returned  # the others are parts of it
        (path,) = route.paths
        heading = f"### GET {path}"
        is_struct = isinstance(returned, type) and issubclass(returned, Struct)
        parts.append(
            struct(heading, returned)
            if is_struct
            else f"{heading}\n\nPrometheus' text format: see [metrics](metrics.md)."
        )
    others = [("other codes", POLICY_VIOLATION), ("frame above `max_message_bytes`", 1009), ("not UTF-8", 1007)]
    codes = [(f"`{reason}`", code) for reason, code in CLOSE_CODES.items()] + others
    parts += [WEBSOCKET, CLOSING, table(("Reason", "Code"), [(reason, str(code)) for reason, code in codes])]
    parts += [
        *sessions(),
        *relay(),
        *prompts(),
        ATTESTATION,
        struct("### GET /v1/attestation?nonce={nonce}", WireClaim),
    ]
    parts += ["## Inside answers", *(struct(f"### {cls.__name__}", cls) for cls in INSIDE)]
    parts += [ERRORS, struct("### Error", Error)]
    return "\n\n".join(parts)
