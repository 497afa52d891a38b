"""OpenAI's chat completions as this gateway speaks them: what is read and which parameters are refused by name. What is written:
`chat_writer`. The reference (docs/reference/gateway.md) and `/openapi.json` are made from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from fabstir.api.dialect import (
    DEFAULT_MAX_TOKENS,
    Asked,
    Content,
    InvalidParameter,
    Limit,
    Parameters,
    StopText,
    Temperature,
    TopLogprobs,
    TopP,
    one_of,
    read,
    result_of,
    split,
    text_of,
    unsupported,
)
from fabstir.api.openai_tools import (
    CallId,
    ChatTool,
    Format,
    GivenCall,
    Penalty,
    ToolChoice,
    biases_of,
    calling,
)
from fabstir.protocol.controls import MAX_BIASED, MAX_SCHEMA, MAX_TOOLS, MAX_TOP_K
from fabstir.protocol.messages import ChatMessage

Stop = StopText | Annotated[tuple[StopText, ...], Meta(max_length=8)]


class InputMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a request."""

    role: Annotated[str, one_of("system", "developer", "user", "assistant", "tool")]
    """`system`, `developer` (as `system`), `user`, `assistant` or `tool`."""
    content: Content | None = None
    """Text, or parts of type `text`."""
    tool_calls: Annotated[tuple[GivenCall, ...], Meta(max_length=128)] = ()
    """Of an assistant: what it asked to call."""
    tool_call_id: CallId | None = None
    """Of a tool: which call this is the result of."""

    def message(self, place: int) -> ChatMessage:
        """As the protocol has it. Raises InvalidParameter."""
        role, where = "system" if self.role == "developer" else self.role, f"messages[{place}]"
        if role not in ("system", "user", "assistant", "tool"):
            raise unsupported(f"{where}.role", f"{self.role[:20]!r} is not served")
        text = text_of(self.content, f"{where}.content")
        if role == "tool":
            return result_of(self.tool_call_id, text, where)
        if self.tool_calls and role != "assistant":
            raise InvalidParameter(f"{where}.tool_calls", "only an assistant calls")
        calls = tuple(call.call(f"{where}.tool_calls[{at}]") for at, call in enumerate(self.tool_calls))
        return ChatMessage(role, text, tool_calls=calls)


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
    """The last one is the user's, and not empty, or a tool's."""
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
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    """Both over what the host's engine looks at: see docs/explanation/controls.md."""
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    """Not OpenAI's; as llama.cpp and vLLM have it, like the four that follow."""
    top_k: Annotated[int, Meta(ge=0, le=MAX_TOP_K)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    grammar: Annotated[str, Meta(max_length=MAX_SCHEMA)] | None = None
    """GBNF that the answer is made to satisfy."""
    adapter: Annotated[str, Meta(max_length=64)] | None = None
    """A LoRA adapter of a host, by its name."""
    logit_bias: Annotated[dict[str, float], Meta(max_length=MAX_BIASED)] | None = None
    """Token id to bias."""
    response_format: Format | None = None
    """JSON, by grammar: the answer satisfies the schema wherever it is complete."""
    tools: Annotated[tuple[ChatTool, ...], Meta(max_length=MAX_TOOLS)] = ()
    """Functions that the model may call."""
    tool_choice: ToolChoice | None = None
    """`none`, `auto`, `required`, or a function, by grammar."""
    parallel_tool_calls: bool = True
    """Several calls in one answer."""

    def controls(self) -> dict[str, Any]:
        """In the words of a session. Raises InvalidParameter."""
        named = {
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repeat_penalty": self.repetition_penalty,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "grammar": self.grammar,
            "adapter": self.adapter,
            "logit_bias": biases_of(self.logit_bias),
            "json_schema": self.response_format.text("response_format") if self.response_format else None,
        }
        found = {name: value for name, value in named.items() if value}
        return found | calling(self.tools, self.tool_choice, several=self.parallel_tool_calls)

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
            controls=self.controls(),
        )


CHAT: Final = Parameters(
    request=ChatRequest,
    neutral={
        "n": (1,),
        "functions": ([],),
        "function_call": ("none", "auto"),
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
        )
    ),
    harmless={"messages": frozenset(("annotations", "reasoning_content"))},
)


def read_chat(body: bytes) -> ChatRequest:
    """Raises PeerFault: InvalidParameter where a parameter is at fault."""
    request: ChatRequest = read(body, CHAT)
    return request
