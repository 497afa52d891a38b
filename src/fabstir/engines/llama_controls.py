"""How llama.cpp's server is asked for what a request wants beyond its words: the sampler, the form of the answer, an adapter. Pure.

Samplers come in one order and no others, whatever the model's file suggests: the request says what it wants, and means it. An adapter is
named by the stem of its file, and every request says of each that is loaded whether it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, Final

from fabstir.domain.errors import error
from fabstir.engines.llama_wire import LoraEntry
from fabstir.ports.engine import GenerationRequest
from fabstir.protocol.controls import ADAPTER, REASONING, REASONING_OPEN, read_object, shaped

SAMPLERS: Final = ("penalties", "top_k", "temperature", "min_p", "top_p")
TOP_K: Final = 64
"""Where the request names none. Only to keep the sampler cheap: sorting 128k candidates for every token would cost the server's one loop
1.4 ms more."""
PENALISED_TOKENS: Final = 64
"""The last ones, of the prompt too: llama.cpp's own default."""
PROBE_CANDIDATES: Final = 2 * TOP_K
"""More than can have been sampled, so that a token that was left out is always among them."""
WHOLE_VOCABULARY: Final = 1 << 30
THINKING: Final = "<think>"
SEPARATORS: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""To LLGuidance, the wheel's grammar engine: JSON with a space after comma and colon and no other white space, or a model may write white
space for ever. A server without it reads over the keyword."""


def sampler(request: GenerationRequest) -> dict[str, Any]:
    """How tokens are drawn."""
    return {
        "samplers": SAMPLERS,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k or TOP_K,
        "min_p": request.min_p,
        "repeat_penalty": request.repeat_penalty,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "repeat_last_n": PENALISED_TOKENS,
        "logit_bias": [[token, False if bias <= -100 else bias] for token, bias in request.logit_bias],
    }


def constraint(request: GenerationRequest) -> dict[str, Any]:
    """The form of the answer. Raises Refused (`control_invalid`)."""
    if request.grammar.startswith("%llguidance"):
        raise error("control_invalid", "the grammar is not GBNF")
    if request.grammar:
        return {"grammar": request.grammar}
    if not request.json_schema:
        return {}
    schema = read_object(request.json_schema, "json_schema")
    return {"json_schema": {**schema, "x-guidance": SEPARATORS}}


def probe_width(request: GenerationRequest) -> int:
    """So many of the likeliest tokens hold every one that can have been sampled."""
    return WHOLE_VOCABULARY if shaped(request) else max(PROBE_CANDIDATES, 2 * request.top_k)


def facts(template: str, opened: str) -> tuple[str, ...]:
    """How answers read: `template` is the model's, `opened` a conversation in it up to where the answer begins."""
    if opened.rstrip().endswith(THINKING):
        return (REASONING, REASONING_OPEN)
    return (REASONING,) if THINKING in template else ()


class Adapters:
    """The LoRA adapters of one server, by name."""

    def __init__(self, entries: Iterable[LoraEntry]) -> None:
        self._ids = {PurePath(entry.path).stem: entry.id for entry in entries}

    def __repr__(self) -> str:
        return f"<Adapters {', '.join(self._ids) or 'none'}>"

    @property
    def controls(self) -> tuple[str, ...]:
        """As a host lists them."""
        return tuple(ADAPTER + name for name in self._ids)

    def require(self, name: str) -> None:
        """Raises Refused (`control_unsupported`): the server itself would read over an unknown one."""
        if name and name not in self._ids:
            raise error("control_unsupported", f"no {ADAPTER}{name} here")

    def scales(self, name: str) -> dict[str, Any]:
        """The one of this name, and none of the others."""
        return {"lora": [{"id": i, "scale": float(own == name)} for own, i in self._ids.items()]} if self._ids else {}
