"""What the gateway writes in OpenAI's Responses dialect: the response object, and the events of a stream in their order, each
with its type and its `sequence_number`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from fabstir.api.dialect import Event, Logprob, Records, logprobs_of
from fabstir.api.openai_responses import ResponsesRequest
from fabstir.domain.errors import FabstirError
from fabstir.renter.answer import AnswerReport


class OutputText(msgspec.Struct, frozen=True):
    """The text of an answer."""

    text: str
    logprobs: tuple[Logprob, ...] = ()
    annotations: tuple[()] = ()
    type: str = "output_text"


class OutputMessage(msgspec.Struct, frozen=True):
    """The one item of `output`."""

    id: str
    status: str
    content: tuple[OutputText, ...]
    role: str = "assistant"
    type: str = "message"


class InputTokensDetails(msgspec.Struct, frozen=True):
    """Prompt tokens are not billed, and hosts do not tell which were cached."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, frozen=True):
    """Hosts do not tell reasoning apart."""

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
    """Always text."""

    type: str = "text"


class TextConfig(msgspec.Struct, frozen=True):
    """How the text is written."""

    format: TextFormat = TextFormat()


class ResponseBody(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""

    id: str
    created_at: int
    model: str
    status: str
    """`queued`, `in_progress`, `completed`, `incomplete`, `failed` or `cancelled`."""
    output: tuple[OutputMessage, ...] = ()
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
    parallel_tool_calls: bool = False
    tool_choice: str = "none"
    tools: tuple[()] = ()
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
    item: OutputMessage
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


class ResponsesWriter:
    """One response. Memory: its text, which the last events repeat."""

    def __init__(
        self, request: ResponsesRequest, answer_id: str, created: int, done: Callable[[str, ResponseBody], None]
    ) -> None:
        """`done` is told the text of an answer that is complete, and the response."""
        self._request = request
        self._item_id = f"msg_{answer_id}"
        self._done = done
        self._text: list[str] = []
        self._logprobs: list[Logprob] = []
        self._number = -1
        self._started = ResponseBody(
            id=f"resp_{answer_id}",
            created_at=created,
            model=request.model,
            status="in_progress",
            instructions=request.instructions,
            max_output_tokens=request.max_output_tokens,
            metadata=request.metadata or {},
            previous_response_id=request.previous_response_id,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            top_logprobs=request.top_logprobs or 0,
            store=request.store,
            background=request.background,
        )

    @property
    def started(self) -> ResponseBody:
        """As it stands at its beginning."""
        return self._started

    def whole(self, text: str, records: Records, report: AnswerReport) -> ResponseBody:
        """See `dialect.Writer`."""
        self._take(text, records)
        return self._finished(report)

    def begin(self) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield self._event(ResponseEvent, "response.created", response=self._started)
        yield self._event(ResponseEvent, "response.in_progress", response=self._started)
        empty = OutputMessage(self._item_id, "in_progress", ())
        yield self._event(ItemEvent, "response.output_item.added", item=empty)
        yield self._event(PartEvent, "response.content_part.added", item_id=self._item_id, part=OutputText(""))

    def piece(self, text: str, records: Records) -> Iterable[Event]:
        """See `dialect.Writer`."""
        logprobs, name = self._take(text, records), "response.output_text.delta"
        yield self._event(TextDeltaEvent, name, item_id=self._item_id, delta=text, logprobs=logprobs)

    def end(self, report: AnswerReport) -> Iterable[Event]:
        """See `dialect.Writer`."""
        body = self._finished(report)
        item, item_id = body.output[0], self._item_id
        part = item.content[0]
        name = "response.output_text.done"
        yield self._event(TextDoneEvent, name, item_id=item_id, text=part.text, logprobs=part.logprobs)
        yield self._event(PartEvent, "response.content_part.done", item_id=item_id, part=part)
        yield self._event(ItemEvent, "response.output_item.done", item=item)
        yield self._event(ResponseEvent, f"response.{body.status}", response=body)

    def broken(self, fault: FabstirError) -> Iterable[Event]:
        """See `dialect.Writer`."""
        body = msgspec.structs.replace(
            self._started,
            status="failed",
            error=ResponseFault(fault.code, str(fault)),
            output=(self._item("incomplete"),),
        )
        yield self._event(ResponseEvent, "response.failed", response=body)

    def _take(self, text: str, records: Records) -> tuple[Logprob, ...]:
        self._text.append(text)
        if not self._request.include:
            return ()
        found = logprobs_of(records, self._request.top_logprobs or 0)
        self._logprobs += found
        return found

    def _item(self, status: str) -> OutputMessage:
        return OutputMessage(self._item_id, status, (OutputText("".join(self._text), tuple(self._logprobs)),))

    def _finished(self, report: AnswerReport) -> ResponseBody:
        cut = report.finish_reason in ("length", "deposit")
        status = "incomplete" if cut else "completed"
        prompt, completion = report.prompt_tokens, report.completion_tokens
        body = msgspec.structs.replace(
            self._started,
            status=status,
            output=(self._item(status),),
            usage=ResponsesUsage(prompt, completion, prompt + completion),
            incomplete_details=IncompleteDetails() if cut else None,
        )
        self._done("".join(self._text), body)
        return body

    def _event(self, kind: Callable[..., msgspec.Struct], name: str, **fields: Any) -> Event:
        self._number += 1
        return Event(kind(type=name, sequence_number=self._number, **fields), name)
