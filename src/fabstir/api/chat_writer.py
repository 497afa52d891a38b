"""OpenAI's chat completions as this gateway writes them: whole, and as a stream of chunks, with calls and thoughts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from fabstir.api.dialect import Event, Gathered, Logprob, Records, logprobs_of
from fabstir.api.gateway_errors import ErrorAnswer
from fabstir.api.openai_types import ChatRequest
from fabstir.domain.errors import FabstirError
from fabstir.protocol.answer_reader import AnswerPart, Argued, Called, Thought
from fabstir.renter.answer import AnswerReport

FINISH: Final = {"stop": "stop", "length": "length", "deposit": "length", "cancelled": "stop"}
"""Our finish reasons in OpenAI's words; `deposit` is a length that money set."""


def finish_of(reason: str, calls: int) -> str:
    """In OpenAI's words."""
    return "tool_calls" if calls and reason == "stop" else FINISH.get(reason, "stop")


class Usage(msgspec.Struct, frozen=True):
    """Counts of one answer, by the host: what was paid for."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, report: AnswerReport) -> Usage:
        """Of one answer."""
        prompt, completion = report.prompt_tokens, report.completion_tokens
        return cls(prompt, completion, prompt + completion)


class Logprobs(msgspec.Struct, frozen=True):
    """How likely each token was."""

    content: tuple[Logprob, ...]
    refusal: None = None


class CalledFunction(msgspec.Struct, frozen=True):
    """What is called."""

    name: str
    arguments: str
    """JSON, as the model wrote it."""


class AnswerCall(msgspec.Struct, frozen=True):
    """A call that the model asks for."""

    id: str
    function: CalledFunction
    type: str = "function"


class AnswerMessage(msgspec.Struct, frozen=True):
    """The answer."""

    content: str | None
    """Null where there are calls and no words."""
    role: str = "assistant"
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    """What the model thought before; only where it did."""
    tool_calls: tuple[AnswerCall, ...] | UnsetType = UNSET

    @classmethod
    def of(cls, answer: Gathered) -> AnswerMessage:
        """Of an answer."""
        calls = tuple(AnswerCall(call.id, CalledFunction(call.name, call.arguments)) for call in answer.calls)
        return cls(
            answer.text or (None if calls else ""),
            reasoning_content=answer.thought or UNSET,
            tool_calls=calls or UNSET,
        )


class Choice(msgspec.Struct, frozen=True):
    """The one choice."""

    message: AnswerMessage
    finish_reason: str
    """`stop`, `tool_calls` or `length`; `length` also where a budget ended the answer."""
    index: int = 0
    logprobs: Logprobs | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    id: str
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    object: str = "chat.completion"


class FunctionDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of a call."""

    name: str | None = None
    arguments: str | None = None


class CallDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of a call; `id`, `type` and the name come with the first one."""

    index: int
    function: FunctionDelta
    id: str | None = None
    type: str | None = None


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of an answer."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[CallDelta, ...] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, frozen=True):
    """The one choice of a chunk."""

    delta: Delta
    finish_reason: str | None = None
    index: int = 0
    logprobs: Logprobs | None = None


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream."""

    id: str
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: Usage | None = None
    object: str = "chat.completion.chunk"


class ChatWriter:
    """One chat completion. Memory: the number of its calls."""

    def __init__(self, request: ChatRequest, answer_id: str, created: int) -> None:
        self._request = request
        self._id = f"chatcmpl-{answer_id}"
        self._created = created
        self._call_id = f"call_{answer_id}"
        self._calls = 0

    def whole(self, parts: Sequence[AnswerPart], records: Records, report: AnswerReport) -> Completion:
        """See `dialect.Writer`."""
        answer = Gathered.of(parts, self._call_id)
        finish = finish_of(report.finish_reason, len(answer.calls))
        choice = Choice(AnswerMessage.of(answer), finish, logprobs=self._logprobs(records))
        return Completion(
            id=self._id, created=self._created, model=self._request.model, choices=(choice,), usage=Usage.of(report)
        )

    def begin(self) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield Event(self._chunk(Delta(role="assistant", content="")))

    def piece(self, parts: Sequence[AnswerPart], records: Records) -> Iterable[Event]:
        """See `dialect.Writer`."""
        logprobs = self._logprobs(records)
        deltas = [self._delta(part) for part in parts] or ([Delta(content="")] if logprobs else [])
        for delta in deltas:
            yield Event(self._chunk(delta, logprobs=logprobs))
            logprobs = None  # the tokens of a piece go with its first chunk

    def _delta(self, part: AnswerPart) -> Delta:
        match part:
            case Called():
                self._calls += 1
                named = FunctionDelta(part.name, "")
                return Delta(tool_calls=(CallDelta(part.index, named, f"{self._call_id}{part.index}", "function"),))
            case Argued():
                return Delta(tool_calls=(CallDelta(part.index, FunctionDelta(arguments=part.text)),))
            case Thought():
                return Delta(reasoning_content=part.text)
            case _:
                return Delta(content=part.text)

    def end(self, report: AnswerReport) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield Event(self._chunk(Delta(), finish_of(report.finish_reason, self._calls)))
        if self._request.stream_options is not None and self._request.stream_options.include_usage:
            chunk = self._chunk(Delta())
            yield Event(msgspec.structs.replace(chunk, choices=(), usage=Usage.of(report)))
        yield Event(b"[DONE]")

    def broken(self, fault: FabstirError) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield Event(ErrorAnswer.of(fault))

    def _logprobs(self, records: Records) -> Logprobs | None:
        if not self._request.logprobs:
            return None
        return Logprobs(logprobs_of(records, self._request.top_logprobs or 0))

    def _chunk(self, delta: Delta, finish: str | None = None, logprobs: Logprobs | None = None) -> Chunk:
        choices = (ChunkChoice(delta, finish, logprobs=logprobs),)
        return Chunk(id=self._id, created=self._created, model=self._request.model, choices=choices)
