"""One answer: what is asked of an engine and what comes back. Shared by the session core and the `Engine` port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from fabstir.protocol import controls, tool_text
from fabstir.protocol.controls import Sampling
from fabstir.protocol.messages import ChatMessage, Prompt
from fabstir.protocol.transcript import TokenRecord


class GenerationRequest(Sampling, frozen=True, kw_only=True):
    """One answer to generate. Tools are no concern of an engine: they are in the messages, and in the schema of a forced call."""

    messages: tuple[ChatMessage, ...]
    """Of system, user and assistant, as text alone (`tool_text.plain`)."""
    prefix: str = ""
    """Beginning of the answer that was delivered before (by another host): the engine goes on after it."""
    score: tuple[int, ...] = ()
    """Not empty: generate nothing, say how likely these tokens are as the answer; an engine that cannot refuses (`engine_refused`)."""
    cache: str = ""
    """Who may reuse what is computed for it: requests with the same name, and nobody else. "": not even those."""
    ignore_eos: bool = False
    """Only for tests and benchmarks that need an exact number of tokens."""


def request_of(
    prompt: Prompt, messages: Sequence[ChatMessage], budget: int | None = None, cache: str = ""
) -> GenerationRequest:
    """What an engine is asked for the answer to `messages`, of which `prompt` is the last. Raises Refused (`control_invalid`)."""
    asked: dict[str, Any] = controls.sampling(prompt)
    if controls.forced(prompt):
        asked["json_schema"] = tool_text.call_schema(prompt)
    elif prompt.tools and prompt.tool_choice == "auto" and not prompt.parallel_tool_calls:
        asked["stop"] = (*prompt.stop, tool_text.CALL[1])  # the first call is the last word
    asked["max_tokens"] = prompt.max_tokens if budget is None else budget
    plain = tool_text.plain(messages, prompt)
    return GenerationRequest(messages=plain, prefix=prompt.prefix, score=prompt.score[:budget], cache=cache, **asked)


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
