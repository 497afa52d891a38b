"""What every dialect of the gateway has in common: a request becomes `Asked`, an answer goes through a `Writer`, and what is
not served is refused by its name.

A parameter is served, or has its neutral value, or says something to its vendor alone (both read over, and listed in the
reference), or is refused: `request_unsupported` with its name. Nothing that would change the answer is ignored. Knows no
HTTP and no market.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Meta

from fabstir.api.whole_numbers import whole
from fabstir.domain.errors import CATALOGUE, FabstirError, PeerFault, error
from fabstir.protocol.answer_reader import AnswerPart, Argued, Called, Said, Thought
from fabstir.protocol.messages import ChatMessage, ToolCall
from fabstir.protocol.transcript import TokenRecord
from fabstir.renter.answer import AnswerReport

NO_RESULT: Final = "(nothing)"
"""What a model is told of a result without text."""
MAX_NAME: Final = 64
"""Of a name that a client made up, where an error repeats it."""
StopText = Annotated[str, Meta(min_length=1, max_length=64)]
Limit = Annotated[int, Meta(ge=1, le=1 << 20)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(gt=0, le=1)]
TopLogprobs = Annotated[int, Meta(ge=0, le=20)]
DEFAULT_MAX_TOKENS: Final = 4096
"""Where the request names no limit; OpenAI's default is the context, a host's own bound is usually this."""
T = TypeVar("T")

_PLACE: Final = re.compile(r" - at `\$\.?(.+)`$")
_NOTHING: Final[tuple[Any, ...]] = (None, [], {}, "")
"""What a client may send where it says nothing."""


def one_of(*values: str) -> Meta:
    """What is served, for `/openapi.json`; what is not is refused by name, not by its type."""
    return Meta(extra_json_schema={"enum": list(values)})


class InvalidParameter(PeerFault):
    """A request that is not served, and the parameter at fault."""

    def __init__(self, param: str, why: str, code: str = "request_invalid") -> None:
        super().__init__(CATALOGUE[code], f"{param}: {why}")
        self.param: Final = param


def unsupported(param: str, why: str = "not served by this version") -> InvalidParameter:
    """A parameter that is refused by its name."""
    return InvalidParameter(param, why, "request_unsupported")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request, in the words of a session."""

    model: str
    conversation: tuple[ChatMessage, ...]
    """What was said before the question."""
    question: ChatMessage
    """Of the user, or the result of a call."""
    stream: bool
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    """How likely each token was is told, too."""
    controls: Mapping[str, Any] = {}
    """Further fields of `fabstir.protocol.controls.Controls`."""

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `Session.prompt`."""
        return {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": None if self.seed is None else self.seed % 2**32,
            "stop": self.stop,
            **self.controls,
        }


class Event(msgspec.Struct, frozen=True):
    """One server-sent event."""

    data: msgspec.Struct | bytes
    name: str | None = None


Records = Sequence[TokenRecord]


class Writer(Protocol):
    """One answer in one dialect. Memory: the text, where the dialect repeats it at the end."""

    def whole(self, parts: Sequence[AnswerPart], records: Records, report: AnswerReport) -> msgspec.Struct:
        """The answer in one piece."""
        ...

    def begin(self) -> Iterable[Event]:
        """The first events of a stream."""
        ...

    def piece(self, parts: Sequence[AnswerPart], records: Records) -> Iterable[Event]:
        """More of the answer, and the tokens that came since the last piece; either may be empty."""
        ...

    def end(self, report: AnswerReport) -> Iterable[Event]:
        """The last events of an answer that is complete."""
        ...

    def broken(self, fault: FabstirError) -> Iterable[Event]:
        """The last events of an answer that is not."""
        ...


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """What one operation does with each parameter."""

    request: type[msgspec.Struct]
    """Served."""
    neutral: Mapping[str, tuple[Any, ...]]
    """Change what a request means and are not served: only with one of these values."""
    ignored: frozenset[str] = frozenset()
    """Say something to the vendor alone: read over."""
    harmless: Mapping[str, frozenset[str]] = {}
    """The same inside: of each list of objects, the fields that are read over."""

    @property
    def served(self) -> frozenset[str]:
        """Names as they are on the wire."""
        return _names(self.request)

    def chosen(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """What is served of `raw`, without nulls. Raises InvalidParameter (`request_unsupported`)."""
        served, found = self.served, {}
        for name, value in raw.items():
            if value is None:
                continue
            if name in served:
                found[name] = value
            elif name not in self.ignored and not _among(value, self.neutral.get(name, ())):
                raise unsupported(name[:MAX_NAME])
        return found


@cache
def _names(request: type[msgspec.Struct]) -> frozenset[str]:
    """Looked up once: reading the types of a request costs more than reading a request."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(request))


def read(body: bytes, parameters: Parameters) -> Any:
    """The request in `body`: an instance of `parameters.request`. Raises PeerFault: InvalidParameter where one parameter is at
    fault.
    """
    try:
        raw = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as unreadable:
        raise error("request_invalid", f"the body is no JSON object: {unreadable}"[:200]) from unreadable
    chosen = parameters.chosen(raw)
    for name, harmless in parameters.harmless.items():
        if isinstance(chosen.get(name), list):
            chosen[name] = [_without(item, harmless) for item in chosen[name]]
    try:
        return msgspec.convert(whole(chosen), parameters.request)
    except msgspec.ValidationError as wrong:
        raise _told(str(wrong)) from wrong


def _without(item: Any, harmless: frozenset[str]) -> Any:
    """`item` without fields that say nothing, its parts alike; what else is unknown, the conversion refuses by name."""
    if not isinstance(item, dict):
        return item
    kept = {name: value for name, value in item.items() if name not in harmless and value not in _NOTHING}
    for name in item.keys() & {"role", "type", "content", "text"}:
        kept[name] = item[name]
    if isinstance(item.get("content"), list):
        kept["content"] = [_without(part, harmless) for part in item["content"]]
    return kept


def _told(why: str) -> FabstirError:
    """msgspec's sentence as ours, with the place of the fault."""
    place = _PLACE.search(why)
    where, reason = (place[1], why[: place.start()]) if place else ("", why)
    unknown = re.search(r"unknown field `(.{0,64})", reason)
    if unknown:
        name = unknown[1].rstrip("`")
        return unsupported(f"{where}.{name}" if where else name)
    missing = re.search(r"missing required field `(\w+)`", reason)
    if missing:
        where = f"{where}.{missing[1]}" if where else missing[1]
    return InvalidParameter(where[:MAX_NAME], reason[:200]) if where else error("request_invalid", reason[:200])


def _among(value: Any, allowed: tuple[Any, ...]) -> bool:
    """JSON's equality: true is not 1."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed)


# -- content that is text or parts of text ----------------------------------------------------------------------------------


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a message; only text is served."""

    type: Annotated[str, one_of("text")]
    text: str = ""


Content = str | tuple[Part, ...]


def text_of(
    content: str | Sequence[Part] | None, where: str, kinds: tuple[str, ...] = ("text",), joint: str = ""
) -> str:
    """The text of `content`. Raises InvalidParameter (`request_unsupported`)."""
    if content is None or isinstance(content, str):
        return content or ""
    for place, part in enumerate(content):
        if part.type not in kinds:
            raise unsupported(f"{where}[{place}].type", "only text is served")
    return joint.join(part.text for part in content)


def split(messages: Sequence[ChatMessage], where: str) -> tuple[tuple[ChatMessage, ...], ChatMessage]:
    """What was said before, and the question. Raises InvalidParameter."""
    last = messages[-1] if messages else None
    if last is None or last.role not in ("user", "tool") or not last.content:
        raise InvalidParameter(where, "the last one must be the user's or a tool's, and not empty")
    return tuple(messages[:-1]), last


def result_of(call_id: str | None, text: str, where: str) -> ChatMessage:
    """The result of a call. Raises InvalidParameter."""
    try:
        return msgspec.convert(
            {"role": "tool", "content": text or NO_RESULT, "tool_call_id": call_id or ""}, ChatMessage
        )
    except msgspec.ValidationError as wrong:
        raise InvalidParameter(where, str(wrong)[:200]) from None


class Gathered(msgspec.Struct, frozen=True):
    """An answer's parts, put together."""

    text: str
    thought: str
    calls: tuple[ToolCall, ...]

    @classmethod
    def of(cls, parts: Sequence[AnswerPart], call_id: str) -> Gathered:
        """`call_id` and a number name each call."""
        names = {part.index: part.name for part in parts if isinstance(part, Called)}
        arguments = {
            index: "".join(p.text for p in parts if isinstance(p, Argued) and p.index == index) for index in names
        }
        return cls(
            "".join(part.text for part in parts if isinstance(part, Said)),
            "".join(part.text for part in parts if isinstance(part, Thought)),
            tuple(ToolCall(id=f"{call_id}{i}", name=name, arguments=arguments[i]) for i, name in names.items()),
        )


# -- how likely each token was ----------------------------------------------------------------------------------------------


class TopLogprob(msgspec.Struct, frozen=True):
    """One of the likeliest tokens."""

    token: str
    logprob: float
    bytes: None = None


class Logprob(msgspec.Struct, frozen=True):
    """One token of the answer, as its record says it: signed for, and checkable by re-execution."""

    token: str
    """`token_id:` and the id in the model's vocabulary, which the renter does not have."""
    logprob: float
    """Of the raw softmax, before the sampler."""
    top_logprobs: tuple[TopLogprob, ...] = ()
    """As many as were asked for and as the record has; hosts record 4 as a rule."""
    bytes: None = None


def logprobs_of(records: Records, top: int) -> tuple[Logprob, ...]:
    """The records of tokens in OpenAI's shape."""
    return tuple(
        Logprob(
            _name(record.token),
            record.logprob / 1e6,
            tuple(TopLogprob(_name(token), logprob / 1e6) for token, logprob in record.top[:top]),
        )
        for record in records
    )


def _name(token: int) -> str:
    return f"token_id:{token}"
