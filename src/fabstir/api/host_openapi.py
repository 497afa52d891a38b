"""A host's OpenAPI 3.1 document, from its operations and the types that they read and write. Served at `/openapi.json`; decides nothing.

The WebSocket is not in it: docs/reference/protocol.md.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fabstir.api.host_operations import BYTES, EVENTS, JSON, OPERATIONS, PLACES, HostOperation
from fabstir.api.openapi import Json, document_of, operation_id, reference, schemas_of

RETRY: Final = {
    "retry-after": {
        "description": "Seconds, where trying again can help.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    }
}


def document() -> Json:
    """The whole document."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return document_of(
        "Fabstir host",
        "One host: its views, sessions over plain HTTP, payments of renters without ETH, prompt jobs.",
        paths,
        _schemas(),
        {
            "session": {"type": "http", "scheme": "bearer", "description": "A token of `POST /v1/sessions`."},
            "operator": {"type": "http", "scheme": "bearer", "description": "`api.operator_key`."},
        },
    )


def _schemas() -> Json:
    types: list[Any] = []
    for one in OPERATIONS:
        types += [*one.answers, *one.takes, *one.events, *one.faults]
    return schemas_of(types, (one.parameters for one in OPERATIONS if one.parameters))


def _operation(operation: HostOperation) -> Json:
    described: Json = {
        "summary": operation.about,
        "operationId": operation_id(operation.method, operation.path),
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
    references = [reference(kind) for kind in kinds]
    return references[0] if len(references) == 1 else {"anyOf": references}
