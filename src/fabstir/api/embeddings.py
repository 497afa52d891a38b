"""OpenAI's embeddings on the renter's gateway, made on this machine: nobody is paid for them, and nobody else sees the texts.

There is one embedder (`renter.embeddings`), so the model has one name. Decides nothing about vectors; what they are worth and how they
are made: docs/explanation/vectors.md. Keeps nothing.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta

from fabstir.api.dialect import InvalidParameter, Parameters, one_of, read, unsupported
from fabstir.api.gateway_guard import client_of
from fabstir.domain.errors import error
from fabstir.ports.vectors import Embedder

MODEL: Final = "all-MiniLM-L6-v2"
DIMENSIONS: Final = 384
MAX_TEXTS: Final = 1_024
MAX_CHARACTERS: Final = 100_000
Text = Annotated[str, Meta(min_length=1, max_length=MAX_CHARACTERS, pattern=r"\S")]


class EmbeddingsRequest(msgspec.Struct, frozen=True):
    """The body of `POST /v1/embeddings`."""

    model: Annotated[str, one_of(MODEL)]
    """`all-MiniLM-L6-v2`."""
    input: Text | Annotated[tuple[Text, ...], Meta(min_length=1, max_length=MAX_TEXTS)]
    """One text, or up to 1,024; none of them blank. A text counts with its first 256 tokens. Ids of tokens are not taken: they would be of
    another model's tokenizer."""
    encoding_format: Annotated[str, one_of("float", "base64")] = "float"
    """`base64`: the numbers as little-endian float32."""
    dimensions: Annotated[int, Meta(extra_json_schema={"enum": [DIMENSIONS]})] | None = None
    """384, and no other."""


EMBEDDINGS: Final = Parameters(request=EmbeddingsRequest, neutral={}, ignored=frozenset(("user",)))


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """Of one text."""

    index: int
    """Of the text in `input`."""
    embedding: list[float] | str
    """384 numbers, together at length one; a text where base64 was asked for."""
    object: str = "embedding"


class EmbeddingsUsage(msgspec.Struct, frozen=True):
    """Tokens that the embedder read. They cost nothing."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """All texts, in their order."""

    data: tuple[Embedding, ...]
    model: str
    usage: EmbeddingsUsage
    object: str = "list"


def embeddings_route(embedder: Embedder | None) -> HTTPRouteHandler:
    """The route; without an embedder it refuses (`embedder_unavailable`)."""

    @post("/v1/embeddings", status_code=200)
    async def embeddings(request: Request[Any, Any, Any]) -> Embeddings:
        asked = read_embeddings(await request.body())
        if not client_of(request).may_use(MODEL):
            raise error("model_unavailable", f"the key may not use {MODEL}")
        if embedder is None:
            raise error("embedder_unavailable", "renter.embeddings is false")
        texts = (asked.input,) if isinstance(asked.input, str) else asked.input
        rows = await embedder.embed(texts)
        tokens = await embedder.count(texts)
        return Embeddings(
            data=tuple(
                Embedding(index=at, embedding=_written(row, asked.encoding_format)) for at, row in enumerate(rows)
            ),
            model=MODEL,
            usage=EmbeddingsUsage(tokens, tokens),
        )

    return embeddings


def read_embeddings(body: bytes) -> EmbeddingsRequest:
    """Raises PeerFault: InvalidParameter where a parameter is at fault, `model_unavailable` for another model."""
    asked: EmbeddingsRequest = read(body, EMBEDDINGS)
    if asked.model != MODEL:
        raise error("model_unavailable", f"embeddings are made by {MODEL}, not by {asked.model[:80]!r}")
    if asked.encoding_format not in ("float", "base64"):
        raise unsupported("encoding_format", f"{asked.encoding_format[:20]!r} is not served")
    if asked.dimensions not in (None, DIMENSIONS):
        raise InvalidParameter("dimensions", f"{asked.dimensions}; vectors have {DIMENSIONS}")
    return asked


def _written(row: npt.NDArray[np.float32], form: str) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    numbers: list[float] = row.tolist()
    return numbers
