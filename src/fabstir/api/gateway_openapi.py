"""The gateway's OpenAPI 3.1 document, from the types that are read and written. Served at `/openapi.json`; decides nothing.

A request's schema is exact: a parameter that is refused is not in it, one that is only taken with a neutral value has these
values alone, and nothing else may be there but nulls.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fabstir.api.gateway_answer import CONTEXT_HEADER
from fabstir.api.gateway_operations import OPERATIONS, Operation
from fabstir.api.idempotency import HEADER
from fabstir.api.openapi import Json, document_of, operation_id, reference, schemas_of

_REQUEST_ID: Final = {"x-request-id": {"description": "Names this request.", "schema": {"type": "string"}}}
_CONTEXT: Final = {
    "description": "What the model was given of the conversation: messages by fate (kept, summary, retrieved, dropped), the messages that"
    " the summary stands for, and the tokens of all, the question included.",
    "schema": {"type": "string"},
    "example": "kept=12; dropped=30; tokens=3021",
}
_RETRY: Final = {
    "retry-after": {
        "description": "Seconds, where trying again can help.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "x-should-retry": {"description": "Whether trying again can help.", "schema": {"enum": ["true", "false"]}},
}


def document() -> Json:
    """The whole document."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return document_of(
        "Fabstir gateway",
        "OpenAI's and Anthropic's dialects on the renter's machine, paid for on the market.",
        paths,
        _schemas(),
        {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        },
        security=[{"bearer": []}, {"header": []}, {}],
    )


def _schemas() -> Json:
    types = [operation.answer for operation in OPERATIONS]
    types += [kind for operation in OPERATIONS for kind in (*operation.events, operation.fault)]
    return schemas_of(types, (operation.parameters for operation in OPERATIONS if operation.parameters))


def _operation(operation: Operation) -> Json:
    described: Json = {
        "summary": operation.about,
        "operationId": operation_id(operation.method, operation.path),
        "responses": _answers(operation),
    }
    if operation.open:
        described["security"] = [{}]
    if "{id}" in operation.path:
        described["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    if operation.parameters is not None:
        schema = reference(operation.parameters.request)
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if operation.paid:
        described["parameters"] = [
            {
                "name": HEADER,
                "in": "header",
                "required": False,
                "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
            }
        ]
    return described


def _answers(operation: Operation) -> Json:
    content: Json = {"application/json": {"schema": reference(operation.answer)}}
    if operation.events:
        schema = {"oneOf": [reference(kind) for kind in operation.events]}
        content["text/event-stream"] = {
            "schema": {"type": "string"},
            "x-event-schema": schema,
        }
    answers: Json = {"200": _answer("Done.", content)}
    if operation.events or operation.path.endswith("count_tokens"):
        answers["200"]["headers"] = {**_REQUEST_ID, CONTEXT_HEADER: _CONTEXT}
    for status in sorted(set(operation.errors)):
        fault = {"application/json": {"schema": reference(operation.fault)}}
        answers[str(status)] = _answer(f"{HTTPStatus(status).phrase}.", fault)
        answers[str(status)]["headers"] = {**_REQUEST_ID, **_RETRY}
    if operation.unwell:
        answers["503"] = _answer("Nothing can be answered.", content)
    return answers


def _answer(about: str, content: Json) -> Json:
    return {"description": about, "headers": _REQUEST_ID, "content": content}
