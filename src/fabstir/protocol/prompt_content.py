"""What is inside the seals of a prompt job: the prompt with the renter's keys, and the result with its token records.

JSON, so that every SDK can read it; what is hashed are the bytes as they were sealed, so no canonical form is needed. The
record salt travels in the sealed prompt: the salt of the terms is public, and records under a public salt could be searched
for what was said. Decides what a valid prompt and a true result are; fetches and stores nothing.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fabstir.domain.errors import error
from fabstir.domain.ids import Hash32
from fabstir.domain.money import Tokens
from fabstir.domain.prompts import PromptTerms
from fabstir.domain.terms import Terms
from fabstir.protocol.controls import Controls
from fabstir.protocol.generation import GenerationRequest
from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.signing import Market
from fabstir.protocol.tool_text import plain
from fabstir.protocol.transcript import Sampler, TokenRecord, extend, job_head, record_preimage, request_hash, turn_head

RESULT_TAG: Final = b"fabstir/result/1"
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]


class PromptBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The prompt as the renter seals it."""

    messages: Annotated[tuple[ChatMessage, ...], Meta(min_length=1, max_length=1024)]
    reply_key: Bytes32
    """X25519: the result is sealed to it."""
    record_salt: Bytes32
    """32 fresh random bytes for the request hash and the token records of this job."""
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.8
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.95
    seed: Annotated[int, Meta(ge=0, lt=2**32)] | None = None
    stop: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=8)] = ()

    def generation(self, terms: PromptTerms) -> GenerationRequest:
        """What the engine is asked: as much as the terms pay for."""
        return GenerationRequest(
            messages=plain(self.messages, Controls()),
            max_tokens=terms.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=self.stop,
        )


class PromptResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer as the host seals it."""

    text: str
    finish_reason: str
    records: tuple[TokenRecord, ...]
    """One for each token, in order: what the renter recomputes the transcript from."""


_body: Final = msgspec.json.Decoder(PromptBody)
_result: Final = msgspec.json.Decoder(PromptResult)
encode: Final = msgspec.json.Encoder().encode
"""A body or a result, as it is sealed and hashed."""


def decode_body(content: bytes) -> PromptBody:
    """Raises `prompt_invalid`."""
    try:
        return _body.decode(content)
    except msgspec.MsgspecError as cause:
        raise error("prompt_invalid", "the sealed prompt cannot be read") from cause


def decode_result(content: bytes) -> PromptResult:
    """Raises `prompt_result_invalid`."""
    try:
        return _result.decode(content)
    except msgspec.MsgspecError as cause:
        raise error("prompt_result_invalid", "the sealed result cannot be read") from cause


def request_of(body: PromptBody, content: bytes) -> Hash32:
    """The salted hash that binds the answer to what was asked; `content` is the body as it was sealed."""
    return request_hash(Hash32(body.record_salt), content)


def result_hash(body: PromptBody, content: bytes) -> Hash32:
    """What goes on chain for a result. Salted, so that nobody can try out answers against it."""
    return Hash32(sha256(RESULT_TAG + body.record_salt + content).digest())


def preimages_of(body: PromptBody, records: tuple[TokenRecord, ...]) -> tuple[bytes, ...]:
    """What the records' digests are made of; secret as long as the answer is."""
    salt, sampler = Hash32(body.record_salt), Sampler.of(body.temperature, body.top_p)
    return tuple(record_preimage(salt, index, record, sampler) for index, record in enumerate(records))


def digests_of(body: PromptBody, records: tuple[TokenRecord, ...]) -> tuple[bytes, ...]:
    """The records' digests, as both sides compute them."""
    return tuple(sha256(preimage).digest() for preimage in preimages_of(body, records))


def answer_head(market: Market, terms: Terms, request: Hash32, digests: tuple[bytes, ...]) -> Hash32:
    """The transcript's head of the market job, whose only answer this is: what a voucher signs."""
    return extend(turn_head(job_head(market, terms), 0, Tokens(0), request), digests)


def check_result(body: PromptBody, content: bytes, expected: Hash32, tokens: Tokens) -> PromptResult:
    """The result that `content` holds, checked against what is on chain. Raises `prompt_result_invalid`."""
    if result_hash(body, content) != expected:
        raise error("prompt_result_invalid", "its hash is not the one on chain")
    result = decode_result(content)
    if len(result.records) != tokens:
        raise error("prompt_result_invalid", f"{len(result.records)} token records, {tokens} billed")
    return result
