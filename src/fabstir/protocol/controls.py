"""What a prompt may ask of an answer beyond its words: the sampler, the form, the tools; what each needs of a host, and what it
means for the records. Pure.

Three decisions live here. Which *controls* a prompt uses (`needs`): a host lists those that it has in its offer and in `session_ready`, so
that a renter knows before it pays. Whether they fit together (`check`). And whether the draw is still the one that temperature and nucleus
describe (`shaped`): penalties, biases and a prescribed form take tokens away that the raw distribution has, so that the record of such an
answer names no temperature (`transcript.SHAPED`), and is audited by its log-probabilities alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from fabstir.domain.errors import FabstirError, error
from fabstir.protocol.transcript import SHAPED, Sampler
from fabstir.protocol.wire_types import ToolName

MAX_TOOLS: Final = 128
MAX_BIASED: Final = 300
MAX_SCHEMA: Final = 1 << 16
MAX_TOP_K: Final = 1_000
ADAPTER: Final = "adapter:"
"""Before the name of an adapter in a list of controls."""
REASONING: Final = "reasoning"
"""Not a control but a fact about the model: its answers begin with what it thinks, between `<think>` and `</think>`."""
REASONING_OPEN: Final = "reasoning:open"
"""The same, and the prompt's template has opened `<think>` already."""
CONTROLS: Final = ("top_k", "min_p", "penalties", "logit_bias", "json_schema", "grammar", "tools")
"""Every control that a host may list, beside its adapters."""

JsonText = Annotated[str, Meta(max_length=MAX_SCHEMA)]
Bias = tuple[Annotated[int, Meta(ge=0, lt=2**32)], Annotated[float, Meta(ge=-100, le=100)]]


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may ask its caller to call."""

    name: ToolName
    description: Annotated[str, Meta(max_length=MAX_SCHEMA)] = ""
    parameters: JsonText = "{}"
    """JSON Schema of its arguments, an object, as text."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are drawn, and when the answer ends."""

    max_tokens: Annotated[int, Meta(ge=1, le=1 << 20)] = 512
    temperature: Annotated[float, Meta(ge=0, le=5)] = 0.8
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.95
    top_k: Annotated[int, Meta(ge=0, le=MAX_TOP_K)] = 0
    """Draw among so many of the likeliest tokens; 0: as many as the host does by itself. Control `top_k`."""
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """No token below so many times the probability of the likeliest. Control `min_p`."""
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] = 1.0
    """Above 1: logits of tokens that were there are made smaller by this factor. Control `penalties`, with the two that follow."""
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    """Taken from the logit of each token that was there."""
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    """Taken as often as it was there."""
    logit_bias: Annotated[tuple[Bias, ...], Meta(max_length=MAX_BIASED)] = ()
    """Token id and what its logit gets added, -100 to 100; -100 is never. Control `logit_bias`."""
    seed: Annotated[int, Meta(ge=0, lt=2**32)] | None = None
    stop: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=8)] = ()
    json_schema: JsonText = ""
    """JSON Schema, as text, that the answer is made to satisfy; not together with `grammar`. Control `json_schema`."""
    grammar: JsonText = ""
    """GBNF grammar that the answer is made to satisfy. Control `grammar`."""
    adapter: Annotated[str, Meta(max_length=64)] = ""
    """Name of a LoRA adapter of the host's that is laid over the model. Control `adapter:NAME`."""


class Controls(Sampling, frozen=True, kw_only=True):
    """Everything that a prompt asks of an answer."""

    tools: Annotated[tuple[Tool, ...], Meta(max_length=MAX_TOOLS)] = ()
    """What the model may call. Control `tools`; how calls are written: `docs/explanation/controls.md`."""
    tool_choice: Literal["auto", "none", "required"] = "auto"
    """`required`: the answer is a call, by grammar."""
    tool: Annotated[str, Meta(max_length=64)] = ""
    """With `required`: the one that is called."""
    parallel_tool_calls: bool = True
    """Several calls in one answer."""


_FIELDS: Final = Controls.__struct_fields__


def of(item: Controls) -> dict[str, Any]:
    """The controls of a prompt or a question, as keyword arguments of the other."""
    return {name: getattr(item, name) for name in _FIELDS}


def sampling(item: Sampling) -> dict[str, Any]:
    """The same without what the tools are."""
    return {name: getattr(item, name) for name in Sampling.__struct_fields__}


def forced(item: Controls) -> bool:
    """The answer has to be a tool call."""
    return item.tool_choice == "required"


def penalised(item: Sampling) -> bool:
    """What was there before makes tokens less likely."""
    return (item.repeat_penalty, item.presence_penalty, item.frequency_penalty) != (1.0, 0.0, 0.0)


def prescribed(item: Sampling) -> bool:
    """The form of the answer is, token by token."""
    return bool(item.json_schema or item.grammar) or (isinstance(item, Controls) and forced(item))


def needs(item: Controls, roles: frozenset[str] = frozenset()) -> frozenset[str]:
    """The controls that a host must list to answer this, where the conversation has messages of these `roles`."""
    used = {
        "top_k": item.top_k > 0,
        "min_p": item.min_p > 0,
        "penalties": penalised(item),
        "logit_bias": bool(item.logit_bias),
        "json_schema": bool(item.json_schema) or forced(item),
        "grammar": bool(item.grammar),
        "tools": bool(item.tools) or "tool" in roles,
        ADAPTER + item.adapter: bool(item.adapter),
    }
    return frozenset(name for name, here in used.items() if here)


def missing(needed: frozenset[str], offered: tuple[str, ...]) -> FabstirError | None:
    """Refused (`control_unsupported`) where a host that offers these does not have all that is needed."""
    lacking = sorted(needed.difference(offered))
    return error("control_unsupported", f"no {', '.join(lacking)} here"[:200]) if lacking else None


def check(item: Controls) -> None:
    """Whether the controls fit together and can be read. Raises Refused (`control_invalid`)."""
    ways = [name for name, here in (("json_schema", item.json_schema), ("grammar", item.grammar)) if here]
    ways += ["tool_choice `required`"] if forced(item) else []
    if len(ways) > 1:
        raise error("control_invalid", f"{' and '.join(ways)} prescribe the form of one answer")
    if item.json_schema:
        read_object(item.json_schema, "json_schema")
    names = [tool.name for tool in item.tools]
    if len(set(names)) != len(names):
        raise error("control_invalid", "two tools have one name")
    for tool in item.tools:
        read_object(tool.parameters, f"the parameters of {tool.name}")
    if forced(item) and not names:
        raise error("control_invalid", "tool_choice is `required`, and there are no tools")
    if item.tool and (item.tool not in names or not forced(item)):
        raise error("control_invalid", f"tool {item.tool!r} is not among the tools, or not required")


def read_object(text: str, what: str) -> dict[str, Any]:
    """JSON object in `text`. Raises Refused (`control_invalid`)."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise error("control_invalid", f"{what}: not a JSON object") from None


def shaped(item: Sampling) -> bool:
    """The draw is not the one that temperature and nucleus describe. A smaller `top_k` and `min_p` only narrow it, and do not count."""
    return penalised(item) or bool(item.logit_bias) or prescribed(item)


def greedy(item: Sampling) -> bool:
    """Each token has to be the likeliest."""
    return item.temperature <= 0 and not shaped(item)


def sampler_of(item: Sampling) -> Sampler:
    """What the records of the answer say of their sampler."""
    return SHAPED if shaped(item) else Sampler.of(item.temperature, item.top_p)
