"""`POST /v1/embeddings` of the gateway: vectors made on this machine, as OpenAI's client reads them."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from tests.api.gateways import gateway_of, serving
from tests.renter.world import world_of

from fabstir.api.embeddings import MAX_TEXTS, MODEL
from fabstir.testing.vectors import WordEmbedder

PATH = "/v1/embeddings"


async def test_texts_become_vectors_in_their_order() -> None:
    """OpenAI's client asks for base64 by itself; numbers and base64 are the same float32, and what was read is counted."""
    texts = ["a bee", "a bee hive", "nothing of this"]
    expected = await WordEmbedder().embed(texts)
    async with gateway_of(200_000) as gateway, gateway.client() as client:
        by_client = await client.embeddings.create(model=MODEL, input=texts)
        numbers = await client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
        one = await client.embeddings.create(model=MODEL, input=texts[1], encoding_format="float", dimensions=384)
        spent = gateway.pool.purse.budget - gateway.pool.purse.left
    for answer in (by_client, numbers):
        assert [each.index for each in answer.data] == [0, 1, 2]
        assert np.array_equal(np.array([each.embedding for each in answer.data], np.float32), expected)
    assert np.array_equal(np.array(one.data[0].embedding, np.float32), expected[1])
    assert (by_client.usage.prompt_tokens, one.usage.total_tokens, by_client.model) == (8, 3, MODEL)
    assert spent == 0


async def test_base64_is_little_endian_float32() -> None:
    """As the wire has it."""
    async with gateway_of(200_000) as gateway:
        status, answer, _ = await gateway.send({"model": MODEL, "input": "x", "encoding_format": "base64"}, PATH)
        row = np.frombuffer(base64.b64decode(json.loads(answer)["data"][0]["embedding"]), "<f4")
    assert (status, row.shape) == (200, (WordEmbedder.dimension,))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "text-embedding-3-small", "input": "x"}, 404, "model_unavailable"),
        ({"model": MODEL, "input": ""}, 400, "request_invalid"),
        ({"model": MODEL, "input": [" \n"]}, 400, "request_invalid"),
        ({"model": MODEL, "input": []}, 400, "request_invalid"),
        ({"model": MODEL, "input": ["x"] * (MAX_TEXTS + 1)}, 400, "request_invalid"),
        ({"model": MODEL, "input": [1, 2, 3]}, 400, "request_invalid"),
        ({"model": MODEL}, 400, "request_invalid"),
        ({"model": MODEL, "input": "x", "dimensions": 256}, 400, "request_invalid"),
        ({"model": MODEL, "input": "x", "encoding_format": "int8"}, 400, "request_unsupported"),
        ({"model": MODEL, "input": "x", "task": "query"}, 400, "request_unsupported"),
    ],
)
async def test_what_is_refused(body: dict[str, Any], status: int, code: str) -> None:
    """By its name, before anything is computed."""
    async with gateway_of(200_000) as gateway:
        told, answer, _ = await gateway.send(body, PATH)
    assert (told, json.loads(answer)["error"]["code"]) == (status, code)


async def test_without_an_embedder_it_says_so() -> None:
    """Nothing else answers in its place."""
    async with world_of(200_000) as world, serving(world) as gateway:
        status, answer, _ = await gateway.send({"model": MODEL, "input": "x"}, PATH)
    told = json.loads(answer)["error"]
    assert (status, told["code"]) == (503, "embedder_unavailable") and "renter.embeddings" in told["message"]
