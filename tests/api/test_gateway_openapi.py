"""The published OpenAPI document says exactly what the gateway does: real answers match it, and what it rules out is refused."""

from __future__ import annotations

import io
import json
from typing import Any

import aiohttp
import jsonschema
import pytest
from tests.api.gateways import HELLO, Gateway, gateway_of

from fabstir.api.gateway import MAX_BODY_BYTES, gateway_app
from fabstir.api.gateway_guard import MAX_HEADER_BYTES
from fabstir.api.gateway_operations import OPERATIONS
from fabstir.domain.errors import CATALOGUE

CHAT: dict[str, Any] = {"model": "scripted", "messages": HELLO}
MESSAGES: dict[str, Any] = {"model": "scripted", "max_tokens": 9, "messages": HELLO}
RESPONSES: dict[str, Any] = {"model": "scripted", "input": "hi"}
LOGPROBS: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
ASKED = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2, "stream": True}),
    ("/v1/chat/completions", {**CHAT, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/responses", RESPONSES),
    ("/v1/responses", {**RESPONSES, "stream": True, **LOGPROBS, "instructions": "x", "metadata": {"a": "b"}}),
    ("/v1/messages", MESSAGES),
    ("/v1/messages", {**MESSAGES, "stream": True, "system": "x"}),
    ("/v1/messages/count_tokens", {"model": "scripted", "messages": HELLO}),
]


class Published:
    """The document, and what it says about an answer."""

    def __init__(self, document: Any) -> None:
        self.document = document

    def check(self, value: Any, schema: Any) -> None:
        """Raises ValidationError. References are into the document."""
        whole = {**schema, "components": self.document["components"]}
        jsonschema.Draft202012Validator(whole).validate(value)

    def answer(self, method: str, path: str, status: int) -> Any:
        return self.document["paths"][path][method]["responses"][str(status)]["content"]

    def request(self, path: str) -> Any:
        return self.document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


async def published(gateway: Gateway) -> Published:
    """As it is served, without a key."""
    status, document = await gateway.get("/openapi.json")
    assert status == 200
    return Published(document)


async def test_answers_and_events_match_the_document() -> None:
    """Each event of a stream too, and the requests themselves."""
    async with gateway_of(200_000) as gateway:
        found = await published(gateway)
        for path, body in ASKED:
            found.check(body, found.request(path))
            status, answer, headers = await gateway.send(body, path)
            assert status == 200 and headers["x-request-id"] == headers["request-id"]
            content = found.answer("post", path, 200)[headers["content-type"].partition(";")[0]]
            if "x-event-schema" not in content:
                found.check(json.loads(answer), content["schema"])
                continue
            events = [line.removeprefix(b"data: ") for line in answer.splitlines() if line.startswith(b"data: ")]
            for event in events:
                if event != b"[DONE]":
                    one_of = {"anyOf": content["x-event-schema"]["oneOf"]}
                    found.check(json.loads(event), one_of)


async def test_views_match_the_document() -> None:
    """Models, health, and a response that is kept and forgotten."""
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        found = await published(gateway)
        kept = await client.responses.create(model="scripted", input="hi")
        for path, template in (
            ("/v1/models", "/v1/models"),
            ("/v1/models/scripted", "/v1/models/{id}"),
            ("/health", "/health"),
            (f"/v1/responses/{kept.id}", "/v1/responses/{id}"),
        ):
            status, body = await gateway.get(path)
            assert status == 200
            found.check(body, found.answer("get", template, 200)["application/json"]["schema"])
        gateway.world.hosts[0].up = False
        await gateway.world.clock.advance(30)
        status, body = await gateway.get("/health")
        assert status == 503
        found.check(body, found.answer("get", "/health", 503)["application/json"]["schema"])


async def test_errors_match_the_document() -> None:
    """Every way to fail that needs no other host: the status is declared for the operation, and the body is its error."""
    async with gateway_of(200_000, api_key="right") as gateway:
        found = await published(gateway)
        right = {"authorization": "Bearer right"}
        for path, body in ASKED[:1] + ASKED[3:4] + ASKED[5:6] + ASKED[7:]:
            tries: list[tuple[int, Any, dict[str, str]]] = [
                (401, body, {}),
                (400, {**body, "tools": [{}]}, right),
                (400, b"{", right),
                (403, body, {**right, "host": "evil.example"}),
                (404, {**body, "model": "gpt-9"}, right),
                (413, io.BytesIO(b" " * (MAX_BODY_BYTES + 1)), right),
                (415, body, {**right, "content_type": "text/plain"}),
                (431, body, {**right, **{f"x{number}": "x" * 7_000 for number in range(5)}}),
            ]
            for wanted, sent, headers in tries:
                status, answer, told = await gateway.send(sent, path, **headers)
                assert status == wanted and told["x-request-id"]
                found.check(json.loads(answer), found.answer("post", path, status)["application/json"]["schema"])
                _as_the_catalogue_has_it(json.loads(answer))
        assert 4 * 7_000 < MAX_HEADER_BYTES < 5 * 7_000


def _as_the_catalogue_has_it(answer: Any) -> None:
    """Code, category and whether to try again, in whichever dialect."""
    fault, row = answer["error"], CATALOGUE[answer["error"]["code"]]
    assert (fault["category"], fault["retryable"]) == (row.kind.category, row.retryable)
    assert fault["message"].startswith(f"{row.code}: {row.summary}")


async def test_every_operation_fails_in_the_one_shape() -> None:
    """Whatever its dialect: a refusal has a code of the catalogue, its category, and whether trying again can help."""
    async with gateway_of(200_000, api_key="right") as gateway, aiohttp.ClientSession() as http:
        found = await published(gateway)
        for one in OPERATIONS:
            url, refused = gateway.url + one.path.replace("{id}", "nothing"), 0
            for headers in (
                {"host": "evil.example"},
                {},
                {"authorization": "Bearer right", "content-type": "text/plain"},
            ):
                async with http.request(one.method, url, headers=headers) as answer:
                    if answer.status == 200:
                        continue
                    body, refused = await answer.json(), refused + 1
                    found.check(body, found.answer(one.method, one.path, answer.status)["application/json"]["schema"])
                    _as_the_catalogue_has_it(body)
            assert refused >= 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_the_document_rules_out_what_is_refused(path: str) -> None:
    """Parameters that are not served are not in it, and a value that it rules out is refused."""
    body = {"/v1/chat/completions": CHAT, "/v1/responses": RESPONSES, "/v1/messages": MESSAGES}[path]
    wrong: list[dict[str, Any]] = [
        {"tools": [{}]},
        {"invented": 1},
        {"temperature": 3},
        {"stream": "yes"},
        {"model": 1},
    ]
    right: list[dict[str, Any]] = [{"tools": []}, {"invented": None}, {"stream": None}, {"temperature": None}]
    async with gateway_of(200_000) as gateway:
        found = await published(gateway)
        for change in wrong:
            with pytest.raises(jsonschema.ValidationError):
                found.check({**body, **change}, found.request(path))
            assert (await gateway.post({**body, **change}, path))[0] == 400
        for change in right:
            found.check({**body, **change}, found.request(path))
            assert (await gateway.post({**body, **change}, path))[0] == 200


async def test_every_route_is_published_and_nothing_else() -> None:
    """What is served is what the document lists."""
    async with gateway_of(200_000) as gateway:
        app = gateway_app(gateway.pool.market, gateway.pool)
        routes = {
            (method.lower(), route.path.replace("{name:path}", "{id}").replace("{name:str}", "{id}"))
            for route in app.routes
            for method in getattr(route, "methods", ())
            if method not in ("OPTIONS", "HEAD")
        }
        listed = {(operation.method, operation.path) for operation in OPERATIONS}
        assert routes == listed | {("get", "/openapi.json")}


async def test_another_method_is_refused_with_those_that_there_are() -> None:
    """405, in the dialect's shape."""
    async with gateway_of(200_000) as gateway:
        for path in ("/v1/chat/completions", "/v1/messages"):
            status, body = await gateway.get(path)
            assert (status, body["error"]["code"]) == (405, "request_invalid")
            assert ("request_id" in body) == (path == "/v1/messages")
