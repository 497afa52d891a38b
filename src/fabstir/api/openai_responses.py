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
    result_of,
    split,
    text_of,
    unsupported,
)
from fabstir.api.openai_tools import CallId, Format, ResponsesTool, ToolChoice, call_of, calling
from fabstir.protocol.controls import MAX_TOOLS
from fabstir.protocol.messages import ChatMessage
from fabstir.renter.access import Context

WITH_LOGPROBS: Final = "message.output_text.logprobs"
KINDS: Final = ("input_text", "output_text", "text")


class InputPart(Part, frozen=True, kw_only=True):
    """A part of a message; only text is served."""

    type: Annotated[str, one_of(*KINDS)]


class InputItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An item of `input`: a message, a `function_call` of the model's, its `function_call_output`; `reasoning` is read over."""

    role: Annotated[str, one_of("", "system", "developer", "user", "assistant")] = ""
    """Of a message: `system`, `developer` (as `system`), `user` or `assistant`."""
    content: str | tuple[InputPart, ...] | None = None
    """Of a message: text, or parts of type `input_text` or `output_text`."""
    type: Annotated[str, one_of("message", "function_call", "function_call_output", "reasoning")] = "message"
    call_id: CallId = ""
    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{0,64}$")] = ""
    arguments: str = "{}"
    output: str | tuple[InputPart, ...] = ""
    """Of a call: text, or parts of type `input_text`."""
    summary: tuple[dict[str, Any], ...] = ()
    encrypted_content: str | None = None

    def message(self, place: int) -> ChatMessage | None:
        """As the protocol has it; None where it is read over. Raises InvalidParameter."""
        where = f"input[{place}]"
        if self.type == "reasoning":
            return None
        if self.type == "function_call":
            return ChatMessage("assistant", "", tool_calls=(call_of(self.call_id, self.name, self.arguments, where),))
        if self.type == "function_call_output":
            return result_of(self.call_id, text_of(self.output, f"{where}.output", KINDS), where)
        if self.type != "message":
            raise unsupported(f"{where}.type", f"{self.type[:20]!r} is not served")
        role = "system" if self.role == "developer" else self.role
        if role not in ("system", "user", "assistant"):
            raise unsupported(f"{where}.role", f"{self.role[:20]!r} is not served")
        return ChatMessage(role, text_of(self.content, f"{where}.content", KINDS))


class TextConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the text is written."""

    format: Format | None = None
    """JSON, by grammar: the answer satisfies the schema wherever it is complete."""


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
    text: TextConfig | None = None
    tools: Annotated[tuple[ResponsesTool, ...], Meta(max_length=MAX_TOOLS)] = ()
    """Functions that the model may call."""
    tool_choice: ToolChoice | None = None
    """`none`, `auto`, `required`, or a function, by grammar."""
    parallel_tool_calls: bool = True
    """Several calls in one answer."""

    def messages(self) -> Context:
        """What `input` says; calls that follow each other are one message. Raises InvalidParameter."""
        if isinstance(self.input, str):
            return (ChatMessage("user", self.input),)
        found: list[ChatMessage] = []
        for place, item in enumerate(self.input):
            message = item.message(place)
            if message is None:
                continue
            if message.tool_calls and found and found[-1].role == "assistant":
                calls = (*found[-1].tool_calls, *message.tool_calls)
                message = ChatMessage("assistant", found.pop().content, tool_calls=calls)
            found.append(message)
        return tuple(found)

    def controls(self) -> dict[str, Any]:
        """In the words of a session. Raises InvalidParameter."""
        form = self.text.format.text("text.format") if self.text and self.text.format else ""
        found = {"json_schema": form} if form else {}
        return found | calling(self.tools, self.tool_choice, several=self.parallel_tool_calls)

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
            controls=self.controls(),
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
        )
    ),
    harmless={"input": frozenset(("id", "status", "phase", "annotations", "logprobs"))},
)


def read_responses(body: bytes) -> ResponsesRequest:
    """Raises PeerFault: InvalidParameter where a parameter is at fault."""
    request: ResponsesRequest = read(body, RESPONSES)
    return request
