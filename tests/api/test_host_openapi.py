"""The published OpenAPI document of a host says exactly what it does: every route is in it, answers and refusals match it."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import jsonschema
import pytest
from tests.api.http_renter import HttpRenter
from tests.api.served import Served

from fabstir.api.attestation import attestation_routes
from fabstir.api.host_answers import answer_routes
from fabstir.api.host_operations import OPERATIONS, HostOperation
from fabstir.api.host_sessions import session_routes
from fabstir.api.prompts import prompt_routes
from fabstir.api.relay import relay_routes
from fabstir.api.routes import host_routes
from fabstir.domain.errors import CATALOGUE
from fabstir.host.http_sessions import HttpSessions

ANSWERED: dict[str, Any] = {
    "/v1/chat/completions": {
        "model": "scripted",
        "messages": [{"role": "user", "content": "count 3"}],
        "max_tokens": 4,
    },
    "/v1/inference": {"model": "scripted", "prompt": "count 3", "max_tokens": 4},
}


class Published:
    """The document as it is served, and what it says about an answer."""

    def __init__(self, document: Any) -> None:
        self.document = document

    def check(self, value: Any, schema: Any) -> None:
        """Raises ValidationError. References are into the document."""
        jsonschema.Draft202012Validator({**schema, "components": self.document["components"]}).validate(value)

    def answer(self, operation: HostOperation, status: int, kind: str = "application/json") -> Any:
        """The schema of a body."""
        answers = self.document["paths"][operation.path][operation.method]["responses"]
        assert str(status) in answers, (operation.method, operation.path, status)
        return answers[str(status)]["content"][kind]


async def published(http: aiohttp.ClientSession, served: Served) -> Published:
    async with http.get(served.url + "/openapi.json") as answer:
        assert answer.status == 200
        return Published(await answer.json())


def operation(method: str, path: str) -> HostOperation:
    return next(one for one in OPERATIONS if (one.method, one.path) == (method, path))


async def test_every_route_is_in_it(served: Served) -> None:
    """And nothing else is."""
    node = served.world.node
    sessions = HttpSessions(node)
    routes = [*host_routes(node), *session_routes(node, sessions), *answer_routes(node, sessions)]
    routes += [*relay_routes(node), *prompt_routes(None), *attestation_routes(None)]
    found = {
        (method.lower(), path.replace(":str", ""))
        for route in routes
        for method in route.http_methods - {"HEAD", "OPTIONS"}
        for path in route.paths
    }
    assert found == {(one.method, one.path) for one in OPERATIONS}


async def test_answers_match_it(served: Served) -> None:
    """Views, a session from beginning to end, whole answers and each event of a stream; the requests themselves, too."""
    async with aiohttp.ClientSession() as http:
        document, renter = await published(http, served), HttpRenter(served, http)
        for path in ("/health", "/v1/models", "/v1/offer"):
            status, body = await renter.call("GET", path)
            document.check(body, document.answer(operation("get", path), status)["schema"])
        begin = operation("post", "/v1/sessions")
        document.check(await renter.open(), document.answer(begin, 201)["schema"])
        for path, asked in ANSWERED.items():
            one = operation("post", path)
            taken = document.document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
            document.check(asked, taken)
            status, body = await renter.call("POST", path, asked)
            document.check(body, document.answer(one, 200)["schema"])
            receipt = body.get("receipt") or body["fabstir"]["receipt"]
            view = operation("post", "/v1/sessions/{session_id}/receipts")
            document.check(await renter.acknowledge(receipt), document.answer(view, 200)["schema"])
            events = document.answer(one, 200, "text/event-stream")["x-event-schema"]
            async for event in renter.events(path, {**asked, "stream": True}):
                if event != "[DONE]":
                    document.check(event, events)
            _, look = await renter.call("GET", "/v1/sessions/chat")
            await renter.acknowledge(look["receipt"])
        end = operation("delete", "/v1/sessions/{session_id}")
        status, body = await renter.call("DELETE", "/v1/sessions/chat")
        document.check(body, document.answer(end, status)["schema"])


WRONG: list[tuple[bytes | None, dict[str, str]]] = [
    (b"rubbish \xff", {}),
    (b"{}", {"authorization": "Bearer x"}),
    (b"[]", {"content-type": "text/plain"}),
    (None, {"origin": "https://elsewhere.example"}),
    (None, {"host": "elsewhere.example"}),
]


@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
async def test_every_refusal_has_the_one_shape(served: Served, one: HostOperation) -> None:
    """Whatever is wrong with a request: a status that the document names, and a body with code, category, message and `retryable` as
    the catalogue has them."""
    path = one.path.format(session_id="chat", job="0x1", cid="0x" + "1" * 64, prompt="0x" + "1" * 64)
    refused = 0
    async with aiohttp.ClientSession() as http:
        document = await published(http, served)
        for body, headers in WRONG:
            given = {"content-type": "application/json", **headers}
            async with http.request(one.method, served.url + path, data=body, headers=given) as answer:
                status, data = answer.status, await answer.read()
            if status == one.status:
                continue
            refused += 1
            fault = json.loads(data)
            document.check(fault, document.answer(one, status)["schema"])
            row = CATALOGUE[fault["code"]]
            assert (fault["message"], fault["retryable"]) == (row.summary, row.retryable)
            assert fault["category"] == row.kind.category
    assert refused >= 2
