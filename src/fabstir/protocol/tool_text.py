"""Tools as text: how a model is told of them, and how calls and results stand in a conversation. Pure.

The one form is that of Hermes, which the chat templates of Qwen and Hermes models write themselves, letter by letter as here:
signatures in `<tools>` in the system message, a call as JSON in `<tool_call>`, a result as the user's in `<tool_response>`. It is
written here and not by an engine, so that it is the same on every engine, that an answer can be re-executed from what was asked, and
that a model whose template knows no tools is told of them, too. Reading the calls out of an answer: `answer_reader`.
Decision: docs/decisions/0018-inference-controls.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from fabstir.protocol import controls
from fabstir.protocol.controls import Controls, Tool
from fabstir.protocol.wire_types import ChatMessage, ToolCall

CALL: Final = ("<tool_call>", "</tool_call>")
_SYSTEM: Final = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""

_json: Final = msgspec.json.Encoder().encode


def plain(messages: Sequence[ChatMessage], asked: Controls) -> tuple[ChatMessage, ...]:
    """The conversation as a chat template that knows no tools can write it: text of system, user and assistant alone."""
    found: list[ChatMessage] = []
    before = ""
    for message in _with_tools(messages, told(asked)):
        if message.role == before == "tool":  # results that follow each other are one message
            found[-1] = ChatMessage("user", f"{found[-1].content}\n{text_of(message)}")
        elif message.role == "tool" or message.tool_calls:
            found.append(ChatMessage("user" if message.role == "tool" else message.role, text_of(message)))
        else:
            found.append(message)
        before = message.role
    return tuple(found)


def text_of(message: ChatMessage) -> str:
    """One message as the engine is given it."""
    if message.role == "tool":
        return f"<tool_response>\n{message.content}\n</tool_response>"
    return "\n".join(filter(None, (message.content, *_calls(message)))) if message.tool_calls else message.content


def told(asked: Controls) -> str:
    """What the model is told of the tools."""
    if not asked.tools or asked.tool_choice == "none":
        return ""
    return _SYSTEM.format(tools="\n".join(map(_signature, asked.tools)))


def call_schema(asked: Controls) -> str:
    """JSON Schema of an answer that has to be a call: an object, or a list of them where there may be several."""
    tools = [tool for tool in asked.tools if not asked.tool or tool.name == asked.tool]
    calls = [_call_schema(tool) for tool in tools]
    one: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    whole = {"type": "array", "minItems": 1, "items": one} if several(asked) else one
    return _json(whole).decode()


def several(asked: Controls) -> bool:
    """A forced answer may have more than one call."""
    return asked.parallel_tool_calls and not asked.tool


def _with_tools(messages: Sequence[ChatMessage], text: str) -> tuple[ChatMessage, ...]:
    if not text:
        return tuple(messages)
    if messages and messages[0].role == "system":
        return (ChatMessage("system", f"{messages[0].content}\n\n{text}"), *messages[1:])
    return (ChatMessage("system", text), *messages)


def _signature(tool: Tool) -> str:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    function["parameters"] = controls.read_object(tool.parameters, tool.name)
    return _spaced({"type": "function", "function": function})


def _calls(message: ChatMessage) -> Iterable[str]:
    for call in message.tool_calls:
        yield f'{CALL[0]}\n{{"name": {_spaced(call.name)}, "arguments": {_arguments(call)}}}\n{CALL[1]}'


def _arguments(call: ToolCall) -> str:
    try:
        return _spaced(msgspec.json.decode(call.arguments or "{}"))
    except (
        msgspec.MsgspecError,
        ValueError,
        RecursionError,
    ):  # what the model wrote may be no JSON: it is shown what it wrote
        return call.arguments


def _call_schema(tool: Tool) -> dict[str, Any]:
    parameters = controls.read_object(tool.parameters, tool.name) or {"type": "object"}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _spaced(value: Any) -> str:
    """JSON as Python's `json.dumps` and the templates' `tojson` write it: a space after each comma and colon."""
    return msgspec.json.format(_json(value), indent=0).decode()
