"""OpenAI's Responses as this gateway speaks them: what is read and which parameters are refused by name. What is written:
`responses_writer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from fabstir.api.dialect import (
    DEFAULT_MAX_TOKENS,
    Asked,
    InvalidParameter,
    Limit,
    Parameters,
    Part,
    Temperature,
    TopLogprobs,
    TopP,
    one_of,
    read,
    split,
    text_of,
    unsupported,
)
from fabstir.protocol.messages import ChatMessage
from fabstir.renter.access import Context

WITH_LOGPROBS: Final = "message.output_text.logprobs"
KINDS: Final = ("input_text", "output_text", "text")


class InputPart(Part, frozen=True, kw_only=True):
    """A part of a message; only text is served."""

    type: Annotated[str, one_of(*KINDS)]


class InputItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message of `input`."""

    role: Annotated[str, one_of("system", "developer", "user", "assistant")]
    """`system`, `developer` (as `system`), `user` or `assistant`."""
    content: str | tuple[InputPart, ...] | None = None
    """Text, or parts of type `input_text` or `output_text`."""
    type: Annotated[str, one_of("message")] = "message"

    def message(self, place: int) -> ChatMessage:
        """As the protocol has it. Raises InvalidParameter."""
        role = "system" if self.role == "developer" else self.role
        if self.type != "message":
            raise unsupported(f"input[{place}].type", "only messages are served")
        if role not in ("system", "user", "assistant"):
            raise unsupported(f"input[{place}].role", f"{self.role[:20]!r} is not served")
        return ChatMessage(role, text_of(self.content, f"input[{place}].content", KINDS))


class ResponsesStreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What else a stream tells."""

    include_obfuscation: bool = False
    """Read over: events are never padded."""


class ResponsesRequest(msgspec.Struct, frozen=True):
    """The body of `POST /v1/responses`."""

    model: str
    """Name or id of a model of `GET /v1/models`."""
    input: Annotated[str, Meta(min_length=1)] | Annotated[tuple[InputItem, ...], Meta(min_length=1)]
    """The question, or messages of which the last one is the user's."""
    instructions: str | None = None
    """A system message before everything else, for this response only."""
    previous_response_id: str | None = None
    """Go on from a response that this gateway keeps in memory: at most 1024, 32 MiB and an hour; else `response_unknown`."""
    store: bool = True
    """Keep the response so. OpenAI's default."""
    stream: bool = False
    """Server-sent events with their types and `sequence_number`."""
    background: bool = False
    """Answer at once with `queued`; look with `GET /v1/responses/{id}`, end it with `POST /v1/responses/{id}/cancel`. Not with `stream`,
    not without `store`."""
    stream_options: ResponsesStreamOptions | None = None
    max_output_tokens: Limit | None = None
    """Without one: 4096."""
    temperature: Temperature | None = None
    """Without one: 1."""
    top_p: TopP | None = None
    """Without one: 1."""
    include: tuple[Annotated[str, one_of(WITH_LOGPROBS)], ...] = ()
    """`message.output_text.logprobs` is served."""
    top_logprobs: TopLogprobs | None = None
    """With `message.output_text.logprobs`; see chat completions."""
    metadata: dict[str, str] | None = None
    """Repeated in the response."""

    def messages(self) -> Context:
        """What `input` says. Raises InvalidParameter."""
        if isinstance(self.input, str):
            return (ChatMessage("user", self.input),)
        return tuple(item.message(place) for place, item in enumerate(self.input))

    def asked(self, before: Context) -> Asked:
        """In the words of a session, after what was said `before`. Raises InvalidParameter."""
        for place, wanted in enumerate(self.include):
            if wanted != WITH_LOGPROBS:
                raise unsupported(f"include[{place}]", f"{wanted[:64]!r} is not served")
        if self.background and (self.stream or not self.store):
            raise InvalidParameter("background", "only with `store`, and not with `stream`")
        if self.top_logprobs and not self.include:
            raise InvalidParameter("top_logprobs", f"only together with include: {WITH_LOGPROBS}")
        system = (ChatMessage("system", self.instructions),) if self.instructions else ()
        conversation, question = split((*system, *before, *self.messages()), "input")
        return Asked(
            model=self.model,
            conversation=conversation,
            question=question,
            stream=self.stream,
            max_tokens=self.max_output_tokens or DEFAULT_MAX_TOKENS,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            logprobs=bool(self.include),
        )


_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "background_options": (),
    "context_management": ([],),
    "conversation": (),
    "image": (),
    "max_tool_calls": (),
    "moderation": (),
    "prompt": (),
    "reasoning": ({}, {"effort": None}, {"effort": None, "summary": None}),
    "text": ({}, {"format": {"type": "text"}}),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "truncation": ("disabled",),
    "access_programs": (),
}
RESPONSES: Final = Parameters(
    request=ResponsesRequest,
    neutral=_NEUTRAL,
    ignored=frozenset(
        (
            "user",
            "service_tier",
            "safety_identifier",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "parallel_tool_calls",
        )
    ),
    harmless={"input": frozenset(("id", "status", "phase", "annotations", "logprobs"))},
)


def read_responses(body: bytes) -> ResponsesRequest:
    """Raises PeerFault: InvalidParameter where a parameter is at fault."""
    request: ResponsesRequest = read(body, RESPONSES)
    return request
