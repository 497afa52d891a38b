"""Anthropic's Messages as this gateway writes them: blocks of thoughts, text and tools, whole and as the events of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from fabstir.api.anthropic_messages import MessagesRequest
from fabstir.api.dialect import Event, Gathered, Records
from fabstir.api.gateway_errors import MessagesError
from fabstir.domain.errors import FabstirError
from fabstir.protocol.answer_reader import AnswerPart, Argued, Called, Said, Thought
from fabstir.renter.answer import AnswerReport

STOP_REASON: Final = {"stop": "end_turn", "length": "max_tokens", "deposit": "max_tokens", "cancelled": "end_turn"}
"""Our finish reasons in Anthropic's words. Hosts do not tell a stop sequence from the model's own end."""


def stop_of(reason: str, calls: int) -> str:
    """In Anthropic's words."""
    return "tool_use" if calls and reason == "stop" else STOP_REASON.get(reason, "end_turn")


class TokenCount(msgspec.Struct, frozen=True):
    """How long a prompt is."""

    input_tokens: int
    """By the host, with its tokenizer and chat template."""


class TextBlock(msgspec.Struct, frozen=True, tag="text"):
    """The text of an answer."""

    text: str


class ThinkingBlock(msgspec.Struct, frozen=True, tag="thinking"):
    """What the model thought."""

    thinking: str
    signature: str = ""
    """Nobody signs a thought by itself."""


class ToolUseBlock(msgspec.Struct, frozen=True, tag="tool_use"):
    """A tool that the model wants used."""

    id: str
    name: str
    input: dict[str, Any] = {}


AnyBlock = TextBlock | ThinkingBlock | ToolUseBlock


class MessagesUsage(msgspec.Struct, frozen=True):
    """Counts of one answer, by the host: what was paid for. In `message_start` they are 0: the host tells them at the end."""

    input_tokens: int
    output_tokens: int


class MessageBody(msgspec.Struct, frozen=True, kw_only=True):
    """An answer."""

    id: str
    model: str
    content: tuple[TextBlock | ThinkingBlock | ToolUseBlock, ...]
    usage: MessagesUsage
    stop_reason: str | None = None
    """`end_turn` (also where a stop sequence ended it: hosts do not tell them apart), `tool_use`, or `max_tokens` (also where a budget
    did)."""
    stop_sequence: None = None
    role: str = "assistant"
    type: str = "message"


class MessageStart(msgspec.Struct, frozen=True):
    """The first event of a stream."""

    message: MessageBody
    type: str = "message_start"


class BlockStart(msgspec.Struct, frozen=True):
    """A block begins."""

    content_block: TextBlock | ThinkingBlock | ToolUseBlock
    """Empty."""
    index: int = 0
    type: str = "content_block_start"


class TextDelta(msgspec.Struct, frozen=True, tag="text_delta"):
    """More text."""

    text: str


class ThinkingDelta(msgspec.Struct, frozen=True, tag="thinking_delta"):
    """More of a thought."""

    thinking: str


class InputDelta(msgspec.Struct, frozen=True, tag="input_json_delta"):
    """More of a tool's input, JSON as text."""

    partial_json: str


class BlockDelta(msgspec.Struct, frozen=True):
    """More of the block."""

    delta: TextDelta | ThinkingDelta | InputDelta
    index: int = 0
    type: str = "content_block_delta"


class BlockStop(msgspec.Struct, frozen=True):
    """The block is over."""

    index: int = 0
    type: str = "content_block_stop"


class Ending(msgspec.Struct, frozen=True):
    """How the answer ended."""

    stop_reason: str
    stop_sequence: None = None


class MessageDelta(msgspec.Struct, frozen=True):
    """How the answer ended, and its usage."""

    delta: Ending
    usage: MessagesUsage
    type: str = "message_delta"


class MessageStop(msgspec.Struct, frozen=True):
    """The last event of a stream."""

    type: str = "message_stop"


class MessagesWriter:
    """One message. Memory: the number of its blocks."""

    def __init__(self, request: MessagesRequest, answer_id: str) -> None:
        self._started = MessageBody(id=f"msg_{answer_id}", model=request.model, content=(), usage=MessagesUsage(0, 0))
        self._call_id = f"toolu_{answer_id}"
        self._thinks = request.thinking is not None and request.thinking.type != "disabled"
        self._block = -1
        self._open: type | None = None
        """Kind of the block that is open."""
        self._calls = 0

    def whole(self, parts: Sequence[AnswerPart], records: Records, report: AnswerReport) -> MessageBody:
        """See `dialect.Writer`."""
        answer = Gathered.of(parts, self._call_id)
        thought = (ThinkingBlock(answer.thought),) if answer.thought and self._thinks else ()
        text = (TextBlock(answer.text),) if answer.text else ()
        calls = tuple(ToolUseBlock(call.id, call.name, _input(call.arguments)) for call in answer.calls)
        return msgspec.structs.replace(
            self._started,
            content=(*thought, *text, *calls),
            usage=_usage(report),
            stop_reason=stop_of(report.finish_reason, len(calls)),
        )

    def begin(self) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield Event(MessageStart(self._started), "message_start")

    def piece(self, parts: Sequence[AnswerPart], records: Records) -> Iterable[Event]:
        """See `dialect.Writer`."""
        for part in parts:
            yield from self._part(part)

    def end(self, report: AnswerReport) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield from self._close()
        ending = Ending(stop_of(report.finish_reason, self._calls))
        yield Event(MessageDelta(ending, _usage(report)), "message_delta")
        yield Event(MessageStop(), "message_stop")

    def broken(self, fault: FabstirError) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield Event(MessagesError.of(fault), "error")

    def _part(self, part: AnswerPart) -> Iterable[Event]:
        match part:
            case Called():
                self._calls += 1
                yield from self._begin(ToolUseBlock(f"{self._call_id}{part.index}", part.name))
            case Argued():
                yield self._more(InputDelta(part.text))
            case Thought():
                if self._thinks:
                    if self._open is not ThinkingBlock:
                        yield from self._begin(ThinkingBlock(""))
                    yield self._more(ThinkingDelta(part.text))
            case Said():
                if self._open is not TextBlock:
                    yield from self._begin(TextBlock(""))
                yield self._more(TextDelta(part.text))

    def _begin(self, block: AnyBlock) -> Iterable[Event]:
        yield from self._close()
        self._block, self._open = self._block + 1, type(block)
        yield Event(BlockStart(block, self._block), "content_block_start")

    def _more(self, delta: TextDelta | ThinkingDelta | InputDelta) -> Event:
        return Event(BlockDelta(delta, self._block), "content_block_delta")

    def _close(self) -> Iterable[Event]:
        if self._open is not None:
            self._open = None
            yield Event(BlockStop(self._block), "content_block_stop")


def _input(arguments: str) -> dict[str, Any]:
    """What the model wrote as an object; of what is none, nothing can be made."""
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


class CountWriter:
    """The length of one prompt. Never streams."""

    def whole(self, parts: Sequence[AnswerPart], records: Records, report: AnswerReport) -> TokenCount:
        """See `dialect.Writer`."""
        return TokenCount(report.prompt_tokens)

    def begin(self) -> Iterable[Event]:
        """See `dialect.Writer`."""
        return ()

    def piece(self, parts: Sequence[AnswerPart], records: Records) -> Iterable[Event]:
        """See `dialect.Writer`."""
        return ()

    def end(self, report: AnswerReport) -> Iterable[Event]:
        """See `dialect.Writer`."""
        return ()

    def broken(self, fault: FabstirError) -> Iterable[Event]:
        """See `dialect.Writer`."""
        return ()


def _usage(report: AnswerReport) -> MessagesUsage:
    return MessagesUsage(report.prompt_tokens, report.completion_tokens)
