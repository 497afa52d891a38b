"""What both OpenAPI 3.1 documents have in common, the host's and the gateway's: the frame, the schemas of the types that are read and
written, and the route that serves them. Decides nothing.

Patterns are those that the code checks, written as ECMA-262 has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from msgspec import json

import fabstir
from fabstir.api.dialect import Parameters

Json = dict[str, Any]
REF: Final = "#/components/schemas/{name}"
NULL: Final = {"type": "null"}
_PLAIN: Final = str.maketrans({"{": "", "}": "", ".": "_", "/": "_", "-": "_"})


def document_of(title: str, about: str, paths: Json, schemas: Json, schemes: Json, **more: Any) -> Json:
    """The whole document. `schemes`: of security, by name; `more` stands beside the paths."""
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": fabstir.__version__, "description": about},
        "servers": [{"url": "/"}],
        **more,
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": schemes},
    }


def openapi_route(document: Mapping[str, Any]) -> HTTPRouteHandler:
    """`GET /openapi.json`."""
    published = msgspec.json.encode(document)

    @get("/openapi.json", media_type="application/json")
    async def openapi() -> bytes:
        return published

    return openapi


def operation_id(method: str, path: str) -> str:
    """A name of its own for each operation."""
    return f"{method}_{path.strip('/').translate(_PLAIN)}"


def reference(kind: type[msgspec.Struct]) -> Json:
    """Where the schema of `kind` is."""
    return {"$ref": REF.format(name=kind.__name__)}


def schemas_of(types: Iterable[type[msgspec.Struct]], requests: Iterable[Parameters]) -> Json:
    """The schemas of all that is written, and of requests with everything that is taken, and nothing else."""
    asked = list(requests)
    _, found = json.schema_components([*types, *(one.request for one in asked)], ref_template=REF)
    schemas: Json = dict(found)
    for one in asked:
        schemas[one.request.__name__] = _exact(schemas[one.request.__name__], one)
    plain: Json = _ecma(dict(sorted(schemas.items())))
    return plain


def _exact(schema: Json, parameters: Parameters) -> Json:
    needed = schema.get("required", [])
    properties = {name: one if name in needed else {"anyOf": [one, NULL]} for name, one in schema["properties"].items()}
    properties |= {name: {"enum": [None, *values]} for name, values in sorted(parameters.neutral.items())}
    properties |= {name: {"description": "Without effect."} for name in sorted(parameters.ignored)}
    return {**schema, "properties": properties, "additionalProperties": NULL}


def _ecma(value: Any) -> Any:
    """Python's end of a text is `\\Z`, since its `$` lets a line break through; there it is `$`."""
    if isinstance(value, dict):
        return {
            key: one.replace(r"\Z", "$") if key == "pattern" and isinstance(one, str) else _ecma(one)
            for key, one in value.items()
        }
    return [_ecma(one) for one in value] if isinstance(value, list | tuple) else value
