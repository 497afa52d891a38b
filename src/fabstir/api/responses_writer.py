"""Writes OpenAI's Responses: one item after the other, a thought, a message, calls; and the events of a stream in their order, each
with its type and its `sequence_number`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from fabstir.api.dialect import Event, Gathered, Logprob, Records, logprobs_of
from fabstir.api.openai_responses import ResponsesRequest
from fabstir.api.openai_tools import Choice
from fabstir.api.responses_types import (
    ArgumentsEvent,
    CallItem,
    ChosenTool,
    FunctionTool,
    IncompleteDetails,
    ItemEvent,
    OutputItem,
    OutputMessage,
    OutputText,
    PartEvent,
    ReasoningItem,
    ReasoningText,
    ResponseBody,
    ResponseEvent,
    ResponseFault,
    ResponsesUsage,
    TextConfig,
    TextDeltaEvent,
    TextDoneEvent,
    TextFormat,
    ThoughtEvent,
)
from fabstir.domain.errors import FabstirError
from fabstir.protocol.answer_reader import AnswerPart, Argued, Called, Said, Thought
from fabstir.protocol.messages import ChatMessage
from fabstir.renter.answer import AnswerReport

Done = Callable[[ChatMessage, ResponseBody], None]


class ResponsesWriter:
    """One response. Memory: its parts, which the last events repeat."""

    def __init__(self, request: ResponsesRequest, answer_id: str, created: int, done: Done) -> None:
        """`done` is told the message of an answer that is complete, and the response."""
        self._request = request
        self._id = answer_id
        self._done = done
        self._parts: list[AnswerPart] = []
        self._items: list[OutputItem] = []
        """The last one may be open."""
        self._open = False
        self._logprobs: list[Logprob] = []
        self._number = -1
        self._started = _started(request, answer_id, created)

    @property
    def started(self) -> ResponseBody:
        """As it stands at its beginning."""
        return self._started

    def whole(self, parts: Sequence[AnswerPart], records: Records, report: AnswerReport) -> ResponseBody:
        """See `dialect.Writer`."""
        list(self.piece(parts, records))
        return self._finished(report)

    def begin(self) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield self._event(ResponseEvent, "response.created", response=self._started)
        yield self._event(ResponseEvent, "response.in_progress", response=self._started)

    def piece(self, parts: Sequence[AnswerPart], records: Records) -> Iterable[Event]:
        """See `dialect.Writer`."""
        self._parts += parts
        logprobs = logprobs_of(records, self._request.top_logprobs or 0) if self._request.include else ()
        self._logprobs += logprobs
        for part in parts:
            yield from self._part(part, logprobs)
            logprobs = ()  # the tokens of a piece go with its first part
        if logprobs and self._open and isinstance(self._items[-1], OutputMessage):  # tokens without text
            yield self._grown(TextDeltaEvent, "response.output_text.delta", "", logprobs=logprobs)

    def end(self, report: AnswerReport) -> Iterable[Event]:
        """See `dialect.Writer`."""
        if not self._items:
            yield from self._add(OutputMessage(self._name("msg"), "in_progress", ()))
        yield from self._close("incomplete" if _cut(report) else "completed")
        body = self._finished(report)
        yield self._event(ResponseEvent, f"response.{body.status}", response=body)

    def broken(self, fault: FabstirError) -> Iterable[Event]:
        """See `dialect.Writer`."""
        if self._items:
            self._items[-1] = msgspec.structs.replace(self._items[-1], status="incomplete")
        body = msgspec.structs.replace(
            self._started, status="failed", error=ResponseFault(fault.code, str(fault)), output=tuple(self._items)
        )
        yield self._event(ResponseEvent, "response.failed", response=body)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _part(self, part: AnswerPart, logprobs: tuple[Logprob, ...]) -> Iterable[Event]:
        match part:
            case Called():
                call_id = f"call_{self._id}{part.index}"
                yield from self._add(CallItem(self._name("fc"), call_id, part.name, "in_progress"))
            case Argued():
                yield self._grown(ArgumentsEvent, "response.function_call_arguments.delta", part.text)
            case Thought():
                if not (self._open and isinstance(self._items[-1], ReasoningItem)):
                    yield from self._add(ReasoningItem(self._name("rs"), "in_progress"))
                yield self._grown(ThoughtEvent, "response.reasoning_text.delta", part.text)
            case Said():
                if not (self._open and isinstance(self._items[-1], OutputMessage)):
                    yield from self._add(OutputMessage(self._name("msg"), "in_progress", ()))
                yield self._grown(TextDeltaEvent, "response.output_text.delta", part.text, logprobs=logprobs)

    def _add(self, item: OutputItem) -> Iterable[Event]:
        yield from self._close("completed")
        self._items.append(item)
        self._open = True
        yield self._event(ItemEvent, "response.output_item.added", item=item, output_index=self._at)
        if isinstance(item, OutputMessage):
            yield self._event(
                PartEvent, "response.content_part.added", item_id=item.id, part=OutputText(""), output_index=self._at
            )

    def _grown(self, kind: Callable[..., msgspec.Struct], name: str, text: str, **fields: Any) -> Event:
        item = self._items[-1] = _longer(self._items[-1], text)
        return self._event(kind, name, item_id=item.id, delta=text, output_index=self._at, **fields)

    def _close(self, status: str) -> Iterable[Event]:
        if not self._open:
            return
        self._open = False
        item, at = msgspec.structs.replace(self._items[-1], status=status), self._at
        if isinstance(item, OutputMessage):
            part = OutputText(_text(item), tuple(self._logprobs))
            item = msgspec.structs.replace(item, content=(part,))
            told = {"item_id": item.id, "output_index": at}
            name = "response.output_text.done"
            yield self._event(TextDoneEvent, name, text=part.text, logprobs=part.logprobs, **told)
            yield self._event(PartEvent, "response.content_part.done", part=part, **told)
        elif isinstance(item, ReasoningItem):
            name = "response.reasoning_text.done"
            yield self._event(ThoughtEvent, name, item_id=item.id, text=_text(item), output_index=at)
        else:
            name, told = "response.function_call_arguments.done", {"arguments": item.arguments, "name": item.name}
            yield self._event(ArgumentsEvent, name, item_id=item.id, output_index=at, **told)
        self._items[-1] = item
        yield self._event(ItemEvent, "response.output_item.done", item=item, output_index=at)

    def _finished(self, report: AnswerReport) -> ResponseBody:
        cut = _cut(report)
        status = "incomplete" if cut else "completed"
        if not self._items:
            self._items.append(OutputMessage(self._name("msg"), status, (OutputText(""),)))
        list(self._close(status))
        prompt, completion = report.prompt_tokens, report.completion_tokens
        body = msgspec.structs.replace(
            self._started,
            status=status,
            output=tuple(self._items),
            usage=ResponsesUsage(prompt, completion, prompt + completion),
            incomplete_details=IncompleteDetails() if cut else None,
        )
        answer = Gathered.of(self._parts, f"call_{self._id}")
        self._done(ChatMessage("assistant", answer.text, tool_calls=answer.calls), body)
        return body

    @property
    def _at(self) -> int:
        return len(self._items) - 1

    def _name(self, kind: str) -> str:
        return f"{kind}_{self._id}{len(self._items) or ''}"

    def _event(self, kind: Callable[..., msgspec.Struct], event: str, /, **fields: Any) -> Event:
        self._number += 1
        return Event(kind(type=event, sequence_number=self._number, **fields), event)


def _started(request: ResponsesRequest, answer_id: str, created: int) -> ResponseBody:
    chosen = request.tool_choice or "auto"
    form = request.text.format if request.text and request.text.format else None
    tools = [
        FunctionTool(name=one.name, description=one.description, parameters=one.parameters, strict=one.strict)
        for one in request.tools
    ]
    return ResponseBody(
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
        parallel_tool_calls=request.parallel_tool_calls,
        tools=tuple(tools),
        tool_choice=ChosenTool(chosen.name or "") if isinstance(chosen, Choice) else chosen,
        text=TextConfig(TextFormat(form.type, form.name or UNSET, form.schema or UNSET) if form else TextFormat()),
    )


def _longer(item: OutputItem, text: str) -> OutputItem:
    if isinstance(item, CallItem):
        return msgspec.structs.replace(item, arguments=item.arguments + text)
    kind = OutputText if isinstance(item, OutputMessage) else ReasoningText
    return msgspec.structs.replace(item, content=(kind(_text(item) + text),))


def _text(item: OutputMessage | ReasoningItem) -> str:
    return item.content[0].text if item.content else ""


def _cut(report: AnswerReport) -> bool:
    return report.finish_reason in ("length", "deposit")
