"""Opens a sealed prompt and makes the sealed answer. What was said is in memory only, from the one seal to the other.

Raises errors of the catalogue; decides neither whether to claim nor what to do about a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from typing import cast

import msgspec

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.domain.prompts import Cid, PromptTerms
from fabstir.ports.blobs import BlobStore
from fabstir.ports.engine import Engine, GenerationEnd, TokenBatch, TokenRecord
from fabstir.protocol.held_records import HeldRecords
from fabstir.protocol.prompt_content import (
    PromptBody,
    PromptResult,
    decode_body,
    digests_of,
    encode,
    preimages_of,
    request_of,
    result_hash,
)
from fabstir.protocol.sealed import ENTROPY, Binding, Content, SealingKey, cid, seal, unseal


class OpenedPrompt:
    """A prompt in memory. Its representation does not show it."""

    __slots__ = ("body", "request")

    def __init__(self, body: PromptBody, request: Hash32) -> None:
        self.body = body
        self.request = request

    def __repr__(self) -> str:
        return f"<OpenedPrompt {len(self.body.messages)} messages>"


class MadeAnswer(msgspec.Struct, frozen=True):
    """An answer under seal, and what is written down about it."""

    sealed: bytes
    cid: Cid
    hash: Hash32
    request: Hash32
    digests: bytes
    """32 bytes for each token."""
    prompt_tokens: int


async def open_prompt(uploads: BlobStore, key: SealingKey, terms: PromptTerms, engine: Engine) -> OpenedPrompt:
    """Fetch by CID, check, open, and see that it fits the model.

    Raises `blob_missing`, `blob_corrupt`, `seal_invalid`, `seal_not_for_us`, `prompt_invalid`, `context_too_long`.
    """
    sealed = await uploads.get(terms.prompt_cid)
    content = await asyncio.to_thread(unseal, sealed, key, Binding.of(Content.PROMPT, terms))
    body = decode_body(content)
    counted, room = await engine.count_tokens(body.messages), engine.info.context_size
    if counted + terms.max_tokens > room:
        raise error("context_too_long", f"{counted} tokens and {terms.max_tokens} of the answer, {room} fit")
    return OpenedPrompt(body, request_of(body, content))


async def make_answer(
    engine: Engine, prompt: OpenedPrompt, terms: PromptTerms, held: HeldRecords | None = None
) -> MadeAnswer:
    """Ask the engine, seal what it says to the reply key; `held` gets what the records are hashed from. Raises as `Engine.generate`."""
    text, records, end = await _generate(engine, prompt.body, terms)
    digests = digests_of(prompt.body, records)
    if held is not None:
        for digest, preimage in zip(digests, preimages_of(prompt.body, records), strict=True):
            held.keep(digest, preimage)
    content = encode(PromptResult(text=text, finish_reason=end.finish_reason, records=records))
    binding, recipients = Binding.of(Content.RESULT, terms), (prompt.body.reply_key,)
    sealed = await asyncio.to_thread(seal, content, recipients, binding, os.urandom(ENTROPY))
    return MadeAnswer(
        sealed=sealed,
        cid=cid(sealed),
        hash=result_hash(prompt.body, content),
        request=prompt.request,
        digests=b"".join(digests),
        prompt_tokens=end.prompt_tokens,
    )


async def _generate(
    engine: Engine, body: PromptBody, terms: PromptTerms
) -> tuple[str, tuple[TokenRecord, ...], GenerationEnd]:
    pieces: list[str] = []
    records: list[TokenRecord] = []
    items = cast(AsyncGenerator[TokenBatch | GenerationEnd, None], engine.generate(body.generation(terms)))
    async with contextlib.aclosing(items):
        async for item in items:
            if isinstance(item, GenerationEnd):
                if len(records) > terms.max_tokens:
                    raise error("engine_failed", f"{len(records)} tokens, {terms.max_tokens} were asked for")
                return "".join(pieces), tuple(records), item
            pieces.append(item.text)
            records += item.records
    raise error("engine_gone", "the generation stopped without an end")
