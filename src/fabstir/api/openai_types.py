"""OpenAI's chat completions as this gateway speaks them: what is read, what is written, and which parameters are
refused by name.

Nothing is ignored that would change the answer: a parameter that is not served gets `request_invalid` with its name,
unless it has its neutral value. Specification: docs/reference/gateway.md.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from fabstir.domain.errors import CATALOGUE, FabstirError, PeerFault, error
from fabstir.protocol.messages import ChatMessage


class InvalidParameter(PeerFault):
    """A request that is not served, and the parameter at fault."""

    def __init__(self, param: str, why: str) -> None:
        super().__init__(CATALOGUE["request_invalid"], f"{param}: {why}")
        self.param: Final = param


class TextPart(msgspec.Struct, frozen=True):
    """A part of a message; only text is served."""

    type: str
    text: str = ""


class InputMessage(msgspec.Struct, frozen=True):
    """One message of a request."""

    role: str
    content: str | tuple[TextPart, ...] | None = None

    def message(self, place: int) -> ChatMessage:
        """As the protocol has it. Raises InvalidParameter."""
        role = "system" if self.role == "developer" else self.role
        if role not in ("system", "user", "assistant"):
            raise InvalidParameter(f"messages[{place}].role", f"{self.role[:20]!r} is not served")
        if isinstance(self.content, str):
            return ChatMessage(role, self.content)
        parts = self.content or ()
        for number, part in enumerate(parts):
            if part.type != "text":
                raise InvalidParameter(f"messages[{place}].content[{number}].type", "only text is served")
        return ChatMessage(role, "".join(part.text for part in parts))


class StreamOptions(msgspec.Struct, frozen=True):
    """What else a stream tells."""

    include_usage: bool = False


StopText = Annotated[str, Meta(min_length=1, max_length=64)]
Stop = StopText | Annotated[tuple[StopText, ...], Meta(max_length=8)]
Limit = Annotated[int, Meta(ge=1, le=1 << 20)]
DEFAULT_MAX_TOKENS: Final = 4096
"""Where the request names no limit; OpenAI's default is the context, a host's own bound is usually this."""


class ChatRequest(msgspec.Struct, frozen=True):
    """`POST /v1/chat/completions`."""

    model: str
    messages: Annotated[tuple[InputMessage, ...], Meta(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: Stop | None = None

    def conversation(self) -> tuple[tuple[ChatMessage, ...], str]:
        """What was said before, and the question. Raises InvalidParameter."""
        messages = [message.message(place) for place, message in enumerate(self.messages)]
        if messages[-1].role != "user" or not messages[-1].content:
            raise InvalidParameter("messages", "the last one must be the user's, and not empty")
        return tuple(messages[:-1]), messages[-1].content

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `Session.prompt`; OpenAI's defaults where nothing is said."""
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        return {
            "max_tokens": self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_TOKENS,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "seed": None if self.seed is None else self.seed % 2**32,
            "stop": stop or (),
        }


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
    "store": (None, False),
}
"""Parameters that change what a request means and are not served: only with one of these values."""

WITHOUT_EFFECT: Final = frozenset(
    ("user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls")
)
"""Parameters that say something to OpenAI alone: read over."""

_SERVED: Final = frozenset(field.encode_name for field in msgspec.structs.fields(ChatRequest))
_PLACE: Final = re.compile(r" - at `\$\.?(.+)`$")


def read_request(body: bytes) -> ChatRequest:
    """Raises PeerFault: InvalidParameter where a parameter is at fault."""
    try:
        raw = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as unreadable:
        raise error("request_invalid", f"the body is no JSON object: {unreadable}"[:200]) from unreadable
    for name, value in raw.items():
        neutral = NEUTRAL.get(name)
        if value is None or name in _SERVED or name in WITHOUT_EFFECT or (neutral and value in neutral):
            continue
        raise InvalidParameter(name[:64], "not served by this version")
    try:
        return msgspec.convert({name: value for name, value in raw.items() if name in _SERVED}, ChatRequest)
    except msgspec.ValidationError as wrong:
        place = _PLACE.search(str(wrong))
        if place is None:
            raise error("request_invalid", str(wrong)[:200]) from wrong
        raise InvalidParameter(place[1][:64], str(wrong)[: place.start()][:200]) from wrong


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
    """The body of a failed request, or the last event of a stream that broke."""

    error: ErrorBody

    @classmethod
    def of(cls, fault: FabstirError, param: str | None = None, status: int | None = None) -> ErrorAnswer:
        """`fault` in OpenAI's shape."""
        status = status or fault.http_status
        kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
        return cls(ErrorBody(message=str(fault), type=kind, code=fault.code, param=param))


_KINDS: Final = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
FINISH: Final = {"stop": "stop", "length": "length", "deposit": "length", "cancelled": "stop"}
"""Our finish reasons in OpenAI's words; `deposit` is a length that money set."""
