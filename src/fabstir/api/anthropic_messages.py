"""Anthropic's Messages as this gateway speaks them: what is read and which parameters are refused by name. What is written:
`messages_writer`. The reference (docs/reference/gateway.md) and `/openapi.json` are made from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from fabstir.api.dialect import (
    Asked,
    Content,
    InvalidParameter,
    Limit,
    Parameters,
    StopText,
    Temperature,
    TopP,
    one_of,
    read,
    result_of,
    split,
    text_of,
    unsupported,
)
from fabstir.api.openai_tools import CallId, ToolName, as_text, call_of
from fabstir.protocol.controls import MAX_TOOLS, MAX_TOP_K, Tool
from fabstir.protocol.messages import ChatMessage


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A block of a message: `text`, `tool_use`, `tool_result`, or `thinking`, which is read over."""

    type: Annotated[str, one_of("text", "tool_use", "tool_result", "thinking", "redacted_thinking")]
    text: str = ""
    id: CallId = ""
    """Of `tool_use`."""
    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{0,64}$")] = ""
    input: dict[str, Any] = {}
    tool_use_id: CallId = ""
    """Of `tool_result`: which call."""
    content: Content = ""
    """Of `tool_result`: text, or blocks of type `text`."""
    is_error: bool = False
    """Of `tool_result`: the text says so, or nothing does."""
    thinking: str = ""
    signature: str = ""
    data: str = ""


Blocks = str | tuple[Block, ...]


class MessageParam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a request."""

    role: Annotated[str, one_of("user", "assistant")]
    """`user` or `assistant`."""
    content: Blocks
    """Text, or blocks."""

    def messages(self, place: int) -> list[ChatMessage]:
        """As the protocol has them: results of calls are messages of their own, before the user's words. Raises InvalidParameter."""
        where = f"messages[{place}]"
        if self.role not in ("user", "assistant"):
            raise unsupported(f"{where}.role", f"{self.role[:20]!r} is not served")
        if isinstance(self.content, str):
            return [ChatMessage(self.role, self.content)]
        results, words, calls = [], [], []
        for at, block in enumerate(self.content):
            here = f"{where}.content[{at}]"
            if block.type == "tool_result" and self.role == "user":
                results.append(result_of(block.tool_use_id, text_of(block.content, f"{here}.content"), here))
            elif block.type == "tool_use" and self.role == "assistant":
                calls.append(call_of(block.id, block.name, as_text(block.input), here))
            elif block.type == "text":
                words.append(block.text)
            elif block.type not in ("thinking", "redacted_thinking"):
                raise unsupported(f"{here}.type", f"{block.type[:20]!r} is not served here")
        said = ChatMessage(self.role, "".join(words), tool_calls=tuple(calls))
        return [*results, *([said] if words or calls or not results else [])]


class MessagesTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A tool that the model may use."""

    name: ToolName
    input_schema: dict[str, Any] = {}
    description: str = ""
    type: Annotated[str, one_of("custom")] | None = None
    """`custom`; the vendor's own tools are not served."""
    strict: bool | None = None
    """With `tool_choice` `any` or `tool` it always is."""


class MessagesChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whether the model has to use a tool."""

    type: Annotated[str, one_of("auto", "any", "tool", "none")]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whether what the model thinks is told; a model that thinks does so in any case."""

    type: Annotated[str, one_of("enabled", "adaptive", "disabled")]
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None
    """Not kept: `max_tokens` is the bound of both."""
    display: str | None = None


class CountRequest(msgspec.Struct, frozen=True):
    """The body of `POST /v1/messages/count_tokens`."""

    model: str
    """Name or id of a model of `GET /v1/models`."""
    messages: Annotated[tuple[MessageParam, ...], Meta(min_length=1)]
    """The last one is the user's and not empty: answers are not begun for the model."""
    system: Content | None = None
    """Text, or blocks of type `text`."""
    tools: Annotated[tuple[MessagesTool, ...], Meta(max_length=MAX_TOOLS)] = ()
    """What the model may use."""
    tool_choice: MessagesChoice | None = None
    """`any` and `tool` by grammar."""
    thinking: Thinking | None = None
    """Without it thoughts are left out of the answer; they are paid for."""

    def parts(self) -> tuple[tuple[ChatMessage, ...], ChatMessage]:
        """What was said before, and the question. Raises InvalidParameter."""
        system = text_of(self.system, "system", joint="\n\n")
        messages = [one for place, message in enumerate(self.messages) for one in message.messages(place)]
        return split((*((ChatMessage("system", system),) if system else ()), *messages), "messages")

    def calling(self) -> dict[str, Any]:
        """The controls of tools. Raises InvalidParameter."""
        for place, tool in enumerate(self.tools):
            if tool.type not in (None, "custom"):
                raise unsupported(f"tools[{place}].type", f"{tool.type[:20]!r} is not served")
        if self.thinking is not None and self.thinking.type not in ("enabled", "adaptive", "disabled"):
            raise InvalidParameter("thinking.type", "enabled, adaptive or disabled")
        chosen = self.tool_choice or MessagesChoice(type="auto")
        if chosen.type not in ("auto", "any", "tool", "none"):
            raise InvalidParameter("tool_choice.type", "auto, any, tool or none")
        named = chosen.name if chosen.type == "tool" else ""
        if chosen.type in ("any", "tool") and not any(named in ("", tool.name) for tool in self.tools):
            raise InvalidParameter("tool_choice", "is not among the tools")
        if not self.tools:
            return {}
        return {
            "tools": tuple(
                Tool(name=tool.name, description=tool.description, parameters=as_text(tool.input_schema))
                for tool in self.tools
            ),
            "tool_choice": {"any": "required", "tool": "required"}.get(chosen.type, chosen.type),
            "tool": named or "",
            "parallel_tool_calls": not chosen.disable_parallel_tool_use,
        }

    def asked(self) -> Asked:
        """One token of an answer: the host then says how many tokens the prompt had. Raises InvalidParameter."""
        conversation, question = self.parts()
        given = self.calling()
        told = {"tools": given["tools"], "tool_choice": "auto"} if given and given["tool_choice"] != "none" else {}
        return Asked(
            model=self.model,
            conversation=conversation,
            question=question,
            stream=False,
            max_tokens=1,
            controls=told,  # a call that is forced is no longer prompt
        )


class MessagesRequest(CountRequest, frozen=True, kw_only=True):
    """The body of `POST /v1/messages`."""

    max_tokens: Limit
    stop_sequences: Annotated[tuple[StopText, ...], Meta(max_length=8)] = ()
    """Up to 8, each of 1 to 64 characters."""
    stream: bool = False
    """Server-sent events as Anthropic sends them."""
    temperature: Temperature | None = None
    """Without one: 1."""
    top_p: TopP | None = None
    """Without one: 1."""
    top_k: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] | None = None

    def asked(self) -> Asked:
        """In the words of a session; Anthropic's defaults where nothing is said. Raises InvalidParameter."""
        conversation, question = self.parts()
        return Asked(
            model=self.model,
            conversation=conversation,
            question=question,
            stream=self.stream,
            max_tokens=self.max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=self.stop_sequences,
            controls=({"top_k": self.top_k} if self.top_k else {}) | self.calling(),
        )


_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "container": (),
    "context_management": (),
    "mcp_servers": ([],),
    "output_config": ({},),
    "output_format": (),
    "speed": ("standard",),
}
_IGNORED: Final = frozenset(
    ("metadata", "service_tier", "cache_control", "inference_geo", "diagnostics", "user_profile_id", "workspace_id")
)
_BLOCKS: Final = frozenset(("cache_control", "citations"))
MESSAGES: Final = Parameters(
    request=MessagesRequest,
    neutral=_NEUTRAL,
    ignored=_IGNORED,
    harmless={"messages": _BLOCKS, "system": _BLOCKS, "tools": frozenset(("cache_control", "eager_input_streaming"))},
)
COUNT: Final = Parameters(request=CountRequest, neutral=_NEUTRAL, ignored=_IGNORED, harmless=MESSAGES.harmless)


def read_messages(body: bytes) -> MessagesRequest:
    """Raises PeerFault: InvalidParameter where a parameter is at fault."""
    request: MessagesRequest = read(body, MESSAGES)
    return request


def read_count(body: bytes) -> CountRequest:
    """Raises PeerFault: InvalidParameter where a parameter is at fault."""
    request: CountRequest = read(body, COUNT)
    return request
