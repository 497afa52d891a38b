"""OpenAI's chat completions as this gateway speaks them: what is read and which parameters are refused by name, and what is
written. The reference (docs/reference/gateway.md) and `/openapi.json` are made from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fabstir.api.dialect import (
    DEFAULT_MAX_TOKENS,
    Asked,
    Content,
    Event,
    InvalidParameter,
    Limit,
    Logprob,
    Parameters,
    Records,
    StopText,
    Temperature,
    TopLogprobs,
    TopP,
    logprobs_of,
    one_of,
    read,
    split,
    text_of,
    unsupported,
)
from fabstir.api.gateway_errors import ErrorAnswer
from fabstir.domain.errors import FabstirError
from fabstir.protocol.messages import ChatMessage
from fabstir.renter.answer import AnswerReport

Stop = StopText | Annotated[tuple[StopText, ...], Meta(max_length=8)]
FINISH: Final = {"stop": "stop", "length": "length", "deposit": "length", "cancelled": "stop"}
"""Our finish reasons in OpenAI's words; `deposit` is a length that money set."""


class InputMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a request."""

    role: Annotated[str, one_of("system", "developer", "user", "assistant")]
    """`system`, `developer` (as `system`), `user` or `assistant`."""
    content: Content | None = None
    """Text, or parts of type `text`."""

    def message(self, place: int) -> ChatMessage:
        """As the protocol has it. Raises InvalidParameter."""
        role = "system" if self.role == "developer" else self.role
        if role not in ("system", "user", "assistant"):
            raise unsupported(f"messages[{place}].role", f"{self.role[:20]!r} is not served")
        return ChatMessage(role, text_of(self.content, f"messages[{place}].content"))


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What else a stream tells."""

    include_usage: bool = False
    """A last chunk without a choice has the usage."""
    include_obfuscation: bool = False
    """Read over: chunks are never padded."""


class ChatRequest(msgspec.Struct, frozen=True):
    """The body of `POST /v1/chat/completions`."""

    model: str
    """Name or id of a model of `GET /v1/models`. A name that hosts give to several models is refused; name the id."""
    messages: Annotated[tuple[InputMessage, ...], Meta(min_length=1)]
    """The last one is the user's and not empty."""
    stream: bool = False
    """Server-sent events as OpenAI sends them."""
    stream_options: StreamOptions | None = None
    max_tokens: Limit | None = None
    """Tokens of the answer. Without one: 4096. A host may have a lower bound of its own (`max_answer_tokens`)."""
    max_completion_tokens: Limit | None = None
    """The same; it goes before `max_tokens`."""
    temperature: Temperature | None = None
    """Without one: 1."""
    top_p: TopP | None = None
    """Without one: 1."""
    seed: int | None = None
    """Modulo 2**32. The same seed need not give the same text: hosts compute several answers together."""
    stop: Stop | None = None
    """One text or up to 8, each of 1 to 64 characters."""
    logprobs: bool = False
    """From the signed token records. A token is named by its id (`token_id:123`): the renter has no vocabulary."""
    top_logprobs: TopLogprobs | None = None
    """At most so many, and at most what the host records of each token (4 as a rule)."""

    def asked(self) -> Asked:
        """In the words of a session; OpenAI's defaults where nothing is said. Raises InvalidParameter."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidParameter("top_logprobs", "only together with logprobs")
        messages = [message.message(place) for place, message in enumerate(self.messages)]
        conversation, question = split(messages, "messages")
        return Asked(
            model=self.model,
            conversation=conversation,
            question=question,
            stream=self.stream,
            max_tokens=self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_TOKENS,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else self.stop or (),
            logprobs=self.logprobs,
        )


CHAT: Final = Parameters(
    request=ChatRequest,
    neutral={
        "n": (1,),
        "presence_penalty": (0,),
        "frequency_penalty": (0,),
        "logit_bias": ({},),
        "tools": ([],),
        "functions": ([],),
        "tool_choice": ("none", "auto"),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "reasoning_effort": (),
        "verbosity": (),
        "moderation": (),
        "web_search_options": (),
        "store": (False,),
    },
    ignored=frozenset(
        (
            "user",
            "metadata",
            "service_tier",
            "safety_identifier",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "parallel_tool_calls",
        )
    ),
    harmless={"messages": frozenset(("annotations",))},
)


def read_chat(body: bytes) -> ChatRequest:
    """Raises PeerFault: InvalidParameter where a parameter is at fault."""
    request: ChatRequest = read(body, CHAT)
    return request


# -- what is written --------------------------------------------------------------------------------------------------------


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


class AnswerMessage(msgspec.Struct, frozen=True):
    """The answer."""

    content: str
    role: str = "assistant"
    refusal: None = None


class Choice(msgspec.Struct, frozen=True):
    """The one choice."""

    message: AnswerMessage
    finish_reason: str
    """`stop` or `length`; `length` also where a budget ended the answer."""
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


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of an answer."""

    role: str | None = None
    content: str | None = None


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
    """One chat completion. Memory: nothing."""

    def __init__(self, request: ChatRequest, answer_id: str, created: int) -> None:
        self._request = request
        self._id = f"chatcmpl-{answer_id}"
        self._created = created

    def whole(self, text: str, records: Records, report: AnswerReport) -> Completion:
        """See `dialect.Writer`."""
        finish = FINISH.get(report.finish_reason, "stop")
        choice = Choice(AnswerMessage(text), finish, logprobs=self._logprobs(records))
        return Completion(
            id=self._id, created=self._created, model=self._request.model, choices=(choice,), usage=Usage.of(report)
        )

    def begin(self) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield Event(self._chunk(Delta(role="assistant", content="")))

    def piece(self, text: str, records: Records) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield Event(self._chunk(Delta(content=text), logprobs=self._logprobs(records)))

    def end(self, report: AnswerReport) -> Iterable[Event]:
        """See `dialect.Writer`."""
        yield Event(self._chunk(Delta(), FINISH.get(report.finish_reason, "stop")))
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
