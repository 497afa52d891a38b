"""What the gateway writes in OpenAI's Responses dialect: the response object, its items, and the events of a stream. Nouns only;
`responses_writer` says them in their order.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from fabstir.api.dialect import Logprob


class OutputText(msgspec.Struct, frozen=True):
    """The text of an answer."""

    text: str
    logprobs: tuple[Logprob, ...] = ()
    annotations: tuple[()] = ()
    type: str = "output_text"


class OutputMessage(msgspec.Struct, frozen=True, tag="message"):
    """What the model says."""

    id: str
    status: str
    content: tuple[OutputText, ...]
    role: str = "assistant"


class ReasoningText(msgspec.Struct, frozen=True):
    """A thought."""

    text: str
    type: str = "reasoning_text"


class ReasoningItem(msgspec.Struct, frozen=True, tag="reasoning"):
    """What the model thinks before it answers."""

    id: str
    status: str
    content: tuple[ReasoningText, ...] = ()
    summary: tuple[()] = ()


class CallItem(msgspec.Struct, frozen=True, tag="function_call"):
    """A function that the model asks to call."""

    id: str
    call_id: str
    name: str
    status: str
    arguments: str = ""
    """JSON, as the model wrote it."""


OutputItem = OutputMessage | ReasoningItem | CallItem


class InputTokensDetails(msgspec.Struct, frozen=True):
    """Prompt tokens are not billed, and hosts do not tell which were cached."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, frozen=True):
    """Tokens of thoughts are not counted apart."""

    reasoning_tokens: int = 0


class ResponsesUsage(msgspec.Struct, frozen=True):
    """Counts of one answer, by the host: what was paid for."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Why the answer is not complete."""

    reason: str = "max_output_tokens"
    """Also where a budget ended it."""


class ResponseFault(msgspec.Struct, frozen=True):
    """Why a response failed."""

    code: str
    """See [errors](errors.md)."""
    message: str


class TextFormat(msgspec.Struct, frozen=True):
    """`text`, `json_object` or `json_schema`."""

    type: str = "text"
    name: str | UnsetType = UNSET
    schema: dict[str, Any] | UnsetType = UNSET


class TextConfig(msgspec.Struct, frozen=True):
    """How the text is written."""

    format: TextFormat = TextFormat()


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that could be called."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    type: str = "function"


class ChosenTool(msgspec.Struct, frozen=True):
    """The function that had to be called."""

    name: str
    type: str = "function"


class ResponseBody(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""

    id: str
    created_at: int
    model: str
    status: str
    """`queued`, `in_progress`, `completed`, `incomplete`, `failed` or `cancelled`."""
    output: tuple[OutputItem, ...] = ()
    """A thought, a message, calls, in their order."""
    usage: ResponsesUsage | None = None
    error: ResponseFault | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] = {}
    previous_response_id: str | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_logprobs: int = 0
    store: bool = True
    background: bool = False
    parallel_tool_calls: bool = True
    tool_choice: str | ChosenTool = "auto"
    tools: tuple[FunctionTool, ...] = ()
    truncation: str = "disabled"
    text: TextConfig = TextConfig()
    object: str = "response"


class ResponseEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`response.created`, `response.in_progress`, `response.completed`, `response.incomplete`, `response.failed`."""

    type: str
    sequence_number: int
    response: ResponseBody


class ItemEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`response.output_item.added`, `response.output_item.done`."""

    type: str
    sequence_number: int
    item: OutputItem
    output_index: int = 0


class PartEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`response.content_part.added`, `response.content_part.done`."""

    type: str
    sequence_number: int
    item_id: str
    part: OutputText
    output_index: int = 0
    content_index: int = 0


class TextDeltaEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`response.output_text.delta`."""

    type: str
    sequence_number: int
    item_id: str
    delta: str
    logprobs: tuple[Logprob, ...] = ()
    output_index: int = 0
    content_index: int = 0


class TextDoneEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`response.output_text.done`."""

    type: str
    sequence_number: int
    item_id: str
    text: str
    logprobs: tuple[Logprob, ...] = ()
    output_index: int = 0
    content_index: int = 0


class ThoughtEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`response.reasoning_text.delta` (with `delta`), `response.reasoning_text.done` (with `text`)."""

    type: str
    sequence_number: int
    item_id: str
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    output_index: int = 0
    content_index: int = 0


class ArgumentsEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`response.function_call_arguments.delta` (with `delta`), `response.function_call_arguments.done` (with the others)."""

    type: str
    sequence_number: int
    item_id: str
    delta: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    output_index: int = 0
