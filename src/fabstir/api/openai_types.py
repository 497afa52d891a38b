"""OpenAI's chat completions as this gateway speaks them: what is read, what is written, and which parameters are
refused by name.

Nothing is ignored that would change the answer: a parameter that no host of this version can honour gets
`request_invalid`, unless it has its neutral value. Specification: docs/reference/gateway.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from fabstir.domain.errors import error
from fabstir.protocol.messages import ChatMessage


class TextPart(msgspec.Struct, frozen=True):
    """A part of a message; only text is served."""

    type: str
    text: str = ""


class InputMessage(msgspec.Struct, frozen=True):
    """One message of a request."""

    role: str
    content: str | tuple[TextPart, ...] | None = None

    def message(self, place: int) -> ChatMessage:
        """As the protocol has it. Raises PeerFault (`request_invalid`)."""
        role = "system" if self.role == "developer" else self.role
        if role not in ("system", "user", "assistant"):
            raise error("request_invalid", f"messages[{place}].role: {self.role[:20]!r} is not served")
        if isinstance(self.content, str):
            return ChatMessage(role, self.content)
        parts = self.content or ()
        if any(part.type != "text" for part in parts):
            raise error("request_invalid", f"messages[{place}].content: only text is served")
        return ChatMessage(role, "".join(part.text for part in parts))


class StreamOptions(msgspec.Struct, frozen=True):
    """What else a stream tells."""

    include_usage: bool = False


Stop = str | Annotated[tuple[str, ...], Meta(max_length=8)]


class ChatRequest(msgspec.Struct, frozen=True):
    """`POST /v1/chat/completions`."""

    model: str
    messages: Annotated[tuple[InputMessage, ...], Meta(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: Stop | None = None

    def conversation(self) -> tuple[tuple[ChatMessage, ...], str]:
        """What was said before, and the question. Raises PeerFault (`request_invalid`)."""
        messages = [message.message(place) for place, message in enumerate(self.messages)]
        if messages[-1].role != "user" or not messages[-1].content:
            raise error("request_invalid", "messages: the last one must be the user's, and not empty")
        return tuple(messages[:-1]), messages[-1].content

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `Session.prompt` that were given."""
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        given = {
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "seed": None if self.seed is None else self.seed % 2**32,
            "stop": stop,
        }
        return {name: value for name, value in given.items() if value is not None}


NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "n": (None, 1),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "tools": (None, []),
    "functions": (None, []),
    "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "reasoning_effort": (None,),
    "web_search_options": (None,),
    "best_of": (None, 1),
    "suffix": (None, ""),
}
"""Parameters that change an answer and are not served: only with one of these values."""

_decoder: Final = msgspec.json.Decoder(ChatRequest)
_any: Final = msgspec.json.Decoder()


def read_request(body: bytes) -> ChatRequest:
    """Raises PeerFault (`request_invalid`) that names the parameter."""
    try:
        request = _decoder.decode(body)
        raw = _any.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as unreadable:
        raise error("request_invalid", str(unreadable)[:200]) from unreadable
    for name, values in NEUTRAL.items():
        if name in raw and raw[name] not in values:
            raise error("request_invalid", f"{name}: not served by this version")
    return request


# -- what is written --------------------------------------------------------------------------------------------------------


class Usage(msgspec.Struct, frozen=True):
    """Counts of one answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(msgspec.Struct, frozen=True):
    """The answer."""

    content: str
    role: str = "assistant"
    refusal: None = None


class Choice(msgspec.Struct, frozen=True):
    """The one choice."""

    message: AnswerMessage
    finish_reason: str
    index: int = 0
    logprobs: None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    id: str
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    object: str = "chat.completion"


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of an answer."""

    role: str | None = None
    content: str | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    """The one choice of a chunk."""

    delta: Delta
    finish_reason: str | None = None
    index: int = 0


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream."""

    id: str
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: Usage | None = None
    object: str = "chat.completion.chunk"


class ErrorBody(msgspec.Struct, frozen=True):
    """OpenAI's error, with our code."""

    message: str
    type: str
    code: str
    param: str | None = None


class ErrorAnswer(msgspec.Struct, frozen=True):
    """The body of a failed request."""

    error: ErrorBody


FINISH: Final = {"stop": "stop", "length": "length", "deposit": "length", "cancelled": "stop"}
"""Our finish reasons in OpenAI's words; `deposit` is a length that money set."""
