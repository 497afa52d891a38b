"""A host's OpenAPI 3.1 document, from its operations and the types that they read and write. Served at `/openapi.json`; decides nothing.

Patterns are those that the code checks, written as ECMA-262 has them. The WebSocket is not in it: docs/reference/protocol.md.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from msgspec import json

import fabstir
from fabstir.api.gateway_openapi import exact
from fabstir.api.host_operations import BYTES, EVENTS, JSON, OPERATIONS, PLACES, HostOperation

REF: Final = "#/components/schemas/{name}"
RETRY: Final = {
    "retry-after": {
        "description": "Seconds, where trying again can help.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    }
}
Json = dict[str, Any]


def document() -> Json:
    """The whole document."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fabstir host",
            "version": fabstir.__version__,
            "description": "One host: its views, sessions over plain HTTP, payments of renters without ETH, prompt jobs.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "session": {"type": "http", "scheme": "bearer", "description": "A token of `POST /v1/sessions`."},
                "operator": {"type": "http", "scheme": "bearer", "description": "`api.operator_key`."},
            },
        },
    }


def openapi_route() -> HTTPRouteHandler:
    """`GET /openapi.json`."""
    published = msgspec.json.encode(document())

    @get("/openapi.json", media_type="application/json")
    async def openapi() -> bytes:
        return published

    return openapi


def _schemas() -> Json:
    types: list[Any] = []
    for one in OPERATIONS:
        types += [*one.answers, *one.takes, *one.events, *one.faults]
    requests = [one.parameters for one in OPERATIONS if one.parameters]
    _, found = json.schema_components([*types, *(one.request for one in requests)], ref_template=REF)
    schemas: Json = dict(found)
    for asked in requests:
        schemas[asked.request.__name__] = exact(schemas[asked.request.__name__], asked)
    plain: Json = _ecma(dict(sorted(schemas.items())))
    return plain


def _ecma(value: Any) -> Any:
    """Python's end of a text is `\\Z`, since its `$` lets a line break through; there it is `$`."""
    if isinstance(value, dict):
        return {
            key: one.replace(r"\Z", "$") if key == "pattern" and isinstance(one, str) else _ecma(one)
            for key, one in value.items()
        }
    return [_ecma(one) for one in value] if isinstance(value, list | tuple) else value


def _operation(operation: HostOperation) -> Json:
    name = operation.path.strip("/").replace("/", "_").replace("-", "_").translate(_PLAIN)
    described: Json = {
        "summary": operation.about,
        "operationId": f"{operation.method}_{name}",
        "responses": _answers(operation),
    }
    if operation.token or operation.operator:
        described["security"] = [{"session": []}] if operation.token else [{"operator": []}, {}]
    parameters = [
        {"name": place, "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern}}
        for place, pattern in PLACES.items()
        if f"{{{place}}}" in operation.path
    ]
    parameters += [
        {
            "name": query,
            "in": "query",
            "required": needed,
            "schema": {"type": "string", "pattern": pattern} if pattern else {"type": "string"},
        }
        for query, pattern, needed in operation.query
    ]
    if parameters:
        described["parameters"] = parameters
    if (taken := _taken(operation)) is not None:
        described["requestBody"] = {"required": True, "content": taken}
    return described


_PLAIN: Final = str.maketrans({"{": "", "}": "", ".": "_"})


def _taken(operation: HostOperation) -> Json | None:
    if operation.sealed:
        return {BYTES: {"schema": {}}}
    kinds = operation.takes or ((operation.parameters.request,) if operation.parameters else ())
    return {JSON: {"schema": _one_of(kinds)}} if kinds else None


def _answers(operation: HostOperation) -> Json:
    content: Json = {}
    if operation.answers:
        content[JSON] = {"schema": _one_of(operation.answers)}
    elif operation.status != HTTPStatus.NO_CONTENT and operation.kind != EVENTS:
        content[operation.kind.partition(";")[0]] = {"schema": {} if operation.kind == BYTES else {"type": "string"}}
    if operation.events:
        content[EVENTS] = {"schema": {"type": "string"}, "x-event-schema": _one_of(operation.events)}
    answered: Json = {"description": "Done."}
    if content:
        answered["content"] = content
    answers: Json = {str(operation.status): answered}
    fault = {JSON: {"schema": _one_of(operation.faults)}}
    for status in sorted(set(operation.errors)):
        answers[str(status)] = {"description": f"{HTTPStatus(status).phrase}.", "headers": RETRY, "content": fault}
    if operation.path == "/health":
        answers["503"] = {"description": "A new session would be refused.", "content": content}
    return answers


def _one_of(kinds: tuple[Any, ...]) -> Json:
    references = [{"$ref": REF.format(name=kind.__name__)} for kind in kinds]
    return references[0] if len(references) == 1 else {"anyOf": references}
