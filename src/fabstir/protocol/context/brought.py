"""What is checked of the words that a renter brings: how many, how long, and that no text pretends to be another message.

A chat template writes a conversation as one text, in which control tokens say who speaks. A message that holds such a token's text
would, for the engine, end there and go on as somebody else's; the engine says which texts do (`Weight.forges`), since only its
tokenizer knows. They are refused and never rewritten: what the engine is given is what was said. The order of roles is the
renter's: models differ in what they take.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from fabstir.domain.errors import error
from fabstir.protocol.context.history import History, Weight
from fabstir.protocol.tool_text import text_of
from fabstir.protocol.wire_types import ChatMessage

CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
"""Control characters other than tab, line feed, form feed, carriage return and escape, which texts and terminals' output have."""


class ContextLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one session."""

    max_messages: int = 4096
    max_characters: int = 8 << 20


def check(context: Sequence[ChatMessage], summarised: int, limits: ContextLimits) -> History:
    """The history that a renter brings. Raises PeerFault (`context_invalid`), Refused (`context_too_large`)."""
    for at, message in enumerate(context):
        _check_text(text_of(message), f"message {at}")
    history = History.of(context, summarised)
    if summarised and not history.summarised:
        raise error("context_invalid", "no summary stands at the beginning: a question and its answer")
    require_room(history, 0, limits)
    return history


def check_question(history: History, content: str, limits: ContextLimits) -> None:
    """Before it is counted. Raises as `check`."""
    _check_text(content, "the question")
    require_room(history, len(content), limits)


def check_weights(history: History, weights: Sequence[Weight]) -> None:
    """`weights`: of what was not counted, then of the question. Raises PeerFault (`context_invalid`)."""
    for at, weight in enumerate(weights):
        if weight.forges:
            which = "the question" if at >= len(history.uncounted()) else "a message of the conversation"
            raise error("context_invalid", f"{which} holds the text of a control token of the model")


def require_room(history: History, characters: int, limits: ContextLimits) -> None:
    """Raises Refused (`context_too_large`)."""
    if len(history.messages) + 1 > limits.max_messages:
        detail = f"{len(history.messages)} messages, a session holds at most {limits.max_messages}"
        raise error("context_too_large", detail)
    if history.size + characters > limits.max_characters:
        detail = f"{history.size + characters} characters, a session holds at most {limits.max_characters}"
        raise error("context_too_large", detail)


def _check_text(text: str, which: str) -> None:
    found = CONTROL.search(text)
    if found is not None:
        raise error("context_invalid", f"{which} holds the control character U+{ord(found[0]):04X}")
