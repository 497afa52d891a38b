"""OpenAI's tools, forms and calls as both of its dialects write them, and what they are in the words of a session."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from fabstir.api.dialect import InvalidParameter, one_of, unsupported
from fabstir.protocol.controls import MAX_BIASED, Tool
from fabstir.protocol.messages import ToolCall

ANY_OBJECT: Final = '{"type":"object"}'
Json = dict[str, Any]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
CallId = Annotated[str, Meta(pattern="^[A-Za-z0-9_.:-]{0,128}$")]
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
ToolName = Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{1,64}$")]


class Function(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A function that the model may call."""

    name: ToolName
    description: str | None = None
    parameters: Json | None = None
    """JSON Schema of its arguments."""
    strict: bool | None = None
    """The arguments satisfy the schema where the call is required; with `auto` it is shown to the model and not enforced."""

    def tool(self) -> Tool:
        """As a session has it."""
        return Tool(name=self.name, description=self.description or "", parameters=as_text(self.parameters))


class ChatTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of `tools`, in chat completions."""

    type: Annotated[str, one_of("function")]
    function: Function | UnsetType = UNSET


class ResponsesTool(Function, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of `tools`, in responses."""

    type: Annotated[str, one_of("function")]
    name: str = ""
    """As in chat completions."""


class ChosenFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function by its name."""

    name: str


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one that is called."""

    type: Annotated[str, one_of("function")]
    function: ChosenFunction | None = None
    """In chat completions."""
    name: str | None = None
    """In responses."""


ToolChoice = Annotated[str, one_of("auto", "none", "required")] | Choice


class GivenFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was called."""

    name: ToolName
    arguments: str = "{}"


class GivenCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call that the model asked for before."""

    id: CallId
    function: GivenFunction
    type: Annotated[str, one_of("function")] = "function"
    index: int | None = None
    """Read over: a call that came as a stream has one."""

    def call(self, place: str) -> ToolCall:
        """As a session has it. Raises InvalidParameter."""
        return call_of(self.id, self.function.name, self.function.arguments, place)


class JsonSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A schema and what it is called."""

    name: str = ""
    schema: Json | None = None
    strict: bool | None = None
    """Always is."""
    description: str | None = None


class Format(JsonSchema, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The form of the answer."""

    type: Annotated[str, one_of("text", "json_object", "json_schema")]
    json_schema: JsonSchema | None = None
    """In chat completions; in responses its fields stand beside `type`."""

    def text(self, where: str) -> str:
        """JSON Schema of the answer, as text; empty for text. Raises InvalidParameter."""
        if self.type == "text":
            return ""
        if self.type == "json_object":
            return ANY_OBJECT
        if self.type != "json_schema":
            raise unsupported(f"{where}.type", f"{self.type[:20]!r} is not served")
        schema = self.json_schema.schema if self.json_schema else self.schema
        if schema is None:
            raise InvalidParameter(where, "json_schema without a schema")
        return as_text(schema)


def tools_of(tools: Sequence[ChatTool | ResponsesTool], where: str = "tools") -> tuple[Tool, ...]:
    """As a session has them. Raises InvalidParameter."""
    found = []
    for place, tool in enumerate(tools):
        if tool.type != "function":
            raise unsupported(f"{where}[{place}].type", f"{tool.type[:20]!r} is not served")
        function = tool if isinstance(tool, ResponsesTool) else tool.function
        if function is UNSET or not NAME.fullmatch(function.name):
            raise InvalidParameter(f"{where}[{place}]", "a function and its name are missing")
        found.append(function.tool())
    return tuple(found)


def choice_of(choice: ToolChoice | None) -> Json:
    """The controls that it is. Raises InvalidParameter."""
    if choice is None:
        return {}
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise unsupported("tool_choice", f"{choice[:20]!r} is not served")
        return {"tool_choice": choice}
    name = choice.function.name if choice.function else choice.name
    if choice.type != "function" or not name:
        raise unsupported("tool_choice", f"{choice.type[:20]!r} is not served")
    return {"tool_choice": "required", "tool": name}


def calling(tools: Sequence[ChatTool | ResponsesTool], choice: ToolChoice | None, *, several: bool) -> Json:
    """The controls of calls; none where there are no tools. Raises InvalidParameter."""
    chosen = choice_of(choice)
    if not tools:
        if chosen.get("tool_choice") == "required":
            raise InvalidParameter("tool_choice", "there are no tools")
        return {}
    if chosen.get("tool") and chosen["tool"] not in [tool.name for tool in tools_of(tools)]:
        raise InvalidParameter("tool_choice", "is not among the tools")
    return {"tools": tools_of(tools), "parallel_tool_calls": several, **chosen}


def biases_of(biases: Mapping[str, float] | None) -> tuple[tuple[int, float], ...]:
    """Token ids and what their logits get added. Raises InvalidParameter."""
    found = []
    for token, bias in (biases or {}).items():
        if not token.isascii() or not token.isdigit() or int(token) >= 2**32 or not -100 <= bias <= 100:
            raise InvalidParameter("logit_bias", "token ids and biases from -100 to 100 are needed")
        found.append((int(token), bias))
    if len(found) > MAX_BIASED:
        raise InvalidParameter("logit_bias", f"at most {MAX_BIASED} tokens")
    return tuple(found)


def call_of(call_id: str, name: str, arguments: str, where: str) -> ToolCall:
    """A call. Raises InvalidParameter."""
    try:
        return msgspec.convert({"id": call_id, "name": name, "arguments": arguments}, ToolCall)
    except msgspec.ValidationError as wrong:
        raise InvalidParameter(where, str(wrong)[:200]) from None


def as_text(schema: Json | None) -> str:
    """A JSON object as text, its order kept."""
    return msgspec.json.encode(schema or {}).decode()
