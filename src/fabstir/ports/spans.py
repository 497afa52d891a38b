"""Traces: one span for each prompt, with names, counts and times. Whoever writes one is never given what was said."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a prompt when it arrives."""

    model: str
    job: str
    """Hexadecimal."""
    max_tokens: int
    temperature: float
    top_p: float


class PromptSpan(Protocol):
    """From a prompt's arrival to the end of its answer."""

    def admitted(self) -> None:
        """It has its place at an engine."""
        ...

    def first_token(self) -> None:
        """The first token was sent."""
        ...

    def answered(self, finish_reason: str, prompt_tokens: int, tokens: int) -> None:
        """The answer ended well; the span is over."""
        ...

    def failed(self, code: str) -> None:
        """It ended with an error of the catalogue; the span is over."""
        ...


class Spans(Protocol):
    """Where they are written."""

    def prompt(self, asked: Asked) -> PromptSpan:
        """A prompt arrived now."""
        ...
