"""The gateway's OpenAPI 3.1 document, from the types that are read and written. Served at `/openapi.json`; decides nothing.

A request's schema is exact: a parameter that is refused is not in it, one that is only taken with a neutral value has these
values alone, and nothing else may be there but nulls.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import msgspec
from msgspec import json

import fabstir
from fabstir.api.dialect import Parameters
from fabstir.api.gateway_answer import CONTEXT_HEADER
from fabstir.api.gateway_operations import OPERATIONS, Operation
from fabstir.api.idempotency import HEADER

REF: Final = "#/components/schemas/{name}"
Json = dict[str, Any]
_NULL: Final = {"type": "null"}
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
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fabstir gateway",
            "version": fabstir.__version__,
            "description": "OpenAI's and Anthropic's dialects on the renter's machine, paid for on the market.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"header": []}, {}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _schemas() -> Json:
    types: list[Any] = [operation.answer for operation in OPERATIONS]
    types += [kind for operation in OPERATIONS for kind in (*operation.events, operation.fault)]
    requests = [operation.parameters for operation in OPERATIONS if operation.parameters]
    _, found = json.schema_components([*types, *(one.request for one in requests)], ref_template=REF)
    schemas: Json = dict(found)
    for one in requests:
        schemas[one.request.__name__] = exact(schemas[one.request.__name__], one)
    return dict(sorted(schemas.items()))


def exact(schema: Json, parameters: Parameters) -> Json:
    """The schema of a request with everything that is taken, and nothing else."""
    needed = schema.get("required", [])
    properties = {
        name: one if name in needed else {"anyOf": [one, _NULL]} for name, one in schema["properties"].items()
    }
    properties |= {name: {"enum": [None, *values]} for name, values in sorted(parameters.neutral.items())}
    properties |= {name: {"description": "Without effect."} for name in sorted(parameters.ignored)}
    return {**schema, "properties": properties, "additionalProperties": _NULL}


def _operation(operation: Operation) -> Json:
    described: Json = {
        "summary": operation.about,
        "operationId": f"{operation.method}_{operation.path.strip('/').replace('/', '_').translate(_PLAIN)}",
        "responses": _answers(operation),
    }
    if operation.open:
        described["security"] = [{}]
    if "{id}" in operation.path:
        described["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    if operation.parameters is not None:
        schema = _reference(operation.parameters.request)
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


_PLAIN: Final = str.maketrans({"{": "", "}": "", ".": "_"})


def _answers(operation: Operation) -> Json:
    content: Json = {"application/json": {"schema": _reference(operation.answer)}}
    if operation.events:
        schema = {"oneOf": [_reference(kind) for kind in operation.events]}
        content["text/event-stream"] = {
            "schema": {"type": "string"},
            "x-event-schema": schema,
        }
    answers: Json = {"200": _answer("Done.", content)}
    if operation.events or operation.path.endswith("count_tokens"):
        answers["200"]["headers"] = {**_REQUEST_ID, CONTEXT_HEADER: _CONTEXT}
    for status in sorted(set(operation.errors)):
        fault = {"application/json": {"schema": _reference(operation.fault)}}
        answers[str(status)] = _answer(f"{HTTPStatus(status).phrase}.", fault)
        answers[str(status)]["headers"] = {**_REQUEST_ID, **_RETRY}
    if operation.unwell:
        answers["503"] = _answer("Nothing can be answered.", content)
    return answers


def _answer(about: str, content: Json) -> Json:
    return {"description": about, "headers": _REQUEST_ID, "content": content}


def _reference(kind: type[msgspec.Struct]) -> Json:
    return {"$ref": REF.format(name=kind.__name__)}
