"""One answer: what is asked of an engine and what comes back. Shared by the session core and the `Engine` port."""

from __future__ import annotations

import msgspec

from fabstir.protocol.messages import ChatMessage
from fabstir.protocol.transcript import TokenRecord


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to generate."""

    messages: tuple[ChatMessage, ...]
    prefix: str = ""
    """Beginning of the answer that was delivered before (by another host): the engine goes on after it."""
    max_tokens: int
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int | None = None
    stop: tuple[str, ...] = ()
    score: tuple[int, ...] = ()
    """Not empty: generate nothing, say how likely these tokens are as the answer; an engine that cannot refuses (`engine_refused`)."""
    cache: str = ""
    """Who may reuse what is computed for it: requests with the same name, and nobody else. "": not even those."""
    ignore_eos: bool = False
    """Only for tests and benchmarks that need an exact number of tokens."""


class TokenBatch(msgspec.Struct, frozen=True):
    """One or more tokens in the order of generation, and the text that became complete with them (may be "")."""

    records: tuple[TokenRecord, ...]
    text: str


class GenerationEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Last item of a generation that was not cut off."""

    finish_reason: str
    """"stop" (end-of-turn token or stop sequence) or "length"."""
    prompt_tokens: int
    completion_tokens: int
    """By the engine's own count; equals the number of records emitted, end-of-turn token included."""
    cached_tokens: int = 0
