"""OpenAI's stock client for Node against the gateway, with nothing but a base URL: its common calls, errors, retries and abort, all in one
process (tests/clients/calls.mjs, pinned by its lock file; `make install` brings it)."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.api.gateways import Gateway, gateway_of
from tests.renter.world import counting, eventually

CLIENTS = Path(__file__).parents[1] / "clients"


async def _calls(gateway: Gateway) -> Any:
    """What they came to. Fails with what the process said."""
    process = await asyncio.create_subprocess_exec(
        "node",
        "calls.mjs",
        cwd=CLIENTS,
        env={"PATH": os.environ["PATH"], "BASE_URL": f"{gateway.url}/v1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin and process.stdout and process.stderr
    async with asyncio.timeout(60):
        if await process.stdout.readline():
            gateway.world.hosts[0].engine.fail_next(0)
            process.stdin.write(b"go\n")
        last, said = await asyncio.gather(process.stdout.read(), process.stderr.read())
        assert await process.wait() == 0, said.decode()
    return json.loads(last)


@pytest.mark.real
async def test_the_common_calls_of_the_node_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole and streamed answers, models, responses, errors as their classes, a retry after a failure, an abort: each as with OpenAI."""
    monkeypatch.setattr("fabstir.api.gateway_errors.RETRY_SECONDS", 0)  # the client waits as long as it is told to
    async with gateway_of(200_000, budget=10_000_000) as gateway:
        found = await _calls(gateway)
        assert found["whole"]["text"] == counting(20) and found["whole"]["finish"] == "stop"
        assert found["whole"]["usage"]["completion_tokens"] == 21
        assert found["stream"]["text"] == counting(30) and found["stream"]["chunks"] >= 30
        assert found["stream"]["usage"]["completion_tokens"] == 31
        assert found["runner"] == {"text": counting(10), "logprobs": 11}
        assert (found["models"], found["model"]) == (["scripted"], "model")
        assert found["response"] == {"text": counting(5), "status": "completed", "next": "You said: and now?"}
        assert found["kept"] is True and found["forgotten"]["kind"] == "NotFoundError"
        assert found["events"] == {"text": counting(8), "last": "response.completed"}
        unknown, refused, wrong = found["unknown"], found["refused"], found["wrong"]
        assert (unknown["kind"], unknown["code"]) == ("NotFoundError", "model_unavailable")
        assert (refused["kind"], refused["code"]) == ("BadRequestError", "request_unsupported")
        assert refused["param"] == "n"
        assert (wrong["status"], wrong["code"], wrong["param"]) == (400, "request_invalid", "temperature")
        assert found["retried"] == {"text": "You said: again", "id": True}
        assert 5 <= found["aborted"]["chunks"] < 500  # those that had arrived are still given out
        await eventually(lambda: gateway.pool.busy == 0)
        assert sum(ledger.served for ledger in gateway.world.hosts[0].ledgers) < 2_000
