"""docs/reference/gateway.md, from the operations of the gateway and the structures that they read and write."""

from __future__ import annotations

import json

from fabstir.api import idempotency, kept_responses
from fabstir.api.dialect import Logprob, Parameters
from fabstir.api.gateway import MAX_BODY_BYTES
from fabstir.api.gateway_errors import ANTHROPIC_KINDS, OPENAI_KINDS, ErrorBody, MessagesErrorBody
from fabstir.api.gateway_guard import MAX_HEADER_BYTES
from fabstir.api.gateway_operations import OPERATIONS, Operation
from reference.structs import struct
from reference.table import table

BODY_MIB, HEADER_KIB = MAX_BODY_BYTES >> 20, MAX_HEADER_BYTES >> 10
ANSWERS, ANSWERS_MIB = idempotency.MAX_ANSWERS, idempotency.MAX_BYTES >> 20
ANSWERS_MINUTES = int(idempotency.KEPT_SECONDS // 60)
RESPONSES, RESPONSES_MIB = kept_responses.MAX_RESPONSES, kept_responses.MAX_BYTES >> 20
RESPONSES_MINUTES = int(kept_responses.KEPT_SECONDS // 60)

INTRODUCTION = f"""\
# The gateway

`fabstir gateway` answers clients of OpenAI and Anthropic on the renter's machine and pays hosts of the market for it. Base URL for
OpenAI's: `http://127.0.0.1:8090/v1`, for Anthropic's the same without `/v1` (`renter.gateway_host`, `renter.gateway_port`). All
dialects end in the same place: one request is one answer of a session. The whole as OpenAPI 3.1: `GET /openapi.json`, from the same
source as this page.

It spends its owner's money, so it answers only who reaches it as this machine: a `Host` header of another name is refused with 403 (DNS
rebinding), a POST that is not `application/json` with 415 (what a web page may send anywhere without asking). Bodies of more than
{BODY_MIB} MiB are 413, headers of more than {HEADER_KIB} KiB 431. Every answer has its id in `x-request-id` and `request-id`.

A conversation that does not fit the model is refused, unless `renter.context_strategy` says otherwise: then the oldest turns are left out
or summarised, and `x-fabstir-context` of each answer says what the model was given ([context](../explanation/context.md)).

A request that goes on a conversation which an idle session holds (the same messages, and one more question) is sent as that question
alone. Any other conversation takes the place of the one before, on the same job. Up to `renter.gateway_parallel` requests are answered
at the same time, each under a job of its own; more wait. A client that goes away is not answered any further, and what it did not get
is not paid for. `usage` is the host's count: what was paid for.

**Nothing is ignored that would change the answer.** A parameter is served, or taken with a value that changes nothing, or says
something to its vendor alone and is read over; each of these is listed below. Any other one is refused by its name
(`request_unsupported`).

Samplers, JSON and tools are [controls](../explanation/controls.md) of hosts: a request goes to one that has what it needs, and is refused
with `control_unsupported` where nobody does. `GET /v1/models` lists them. Calls and thoughts are read out of the answer's text here, as it
streams, and told in each dialect's own form: `tool_calls` and `reasoning_content`, `function_call` and `reasoning` items, `tool_use` and
`thinking` blocks. `n` is refused above 1: ask as often as you want answers, each is paid for."""

KEYS = """\
## API keys

Without keys everyone on this machine is answered. `renter.gateway_key` is one key without bounds. `fabstir gateway key add NAME` makes
further ones: with `--budget` (base units that its requests may cost, ever), `--per-minute` and `--model`. They are sent as
`Authorization: Bearer` or `x-api-key`. From the first one on nobody is answered without a key (`api_key_invalid`); `/health` and
`/openapi.json` need none. The file `gateway_keys.json` in `renter.data_dir` has their SHA-256, never the keys. A running gateway sees a
change at the next request. A file that cannot be read lets nobody in.

What a key spent is what was signed for in its requests, and what the contract paid above that. It is in the journal, so a restart
forgets nothing. A request may be answered with as many tokens as the budget pays for at the price of the host at hand, less what
running requests of the same key may still cost; an answer that the budget ends has the finish reason of a length. Where it does not pay
for one token: `key_budget_exceeded` (402). An answer that moves to a dearer host ends with the piece that goes beyond. The gateway's
own budget (`renter.budget`) bounds all keys together."""

REPEATING = f"""\
## Idempotency-Key

A POST with this header (1 to 255 visible ASCII characters) is answered once: repeated with the same body it gets the same answer, with
`idempotent-replayed: true`, and nothing more is paid. While the first one is being answered, the repetition follows it. The answer is
made to its end even where the client is gone. Another body under the key is `idempotency_conflict` (409). What failed may be tried
again. Kept in memory, for each API key apart: {ANSWERS} answers, {ANSWERS_MIB} MiB, {ANSWERS_MINUTES} minutes.

## Responses that are kept

With `store` (the default, as OpenAI's) a response that is complete can be gone on from with `previous_response_id`, by the key that
asked for it: {RESPONSES} responses, {RESPONSES_MIB} MiB, {RESPONSES_MINUTES} minutes, in memory only. Instructions are not carried
over."""

ERRORS = """\
## Errors

In the shape of the dialect, with [our code](errors.md) in `code`. `x-should-retry` tells the stock clients whether to try again; where
it may help, `retry-after` says when. What fails after the first token comes as a last event: chunks of chat completions have `error`,
responses end with `response.failed`, messages with the event `error`."""


def _parameters(parameters: Parameters) -> list[str]:
    neutral = [
        (f"`{name}`", ", ".join(f"`{json.dumps(value)}`" for value in values) or "none but `null`")
        for name, values in sorted(parameters.neutral.items())
    ]
    ignored = ", ".join(f"`{name}`" for name in sorted(parameters.ignored))
    inside = [
        f"{', '.join(f'`{field}`' for field in sorted(fields))} inside `{name}`"
        for name, fields in sorted(parameters.harmless.items())
    ]
    return [
        struct("Served:", parameters.request),
        "Taken with a value that changes nothing, else refused:\n\n" + table(("Parameter", "Values"), neutral),
        f"Read over, since they say something to the vendor alone: {'; '.join([ignored, *inside])}. Null is taken everywhere.",
    ]


def _operation(operation: Operation) -> list[str]:
    parts = [f"## {operation.method.upper()} {operation.path}\n\n{operation.about}"]
    if operation.parameters is not None:
        parts += _parameters(operation.parameters)
    parts.append(struct("Answer:", operation.answer))
    if operation.events:
        names = ", ".join(f"`{kind.__name__}`" for kind in operation.events)
        parts.append(f"A stream consists of {names}; their fields are in `/openapi.json`.")
    return parts


def render() -> str:
    """The page."""
    parts = [INTRODUCTION, KEYS, REPEATING]
    for operation in OPERATIONS:
        parts += _operation(operation)
    kinds = [
        (
            str(status),
            OPENAI_KINDS.get(status, _other(status, "server_error")),
            ANTHROPIC_KINDS.get(status, _other(status, "api_error")),
        )
        for status in (400, 401, 402, 403, 404, 409, 413, 429, 500, 502, 503, 504)
    ]
    headings = ("Status", "`type`, OpenAI", "`type`, Anthropic")
    parts += [
        ERRORS,
        table(headings, kinds),
        struct("### OpenAI's", ErrorBody),
        struct("### Anthropic's", MessagesErrorBody),
    ]
    parts.append(struct("## Inside answers", Logprob))
    return "\n\n".join(parts)


def _other(status: int, server: str) -> str:
    return "invalid_request_error" if status < 500 else server
