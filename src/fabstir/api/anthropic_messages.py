"""Anthropic's Messages as this gateway speaks them: what is read, which parameters are refused by name, and what is written. The
reference (docs/reference/gateway.md) and `/openapi.json` are made from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from fabstir.api.dialect import (
    Asked,
    Content,
    Event,
    Limit,
    Parameters,
    Records,
    StopText,
    Temperature,
    TopP,
    one_of,
    read,
    split,
    text_of,
    unsupported,
)
from fabstir.api.gateway_errors import MessagesError
from fabstir.domain.errors import FabstirError
from fabstir.protocol.messages import ChatMessage
from fabstir.renter.answer import AnswerReport

STOP_REASON: Final = {"stop": "end_turn", "length": "max_tokens", "deposit": "max_tokens", "cancelled": "end_turn"}
"""Our finish reasons in Anthropic's words. Hosts do not tell a stop sequence from the model's own end."""


class MessageParam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a request."""

    role: Annotated[str, one_of("user", "assistant")]
    """`user` or `assistant`."""
    content: Content
    """Text, or blocks of type `text`."""

    def message(self, place: int) -> ChatMessage:
        """As the protocol has it. Raises InvalidParameter."""
        if self.role not in ("user", "assistant"):
            raise unsupported(f"messages[{place}].role", f"{self.role[:20]!r} is not served")
        return ChatMessage(self.role, text_of(self.content, f"messages[{place}].content"))


class CountRequest(msgspec.Struct, frozen=True):
    """The body of `POST /v1/messages/count_tokens`."""

    model: str
    """Name or id of a model of `GET /v1/models`."""
    messages: Annotated[tuple[MessageParam, ...], Meta(min_length=1)]
    """The last one is the user's and not empty: answers are not begun for the model."""
    system: Content | None = None
    """Text, or blocks of type `text`."""

    def parts(self) -> tuple[tuple[ChatMessage, ...], str]:
        """What was said before, and the question. Raises InvalidParameter."""
        system = text_of(self.system, "system", joint="\n\n")
        messages = [message.message(place) for place, message in enumerate(self.messages)]
        return split((*((ChatMessage("system", system),) if system else ()), *messages), "messages")

    def asked(self) -> Asked:
        """One token of an answer: the host then says how many tokens the prompt had. Raises InvalidParameter."""
        conversation, question = self.parts()
        return Asked(model=self.model, conversation=conversation, question=question, stream=False, max_tokens=1)


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
        )


_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "container": (),
    "context_management": (),
    "mcp_servers": ([],),
    "output_config": ({},),
    "output_format": (),
    "speed": ("standard",),
    "thinking": ({"type": "disabled"},),
    "tool_choice": ({"type": "auto"}, {"type": "none"}),
    "tools": ([],),
}
_IGNORED: Final = frozenset(
    ("metadata", "service_tier", "cache_control", "inference_geo", "diagnostics", "user_profile_id", "workspace_id")
)
_BLOCKS: Final = frozenset(("cache_control", "citations"))
MESSAGES: Final = Parameters(
    request=MessagesRequest,
    neutral={**_NEUTRAL, "top_k": ()},
    ignored=_IGNORED,
    harmless={"messages": _BLOCKS, "system": _BLOCKS},
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


# -- what is written --------------------------------------------------------------------------------------------------------


class TokenCount(msgspec.Struct, frozen=True):
    """How long a prompt is."""

    input_tokens: int
    """By the host, with its tokenizer and chat template."""


class TextBlock(msgspec.Struct, frozen=True):
    """The text of an answer."""

    text: str
    type: str = "text"


class MessagesUsage(msgspec.Struct, frozen=True):
    """Counts of one answer, by the host: what was paid for. In `message_start` they are 0: the host tells them at the end."""

    input_tokens: int
    output_tokens: int


class MessageBody(msgspec.Struct, frozen=True, kw_only=True):
    """An answer."""

    id: str
    model: str
    content: tuple[TextBlock, ...]
    usage: MessagesUsage
    stop_reason: str | None = None
    """`end_turn` (also where a stop sequence ended it: hosts do not tell them apart) or `max_tokens` (also where a budget did)."""
    stop_sequence: None = None
    role: str = "assistant"
    type: str = "message"


class MessageStart(msgspec.Struct, frozen=True):
    """The first event of a stream."""

    message: MessageBody
    type: str = "message_start"


class BlockStart(msgspec.Struct, frozen=True):
    """The text begins."""

    content_block: TextBlock = TextBlock("")
    index: int = 0
    type: str = "content_block_start"


class TextDelta(msgspec.Struct, frozen=True):
    """More text."""

    text: str
    type: str = "text_delta"


class BlockDelta(msgspec.Struct, frozen=True):
    """More text of the block."""

    delta: TextDelta
    index: int = 0
    type: str = "content_block_delta"


class BlockStop(msgspec.Struct, frozen=True):
    """The text is over."""

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
    """One message. Memory: nothing."""

    def __init__(self, request: MessagesRequest, answer_id: str) -> None:
        self._started = MessageBody(id=f"msg_{answer_id}", model=request.model, content=(), usage=MessagesUsage(0, 0))

    def whole(self, text: str, records: Records, report: AnswerReport) -> MessageBody:
        """See `dialect.Writer`."""
        return msgspec.structs.replace(
            self._started,
            content=(TextBlock(text),) if text else (),
            usage=_usage(report),
            stop_reason=STOP_REASON.get(report.finish_reason, "end_turn"),
        )

    def begin(self) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield Event(MessageStart(self._started), "message_start")
        yield Event(BlockStart(), "content_block_start")

    def piece(self, text: str, records: Records) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield Event(BlockDelta(TextDelta(text)), "content_block_delta")

    def end(self, report: AnswerReport) -> Iterable[Event]:
        """See `dialect.Writer`."""
        ending = Ending(STOP_REASON.get(report.finish_reason, "end_turn"))
        yield Event(BlockStop(), "content_block_stop")
        yield Event(MessageDelta(ending, _usage(report)), "message_delta")
        yield Event(MessageStop(), "message_stop")

    def broken(self, fault: FabstirError) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield Event(MessagesError.of(fault), "error")


class CountWriter:
    """The length of one prompt. Never streams."""

    def whole(self, text: str, records: Records, report: AnswerReport) -> TokenCount:
        """See `dialect.Writer`."""
        return TokenCount(report.prompt_tokens)

    def begin(self) -> Iterable[Event]:
        """See `dialect.Writer`."""
        return ()

    def piece(self, text: str, records: Records) -> Iterable[Event]:
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
